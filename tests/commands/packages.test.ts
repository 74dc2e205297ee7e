// Which packages the scripts install: ./startServer those that are shipped, ./runTests all. A script stands in for npm; in the
// last test it installs what `npm ci --omit=dev` does.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect } from 'chai'
import { bareEnvironment } from '../support/childEnvironment.ts'
import { adminKey, serviceKey } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { copyWithoutPackages, installProductionPackages } from '../support/productionCopy.ts'
import { cleanUp, runStartServer } from '../support/startServer.ts'

const production = '{ "packages": { "node_modules/koa": {} } }'
const all = '{ "packages": { "node_modules/koa": {}, "node_modules/mocha": { "dev": true } } }'
const options = '--no-audit --no-fund --loglevel=error --fetch-retries=1 --fetch-retry-mintimeout=2000'

describe('the packages', () => {
  let folder: string
  let project: string
  let env: Record<string, string>

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-packages-'))
    project = join(folder, 'with a space')
    mkdirSync(join(folder, 'bin'))
    env = { PATH: [join(folder, 'bin'), dirname(process.execPath), '/usr/bin', '/bin'].join(':'), HOME: folder }
    // Installs whatever was asked for, as far as runtime.sh can see.
    npm(`mkdir -p node_modules
case "$*" in *--include=dev*) echo '${all}' ;; *) echo '${production}' ;; esac > node_modules/.package-lock.json`)
  })
  after(cleanUp)
  afterEach(() => rmSync(folder, { recursive: true }))

  /** A stand-in for npm that records its calls. */
  function npm(script: string): void {
    const text = `#!/bin/sh\necho "$@" >> "$(dirname "$0")/../npm.log"\n${script}\n`
    writeFileSync(join(folder, 'bin/npm'), text, { mode: 0o755 })
  }

  /** The calls of npm since the last time. */
  function calls(): string[] {
    const log = join(folder, 'npm.log')
    const lines = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []
    rmSync(log, { force: true })
    return lines
  }

  function run(command: string, ...args: string[]) {
    return spawnSync(join(project, command), args, { cwd: '/', env, encoding: 'utf8' })
  }

  describe('of a fresh clone', () => {
    beforeEach(() => {
      const scripts = ['commands/start/startServer.ts', 'commands/own.ts', 'tools/runTests.ts', 'tools/dev.ts']
      const others = ['tools/own.ts', 'bench/own.ts', 'prove/own.ts', 'node_modules/.bin/own']
      for (const script of [...scripts, ...others]) {
        mkdirSync(join(project, script, '..'), { recursive: true })
        writeFileSync(join(project, script), '')
      }
      for (const file of ['startServer', 'runTests', 'commands/node', 'commands/runtime.sh']) {
        cpSync(file, join(project, file))
      }
      writeFileSync(join(project, 'package-lock.json'), all)
      utimesSync(join(project, 'package-lock.json'), 0, 0)
    })

    for (const command of [['startServer'], ['commands/node', 'commands/own.ts'], ['commands/node', 'tools/dev.ts']]) {
      it(`are for production only with ${command.join(' ')}, which leaves them alone afterwards`, () => {
        const { status, stderr } = run(...(command as [string]))
        expect([status, stderr]).to.deep.equal([0, 'Installing the packages; this happens once.\n'])
        expect(calls()).to.deep.equal([`ci --omit=dev ${options}`])
        expect(run(...(command as [string])).stderr).to.equal('')
        expect(calls()).to.deep.equal([])
      })
    }

    for (const command of [
      ['runTests'],
      ...['tools/own.ts', 'bench/own.ts', 'prove/own.ts', 'node_modules/.bin/own'].map(path => ['commands/node', path]),
    ]) {
      it(`are all with ${command.join(' ')}, which adds those that ./startServer left out`, () => {
        expect(run(...(command as [string])).status).to.equal(0)
        expect(calls()).to.deep.equal([`ci --include=dev ${options}`])
        writeFileSync(join(project, 'node_modules/.package-lock.json'), production)
        const { status, stderr } = run(...(command as [string]))
        expect([status, stderr]).to.deep.equal([0, 'Installing the packages for development; this happens once.\n'])
        expect(calls()).to.deep.equal([`install --no-save --include=dev ${options}`])
      })
    }

    it('stay when ./startServer finds all of them', () => {
      run('runTests')
      calls()
      const { status, stderr } = run('startServer')
      expect([status, stderr, calls()]).to.deep.equal([0, '', []])
    })

    it('are installed again, the same ones, when package-lock.json is newer, but not in production', () => {
      for (const [first, which] of [
        ['startServer', '--omit=dev'],
        ['runTests', '--include=dev'],
      ] as const) {
        run(first)
        calls()
        utimesSync(join(project, 'package-lock.json'), new Date(), new Date(Date.now() + 60_000))
        env['NODE_ENV'] = 'production'
        run('startServer')
        expect(calls()).to.deep.equal([])
        env['NODE_ENV'] = 'development'
        run('startServer')
        expect(calls()).to.deep.equal([`ci ${which} ${options}`])
      }
    })

    it('need a network, as a failure says', () => {
      npm('exit 1')
      const { status, stderr } = run('startServer')
      expect(status).to.equal(1)
      expect(stderr).to.include('could not be installed. Installing them needs a network once')
    })
  })

  it('for production are enough to start, log in, get data and run the commands of an operator', async () => {
    copyWithoutPackages(project)
    npm('touch wanted')
    // The stand-in cannot copy the packages, so the first start only shows what it asks for.
    run('startServer', '--check-config')
    expect(calls()).to.deep.equal([`ci --omit=dev ${options}`])
    installProductionPackages(project)
    expect(existsSync(join(project, 'node_modules/mocha'))).to.equal(false)

    const { ready, process: server, ended, stderr } = runStartServer({ folder: project, env: { PATH: env['PATH'] } })
    const { auth, authInternal, business } = await ready
    const answer = await fetch(`${business}/data`, { headers: { token: await logIn(auth), connection: 'close' } })
    expect(await answer.json()).to.deep.equal({ data: 'Hello, demo@example.com!' })
    const page = await fetch(`${auth}/console/console.ts`, { headers: { connection: 'close' } })
    expect([page.status, (await page.text()).length > 0]).to.deep.equal([200, true])

    const { port } = new URL(authInternal)
    env = { ...bareEnvironment(), ...env, AUTH_INTERNAL_PORT: port, SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey }
    const results = [
      run('commands/node', 'commands/latchkey.ts', 'users', 'list'),
      run('commands/node', 'commands/latchkey.ts', 'keys', 'list'),
      run('commands/node', 'commands/latchkey.ts', 'token-keys'),
      run('commands/node', 'commands/latchkey.ts', 'doctor', '--auth', auth, '--business', business),
    ]
    for (const { status, stdout, stderr } of results) expect(status, stdout + stderr).to.equal(0)
    expect(results[0]?.stdout).to.include('demo@example.com')
    server.kill('SIGTERM')
    expect(await ended).to.equal(0)
    expect(stderr()).to.not.include('Installing')
    expect(calls()).to.deep.equal([])
  })
})
