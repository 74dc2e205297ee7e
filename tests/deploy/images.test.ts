// docker-bake.hcl and the workflow that releases the images, as far as they can be checked without a container engine. The
// steps of the workflow run in bash; scripts stand in for docker and cosign.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import { parse } from 'yaml'

interface Step {
  name?: string
  id?: string
  uses?: string
  run?: string
  with?: Record<string, unknown>
  env?: Record<string, string>
}

interface Workflow {
  on: { push: { tags: string[] } }
  permissions: Record<string, string>
  jobs: { push: { steps: Step[] } }
}

interface LockedPackage {
  dev?: boolean
  os?: string[]
  cpu?: string[]
  hasInstallScript?: boolean
}

const bake = readFileSync('docker-bake.hcl', 'utf8')
const workflow = parse(readFileSync('.github/workflows/release-image.yml', 'utf8')) as Workflow
const { steps } = workflow.jobs.push

describe('docker-bake.hcl', () => {
  it('builds both targets of the Dockerfile for two kinds of processors', () => {
    const dockerfile = readFileSync('Dockerfile', 'utf8')
    const block = (name: string) => new RegExp(`^target "${name}" \\{\n(.*?)^\\}`, 'ms').exec(bake)?.[1] ?? ''
    expect(bake).to.match(/^group "default" \{\n {2}targets = \["auth", "business"\]\n\}/m)
    for (const name of ['auth', 'business']) {
      expect(block(name)).to.match(/inherits = \["common"\]/)
      expect(block(name)).to.include(`  target   = "${name}"\n`)
      expect(block(name)).to.include(`tags     = ["\${IMAGES}-${name}:\${VERSION}"]`)
      expect(dockerfile).to.match(new RegExp(`^FROM base AS ${name}$`, 'm'))
    }
    expect(block('common')).to.include('platforms = ["linux/amd64", "linux/arm64"]')
    expect(block('common')).to.match(/args = \{\n {4}NODE_IMAGE = NODE_IMAGE\n/)
    expect(dockerfile).to.match(/^ARG NODE_IMAGE=/m)
  })

  it('may install the packages once, because none of them depends on the processor', () => {
    const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, LockedPackage> }
    const production = Object.entries(lock.packages).filter(([path, { dev }]) => path !== '' && !dev)
    expect(production).to.not.have.length(0)
    for (const [path, { os, cpu, hasInstallScript }] of production) {
      expect([os, cpu, hasInstallScript], path).to.deep.equal([undefined, undefined, undefined])
    }
  })
})

describe('the workflow release-image', () => {
  let folder: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-release-'))
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  /** Puts a script on the path, which writes its arguments to the file `calls`. */
  function play(name: string, output = ''): void {
    writeFileSync(join(folder, name), `#!/bin/sh\necho "${name} $*" >> '${folder}/calls'\necho '${output}'\n`, {
      mode: 0o755,
    })
  }

  function runStep(name: string, env: Record<string, string>, cwd = process.cwd()) {
    const script = steps.find(step => step.name === name)?.run ?? 'exit 99'
    const PATH = `${folder}:${dirname(process.execPath)}:/usr/bin:/bin`
    return spawnSync('bash', ['-eo', 'pipefail', '-c', script], { cwd, env: { PATH, ...env }, encoding: 'utf8' })
  }

  const calls = () => readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n')

  it('runs at a tag of the version in package.json, and at no other', () => {
    expect(workflow.on.push.tags).to.deep.equal(['v*'])
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
    const check = (tag: string) => runStep('the tag must name the version in package.json', { GITHUB_REF_NAME: tag })
    expect([check(`v${version}`).status, check('v0.0.0').status]).to.deep.equal([0, 1])
  })

  it('resolves the digest of the base unless the Dockerfile names it, and stops if it cannot', () => {
    const digest = `sha256:${'a1'.repeat(32)}`
    const file = join(folder, 'env')
    const env = { GITHUB_ENV: file, GITHUB_REPOSITORY: 'Example/Latchkey', GITHUB_REF_NAME: 'v1.2.3' }
    const resolve = (base: string) => {
      writeFileSync(join(folder, 'Dockerfile'), `ARG NODE_IMAGE=${base}\n`)
      writeFileSync(file, '')
      const { status } = runStep('names of the images, and the digest of the base', env, folder)
      return [status, ...readFileSync(file, 'utf8').trim().split('\n')]
    }
    const rest = ['IMAGES=ghcr.io/example/latchkey', 'VERSION=1.2.3']
    play('docker', digest)
    expect(resolve('node:24-slim')).to.deep.equal([0, `NODE_IMAGE=node:24-slim@${digest}`, ...rest])
    expect(calls()).to.deep.equal(['docker buildx imagetools inspect node:24-slim --format {{.Manifest.Digest}}'])
    writeFileSync(join(folder, 'docker'), '#!/bin/sh\nexit 1\n')
    expect(resolve('node:24-slim')).to.deep.equal([1, ''])
    expect(resolve(`node@${digest}`)).to.deep.equal([0, `NODE_IMAGE=node@${digest}`, ...rest])
  })

  it('pushes with a bill of materials and full provenance, and signs what it pushed', () => {
    const push = steps.find(({ id }) => id === 'bake')
    expect(push?.with).to.deep.equal({ source: '.', push: true, sbom: true, provenance: 'mode=max' })
    expect(workflow.permissions).to.deep.equal({ contents: 'read', packages: 'write', 'id-token': 'write' })
    play('cosign')
    const [auth, business] = ['b2', 'c3'].map(byte => `sha256:${byte.repeat(32)}`)
    const METADATA = JSON.stringify({
      auth: { 'containerimage.digest': auth },
      business: { 'containerimage.digest': business },
    })
    const sign = (metadata: string) =>
      runStep('sign both images by their digests', { METADATA: metadata, IMAGES: 'ghcr.io/example/latchkey' })
    expect(sign(METADATA).status).to.equal(0)
    expect(calls()).to.deep.equal([
      `cosign sign --yes ghcr.io/example/latchkey-auth@${auth}`,
      `cosign sign --yes ghcr.io/example/latchkey-business@${business}`,
    ])
    expect(sign('{}').status).to.equal(1)
  })
})
