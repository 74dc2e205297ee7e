// The npm package of Latchkey: what is in it, and that `latchkey` serves and operates a pair in an empty folder.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { expect } from 'chai'
import { bareEnvironment } from '../support/childEnvironment.ts'
import { demo } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { freePort } from '../support/freePort.ts'
import { installProductionPackages } from '../support/productionCopy.ts'
import { until } from '../support/until.ts'

const parent = mkdtempSync(join(tmpdir(), 'latchkey-npm-'))
const installed = join(parent, 'installed')
const empty = join(parent, 'an empty folder')
const sources = ['commands', 'services', 'shared', 'packages/client', 'tools/buildPackage.ts', 'package.json']
const others = ['tsconfig.json', 'tsconfig.package.json', 'README.md', 'LICENSE']
const manifest = JSON.parse(readFileSync('package.json', 'utf8'))

/** Packs a copy, so that test files that pack at once do not share `dist`. */
function pack(folder: string): string {
  for (const path of [...sources, ...others]) cpSync(path, join(folder, path), { recursive: true })
  symlinkSync(join(process.cwd(), 'node_modules'), join(folder, 'node_modules'))
  execFileSync('npm', ['pack', '--silent'], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
  return join(folder, globSync('latchkey-*.tgz', { cwd: folder })[0] as string)
}

/** What `npm install` does; the packages that Latchkey needs come from this project, so no network is needed. */
function install(archive: string): void {
  mkdirSync(installed, { recursive: true })
  installProductionPackages(installed)
  writeFileSync(join(installed, 'package.json'), '{}')
  const options = ['--offline', '--no-audit', '--no-fund']
  execFileSync('npm', ['install', ...options, archive], { cwd: installed, stdio: ['ignore', 'ignore', 'pipe'] })
}

describe('the package latchkey', () => {
  let archive: string
  let env: Record<string, string>
  let serving: ChildProcess
  let log = ''

  const bin = join(installed, 'node_modules/.bin/latchkey')
  const start = (...args: string[]) => spawn(bin, args, { cwd: empty, env, stdio: ['ignore', 'pipe', 'pipe'] })

  async function latchkey(...args: string[]) {
    const child = start(...args)
    const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
    return { code, stdout, stderr }
  }

  before(async () => {
    archive = pack(join(parent, 'sources'))
    install(archive)
    mkdirSync(empty)
    const names = ['AUTH_PORT', 'AUTH_INTERNAL_PORT', 'BUSINESS_PORT', 'BUSINESS_INTERNAL_PORT']
    const ports = await Promise.all(names.map(async name => [name, String(await freePort())]))
    env = { ...bareEnvironment(), ...Object.fromEntries(ports) }
    serving = start('serve')
    for (const stream of [serving.stdout, serving.stderr]) {
      stream?.on('data', chunk => {
        log += chunk
      })
    }
    await until(() => log.includes('"event":"ready"') || serving.exitCode !== null)
  })

  after(async () => {
    if (serving?.exitCode === null) {
      serving.kill('SIGTERM')
      await once(serving, 'exit')
    }
    rmSync(parent, { recursive: true })
  })

  it('holds the compiled code, the pages, the licence and the readme, and nothing else', () => {
    const files = execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' }).trim().split('\n')
    const allowed = [
      /^package\/(LICENSE|README\.md|package\.json|commands\/bin\.js)$/,
      /^package\/dist\/(commands|packages\/client|services|shared)\/([\w-]+\/)*[\w-]+\.js$/,
      /^package\/dist\/services\/auth\/pages\/(account|console|docs)\/(swagger\/)?[\w.-]+\.(ts|js|css|html|svg|txt)$/,
      /^package\/dist\/services\/auth\/pages\/docs\/swagger\/(LICENSE|NOTICE)$/,
    ]
    expect(files.filter(file => !allowed.some(pattern => pattern.test(file)))).to.deep.equal([])
    expect(files).to.include.members(['package/LICENSE', 'package/README.md', 'package/commands/bin.js'])
    expect(files.filter(file => /containerKeys|healthcheck|conformance|test/.test(file))).to.deep.equal([])
  })

  it('can be published with provenance, and needs nothing that runs a script during installation', () => {
    expect(manifest).to.include({ name: 'latchkey', license: 'MIT' }).and.to.not.have.property('private')
    expect(manifest.publishConfig).to.deep.equal({ access: 'public', provenance: true })
    expect(manifest.dependencies).to.not.have.property('swagger-ui-dist')
    expect(manifest.scripts).to.not.have.any.keys('install', 'preinstall', 'postinstall', 'prepare')
  })

  it('starts with npx', () => {
    const options = { cwd: installed, env: bareEnvironment(), encoding: 'utf8' } as const
    expect(execFileSync('npx', ['--offline', 'latchkey', '--version'], options)).to.equal(`${manifest.version}\n`)
  })

  it('serves in an empty folder, with keys that it creates there', async () => {
    expect(log).to.match(/^Created SERVICE_KEY and ADMIN_KEY and saved them in \.env\.$/m)
    expect(readdirSync(empty)).to.include('.env')
    const authUrl = `http://127.0.0.1:${env['AUTH_PORT']}`
    const token = await logIn(authUrl, demo)
    const answer = await fetch(`http://127.0.0.1:${env['BUSINESS_PORT']}/data`, { headers: { token } })
    expect([answer.status, await answer.json()]).to.deep.equal([200, { data: `Hello, ${demo.username}!` }])
  })

  it('serves its pages and what they load', async () => {
    const base = `http://127.0.0.1:${env['AUTH_PORT']}`
    const pages = await Promise.all(
      ['/console', '/account', '/docs', '/redoc'].map(async path => {
        const page = await fetch(base + path)
        const html = await page.text()
        const parts = [...html.matchAll(/(?:src|href)="(?!https?:|data:)([^"#]+)"/g)].map(([, path = '']) => path)
        return [
          page.status,
          ...(await Promise.all(parts.map(async part => (await fetch(`${base}/${part.replace(/^\//, '')}`)).status))),
        ]
      }),
    )
    expect(new Set(pages.flat())).to.deep.equal(new Set([200]))
    const module = await (await fetch(`${base}/console/clock.ts`)).text()
    expect(module)
      .to.include('export')
      .and.to.not.match(/: number/)
  })

  it('operates that pair: users, keys, tokens, doctor and check-config', async () => {
    const added = await latchkey('users', 'add', 'ci-bot', '--service', '--role', 'deployer', '--json')
    expect(added, added.stderr).to.include({ code: 0, stderr: '' })
    expect(JSON.parse(added.stdout)).to.include({ username: 'ci-bot', serviceAccount: true })
    const [{ stdout: created }, doctor, checked] = await Promise.all([
      latchkey('keys', 'add', 'ci-bot', 'nightly', '--json'),
      latchkey('doctor', '--json'),
      latchkey('check-config'),
    ])
    const { id, secret } = JSON.parse(created)
    expect(secret).to.match(/^lk_key_/)
    const listed = await latchkey('keys', 'list', '--user', 'ci-bot', '--json')
    expect(JSON.parse(listed.stdout)).to.include({ id, name: 'nightly', username: 'ci-bot' })
    expect(checked).to.include({ code: 0, stdout: 'The configuration is valid.\n' })
    const lines = doctor.stdout.trim().split('\n')
    expect(doctor.code, doctor.stdout).to.equal(0)
    expect(JSON.parse(lines.at(-1) ?? '')).to.include({ failed: 0 })
  })

  it('hashes passwords in threads of compiled code', async () => {
    const child = spawn(bin, ['users', 'add', 'carol', '--password-stdin'], {
      cwd: empty,
      env: { ...env, USER_STORE_URL: `sqlite:${join(parent, 'users.db')}` },
    })
    child.stdin.end('five uncommon purple walruses juggle\n')
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
    expect(stderr).to.equal('')
    expect(stdout).to.match(/^[\w-]{36}\n$/)
  })

  it('says that the benchmarks are in the repository only', async () => {
    const { code, stderr } = await latchkey('bench')
    expect(code).to.equal(1)
    expect(stderr).to.match(/^The benchmarks are not in the installed package\./)
  })

  it('stops cleanly on SIGINT', async () => {
    serving.kill('SIGINT')
    expect(await once(serving, 'close')).to.deep.equal([0, null])
    expect(log).to.include('"event":"stopped","reason":"SIGINT"')
  })
})
