// The templates for Kubernetes: rendered by the real kubectl and helm, checked against the types of Kubernetes, and their
// containers run without an engine. No cluster is involved.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chownSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { authSettings } from '../../services/auth/config.ts'
import { internalRoutes as authInternalRoutes, publicRoutes as authRoutes } from '../../services/auth/routes/index.ts'
import { businessSettings } from '../../services/business/config.ts'
import {
  internalRoutes as businessInternalRoutes,
  publicRoutes as businessRoutes,
} from '../../services/business/routes.ts'
import { metaOf } from '../../shared/config/settings.ts'
import { freePorts } from '../support/freePort.ts'
import {
  type Container,
  chartArguments,
  hasKubernetesTools,
  type KubernetesObject,
  renderChart,
  renderOverlay,
  runTool,
} from '../support/kubernetes.ts'
import { copyImage, nobody } from '../support/productionCopy.ts'
import { until } from '../support/until.ts'

interface PodSpec {
  containers: [Container]
  volumes: [{ secret: { secretName: string; items: { key: string; path: string }[] } }]
  terminationGracePeriodSeconds: number
}

const names = ['auth', 'business'] as const
const settings = { auth: authSettings, business: businessSettings }
const ports = { auth: { public: 3001, internal: 3101 }, business: { public: 3000, internal: 3100 } }
const routes = {
  auth: [authRoutes, authInternalRoutes],
  business: [businessRoutes, businessInternalRoutes],
}
const manual = readFileSync('docs/deploy.md', 'utf8')
const withIngress = ['ingress.enabled=true', 'image.tag=0.1.0', 'image.repository=ghcr.io/example/latchkey']

function find(objects: KubernetesObject[], kind: string, name: string): KubernetesObject {
  const found = objects.find(object => object.kind === kind && object.metadata.name === name)
  if (found === undefined) throw new Error(`there is no ${kind} ${name}`)
  return found
}

/** The pod of a service. */
function podOf(objects: KubernetesObject[], name: string): PodSpec {
  const { template } = find(objects, 'Deployment', `latchkey-${name}`).spec as { template: { spec: PodSpec } }
  return template.spec
}

const envOf = (objects: KubernetesObject[], name: string) =>
  Object.fromEntries(podOf(objects, name).containers[0].env.map(({ name, value }) => [name, value]))

/** The object without what only one of kustomize and Helm writes, and with the variables of the containers in one order. */
function comparable(object: KubernetesObject): unknown {
  const text = JSON.stringify(object, (key, value: unknown) => {
    if (key === 'labels' && (value as Record<string, string>)['helm.sh/chart']) return undefined
    if (['app.kubernetes.io/instance', 'imagePullPolicy', 'namespace'].includes(key)) return undefined
    if (key === 'env') return (value as Container['env']).toSorted((a, b) => a.name.localeCompare(b.name))
    return value
  })
  const { metadata, ...rest } = JSON.parse(text) as KubernetesObject
  return { ...rest, name: metadata.name }
}

describe('the templates for Kubernetes', function () {
  this.timeout(60_000)
  let folder: string
  let production: KubernetesObject[]
  let all: Record<string, KubernetesObject[]>

  before(function () {
    if (!hasKubernetesTools) {
      console.log('  not tested: the templates for Kubernetes, because helm or kubectl is not installed')
      this.skip()
    }
    folder = mkdtempSync(join(tmpdir(), 'latchkey-kubernetes-'))
    production = renderOverlay('production')
    all = {
      production,
      trial: renderOverlay('trial'),
      chart: renderChart(),
      'chart with ingress': renderChart(...withIngress, 'ingress.className=nginx', 'ingress.annotations.a=b'),
      'chart with every option': renderChart(
        ...['auth.autoscaling.enabled=true', 'business.autoscaling.enabled=true', 'image.pullSecrets[0].name=registry'],
        ...['auth.secretSettings={SMTP_URL}', `auth.digest=sha256:${'a1'.repeat(32)}`, 'networkPolicy.enabled=false'],
      ),
    }
  })
  after(() => {
    if (folder) rmSync(folder, { recursive: true })
  })

  it('have only members that Kubernetes knows, with the right types', () => {
    const groups: Record<string, string> = {
      'apps/v1': 'apps/v1',
      v1: 'core/v1',
      'policy/v1': 'policy/v1',
      'networking.k8s.io/v1': 'networking/v1',
      'autoscaling/v2': 'autoscaling/v2',
    }
    const check = (objects: KubernetesObject[]) => {
      const types = join(process.cwd(), 'node_modules/kubernetes-types')
      const lines = objects.map(
        (object, i) =>
          `export const object${i}: import('${types}/${groups[object.apiVersion]}').${object.kind} = ${JSON.stringify(object)}`,
      )
      writeFileSync(join(folder, 'objects.ts'), lines.join('\n'))
      const options = ['--noEmit', '--ignoreConfig', '--strict', '--module', 'preserve', '--types', '']
      return spawnSync('node_modules/.bin/tsc', [...options, join(folder, 'objects.ts')], { encoding: 'utf8' }).stdout
    }
    expect(check(Object.values(all).flat())).to.equal('')
    const [wrong] = structuredClone(production.filter(({ kind }) => kind === 'Deployment'))
    Object.assign(wrong?.spec as object, { replica: 2 })
    expect(check([wrong as KubernetesObject])).to.match(/replica.*does not exist in type 'DeploymentSpec'/)
  })

  it('are the same from kustomize and from Helm', () => {
    const chart = all['chart with ingress']?.map(comparable) as { kind: string; spec: Record<string, unknown> }[]
    const ingress = chart.find(({ kind }) => kind === 'Ingress')
    expect(ingress?.spec['ingressClassName']).to.equal('nginx')
    delete ingress?.spec['ingressClassName']
    expect(chart).to.have.deep.members(production.map(comparable))
  })

  it('scale, pull and mount as the values of the chart say', () => {
    const objects = all['chart with every option'] as KubernetesObject[]
    const scaled = objects
      .filter(({ kind }) => kind === 'HorizontalPodAutoscaler')
      .map(({ spec }) => spec['scaleTargetRef'])
    expect(scaled).to.have.deep.members(
      names.map(name => ({ apiVersion: 'apps/v1', kind: 'Deployment', name: `latchkey-${name}` })),
    )
    expect(find(objects, 'Deployment', 'latchkey-auth').spec).to.not.have.property('replicas')
    expect(objects.some(({ kind }) => kind === 'NetworkPolicy')).to.equal(false)
    expect(podOf(objects, 'auth').containers[0].image).to.match(/^ghcr\.io\/example\/latchkey-auth@sha256:(a1){32}$/)
    expect(podOf(objects, 'auth').volumes[0].secret.items).to.deep.include({ key: 'smtp-url', path: 'smtp-url' })
    expect(envOf(objects, 'auth')).to.include({ SMTP_URL_FILE: '/keys/smtp-url' })
    expect(podOf(objects, 'business')).to.deep.include({ imagePullSecrets: [{ name: 'registry' }] })
  })

  it('run the version in package.json from the chart, and other values are refused', () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
    for (const name of names) {
      const { image } = podOf(all['chart'] as KubernetesObject[], name).containers[0]
      expect(image).to.equal(`ghcr.io/example/latchkey-${name}:${version}`)
    }
    expect(runTool('helm', 'lint', '--strict', 'deploy/helm/latchkey').status).to.equal(0)
    for (const value of [
      'auth.settings.ADMIN_KEY=x',
      'auth.settings.TOKEN_STORE_URL=x',
      'auth.replica=3',
      'auth.digest=x',
    ]) {
      expect(runTool('helm', ...chartArguments([value])).status, value).to.equal(1)
    }
  })

  for (const name of names) {
    it(`run ${name} as an ordinary user, without write access, capabilities or new privileges`, () => {
      for (const [from, objects] of Object.entries(all)) {
        const pod = podOf(objects, name)
        expect(pod, from).to.deep.include({
          automountServiceAccountToken: false,
          // Variables such as AUTH_PORT would be read as settings.
          enableServiceLinks: false,
          securityContext: {
            ...{ runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000 },
            seccompProfile: { type: 'RuntimeDefault' },
          },
        })
        expect(pod.containers).to.have.length(1)
        expect(pod.containers[0]).to.deep.include({
          securityContext: {
            ...{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true },
            capabilities: { drop: ['ALL'] },
          },
          resources: { requests: { cpu: '250m', memory: '256Mi' }, limits: { memory: '768Mi' } },
        })
      }
      expect(readFileSync('Dockerfile', 'utf8')).to.match(/^USER 1000:1000$/m)
    })

    it(`set only settings of ${name}, and secrets only by the name of a file that the Secret has`, () => {
      const known = new Map(Object.entries(settings[name]))
      for (const [from, objects] of Object.entries(all)) {
        const { NODE_OPTIONS, ...env } = envOf(objects, name)
        expect(NODE_OPTIONS).to.equal('--max-old-space-size=384')
        const { secret } = podOf(objects, name).volumes[0]
        expect(secret.secretName).to.equal('latchkey')
        const files = secret.items.map(({ path }) => `/keys/${path}`)
        for (const [variable, value] of Object.entries(env)) {
          const setting = known.get(variable.replace(/_FILE$/, ''))
          expect(setting, `${variable} of ${from}`).to.not.equal(undefined)
          const isSecret = metaOf(setting as NonNullable<typeof setting>).secret === true
          expect(variable.endsWith('_FILE') && files.includes(value), variable).to.equal(isSecret)
        }
        expect(Object.values(env).filter(value => value.startsWith('/keys/'))).to.have.members(files)
      }
    })

    it(`probe ${name} at routes and ports that it has, and give it time to close`, () => {
      const pod = podOf(production, name)
      const listed = Object.fromEntries(pod.containers[0].ports.map(({ name, containerPort }) => [name, containerPort]))
      expect(listed).to.deep.equal(ports[name])
      const [prefix, own] = [name.toUpperCase(), new Map(Object.entries(settings[name]))]
      expect(own.get(`${prefix}_PORT`)?.safeParse(undefined).data).to.equal(ports[name].public)
      expect(own.get(`${prefix}_INTERNAL_PORT`)?.safeParse(undefined).data).to.equal(ports[name].internal)
      const [onPublic = [], onInternal = []] = routes[name].map(list =>
        Object.values(list).map(({ path }) => path as string),
      )
      const container = pod.containers[0] as unknown as Record<string, { httpGet: { path: string; port: string } }>
      for (const [probe, path] of [
        ['startupProbe', '/health'],
        ['readinessProbe', '/ready'],
        ['livenessProbe', '/health'],
      ]) {
        expect(container[probe as string]?.httpGet, probe).to.deep.equal({ path, port: 'public' })
        expect(onPublic).to.include(`GET ${path}`)
      }
      expect(onInternal).to.include('GET /metrics')
      const [, closeTimeoutMs = ''] = /closeTimeoutMs = ([\d_]+)/.exec(readFileSync('shared/service.ts', 'utf8')) ?? []
      const preStop = { exec: { command: ['sleep', '5'] } }
      expect(container['lifecycle']).to.deep.equal({ preStop })
      expect(pod.terminationGracePeriodSeconds * 1000).to.be.at.least(5000 + Number(closeTimeoutMs.replace('_', '')))
    })
  }

  it('let only Business and the monitoring call Auth’s internal listener, and no ingress', () => {
    const pods = (name: string) => ({ podSelector: { matchLabels: { 'app.kubernetes.io/name': `latchkey-${name}` } } })
    const monitoring = { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } }
    for (const objects of [production, all['trial'] as KubernetesObject[]]) {
      expect(find(objects, 'NetworkPolicy', 'latchkey-auth').spec).to.deep.equal({
        ...pods('auth'),
        policyTypes: ['Ingress'],
        ingress: [{ ports: [{ port: 3001 }] }, { ports: [{ port: 3101 }], from: [pods('business'), monitoring] }],
      })
      expect(find(objects, 'NetworkPolicy', 'latchkey-business').spec).to.deep.equal({
        ...pods('business'),
        policyTypes: ['Ingress'],
        ingress: [{ ports: [{ port: 3000 }] }, { ports: [{ port: 3100 }], from: [monitoring] }],
      })
    }
    expect(find(production, 'Service', 'latchkey-auth-internal').spec).to.deep.equal({
      clusterIP: 'None',
      selector: { 'app.kubernetes.io/name': 'latchkey-auth' },
      ports: [{ name: 'internal', port: 3101, targetPort: 'internal' }],
    })
    expect(JSON.stringify(find(production, 'Ingress', 'latchkey'))).to.not.include('internal')
  })

  it('are for real users: sessions last 30 minutes without use', () => {
    for (const objects of Object.values(all)) expect(envOf(objects, 'auth')).to.include({ TOKEN_TTL_SECONDS: '1800' })
  })

  describe('with the Secret that docs/deploy.md creates', () => {
    const children: ChildProcess[] = []
    let image: string

    before(() => {
      image = copyImage(folder)
    })
    after(async () => {
      for (const child of children) if (child.kill('SIGKILL')) await once(child, 'exit')
      execFileSync('chmod', ['-R', 'u+w', folder])
    })

    /** The data of the Secret: the command of the manual, with kubectl's dry run, and stores in memory. */
    function createSecret(): Record<string, string> {
      const [, settings = ''] = /cat > latchkey\.env\) <<END\n(.*?)END\n/s.exec(manual) ?? []
      const [, command = ''] = /^kubectl (.*create secret generic latchkey .*)$/m.exec(manual) ?? []
      const file = join(folder, 'latchkey.env')
      const own = settings
        .replace(/=(postgres|redis):\/\/.*$/gm, '=memory:')
        .replaceAll('$(openssl rand -hex 32)', () => randomBytes(32).toString('hex'))
      writeFileSync(file, own)
      const args = command.replace('latchkey.env', file).split(' ')
      const { stdout, stderr } = runTool('kubectl', ...args, '--dry-run=client', '--output=json')
      expect(stderr).to.equal('')
      const { data } = JSON.parse(stdout) as { data: Record<string, string> }
      return Object.fromEntries(
        Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
      )
    }

    it('become ready with exactly the environment of the manifests, cannot write, and stop in time', async () => {
      const secret = createSecret()
      const chosen = await freePorts()
      const start = async (name: 'auth' | 'business', others: Record<string, string>) => {
        const { items } = podOf(production, name).volumes[0].secret
        const keys = join(folder, `keys-${name}`)
        mkdirSync(keys)
        for (const { key, path } of items) {
          writeFileSync(join(keys, path), secret[key] ?? expect.fail(`the Secret has no ${key}`), { mode: 0o440 })
          if (nobody.uid !== undefined) chownSync(join(keys, path), 0, nobody.gid)
        }
        const env = Object.entries(envOf(production, name)).map(([name, value]) => [name, value.replace('/keys', keys)])
        const docker = { NODE_ENV: 'production', HOST: '0.0.0.0', ...(name === 'auth' && { INTERNAL_HOST: '0.0.0.0' }) }
        const own = Object.entries(chosen).filter(([variable]) => variable.startsWith(name.toUpperCase()))
        const child = spawn(process.execPath, [`services/${name}/main.ts`], {
          cwd: image,
          env: { ...docker, ...Object.fromEntries([...env, ...own]), ...others },
          stdio: ['ignore', 'ignore', 'inherit'],
          ...nobody,
        })
        children.push(child)
        const { httpGet } = (
          podOf(production, name).containers[0] as unknown as { readinessProbe: { httpGet: { path: string } } }
        ).readinessProbe
        const url = `http://127.0.0.1:${chosen[name === 'auth' ? 'AUTH_PORT' : 'BUSINESS_PORT']}${httpGet.path}`
        await until(async () => (await fetch(url, { headers: { connection: 'close' } }).catch(() => null))?.ok, 20_000)
        return child
      }
      const auth = await start('auth', {})
      const internal = `http://localhost:${chosen.AUTH_INTERNAL_PORT}`
      const business = await start('business', { AUTH_INTERNAL_URL: internal })
      for (const port of [chosen.AUTH_INTERNAL_PORT, chosen.BUSINESS_INTERNAL_PORT]) {
        const metrics = await fetch(`http://127.0.0.1:${port}/metrics`, { headers: { connection: 'close' } })
        expect(await metrics.text()).to.include('latchkey_')
      }
      for (const child of [business, auth]) {
        child.kill('SIGTERM')
        expect(await once(child, 'exit')).to.deep.equal([0, null])
      }
    })
  })
})
