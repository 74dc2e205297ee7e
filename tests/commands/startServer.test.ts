// ./startServer: what it creates, prints and refuses, and how it ends.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, cpSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { parseEnv, stripVTControlCharacters } from 'node:util'
import { expect } from 'chai'
import { parse } from 'yaml'
import { logIn } from '../support/factories.ts'
import { freePorts } from '../support/freePort.ts'
import { cleanUp, copyOfProject, runStartServer } from '../support/startServer.ts'
import { until } from '../support/until.ts'

const development = { NODE_ENV: undefined, SERVICE_KEY: undefined, ADMIN_KEY: undefined }

/** The processes that `pid` started. */
function childrenOf(pid: number): { pid: number; command: string }[] {
  const lines = execFileSync('ps', ['-eo', 'pid=,ppid=,args='], { encoding: 'utf8' }).trim().split('\n')
  return lines
    .map(line => line.trim().split(/\s+/))
    .filter(([, parent]) => Number(parent) === pid)
    .map(([child, , ...command]) => ({ pid: Number(child), command: command.join(' ') }))
}

const isAlive = (pid: number) => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** A copy of the project with the environments for Postman. */
function withPostman(): string {
  const folder = copyOfProject()
  for (const path of [
    'postman/Latchkey local.postman_environment.json',
    'postman/environments/Latchkey local.environment.yaml',
  ]) {
    cpSync(path, join(folder, path))
  }
  return folder
}

describe('./startServer', () => {
  after(cleanUp)

  it('works from any folder, with a space in its path, and creates and keeps missing keys', async () => {
    const folder = copyOfProject()
    const first = runStartServer({ folder, env: development, cwd: '/' })
    const { auth, business } = await first.ready
    expect((await fetch(`${business}/data`, { headers: { token: await logIn(auth) } })).status).to.equal(200)
    first.process.kill('SIGTERM')
    expect(await first.ended).to.equal(0)
    expect(first.stderr()).to.include('Created SERVICE_KEY and ADMIN_KEY and saved them in .env.')
    const made = readFileSync(join(folder, '.env'), 'utf8')
    expect(made).to.match(/^SERVICE_KEY=[0-9a-f]{64}\nADMIN_KEY=[0-9a-f]{64}\n$/)
    expect(statSync(join(folder, '.env')).mode & 0o777).to.equal(0o600)

    const second = runStartServer({ folder, env: development })
    await second.ready
    expect(second.stderr()).to.not.include('Created')
    expect(readFileSync(join(folder, '.env'), 'utf8')).to.equal(made)
    second.process.kill('SIGTERM')
    await second.ended
  })

  it('writes environments for Postman with its addresses and the keys of .env, which only the user can read', async () => {
    const folder = withPostman()
    const elsewhere = join(folder, 'elsewhere')
    writeFileSync(elsewhere, 'not for keys')
    writeFileSync(join(folder, 'postman', 'Latchkey local with keys.postman_environment.json'), '{}', { mode: 0o644 })
    symlinkSync(elsewhere, join(folder, 'postman/environments/Latchkey local with keys.environment.yaml'))
    const { ready, process: started, ended } = runStartServer({ folder, env: development })
    const addresses = await ready
    const keys = parseEnv(readFileSync(join(folder, '.env'), 'utf8'))
    const files = [
      'Latchkey local with keys.postman_environment.json',
      'environments/Latchkey local with keys.environment.yaml',
    ]
    await until(() =>
      files.every(file => readFileSync(join(folder, 'postman', file), 'utf8').includes(`${keys['ADMIN_KEY']}`)),
    )
    expect(readFileSync(elsewhere, 'utf8')).to.equal('not for keys')
    for (const file of files) {
      const path = join(folder, 'postman', file)
      const { name, values } = parse(readFileSync(path, 'utf8')) as {
        name: string
        values: { key: string; value: string }[]
      }
      expect(name).to.equal('Latchkey local with keys')
      expect(Object.fromEntries(values.map(({ key, value }) => [key, value]))).to.deep.equal({
        businessUrl: addresses.business,
        authUrl: addresses.auth,
        authInternalUrl: addresses.authInternal,
        username: 'demo@example.com',
        password: 'postman',
        serviceKey: keys['SERVICE_KEY'],
        adminKey: keys['ADMIN_KEY'],
        flowToken: '',
      })
      expect(statSync(path).mode & 0o777).to.equal(0o600)
      expect(execFileSync('git', ['check-ignore', `postman/${file}`], { encoding: 'utf8' })).to.include(file)
    }
    started.kill('SIGTERM')
    await ended
    rmSync(join(folder, 'postman'), { recursive: true }) // it has the password of the demo user
  })

  it('writes no such environment with keys that it was given', async () => {
    const folder = withPostman()
    const { ready, process: started, ended } = runStartServer({ folder, env: { NODE_ENV: undefined } })
    await ready
    started.kill('SIGTERM')
    await ended
    expect(readdirSync(join(folder, 'postman')).filter(file => file.includes('with keys'))).to.deep.equal([])
    rmSync(join(folder, 'postman'), { recursive: true })
  })

  it('checks the settings and the stores for a script', async () => {
    const check = async (env: Record<string, string>) => {
      const { ended, stdout, stderr } = runStartServer({ env, args: ['--check-config', '--json'] })
      return { code: await ended, stderr: stderr(), found: JSON.parse(stdout()) }
    }
    const sound = await check({ USER_STORE_URL: 'sqlite::memory:' })
    expect(sound).to.deep.include({ code: 0, stderr: '' })
    expect(sound.found).to.deep.include({ valid: true, problems: [] })
    expect(sound.found.stores.USER_STORE_URL.pending).to.include('0001_users')
    const problem = 'AUTH_WORKERS: expected a whole number, 1 or more; got "many"'
    expect(await check({ AUTH_WORKERS: 'many' })).to.deep.equal({
      code: 1,
      stderr: '',
      found: { valid: false, problems: [problem], stores: {} },
    })
  })

  it('takes --json only with --check-config', async () => {
    const { ended, stderr } = runStartServer({ args: ['--json'] })
    expect(await ended).to.equal(2)
    expect(stderr()).to.match(/^--json is only for --check-config\./)
  })

  it('makes a .env that others may read private before it adds keys, and reports it', async () => {
    const folder = copyOfProject()
    const file = join(folder, '.env')
    writeFileSync(file, 'LOG_LEVEL=warn\n')
    chmodSync(file, 0o644)
    const { ended, stderr } = runStartServer({ folder, env: development, args: ['--check-config'] })
    expect(await ended).to.equal(0)
    expect(readFileSync(file, 'utf8')).to.match(/^LOG_LEVEL=warn\nSERVICE_KEY=[0-9a-f]{64}\nADMIN_KEY=[0-9a-f]{64}\n$/)
    expect(statSync(file).mode & 0o777).to.equal(0o600)
    expect(stderr()).to.include('Other users could read .env; its mode is now 600.')
  })

  it('adds the key to a .env that lacks it, and the environment beats the file', async () => {
    const folder = copyOfProject()
    writeFileSync(join(folder, '.env'), 'AUTH_PORT=abc\nADMIN_KEY=0123456789abcdef0123456789abcdef\nLOG_LEVEL=loud')
    const { ended, stderr } = runStartServer({ folder, env: development, args: ['--check-config'] })
    expect(await ended).to.equal(1)
    expect(readFileSync(join(folder, '.env'), 'utf8')).to.match(
      /^AUTH_PORT=abc\nADMIN_KEY=\S{32}\nLOG_LEVEL=loud\nSERVICE_KEY=\S{64}\n$/,
    )
    expect(stderr()).to.include('LOG_LEVEL: expected').and.to.not.include('AUTH_PORT')
  })

  it('reads no .env and creates no key in production, and names each setting that is missing or a default', async () => {
    const folder = copyOfProject()
    writeFileSync(join(folder, '.env'), 'SERVICE_KEY=0123456789abcdef0123456789abcdef\n')
    const env = { NODE_ENV: 'production', SERVICE_KEY: undefined, DEMO_USERNAME: 'a', DEMO_PASSWORD: 'postman' }
    const { ended, stderr } = runStartServer({ folder, env })
    expect(await ended).to.equal(1)
    expect(stderr()).to.match(/^ {2}SERVICE_KEY: .*missing$/m)
    expect(stderr()).to.match(/^ {2}DEMO_PASSWORD: .*default one$/m)
  })

  it('names a port that is in use, and the setting to change', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    for (const setting of ['AUTH_PORT', 'AUTH_INTERNAL_PORT', 'BUSINESS_PORT']) {
      const { ended, stderr } = runStartServer({ env: { [setting]: String(port) } })
      expect(await ended).to.equal(1)
      expect(stderr()).to.include(`Port ${port} on 127.0.0.1 is already in use. Set ${setting} to a free port.`)
    }
    server.close()
  })

  it('prints its usage with --help, and refuses unknown arguments', async () => {
    const help = runStartServer({ args: ['--help'] })
    expect(await help.ended).to.equal(0)
    expect(help.stdout()).to.match(/^Usage: \.\/startServer/)
    const unknown = runStartServer({ args: ['--frobnicate'] })
    expect(await unknown.ended).to.equal(2)
    expect(unknown.stderr()).to.include("Unknown option '--frobnicate'").and.to.include('Usage:')
  })

  it('confirms a valid configuration with --check-config', async () => {
    const { ended, stdout } = runStartServer({ args: ['--check-config'] })
    expect(await ended).to.equal(0)
    expect(stdout()).to.equal('The configuration is valid.\n')
  })

  it('leaves no process running when it is killed', async () => {
    const run = runStartServer()
    await run.ready
    const children = childrenOf(run.process.pid as number)
    run.process.kill('SIGKILL')
    await until(() => children.every(({ pid }) => !isAlive(pid)))
  })

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`loses no request on ${signal}`, async () => {
      const run = runStartServer({ env: { ACCESS_LOG: 'errors' } })
      const { auth, business } = await run.ready
      const token = await logIn(auth)
      let answered = 0
      let lost = 0
      let refused = false
      const client = async () => {
        while (!refused) {
          try {
            const answer = await fetch(`${business}/data`, { headers: { token } })
            await answer.text()
            if (answer.status === 200) answered++
            else lost++
          } catch (error) {
            // If the connection is refused, the service has stopped, and no request is lost. If it is reset, a request is lost.
            if ((error as { cause?: { code?: string } }).cause?.code !== 'ECONNREFUSED') lost++
            refused = true
          }
        }
      }
      const clients = Array.from({ length: 20 }, client)
      await until(() => answered > 200)
      // Signals all processes at the same moment, as Ctrl-C does.
      if (signal === 'SIGINT') for (const { pid } of childrenOf(run.process.pid as number)) process.kill(pid, signal)
      run.process.kill(signal)
      expect(await run.ended).to.equal(0)
      await Promise.all(clients)
      expect(lost).to.equal(0)
    })
  }

  it('in development lets the console call Business, at localhost and at 127.0.0.1, and no other page', async () => {
    const ports = await freePorts()
    const { AUTH_PORT, BUSINESS_PORT } = ports
    const folder = copyOfProject()
    const run = runStartServer({ folder, env: { ...development, ...ports } })
    const { business, auth } = await run.ready
    const page = await fetch(`${auth}/console`, { headers: { connection: 'close' } })
    expect(page.headers.get('content-security-policy')).to.include(
      `connect-src 'self' http://localhost:${BUSINESS_PORT};`,
    )
    for (const [origin, allowed] of [
      [`http://localhost:${AUTH_PORT}`, `http://localhost:${AUTH_PORT}`],
      [`http://127.0.0.1:${AUTH_PORT}`, `http://127.0.0.1:${AUTH_PORT}`],
      [`http://127.0.0.1:${Number(AUTH_PORT) + 1}`, null],
      [`https://localhost:${AUTH_PORT}`, null],
      [`http://[::1]:${AUTH_PORT}`, null],
      ['http://evil.example', null],
    ] as const) {
      // Auth's /docs loads Business's /openapi.json.
      for (const path of ['/data', '/openapi.json']) {
        const answer = await fetch(`${business}${path}`, { headers: { origin, connection: 'close' } })
        await answer.text()
        expect(answer.headers.get('access-control-allow-origin'), origin).to.equal(allowed)
      }
    }
    run.process.kill('SIGTERM')
    await run.ended
    const own = runStartServer({ folder, env: { ...development, ...ports, CORS_ORIGINS: 'https://mine.example' } })
    const headers = { origin: 'https://mine.example', connection: 'close' }
    const answer = await fetch(`${(await own.ready).business}/data`, { headers })
    expect(answer.headers.get('access-control-allow-origin')).to.equal('https://mine.example')
    own.process.kill('SIGTERM')
    await own.ended
  })

  it('prints all addresses on a terminal, and curl lines that work when pasted', async () => {
    const folder = copyOfProject()
    const env = {
      ...process.env,
      ...development,
      NODE_ENV: '',
      AUTH_PORT: '0',
      AUTH_INTERNAL_PORT: '0',
      BUSINESS_PORT: '0',
      BUSINESS_INTERNAL_PORT: '0',
      DIALECTS: 'token-provider:0,flask-jwt:0',
    }
    const terminal = spawn('script', ['-qec', './startServer', '/dev/null'], {
      cwd: folder,
      env,
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    let screen = ''
    terminal.stdout.on('data', chunk => {
      screen += stripVTControlCharacters(String(chunk)).replaceAll('\r', '')
    })
    await until(() => screen.includes('Press Ctrl-C to stop'))
    const [, consoleUrl = ''] = /^Latchkey is running\. Open (\S+)$/m.exec(screen) ?? []
    expect(consoleUrl).to.match(/^http:\/\/localhost:[1-9]\d*\/console$/)
    expect((await fetch(consoleUrl, { headers: { connection: 'close' } })).status).to.equal(200)
    for (const dialect of ['token-provider', 'flask-jwt']) {
      const [, address = ''] = new RegExp(`^ +(?:dialects )? +(\\S+) +${dialect}$`, 'm').exec(screen) ?? []
      expect(address, dialect).to.match(/^http:\/\/127\.0\.0\.1:[1-9]\d*$/)
      expect((await fetch(`${address}/nothing-here`, { headers: { connection: 'close' } })).status).to.equal(404)
    }
    expect(screen).to.include('demo@example.com / postman')
    expect(screen).to.include('logs/latchkey.log')
    const lines = screen.split('\n').filter(line => /^ {2}(TOKEN=|curl)/.test(line))
    expect(lines).to.have.length(3)
    const output = execFileSync('bash', ['-c', lines.join('\n')], { encoding: 'utf8' })
    expect(output).to.include('{"data":"Hello, demo@example.com!"}').and.to.include('HTTP/1.1 204')
    expect(readFileSync(join(folder, 'logs/latchkey.log'), 'utf8')).to.include('"event":"listening"')
    terminal.stdin.write('\x03')
    await once(terminal, 'exit')
    expect(screen).to.include('Stopping')
  })
})
