// Heroku simulated on one machine: the result of its build, the commands of the Procfile, two dynos behind a router,
// the end of a dyno, and app.json.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import http, { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect } from 'chai'
import { authSettings } from '../../services/auth/config.ts'
import { businessSettings } from '../../services/business/config.ts'
import { searchForSecrets } from '../support/canaries.ts'
import { ask, post } from '../support/client.ts'
import { adminKey, serviceKey } from '../support/credentials.ts'
import { freePort } from '../support/freePort.ts'
import type { LogLine } from '../support/log.ts'
import { copyWithoutPackages, installProductionPackages } from '../support/productionCopy.ts'
import { hasRedis, startRedisWithTls } from '../support/redis.ts'
import { descendantsOf } from '../support/startServer.ts'
import { freshPlace, type Place } from '../support/stores.ts'
import { until } from '../support/until.ts'

const procfile = readFileSync('Procfile', 'utf8')
const commandOf = (type: string) => new RegExp(`^${type}: (.*)$`, 'm').exec(procfile)?.[1] as string
const user = { username: 'ada@example.com', password: 'CANARY gherkin plinth no. 2' }
/** The client's address as the router sees it, whatever headers the client sends. */
const clientAddress = '203.0.113.9'

let folder: string

/** Copies the project as `npm ci && npm prune --omit=dev` leaves it. */
function build(): void {
  folder = mkdtempSync(join(tmpdir(), 'latchkey-slug-'))
  copyWithoutPackages(folder)
  installProductionPackages(folder)
}

interface Dyno {
  process: ChildProcess
  port: number
  lines: string[]
  stderr: string
  ended: Promise<number | null>
}

const dynos: Dyno[] = []

/** Starts a process as a dyno does: in production, with its own port and without the environment of this process. */
async function startDyno(name: string, env: Record<string, string>, type = 'web'): Promise<Dyno> {
  const port = await freePort()
  // Here the dynos share a machine, so each needs its own ports.
  const ports = { AUTH_PORT: '0', AUTH_INTERNAL_PORT: '0', BUSINESS_INTERNAL_PORT: '0' }
  const child = spawn('bash', ['-c', commandOf(type)], {
    cwd: folder,
    env: { ...baseEnv(), DYNO: name, PORT: String(port), ...ports, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const dyno: Dyno = {
    process: child,
    port,
    lines: [],
    stderr: '',
    ended: once(child, 'close').then(([code]) => code as number | null),
  }
  createInterface(child.stdout).on('line', line => {
    searchForSecrets(line, 'the log of a dyno')
    dyno.lines.push(line)
  })
  child.stderr.on('data', chunk => {
    searchForSecrets(String(chunk), 'what a dyno wrote to stderr')
    dyno.stderr += chunk
  })
  dynos.push(dyno)
  return dyno
}

function baseEnv(): Record<string, string> {
  const PATH = [dirname(process.execPath), process.env['PATH']].join(delimiter)
  // The copy is new in each run, so its compiled code is kept beside it.
  const NODE_COMPILE_CACHE = join(folder, 'compiled')
  return {
    PATH,
    HOME: folder,
    NODE_COMPILE_CACHE,
    NODE_ENV: 'production',
    SERVICE_KEY: serviceKey,
    ADMIN_KEY: adminKey,
  }
}

async function answers({ port, stderr }: Dyno): Promise<void> {
  const get = () => fetch(`http://127.0.0.1:${port}/ready`, { headers: { connection: 'close' } }).catch(() => null)
  await until(async () => (await get())?.ok, 60_000).catch(() => {
    throw new Error(`the dyno does not answer: ${stderr}`)
  })
}

/**
 * Starts a router that sends requests to the dynos in turn on connections kept for 90 seconds, appends the client's address to
 * X-Forwarded-For, and tries the next dyno if one refuses the connection.
 */
async function startRouter(ports: number[]): Promise<{ url: string; server: Server; agent: http.Agent }> {
  const agent = new http.Agent({ keepAlive: true, timeout: 90_000, maxSockets: 50 })
  let turn = 0
  const server = createServer((req, res) => {
    const chunks: Buffer[] = []
    req.on('data', chunk => chunks.push(chunk))
    req.on('end', () => send(Buffer.concat(chunks), turn++, ports.length))

    function send(body: Buffer, at: number, tries: number): void {
      const headers = {
        'x-forwarded-proto': 'https',
        'x-request-id': `router-${at}`,
        ...req.headers,
        'x-forwarded-for': [req.headers['x-forwarded-for'], clientAddress].filter(Boolean).join(', '),
        connection: 'keep-alive',
      }
      const port = ports[at % ports.length] as number
      const { method = '', url = '' } = req
      const upstream = http.request({ host: '127.0.0.1', port, method, path: url, headers, agent }, answer => {
        res.writeHead(answer.statusCode as number, answer.headers)
        answer.pipe(res)
      })
      upstream.on('error', (error: NodeJS.ErrnoException) => {
        if (error.code === 'ECONNREFUSED' && tries > 1) return send(body, at + 1, tries - 1)
        res.writeHead(502).end(`H13 ${error.code}`)
      })
      upstream.end(body)
    }
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server, agent }
}

async function run(type: string, env: Record<string, string>) {
  const dyno = await startDyno('release.1', env, type)
  const code = await dyno.ended
  return { code, stdout: dyno.lines.join('\n'), stderr: dyno.stderr }
}

describe('on Heroku', () => {
  let database: Place
  let redis: Place
  let router: Awaited<ReturnType<typeof startRouter>>
  let env: Record<string, string>
  let dyno: Dyno
  let other: Dyno

  before(async () => {
    build()
    ;[database, redis] = await Promise.all([freshPlace('postgres'), freshPlace('redis')])
    env = { DATABASE_URL: database.url, REDIS_URL: redis.url, WEB_CONCURRENCY: '1' }
  })
  after(async () => {
    router?.server.closeAllConnections()
    router?.server.close()
    router?.agent.destroy()
    for (const { process } of dynos) process.kill('SIGTERM')
    await Promise.all(dynos.map(({ ended }) => ended))
    await Promise.all([database.remove(), redis.remove()])
    rmSync(folder, { recursive: true })
  })

  async function replaceOther(): Promise<void> {
    other = await startDyno('web.3', { ...env, WEB_CONCURRENCY: '2' })
    await answers(other)
    router = await startRouter([dyno.port, other.port])
  }

  it('the build contains no development packages', () => {
    for (const name of ['mocha', 'typescript', 'chai', '@types/node', 'node']) {
      expect(existsSync(join(folder, 'node_modules', name)), name).to.equal(false)
    }
    expect(existsSync(join(folder, 'node_modules/koa'))).to.equal(true)
  })

  it('the release phase applies the migrations once, needs no Redis, and fails without a database', async () => {
    const away = { ...env, REDIS_URL: 'redis://127.0.0.1:1' }
    const first = await run('release', away)
    expect([first.code, first.stderr]).to.deep.equal([0, first.stderr])
    expect(first.stdout).to.match(/^USER_STORE_URL: applied 0001_\w+.*; up to date\.$/m)
    expect(first.stdout).to.include('TOKEN_STORE_URL: this store has no schema.')
    const second = await run('release', away)
    expect([second.code, second.stdout]).to.deep.equal([0, first.stdout.replace(/applied [\w, ]+/, 'nothing to apply')])
    const none = await run('release', { ...env, DATABASE_URL: 'postgres://me:hidden@127.0.0.1:1/d' })
    expect(none.code).to.equal(1)
    expect(none.stderr).to.include('USER_STORE_URL: the database d at 127.0.0.1:1').and.to.not.include('hidden')
  })

  it('a user can be added by the command, which finds the database like the dynos', () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      ['commands/latchkey.ts', 'users', 'add', user.username, '--password-stdin'],
      { cwd: folder, env: { ...baseEnv(), ...env, DYNO: 'run.1' }, input: `${user.password}\n`, encoding: 'utf8' },
    )
    expect([status, stderr]).to.deep.equal([0, stderr])
  })

  it('two dynos, one of them with two processes of Business, share users and sessions', async () => {
    ;[dyno, other] = await Promise.all([
      startDyno('web.1', { ...env, ACCESS_LOG: 'all' }),
      startDyno('web.2', { ...env, WEB_CONCURRENCY: '2' }),
    ])
    await Promise.all([answers(dyno), answers(other)])
    router = await startRouter([dyno.port, other.port])
    const login = await post(`${router.url}/login`, user, { 'x-request-id': 'spoof', 'x-forwarded-for': '6.6.6.6' })
    expect(login.status).to.equal(200)
    expect(login.headers.get('strict-transport-security')).to.match(/^max-age=/)
    expect(login.headers.get('x-request-id')).to.equal('spoof')
    const { token } = login.body as { token: string }
    for (let i = 0; i < 4; i++) expect((await ask('GET', `${router.url}/data`, token)).status).to.equal(200)
    expect((await ask('POST', `${router.url}/logout`, token)).status).to.equal(204)
    for (let i = 0; i < 4; i++) expect((await ask('GET', `${router.url}/data`, token)).status).to.equal(401)
    expect(descendantsOf(other.process.pid as number).filter(({ command }) => /business/.test(command))).to.have.length(
      2,
    )
  })

  it('the pages are available, and the internal routes are not', async () => {
    for (const path of ['/validateToken', '/metrics', '/tokens', '/introspect', '/forwardAuth', '/admin/users']) {
      for (const method of ['GET', 'POST']) {
        expect((await ask(method, router.url + path, adminKey)).status, path).to.equal(404)
      }
    }
    for (const path of ['/docs', '/docs/swagger-ui-bundle.js', '/redoc', '/account', '/openapi.json']) {
      expect((await fetch(router.url + path)).status, path).to.equal(200)
    }
  })

  it('the router is the only trusted proxy, and Auth trusts it only through Business', async () => {
    const headers = { 'x-forwarded-for': '6.6.6.6', 'x-request-id': 'whose' }
    for (let i = 0; i < 2; i++) await post(`${router.url}/login`, user, headers) // one request to each dyno
    const findRequests = () =>
      dyno.lines
        .map(line => JSON.parse(line) as LogLine)
        .filter(line => line.event === 'request' && line['requestId'] === 'whose')
    await until(() => findRequests().length === 2) // an answer is sent before its log line is written
    expect(findRequests().map(line => [line['service'], line['address']])).to.have.deep.members([
      ['auth', clientAddress],
      ['business', clientAddress],
    ])
    const plain = await post(`${router.url}/login`, user, { 'x-forwarded-proto': 'http' })
    expect(plain.status).to.equal(403)
  })

  it('connections are kept for longer than the 90 seconds of the router', async () => {
    const answer = await fetch(`http://127.0.0.1:${dyno.port}/health`)
    expect(Number(/timeout=(\d+)/.exec(answer.headers.get('keep-alive') ?? '')?.[1])).to.be.above(90)
  })

  it('a dyno ends within 30 s of SIGTERM to every process, even if it comes twice, and loses no request', async () => {
    if (other.process.exitCode !== null) await replaceOther() // this is the second attempt
    const login = await post(`${router.url}/login`, user)
    const { token } = login.body as { token: string }
    const outcomes = new Map<string, number>()
    let stopped = false
    const client = async (path: string) => {
      while (!stopped) {
        const answer = await fetch(router.url + path, { headers: { token } })
        const text = await answer.text()
        const outcome = `${path} ${answer.status} ${answer.ok ? '' : text}`.trim()
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      }
    }
    const clients = ['/data', '/users/me'].flatMap(path => Array.from({ length: 6 }, () => client(path)))
    const startedAt = performance.now()
    const pid = other.process.pid as number
    const everyProcess = [pid, ...descendantsOf(pid).map(child => child.pid)]
    expect(everyProcess).to.have.length(4)
    for (const pause of [200, 0]) {
      for (const id of everyProcess) {
        try {
          process.kill(id, 'SIGTERM')
        } catch {} // the process has already ended
      }
      await new Promise(resolve => setTimeout(resolve, pause))
    }
    expect(await other.ended).to.equal(0)
    expect(performance.now() - startedAt).to.be.below(30_000)
    const atEnd = outcomes.get('/data 200') ?? 0
    while ((outcomes.get('/data 200') ?? 0) < atEnd + 50) await new Promise(resolve => setTimeout(resolve, 20))
    stopped = true
    await Promise.all(clients)
    expect([...outcomes.keys()], [...outcomes.keys()].join('; ')).to.have.members(['/data 200', '/users/me 200'])
    for (const id of everyProcess) expect(existsSync(`/proc/${id}`), String(id)).to.equal(false)
  })

  it('logs where the store URLs come from, and never the URLs', () => {
    for (const { lines, stderr } of [dyno, other]) {
      expect(lines.length).to.be.above(5)
      const events = lines.map(line => JSON.parse(line) as LogLine)
      expect(events.find(({ event }) => event === 'heroku_stores')).to.include({
        USER_STORE_URL: 'DATABASE_URL',
        TOKEN_STORE_URL: 'REDIS_URL',
      })
      for (const line of lines) expect(line.length).to.be.below(10_000)
      expect(lines.join() + stderr)
        .to.not.include(database.url)
        .and.to.not.include(redis.url)
    }
  })

  it('Redis is accepted with its self-signed certificate', async function () {
    if (!hasRedis) {
      console.log('  not tested: Redis on Heroku, because redis-server is not installed')
      this.skip()
    }
    const server = await startRedisWithTls()
    const tls = await startDyno('web.3', { ...env, REDIS_URL: `rediss://127.0.0.1:${server.tlsPort}` })
    await answers(tls)
    const login = await post(`http://127.0.0.1:${tls.port}/login`, user, { 'x-forwarded-proto': 'https' })
    expect(login.status).to.equal(200)
    tls.process.kill('SIGTERM')
    expect(await tls.ended).to.equal(0)
    await server.remove()
  })
})

describe('app.json', () => {
  const app = JSON.parse(readFileSync('app.json', 'utf8')) as {
    name: string
    env: Record<string, { description: string; generator?: string; value?: string }>
    addons: string[]
    formation: Record<string, { quantity: number }>
  }

  it('sets only known settings, and has Heroku generate every secret', () => {
    const settings = { ...authSettings, ...businessSettings }
    expect(Object.keys(settings)).to.include.members(Object.keys(app.env))
    for (const name of ['SERVICE_KEY', 'ADMIN_KEY']) {
      expect(app.env[name]?.generator).to.equal('secret')
      expect(app.env[name]).to.not.have.property('value')
    }
    expect(app.env['NODE_ENV']?.value).to.equal('production')
    for (const { description } of Object.values(app.env)) expect(description).to.have.length.above(10)
  })

  it('keeps users and tokens in stores that outlive a dyno, sessions for 30 minutes, and runs the commands of the Procfile', () => {
    expect(app.env['TOKEN_TTL_SECONDS']?.value).to.equal('1800')
    expect(app.addons).to.deep.equal(['heroku-postgresql:essential-0', 'heroku-redis:mini'])
    for (const type of Object.keys(app.formation)) expect(commandOf(type)).to.include('exec ./startServer')
    expect(readFileSync('README.md', 'utf8')).to.include('https://www.heroku.com/deploy')
  })
})
