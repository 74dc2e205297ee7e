// Dockerfile, .dockerignore and docker-compose.yml, as far as they can be checked without a container engine.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect } from 'chai'
import { parse } from 'yaml'
import { authSettings } from '../../services/auth/config.ts'
import { publicRoutes as authRoutes } from '../../services/auth/routes/index.ts'
import { businessSettings } from '../../services/business/config.ts'
import { publicRoutes as businessRoutes } from '../../services/business/routes.ts'
import { metaOf } from '../../shared/config/settings.ts'
import { ask } from '../support/client.ts'
import { adminKey, serviceKey } from '../support/credentials.ts'
import { freePort, freePorts } from '../support/freePort.ts'
import { copyImage, nobody } from '../support/productionCopy.ts'
import { hasRedis } from '../support/redis.ts'
import { closeServers, startAuth } from '../support/servers.ts'
import { until } from '../support/until.ts'

interface ComposeService {
  build?: { context: string; target: string }
  image?: string
  command?: string[]
  user?: string
  profiles?: string[]
  environment?: Record<string, string>
  ports?: string[]
  volumes?: string[]
  networks?: string[] | Record<string, { aliases?: string[] }>
  network_mode?: string
  depends_on?: Record<string, { condition: string; required?: boolean }>
  healthcheck?: { test: string[] }
  read_only: boolean
  init: boolean
  restart: string
  tmpfs: string[]
  stop_grace_period: string
  deploy: { resources: { limits: { memory: string; pids: number } } }
  logging: { driver: string; options: Record<string, string> }
  cap_drop: string[]
  security_opt: string[]
}

const compose = parse(readFileSync('docker-compose.yml', 'utf8'), { merge: true }) as {
  services: Record<string, ComposeService>
  networks: Record<string, { internal?: boolean }>
  volumes: Record<string, unknown>
}
const services = Object.entries(compose.services)
const own = services.filter(([, { build }]) => build !== undefined) as [string, ComposeService & { build: object }][]
const dockerfile = readFileSync('Dockerfile', 'utf8')
const manual = readFileSync('docs/deploy.md', 'utf8')
const settings = new Map(Object.entries({ ...authSettings, ...businessSettings }))

/** The service of this name; the test fails if there is no such service. */
function service(name: string): ComposeService {
  const found = compose.services[name]
  if (found === undefined) throw new Error(`there is no service ${name}`)
  return found
}

/** The instructions of a stage and of the stages it is built from. */
function stage(name: string): string {
  const stages = dockerfile.split(/^(?=FROM )/m)
  const own = stages.find(text => new RegExp(`^FROM .+ AS ${name}$`, 'm').test(text)) ?? ''
  const base = /^FROM (?:--\S+ )?(\S+)/.exec(own)?.[1] ?? ''
  return (stages.some(text => text.includes(` AS ${base}\n`)) ? stage(base) : '') + own
}

const networksOf = ({ networks = [] }: ComposeService) => (Array.isArray(networks) ? networks : Object.keys(networks))

const command = (name: string) => JSON.parse(/^CMD (\[.*\])$/m.exec(stage(name))?.[1] ?? '[]') as string[]

/** The command of the image's health check. */
const healthcheckOf = (name: string) =>
  JSON.parse(/^HEALTHCHECK [^[]*(\[.*\])/m.exec(stage(name))?.[1] ?? '[]') as string[]

/** Substitutes variables as Compose does when only `env` is set. */
function filledIn(text: string, env: Record<string, string> = {}): string {
  return text
    .replace(/\$\{(\w+):-([^}]*)\}/g, (_, name, fallback) => env[name] || fallback)
    .replace(/\$\{(\w+):\+([^}]*)\}/g, (_, name, replacement) => (env[name] ? replacement : ''))
}

async function answersAt(url: string): Promise<void> {
  await until(async () => (await fetch(url, { headers: { connection: 'close' } }).catch(() => null))?.ok)
}

describe('docker-compose.yml', () => {
  it('is valid by the schema of Compose, without warnings', () => {
    const output = execFileSync('node', ['node_modules/.bin/dclint', '--max-warnings', '0', 'docker-compose.yml'])
    expect(String(output).trim()).to.equal('')
  })

  it('publishes only the public listeners and, if chosen, the console, the mail page and the metrics, on loopback', () => {
    const published = services.flatMap(([name, { ports = [] }]) => ports.map(port => `${name} ${filledIn(port)}`))
    expect(published).to.have.members([
      'business 127.0.0.1:3000:3000',
      'auth 127.0.0.1:3001:3001',
      'console 127.0.0.1:3101:3101',
      'mailpit 127.0.0.1:8025:8025',
      'prometheus 127.0.0.1:9090:9090',
      'grafana 127.0.0.1:3300:3000',
    ])
  })

  it('lets only Auth reach the stores, and only Business, Prometheus and the console container the internal listener', () => {
    const on = (network: string) =>
      services.filter(([, found]) => networksOf(found).includes(network)).map(([name]) => name)
    expect(on('stores')).to.have.members(['auth', 'redis', 'postgres'])
    expect(on('internal')).to.have.members(['auth', 'business', 'console', 'prometheus'])
    expect(on('metrics')).to.have.members(['prometheus', 'grafana'])
    expect(on('console')).to.have.members(['console'])
    expect(on('mail')).to.have.members(['auth', 'mailpit'])
    expect(on('public')).to.have.members(['auth', 'business'])
    for (const name of ['stores', 'internal']) expect(compose.networks[name]?.internal, name).to.equal(true)
    expect(service('keys').network_mode).to.equal('none')
    for (const name of ['redis', 'postgres']) expect(service(name).networks).to.deep.equal(['stores'])
    // Auth's internal listener answers only at the name that Auth has on the network `internal`.
    expect(service('auth').networks).to.deep.equal({
      public: {},
      internal: { aliases: ['auth-internal'] },
      stores: {},
      mail: {},
    })
    expect(service('auth').environment?.['INTERNAL_HOST']).to.equal('auth-internal')
    expect(service('business').environment?.['AUTH_INTERNAL_URL']).to.equal('http://auth-internal:3101')
    expect(manual).to.include('docker compose exec auth node -e "fetch(\'http://auth-internal:3101/')
  })

  for (const [name, { build, image, user, ...found }] of services) {
    it(`runs ${name} as an ordinary user, without write access, capabilities or new privileges, and stops it gently`, () => {
      expect(found).to.include({ read_only: true, init: true, stop_grace_period: '30s' })
      expect(found.tmpfs).to.include('/tmp')
      expect(found.cap_drop).to.deep.equal(['ALL'])
      expect(found.security_opt).to.deep.equal(['no-new-privileges:true'])
      if (build) expect(stage(build.target)).to.match(/^USER 1000:1000$/m)
      else expect(user).to.match(/^(redis|postgres|[1-9]\d*:\d+)$/)
      if (image) expect(image).to.match(/:v?\d/) // not `latest`
    })

    it(`limits the memory, the processes and the logs of ${name}`, () => {
      expect(found.deploy.resources.limits.memory).to.match(/^(128|512|768)M$|^1G$/)
      expect(found.deploy.resources.limits.pids).to.equal(256)
      expect(found.logging).to.deep.equal({ driver: 'json-file', options: { 'max-size': '10m', 'max-file': '5' } })
    })
  }

  it('sets only known settings, and secrets only by the name of a file', () => {
    for (const [name, { environment = {} }] of own) {
      for (const [variable, value] of Object.entries(environment)) {
        if (variable === 'NODE_OPTIONS') continue // a setting of Node.js
        const setting = settings.get(variable) ?? settings.get(variable.replace(/_FILE$/, ''))
        expect(setting, `${variable} of ${name}`).to.not.equal(undefined)
        const isSecret = metaOf(setting as NonNullable<typeof setting>).secret === true
        // The URL of a store or mail server is a secret only if it contains a password.
        if (isSecret && settings.has(variable)) expect(filledIn(value, { MAILPIT: '1' })).to.match(/^\w+:\/\/\w+:\d+$/)
        if (isSecret) expect(value, variable).to.not.match(/\$\{\w*(KEY|PASSWORD|SECRET|TOKEN|URL)/)
      }
    }
    for (const [name, { environment = {} }] of services) {
      for (const [variable, value] of Object.entries(environment)) {
        if (/KEY|PASSWORD|SECRET/.test(variable)) expect(`${variable} ${value}`, name).to.match(/_FILE \/keys\//)
      }
    }
  })

  it('gives each container the keys that it needs, and lets only the container keys write them', () => {
    const keysOf = (name: string) => service(name).volumes?.filter(volume => volume.includes(':/keys/'))
    expect(keysOf('business')).to.deep.equal(['service-key:/keys/service:ro'])
    expect(keysOf('postgres')).to.deep.equal(['database-key:/keys/database:ro'])
    expect(keysOf('redis')).to.deep.equal([])
    for (const key of keysOf('auth') ?? []) expect(key).to.match(/:ro$/)
    expect(service('keys').restart).to.equal('no')
    for (const [name, { depends_on, volumes = [] }] of services) {
      if (name === 'keys' || !volumes.some(volume => volume.includes(':/keys/'))) continue
      expect(depends_on?.['keys']?.condition, name).to.equal('service_completed_successfully')
    }
  })

  it('has a volume for everything that outlives a container, and starts dependencies first', () => {
    const used = services.flatMap(([, { volumes = [] }]) => volumes.map(volume => volume.split(':')[0] as string))
    const [folders, named] = [
      used.filter(volume => volume.startsWith('.')),
      used.filter(volume => !volume.startsWith('.')),
    ]
    expect(new Set(named)).to.deep.equal(new Set(Object.keys(compose.volumes)))
    // An engine on another machine lacks the folders of this one, so only the profile metrics needs any.
    expect(folders).to.have.members(['./deploy/prometheus', './deploy/grafana'])
    expect(service('auth').depends_on).to.deep.include({
      redis: { condition: 'service_healthy' },
      postgres: { condition: 'service_healthy', required: false },
    })
    expect(service('business').depends_on).to.deep.include({ auth: { condition: 'service_healthy' } })
    expect(
      services.filter(([, { profiles }]) => profiles).map(([name, { profiles }]) => `${name} ${profiles}`),
    ).to.have.members(['postgres postgres', 'mailpit mail', 'console console', 'prometheus metrics', 'grafana metrics'])
  })

  it('leaves a service room beside its heap, and gives Redis twice its data', () => {
    for (const name of ['auth', 'business']) {
      const { NODE_OPTIONS = '' } = service(name).environment ?? {}
      const script = 'console.log(require("node:v8").getHeapStatistics().heap_size_limit)'
      const limit = Number(execFileSync(process.execPath, ['-e', script], { env: { NODE_OPTIONS } }))
      expect(service(name).deploy.resources.limits.memory).to.equal('768M')
      expect(limit, name).to.be.within(400 * 2 ** 20, 580 * 2 ** 20)
    }
    expect(service('redis').command?.join(' ')).to.include('--maxmemory 512mb')
    expect(service('redis').deploy.resources.limits.memory).to.equal('1G')
  })

  it('is for real users: sessions last 30 minutes without use, and users are on a disk', () => {
    const { TOKEN_TTL_SECONDS = '' } = service('auth').environment ?? {}
    expect(filledIn(TOKEN_TTL_SECONDS)).to.equal('1800')
    expect(filledIn(TOKEN_TTL_SECONDS, { TOKEN_TTL_SECONDS: '60' })).to.equal('60')
  })

  it('shows Grafana’s dashboard and scrapes both internal listeners with the profile metrics', () => {
    const { environment = {}, volumes } = service('grafana')
    expect(volumes).to.deep.equal(['./deploy/grafana:/etc/latchkey:ro'])
    const here = (path: string) => path.replace('/etc/latchkey', 'deploy/grafana')
    const provisioning = here(environment['GF_PATHS_PROVISIONING'] ?? '')
    const read = <T>(file: string) => parse(readFileSync(file, 'utf8')) as T
    const provided = read<{ providers: [{ options: { path: string } }] }>(`${provisioning}/dashboards/latchkey.yml`)
    const home = environment['GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH'] ?? ''
    expect(dirname(home)).to.equal(provided.providers[0].options.path)
    expect(JSON.parse(readFileSync(here(home), 'utf8'))).to.include({ uid: 'latchkey' })
    const sources = read<{ datasources: [{ url: string }] }>(`${provisioning}/datasources/prometheus.yml`)
    expect(sources.datasources[0].url).to.equal('http://prometheus:9090')

    const scraped = read<{ rule_files: string[]; scrape_configs: { static_configs: [{ targets: string[] }] }[] }>(
      'deploy/prometheus/prometheus.yml',
    )
    for (const file of scraped.rule_files) expect(existsSync(`deploy/prometheus/${file}`), file).to.equal(true)
    const targets = scraped.scrape_configs.flatMap(({ static_configs }) => static_configs[0].targets)
    const ports = { auth: 3101, business: 3100 }
    const bound = Object.entries(ports).map(([name, port]) => `${service(name).environment?.['INTERNAL_HOST']}:${port}`)
    expect(targets).to.deep.equal(bound)
  })

  it('has a Redis that forgets nothing, and health checks without curl', () => {
    const redis = service('redis').command?.join(' ')
    expect(redis).to.include('--appendonly yes').and.to.include('--maxmemory-policy noeviction')
    expect(service('redis').healthcheck?.test.join(' ')).to.include('redis-cli ping')
    for (const [name, { build, healthcheck }] of services) {
      if (name === 'keys') continue
      const test =
        healthcheck?.test.join(' ') ?? (build && /^HEALTHCHECK [^[]*(\[.*\])/m.exec(stage(build.target))?.[1])
      expect(test, name)
        .to.be.a('string')
        .and.to.not.match(/curl|wget/)
    }
  })
})

describe('the Dockerfile', () => {
  for (const [target, routes] of Object.entries({ auth: authRoutes, business: businessRoutes })) {
    it(`has ${target}: a numeric user that is not root, no shell, and a health check on a real route`, () => {
      const text = stage(target)
      expect(text).to.match(/^USER 1000:1000$/m)
      expect(command(target)[0]).to.equal('node')
      expect(existsSync(command(target)[1] as string)).to.equal(true)
      expect(healthcheckOf(target)).to.deep.equal(['node', 'commands/healthcheck.ts', target])
      const port = /default: '(\d+)'/.exec(
        readFileSync('commands/healthcheck.ts', 'utf8').split(`${target}: {`)[1] ?? '',
      )?.[1]
      expect(text).to.match(new RegExp(`^EXPOSE ${port}\\b`, 'm'))
      expect(Object.values(routes).map(({ path }) => path)).to.include('GET /health')
    })
  }

  it('installs the production packages in a separate stage, and no build tools', () => {
    expect(stage('packages')).to.match(/npm ci --omit=dev/)
    expect(stage('auth')).to.not.match(/npm|apt-get|apk /)
    expect(dockerfile).to.match(/^ARG NODE_IMAGE=node:24-bookworm-slim(@sha256:[\da-f]{64})?$/m)
    for (const [, image] of dockerfile.matchAll(/^FROM (?:--\S+ )?(\S+) AS/gm)) {
      expect(image).to.match(/^(\$\{NODE_IMAGE\}|base)$/)
    }
  })

  it('gives the folders of all volumes to the user that writes there', () => {
    const [, made = '', given = ''] = /^RUN mkdir -p (.*) && chown -R 1000:1000 (.*)$/m.exec(stage('base')) ?? []
    const folders = own.flatMap(([, { volumes = [] }]) => volumes.map(volume => volume.split(':')[1] as string))
    expect(made.split(' ')).to.have.members([...new Set(folders)])
    for (const folder of folders)
      expect(given.split(' ').some(parent => `${folder}/`.startsWith(`${parent}/`))).to.equal(true)
    expect(stage('base').indexOf('RUN mkdir')).to.be.below(stage('base').indexOf('USER 1000:1000'))
  })

  it('copies only paths that exist and that .dockerignore admits, and no secret', () => {
    const sources = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, list]) =>
      String(list).split(' '),
    )
    expect(new Set(sources)).to.deep.equal(
      new Set(['package.json', 'package-lock.json', 'packages', 'shared', 'services', 'commands']),
    )
    const ignored = readFileSync('.dockerignore', 'utf8').trim().split('\n')
    expect(ignored[0]).to.equal('*')
    expect(new Set(ignored.slice(1))).to.deep.equal(new Set(sources.map(source => `!${source}`)))
    expect(dockerfile).to.not.match(/(KEY|PASSWORD|SECRET)=/)
  })
})

describe('the containers, without an engine', () => {
  const children: ChildProcess[] = []
  let folder: string
  let image: string

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-image-'))
    image = copyImage(folder)
    for (const volume of ['keys', 'data', 'redis', 'compiled']) {
      mkdirSync(join(folder, volume))
      if (nobody.uid !== undefined) chownSync(join(folder, volume), nobody.uid, nobody.gid)
    }
  })
  after(async () => {
    await end()
    execFileSync('chmod', ['-R', 'u+w', folder])
    rmSync(folder, { recursive: true })
  })

  /** The image is copied anew in each run, so its compiled code is kept beside it. */
  const system = () => ({ PATH: process.env['PATH'], NODE_COMPILE_CACHE: join(folder, 'compiled') })

  /** The environment of the container, with folders for its volumes and without this process's environment. */
  function env(name: string, others: Record<string, string>): Record<string, string> {
    const given = Object.entries(service(name).environment ?? {})
      .map(([name, value]) => [name, filledIn(value)])
      .map(([name, value]) => [name, value?.replace('/keys/', `${folder}/keys/`)])
    return { NODE_ENV: 'production', ...Object.fromEntries(given), ...others }
  }

  function start([program = '', ...args]: string[], env: Record<string, string> = {}, cwd = image): ChildProcess {
    const path = program === 'node' ? process.execPath : program
    const child = spawn(path, args, { cwd, env: { ...system(), ...env }, stdio: 'ignore', ...nobody })
    children.push(child)
    return child
  }

  async function end(): Promise<(number | null)[]> {
    const codes: (number | null)[] = []
    for (const child of children.splice(0).reverse()) {
      if (child.exitCode === null && child.signalCode === null) {
        const ended = once(child, 'exit')
        child.kill('SIGTERM')
        await ended
      }
      codes.push(child.exitCode)
    }
    return codes
  }

  it('keys are created once, each readable by the service that needs it', () => {
    const make = () => {
      const [, ...args] = service('keys').command as string[]
      const options = { cwd: image, encoding: 'utf8' as const, ...nobody }
      return spawnSync(process.execPath, [...args, join(folder, 'keys')], options)
    }
    const read = (name: string) => readFileSync(join(folder, 'keys', name), 'utf8').trim()
    expect(make().status).to.equal(0)
    const [serviceKey, adminKey, password] = ['service/key', 'admin/key', 'database/password'].map(read)
    expect(new Set([serviceKey, adminKey, password]).size).to.equal(3)
    for (const key of [serviceKey, adminKey, password]) expect(key).to.match(/^[\da-f]{64}$/)
    expect(read('database/postgres')).to.equal(`postgres://latchkey:${password}@postgres/latchkey`)
    for (const name of ['service/key', 'admin/key', 'database/postgres']) {
      expect(statSync(join(folder, 'keys', name)).mode & 0o777, name).to.equal(0o400)
    }
    const again = make()
    expect([again.status, again.stdout]).to.deep.equal([0, ''])
    expect(read('service/key')).to.equal(serviceKey)
  })

  it('both services and Redis run their commands as an unprivileged user who can write to volumes only', async function () {
    if (!hasRedis) {
      console.log('  not tested: the containers together, because redis-server is not installed')
      this.skip()
    }
    const redisPort = String(await freePort())
    start([...(service('redis').command as string[]), '--port', redisPort], {}, join(folder, 'redis'))
    // A folder instead of /data, which the test cannot create.
    const sqlite = { USER_STORE_URL: `sqlite:${folder}/data/users.db` }
    const { AUTH_PORT, AUTH_INTERNAL_PORT, BUSINESS_PORT, BUSINESS_INTERNAL_PORT } = await freePorts()
    // A name, as in the container, so that Auth listens only on the address of that name.
    const hosts = { AUTH_PORT, AUTH_INTERNAL_PORT, INTERNAL_HOST: 'localhost' }
    const authEnv = env('auth', { ...hosts, ...sqlite, TOKEN_STORE_URL: `redis://127.0.0.1:${redisPort}` })
    const ping = () => spawnSync('redis-cli', ['-p', redisPort, 'ping'], { encoding: 'utf8' }).stdout.trim()
    await until(() => ping() === 'PONG')
    const add = ['commands/latchkey.ts', 'users', 'add', 'ada@example.com', '--password-stdin']
    const options = {
      cwd: image,
      env: authEnv,
      input: 'CANARY gherkin plinth no. 2\n',
      encoding: 'utf8' as const,
      ...nobody,
    }
    const added = spawnSync(process.execPath, add, options)
    expect([added.status, added.stderr]).to.deep.equal([0, added.stderr])

    const auth = start(command('auth'), authEnv)
    const AUTH_INTERNAL_URL = `http://localhost:${AUTH_INTERNAL_PORT}`
    const business = start(
      command('business'),
      env('business', { BUSINESS_PORT, BUSINESS_INTERNAL_PORT, AUTH_INTERNAL_URL, INTERNAL_HOST: 'localhost' }),
    )
    await answersAt(`http://127.0.0.1:${BUSINESS_PORT}/ready`)
    const login = { username: 'ada@example.com', password: 'CANARY gherkin plinth no. 2' }
    const { body } = await ask<{ token: string }>('POST', `http://127.0.0.1:${AUTH_PORT}/login`, null, login)
    const data = await ask('GET', `http://127.0.0.1:${BUSINESS_PORT}/data`, body.token)
    expect(data.body).to.deep.equal({ data: 'Hello, ada@example.com!' })
    expect(existsSync(join(folder, 'redis/appendonlydir'))).to.equal(true)
    const elsewhere = await fetch(`http://127.0.0.2:${AUTH_INTERNAL_PORT}/health`).catch(() => null)
    expect(elsewhere).to.equal(null)

    // Make the backup as docs/deploy.md says, while Auth runs.
    const [, backup = ''] = /^docker compose exec -T auth (sh -c '.*') > users\.db$/m.exec(manual) ?? []
    const inContainer = (script: string, input?: Buffer) => {
      const here = script.replace(
        /\/(data|tmp)\/users/g,
        (_, of) => `${folder}/data/${of === 'tmp' ? 'copy-of-' : ''}users`,
      )
      const PATH = [dirname(process.execPath), process.env['PATH']].join(':')
      return spawnSync('bash', ['-c', here], { env: { PATH }, ...(input && { input }), ...nobody })
    }
    const copy = inContainer(backup)
    writeFileSync(join(folder, 'users.db'), copy.stdout)
    const restored = new DatabaseSync(join(folder, 'users.db'))
    expect(restored.prepare('select username from latchkey_users').all()).to.deep.equal([
      Object.assign(Object.create(null), { username: 'ada@example.com' }),
    ])
    restored.close()

    // Restore the backup as docs/deploy.md says, after a crash that left a WAL file beside the database.
    const newPassword = 'CANARY gherkin plinth no. 3'
    const change = { currentPassword: login.password, password: newPassword }
    const changed = await ask('PATCH', `http://127.0.0.1:${AUTH_PORT}/users/me`, body.token, change)
    expect(changed.status).to.equal(200)
    children.splice(children.indexOf(auth), 1)
    auth.kill('SIGKILL')
    await once(auth, 'exit')
    expect(statSync(join(folder, 'data/users.db-wal')).size).to.be.above(0)
    const [, restore = ''] = /^docker compose run --rm -T --no-deps auth (sh -c '.*') < users\.db$/m.exec(manual) ?? []
    expect(inContainer(restore, copy.stdout).status).to.equal(0)
    const [, empty = ''] = /^docker compose exec redis redis-cli (.*)$/m.exec(manual) ?? []
    expect(spawnSync('redis-cli', ['-p', redisPort, empty], { encoding: 'utf8' }).stdout).to.equal('OK\n')
    start(command('auth'), authEnv)
    await answersAt(`http://127.0.0.1:${AUTH_PORT}/ready`)
    const logIn = (password: string) =>
      ask<{ token: string }>('POST', `http://127.0.0.1:${AUTH_PORT}/login`, null, { ...login, password })
    expect((await logIn(newPassword)).status).to.equal(401)
    const again = await logIn(login.password)
    expect((await ask('GET', `http://127.0.0.1:${BUSINESS_PORT}/data`, again.body.token)).status).to.equal(200)

    const check = () => runHealthcheck('business', { BUSINESS_PORT })
    expect(check().status).to.equal(0)
    business.kill('SIGTERM')
    await once(business, 'exit')
    expect(check().status).to.equal(1)
    expect(await end()).to.deep.equal([0, 0, 0])
  })

  /** Runs the health check as the container engine does, in the container's environment. */
  function runHealthcheck(name: string, env: Record<string, string>) {
    const [, ...args] = healthcheckOf(name)
    // Clear NODE_V8_COVERAGE, because this user cannot write to the folder of the coverage.
    const given = { ...system(), HOST: '0.0.0.0', NODE_V8_COVERAGE: '', ...env }
    return spawnSync(process.execPath, args, { cwd: image, env: given, encoding: 'utf8', ...nobody })
  }

  it('are healthy while they answer, over TLS, on other ports, and without their dependencies', async () => {
    const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'certificate.pem')]
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=a']
    const made = ['req', '-x509', ...kind, '-days', '2', '-keyout', key, '-out', certificate]
    execFileSync('openssl', made, { stdio: 'ignore' })
    chmodSync(key, 0o644)
    const keys = { SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey, NODE_ENV: 'production' }
    for (const tls of [{}, { TLS_CERT_FILE: certificate, TLS_KEY_FILE: key }] as Record<string, string>[]) {
      const { AUTH_PORT, BUSINESS_PORT, ...internal } = await freePorts()
      const ports = { AUTH_PORT, BUSINESS_PORT }
      // Without an Auth, this Business is healthy but not ready.
      const common = {
        ...keys,
        ...ports,
        ...internal,
        ...tls,
        HOST: '0.0.0.0',
        AUTH_INTERNAL_URL: 'http://127.0.0.1:9',
      }
      const check = (name: string) => runHealthcheck(name, { ...ports, ...tls })
      for (const name of ['auth', 'business']) {
        expect(check(name).status, name).to.equal(1)
        start(command(name), { ...common, USER_STORE_URL: 'memory:', TOKEN_STORE_URL: 'memory:' })
      }
      await until(() => check('auth').status === 0)
      await until(() => check('business').status === 0)
      expect(await end()).to.deep.equal([0, 0])
    }
  })

  it('are not healthy while they hang', async () => {
    // The kernel accepts the connection, but no process answers.
    const server = createServer(() => {}).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const { status, stderr } = runHealthcheck('auth', { AUTH_PORT: String(port) })
    server.close()
    expect([status, stderr]).to.deep.equal([1, `auth at 127.0.0.1 port ${port}: no answer within 1500 ms\n`])
  })

  it('show the operator’s view to this machine through the container of the profile console, and still require a key', async () => {
    const auth = await startAuth({ env: { NODE_ENV: 'production' } })
    const [program = '', script = '', port = '', target = ''] = service('console').command as string[]
    expect([port, target]).to.deep.equal(['3101', 'auth-internal:3101'])
    expect(service('auth').environment?.['INTERNAL_HOST']).to.equal('auth-internal')
    const own = String(await freePort())
    start([program, script, own, target.replace('auth-internal:3101', new URL(auth.internalUrl).host)])
    const url = `http://127.0.0.1:${own}`
    await answersAt(`${url}/health`)
    const [, node, ...test] = service('console').healthcheck?.test ?? []
    expect([node, ...test]).to.deep.equal(['node', 'commands/healthcheck.ts', 'authInternal'])
    // spawnSync would block Auth, which runs in this process.
    const check = () => once(spawn(process.execPath, test, { cwd: image, env: { AUTH_INTERNAL_PORT: own } }), 'exit')
    expect(await check()).to.deep.equal([0, null])
    const page = await fetch(`${url}/console`, { headers: { connection: 'close' } })
    expect([page.status, page.headers.get('content-type')]).to.deep.equal([200, 'text/html; charset=utf-8'])
    expect((await ask('GET', `${url}/tokens`, null)).status).to.equal(401)
    expect((await ask('GET', `${url}/tokens`, adminKey)).status).to.equal(200)
    await closeServers()
    expect(await check()).to.deep.equal([1, null])
    expect(await end()).to.deep.equal([0])
  })
})
