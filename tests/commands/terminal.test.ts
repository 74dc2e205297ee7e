// What a developer sees while ./startServer runs: colors and a line per request on a terminal, and neither elsewhere.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { stripVTControlCharacters } from 'node:util'
import { expect } from 'chai'
import { demo } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { freePorts } from '../support/freePort.ts'
import { cleanUp, copyOfProject, runStartServer } from '../support/startServer.ts'
import { until } from '../support/until.ts'

const development = { NODE_ENV: undefined, SERVICE_KEY: undefined, ADMIN_KEY: undefined }
const hasColor = (text: string) => text.includes('\x1b[')

describe('the terminal of ./startServer', () => {
  const terminals: ChildProcess[] = []
  after(async () => {
    for (const { pid, exitCode } of terminals) if (exitCode === null) process.kill(pid as number)
    await cleanUp()
  })

  async function start(own: Record<string, string | undefined> = {}) {
    const folder = copyOfProject()
    const ports = await freePorts()
    // With CI set, Node takes a terminal for one without colors.
    const env = { ...process.env, CI: undefined, NO_COLOR: undefined, FORCE_COLOR: undefined, TERM: 'xterm-256color' }
    const child = spawn('script', ['-qec', './startServer', '/dev/null'], {
      cwd: folder,
      env: { ...env, ...development, ...ports, ...own },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    terminals.push(child)
    let screen = ''
    child.stdout.on('data', chunk => {
      screen += String(chunk)
    })
    await until(() => screen.includes('to stop'))
    const [auth, business] = [ports.AUTH_PORT, ports.BUSINESS_PORT].map(port => `http://127.0.0.1:${port}`)
    return {
      urls: { auth: auth as string, business: business as string },
      screen: () => screen,
      log: () => readFileSync(join(folder, 'logs/latchkey.log'), 'utf8'),
      async stop() {
        child.stdin.write('\x03')
        await once(child, 'exit')
      },
    }
  }

  async function use({ auth, business }: { auth: string; business: string }) {
    const token = await logIn(auth)
    const get = (path: string, headers = {}) => fetch(business + path, { headers: { connection: 'close', ...headers } })
    await get('/data', { token })
    await get('/data')
    await get('/health')
  }

  it('has colors, and one line per request from both services, while the log has each request as JSON', async () => {
    const { urls, screen, log, stop } = await start()
    await use(urls)
    const shown = () => stripVTControlCharacters(screen()).replaceAll('\r', '').split('\n')
    await until(() => shown().some(line => line.includes('/data 401')))
    const lines = shown().filter(line => /^(auth|business) /.test(line))
    expect(lines.map(line => line.replace(/[\d.]+ ms/, 'N ms'))).to.have.members([
      `auth     POST /login 200 N ms ${demo.username}`,
      `business GET /data 200 N ms ${demo.username}`,
      'business GET /data 401 N ms',
    ])
    expect(screen()).to.include('\x1b[32m200\x1b[39m').and.to.include('\x1b[33m401\x1b[39m')
    expect(screen()).to.include('\x1b[32mLatchkey is running.')
    await until(() => log().includes('"path":"/health"'))
    const requests = log()
      .split('\n')
      .filter(line => line.includes('"event":"request"'))
      .map(line => JSON.parse(line) as Record<string, unknown>)
    expect(requests.map(({ path }) => path)).to.include.members(['/login', '/data', '/validateToken', '/health'])
    expect(log()).to.not.include(demo.username)
    await stop()
  })

  it('has no colors with NO_COLOR, and no lines in production or with ACCESS_LOG=off', async () => {
    const plain = await start({ NO_COLOR: '1' })
    await use(plain.urls)
    await until(() => plain.screen().includes('business GET /data 401'))
    expect(hasColor(plain.screen())).to.equal(false)
    await plain.stop()

    const keys = {
      SERVICE_KEY: 'k'.concat('0123456789abcdef'.repeat(3)),
      ADMIN_KEY: 'a'.concat('0123456789'.repeat(5)),
    }
    for (const env of [{ NODE_ENV: 'production', ACCESS_LOG: 'all', ...keys }, { ACCESS_LOG: 'off' }]) {
      const { urls, screen, stop } = await start(env)
      expect(screen()).to.not.include('Each request')
      await (await fetch(`${urls.business}/data`, { headers: { connection: 'close' } })).text()
      await stop()
      expect(stripVTControlCharacters(screen())).to.not.match(/^business /m)
    }
  })

  it('gets JSON lines only, without colors, if stdout is a pipe', async () => {
    const run = runStartServer({ folder: copyOfProject(), env: development })
    await use(await run.ready)
    run.process.kill('SIGTERM')
    await run.ended
    const lines = run.stdout().trimEnd().split('\n')
    expect(lines.filter(line => !line.startsWith('{"time":'))).to.deep.equal([])
    expect(hasColor(run.stdout() + run.stderr())).to.equal(false)
    expect(run.stderr()).to.not.include('/data')
  })
})
