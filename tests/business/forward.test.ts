// The single-address layout: Business forwards to Auth's public listener and to nothing else.
import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { brotliDecompressSync } from 'node:zlib'
import { expect } from 'chai'
import { request } from 'undici'
import { layOut, storesOfHeroku } from '../../commands/start/layout.ts'
import { publicRoutes as authRoutes, internalRoutes } from '../../services/auth/routes/index.ts'
import { openBusiness } from '../../services/business/app.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { openForward } from '../../services/business/forward.ts'
import type { Environment } from '../../shared/config/readSettings.ts'
import { createListener } from '../../shared/http/listener.ts'
import type { Service } from '../../shared/service.ts'
import { ask, post } from '../support/client.ts'
import { adminKey, demo, serviceKey } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import { collectLog } from '../support/log.ts'
import { sendRaw } from '../support/raw.ts'
import { closeServers, startAuth } from '../support/servers.ts'
import { cleanUp, descendantsOf, runStartServer } from '../support/startServer.ts'
import { until } from '../support/until.ts'

const opened: (() => Promise<unknown>)[] = []

/** A Business that forwards to `authUrl`. The answers that it forwards are checked against Auth's document. */
async function startSingle(authUrl: string, internalUrl: string, env: Environment = {}) {
  const { log, lines } = collectLog('business')
  const ports = { BUSINESS_PORT: '0', BUSINESS_INTERNAL_PORT: '0' }
  const urls = { AUTH_INTERNAL_URL: internalUrl, AUTH_PUBLIC_URL: authUrl }
  const config = readBusinessConfig({ NODE_ENV: 'test', SERVICE_KEY: serviceKey, ...ports, ...urls, ...env })
  const service: Service = await openBusiness(config, { log, monotonicNow: () => performance.now() })
  opened.push(() => service.close())
  const { business, businessInternal } = await service.listen()
  return { url: business as string, internalUrl: businessInternal as string, lines }
}

async function startFakeAuth(answer: RequestListener): Promise<{ url: string; server: Server }> {
  const server = createServer(answer).listen(0, '127.0.0.1')
  await once(server, 'listening')
  opened.push(async () => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server }
}

async function closeOpened(): Promise<void> {
  await Promise.all(opened.splice(0).map(close => close()))
}

const nowhere = 'http://127.0.0.1:1'

describe('at a single address', () => {
  let auth: Awaited<ReturnType<typeof startAuth>>
  let single: Awaited<ReturnType<typeof startSingle>>

  before(async () => {
    auth = await startAuth({ env: { TRUSTED_PROXIES: '1', CONSOLE_BUSINESS_URL: 'self' } })
    single = await startSingle(auth.url, auth.internalUrl, { TRUSTED_PROXIES: '1' })
  })
  after(async () => {
    await closeOpened()
    await closeServers()
  })

  it('Business alone checks for https in production, and Auth serves every request that it forwards', async () => {
    const production = { NODE_ENV: 'production' }
    const inner = await startAuth({ env: { ...production, TRUSTED_PROXIES: '1', CONSOLE_BUSINESS_URL: 'self' } })
    const statuses: number[] = []
    for (const env of [production, { ...production, TRUSTED_PROXIES: '1' }]) {
      const { url } = await startSingle(inner.url, inner.internalUrl, env)
      for (const proto of [null, 'http', 'https']) {
        const headers = { connection: 'close', ...(proto && { 'x-forwarded-proto': proto }) }
        const answer = await fetch(`${url}/account`, { headers })
        statuses.push(answer.status)
        const isSaid = answer.headers.has('strict-transport-security')
        expect(isSaid).to.equal(answer.status === 200 && 'TRUSTED_PROXIES' in env)
      }
    }
    expect(statuses).to.deep.equal([200, 200, 200, 403, 403, 200])
  })

  it('every public route of Auth is available, except those that Business has itself', async () => {
    const own = ['GET /health', 'GET /ready', 'GET /openapi.json', 'GET /problems/:code']
    const routes = Object.values(authRoutes).map(({ path }) => path)
    expect(routes).to.have.length.above(15).and.to.include.members(own)
    const answerOf = async (url: string, route: string) => {
      const [method, path] = route.replace(/:\w+/, '1').split(' ') as [string, string]
      const body = method === 'GET' ? undefined : {}
      const { status, text } = await ask(method, `${url}${path}`, 'x', body)
      return [status, text.replace(/"requestId":"[^"]*"/, '')]
    }
    for (const route of routes.filter(route => !own.includes(route))) {
      expect(await answerOf(single.url, route), route).to.deep.equal(await answerOf(auth.url, route))
    }
  })

  it('the routes of Business are never forwarded, whatever the method', async () => {
    const requests: (string | undefined)[] = []
    const fake = await startFakeAuth((req, res) => {
      requests.push(req.url)
      res.end('{}')
    })
    const { url } = await startSingle(fake.url, nowhere)
    for (const path of ['/data', '/health', '/ready', '/openapi.json']) {
      const { status, headers } = await ask('POST', `${url}${path}`, null, {})
      expect([status, headers.get('allow')?.split(', ').sort()], path).to.deep.equal([405, ['GET', 'HEAD']])
    }
    expect((await ask('OPTIONS', `${url}/data`)).status).to.equal(200)
    expect(requests).to.deep.equal([])
    for (const path of ['/data/', '/Data', '/nothing/at?all', '/%']) await ask('GET', url + path)
    expect(requests).to.deep.equal(['/data/', '/Data', '/nothing/at?all', '/%'])
  })

  it('forwarded requests are one series in the metrics of Business, whatever the path', async () => {
    const { url, internalUrl } = await startSingle(auth.url, auth.internalUrl)
    for (const path of ['/account', '/nothing', '/nothing/2']) await fetch(url + path)
    const text = await (await fetch(`${internalUrl}/metrics`)).text()
    const series = /latchkey_http_request_duration_seconds_count\{listener="business",method="GET",route="([^"]+)"/g
    expect(new Set([...text.matchAll(series)].map(([, route]) => route))).to.deep.equal(new Set(['/{*path}']))
  })

  it('a whole session works: register, log in, get data, renew, list, end', async () => {
    const { url } = single
    const credentials = { username: 'ada@example.com', password: 'CANARY gherkin plinth no. 2' }
    expect((await ask('POST', `${url}/users`, null, credentials)).status).to.equal(201)
    const token = await logIn(url, credentials)
    expect((await ask('GET', `${url}/data`, token)).body).to.deep.equal({ data: 'Hello, ada@example.com!' })
    const renewed = await ask<{ token: string }>('POST', `${url}/renew`, token)
    expect((await ask('GET', `${url}/data`, token)).status).to.equal(401)
    const { body } = await ask<{ sessions: { id: string }[] }>('GET', `${url}/sessions`, renewed.body.token)
    expect(body.sessions).to.have.length(1)
    const ended = await ask('DELETE', `${url}/sessions/${body.sessions[0]?.id}`, renewed.body.token)
    expect([ended.status, ended.text]).to.deep.equal([204, ''])
    expect((await ask('GET', `${url}/data`, renewed.body.token)).status).to.equal(401)
  })

  it('the pages of Auth find both API descriptions', async () => {
    const page = await fetch(`${single.url}/docs`)
    expect(page.headers.get('content-security-policy')).to.include("connect-src 'self';")
    const documents = await (await fetch(`${single.url}/docs/documents.js`)).text()
    for (const [, path] of documents.matchAll(/"url":"([^"]+)"/g)) {
      expect((await fetch(`${single.url}/${path}`)).status, path).to.equal(200)
    }
    expect(await (await fetch(`${single.url}/docs/swagger-ui-bundle.js`)).text()).to.have.length.above(1_000_000)
  })

  it('a static file arrives compressed, with its ETag, and not again if the client has it', async () => {
    for (const path of ['/docs/swagger-ui-bundle.js', '/console', '/account']) {
      const get = async (headers: Record<string, string>, method: 'GET' | 'HEAD' = 'GET') => {
        const answer = await request(`${single.url}${path}`, { method, headers })
        return { ...answer, bytes: Buffer.from(await answer.body.arrayBuffer()) }
      }
      const full = await get({ 'accept-encoding': 'br' })
      const plain = await get({})
      expect(brotliDecompressSync(full.bytes).equals(plain.bytes), path).to.equal(true)
      expect(full.headers).to.include({
        'content-encoding': 'br',
        vary: 'Accept-Encoding',
        'cache-control': 'no-cache',
      })
      expect(Number(full.headers['content-length'])).to.equal(full.bytes.length)
      const etag = full.headers['etag'] as string
      expect(etag).to.match(/^"[\w-]+-br"$/)
      const head = await get({ 'accept-encoding': 'br' }, 'HEAD')
      expect([head.statusCode, head.bytes.length, head.headers['etag']]).to.deep.equal([200, 0, etag])
      expect(head.headers['content-length']).to.equal(full.headers['content-length'])
      const again = await get({ 'accept-encoding': 'br', 'if-none-match': etag })
      expect([again.statusCode, again.bytes.length, again.headers['etag']]).to.deep.equal([304, 0, etag])
    }
  })

  it('the console and everything it loads is available, and it calls no other address', async () => {
    const page = await fetch(`${single.url}/console`)
    expect(page.headers.get('content-security-policy')).to.include("connect-src 'self';")
    for (const [, path] of (await page.text()).matchAll(/(?:src|href)="([^"]+)"/g)) {
      expect((await fetch(`${single.url}/${path}`)).status, path).to.equal(200)
    }
    const { body } = await ask('GET', `${single.url}/console/settings.json`)
    expect(body['businessUrl']).to.equal('')
  })

  it('no internal route of Auth or Business is available, with any key', async () => {
    const isPublicToo = (route: string) =>
      / \/(|health|ready|openapi\.json|docs.*|console.*|keys.*|problems.*)$/.test(route)
    const routes = [...Object.values(internalRoutes).map(({ path }) => path), 'GET /metrics'].filter(
      route => !isPublicToo(route),
    )
    expect(routes).to.include('POST /validateToken').and.to.have.length.above(8)
    for (const route of routes) {
      const [method, path] = route
        .replace('ANY', 'POST')
        .replace(/:id|\{\*path\}/, '1')
        .split(' ') as [string, string]
      for (const key of [serviceKey, adminKey]) {
        const body = method === 'POST' ? { token: 'x' } : undefined
        expect((await ask(method, `${single.url}${path}`, key, body)).status, route).to.equal(404)
      }
    }
  })

  it('the keys that are available are those of a user, and no operator’s key opens them', async () => {
    for (const key of [serviceKey, adminKey]) {
      for (const route of ['GET /keys', 'POST /keys', 'PATCH /keys/1', 'DELETE /keys/1']) {
        const [method, path] = route.split(' ') as [string, string]
        const body = method === 'GET' || method === 'DELETE' ? undefined : { name: 'x', userId: 'y' }
        expect((await ask(method, `${single.url}${path}`, key, body)).status, route).to.equal(401)
      }
    }
  })

  it('no spelling of a path or of a host leads to an internal route', async () => {
    for (const target of [
      '//validateToken',
      '/./validateToken',
      '/docs/../validateToken',
      '/docs/..%2fvalidateToken',
      '/docs/%2e%2e/validateToken',
      '/validateToken/',
      '/%76alidateToken',
      `${auth.internalUrl}/validateToken`,
      `${auth.internalUrl}/metrics`,
      'http://auth.internal/docs/..%2fmetrics',
    ]) {
      const head = `Host: ${new URL(auth.internalUrl).host}\r\nAuthorization: Bearer ${adminKey}\r\nConnection: close`
      for (const request of [`GET ${target}`, `POST ${target}`]) {
        const { status } = await sendRaw(single.url, `${request} HTTP/1.1\r\n${head}\r\nContent-Length: 0\r\n\r\n`)
        expect(status, request).to.be.oneOf([404, 405])
      }
    }
  })

  it('every request is refused as Auth would refuse it', async () => {
    const json = 'Content-Type: application/json\r\n'
    const sized = (body: string) => `Content-Length: ${body.length}\r\n\r\n${body}`
    const large = JSON.stringify({ username: 'a', password: 'x'.repeat(20_000) })
    const token = await logIn(auth.url)
    const bearer = `Authorization: Bearer ${token}\r\n`
    const requests: [number, string][] = [
      [400, `GET /users/me HTTP/1.1\r\n${bearer}${bearer}\r\n`],
      [400, `GET /users/me HTTP/1.1\r\n${bearer}token: ${token}\r\n\r\n`],
      [401, `GET /users/me HTTP/1.1\r\n\r\n`],
      [401, `POST /login HTTP/1.1\r\n${json}${sized('{"username":"nobody","password":"nothing"}')}`],
      [400, `POST /login HTTP/1.1\r\n${json}${sized('{"username":"nobody"}')}`],
      [400, `POST /login HTTP/1.1\r\n${json}${sized('')}`],
      [400, `POST /login HTTP/1.1\r\n${json}Transfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n0\r\n\r\n`],
      [415, `POST /login HTTP/1.1\r\nContent-Type: text/plain\r\n${sized('hello')}`],
      [415, `POST /login HTTP/1.1\r\n${json}Content-Encoding: gzip\r\n${sized('hello')}`],
      [413, `POST /login HTTP/1.1\r\n${json}${sized(large)}`],
      [
        413,
        `POST /login HTTP/1.1\r\n${json}Transfer-Encoding: chunked\r\n\r\n4e2a\r\n${large.slice(0, 0x4e2a)}\r\n0\r\n\r\n`,
      ],
      [405, 'PUT /login HTTP/1.1\r\n\r\n'],
      [405, 'GET /login HTTP/1.1\r\n\r\n'],
      [200, 'OPTIONS /users/me HTTP/1.1\r\n\r\n'],
      [200, 'HEAD /redoc HTTP/1.1\r\n\r\n'],
      [404, 'GET /nothing HTTP/1.1\r\n\r\n'],
      [404, 'GET /docs/nothing HTTP/1.1\r\n\r\n'],
      [404, 'HEAD /docs/nothing HTTP/1.1\r\n\r\n'],
      [404, 'GET /Login HTTP/1.1\r\n\r\n'],
    ]
    for (const [status, request] of requests) {
      const bytes = request.replace('\r\n', '\r\nHost: localhost\r\nX-Request-Id: one\r\nConnection: close\r\n')
      const [there, here] = [await sendRaw(auth.url, bytes), await sendRaw(single.url, bytes)]
      expect([there.status, here.status], request.slice(0, 60)).to.deep.equal([status, status])
      expect(here.body).to.equal(there.body)
      for (const name of ['allow', 'content-type', 'www-authenticate', 'cache-control', 'x-request-id']) {
        const own = (answer: Headers) => answer.get(name)?.split(', ').sort().join() // the methods may be in any order
        expect(own(here.headers), `${name} of ${request.slice(0, 60)}`).to.equal(own(there.headers))
      }
    }
  })

  it('a connection can be used again after a body that was too large', async () => {
    const first = `POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n${'x'.repeat(30_000)}`
    const { text } = await sendRaw(single.url, `${first}GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)
    expect(text.match(/HTTP\/1\.1 \d+/g)).to.deep.equal(['HTTP/1.1 413', 'HTTP/1.1 200'])
  })

  it('Auth sees the client address that Business sees, and trusts no other header', async () => {
    for (const [sent, address] of [
      ['6.6.6.6, 203.0.113.7', '203.0.113.7'],
      ['6.6.6.6, 2001:DB8::7', '2001:db8::7'],
      ['6.6.6.6, unknown', '127.0.0.1'],
    ] as const) {
      const headers = { 'x-forwarded-for': sent, forwarded: 'for=6.6.6.6', 'x-real-ip': '6.6.6.6', connection: 'close' }
      const requestId = `of-${address.replace(/\W/g, '-')}`
      await post(`${single.url}/login`, demo, { ...headers, 'x-request-id': requestId })
      const lines = [...auth.lines, ...single.lines].filter(
        line => line.event === 'request' && line['requestId'] === requestId,
      )
      expect(lines.map(line => line['address'])).to.deep.equal([address, address])
    }
  })

  it('forged client headers and hop-by-hop headers are not forwarded to Auth', async () => {
    let heard: IncomingMessage | undefined
    const fake = await startFakeAuth((req, res) => {
      heard = req
      res.setHeader('Keep-Alive', 'timeout=1')
      res.setHeader('X-Request-Id', 'not-this-one')
      res.end('{}')
    })
    const { url } = await startSingle(fake.url, nowhere)
    const lines = [
      'Host: evil.example.com',
      'X-Forwarded-For: 6.6.6.6',
      'X-Forwarded-Host: evil.example.com',
      'X-Forwarded-Proto: https',
      'Forwarded: for=6.6.6.6',
      'X-Real-IP: 6.6.6.6',
      'Connection: close, X-Hop',
      'X-Hop: 1',
      'TE: trailers',
      'Proxy-Authorization: Basic eDp4',
      'Upgrade: h2c',
      'Accept-Language: de',
      'Expect: 100-continue',
      'Content-Length: 2',
    ]
    const answer = await sendRaw(url, `POST /login?a=%2F&b HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n{}`)
    expect(answer.text).to.include('HTTP/1.1 200')
    expect(heard?.url).to.equal('/login?a=%2F&b')
    const { 'x-request-id': requestId, host, connection, ...headers } = heard?.headers ?? {}
    expect(requestId).to.match(/^[\w-]{36}$/)
    expect([host, connection]).to.deep.equal([new URL(fake.url).host, 'keep-alive'])
    expect(headers).to.deep.equal({
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'https',
      'accept-language': 'de',
      'content-length': '2',
    })
    expect(answer.text).to.include(`X-Request-Id: ${requestId}`).and.to.not.include('not-this-one')
  })

  it('an Auth that is down or does not answer is 503', async () => {
    const down = await startSingle(nowhere, nowhere)
    const answer = await ask('POST', `${down.url}/login`, null, demo)
    expect([answer.status, answer.headers.get('content-type'), answer.headers.get('retry-after')]).to.deep.equal([
      503,
      'application/problem+json',
      '1',
    ])
    expect(answer.body['error']).to.equal('unavailable')
    expect(down.lines.filter(({ event }) => event === 'request_failed')).to.have.length(1)

    const silent = await startFakeAuth(() => {})
    const forward = openForward({ url: silent.url, responseTimeoutMs: 60 })
    const { log } = collectLog('business')
    const listener = createListener(
      { 'GET /users/me': [forward.handle] },
      {
        name: 'business',
        portSetting: 'PORT',
        log,
        accessLog: 'off',
        monotonicNow: () => performance.now(),
      },
    )
    const url = await listener.listen(0, '127.0.0.1')
    expect((await ask('GET', `${url}/users/me`, 'x')).status).to.equal(503)
    await listener.close({ lameDuckMs: 0, drainMs: 100 })
    await forward.close()
  })

  it('answers are streamed: the client gets what Auth has written before Auth ends', async () => {
    let end = () => {}
    const fake = await startFakeAuth((_req, res) => {
      res.write('first ')
      end = () => void res.end('second')
    })
    const { url } = await startSingle(fake.url, nowhere)
    const { body } = await fetch(`${url}/redoc`, { headers: { connection: 'close' } })
    const reader = (body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader()
    expect((await reader.read()).value).to.equal('first ')
    end()
    expect((await reader.read()).value).to.equal('second')
    expect((await reader.read()).done).to.equal(true)
  })

  it('an answer that Auth breaks off is broken off too, never completed', async () => {
    const fake = await startFakeAuth((_req, res) => {
      res.setHeader('Content-Length', '100')
      res.write('half')
      setTimeout(() => res.destroy(), 50)
    })
    const { url, lines } = await startSingle(fake.url, nowhere)
    const outcome = await fetch(`${url}/redoc`)
      .then(answer => answer.text())
      .catch(() => 'broken')
    expect(outcome).to.equal('broken')
    const aborted = () => lines.filter(({ event }) => event === 'response_aborted')
    await until(() => aborted().length > 0)
    expect(aborted()).to.have.length(1)
  })

  for (const moment of ['before the answer', 'in the middle of it'] as const) {
    it(`a client that disconnects ${moment} ends the request to Auth, and no failure is logged`, async () => {
      const { promise: asked, resolve } = Promise.withResolvers<ServerResponse>()
      const fake = await startFakeAuth((_req, res) => {
        if (moment === 'in the middle of it') res.write('half')
        resolve(res)
      })
      const { url, lines } = await startSingle(fake.url, nowhere)
      const gone = new AbortController()
      const answer = fetch(`${url}/redoc`, { signal: gone.signal }).then(answer => answer.text())
      answer.catch(() => {})
      const res = await asked
      if (moment === 'in the middle of it') await sleep(50)
      gone.abort()
      await once(res, 'close')
      await sleep(50)
      expect(lines.filter(({ level }) => level !== 'info')).to.deep.equal([])
    })
  }

  it('clients that read slowly do not delay others', async () => {
    const fake = await startFakeAuth((req, res) => {
      if (req.url === '/login') res.end('{}')
      else res.write('x'.repeat(100))
    })
    const { url } = await startSingle(fake.url, nowhere)
    const gone = new AbortController()
    const slow = Array.from({ length: 300 }, () => fetch(`${url}/redoc`, { signal: gone.signal }))
    await Promise.all(slow)
    expect((await ask('POST', `${url}/login`, null, demo)).status).to.equal(200)
    gone.abort()
  })

  it('a body is read completely before it is forwarded', async () => {
    let requests = 0
    const fake = await startFakeAuth((_req, res) => {
      requests++
      res.end('{}')
    })
    const { url } = await startSingle(fake.url, nowhere)
    await sendRaw(url, 'POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"username"', 100)
    expect(requests).to.equal(0)
  })

  it('Business refuses to send passwords over plain HTTP to another host in production', () => {
    const env = { NODE_ENV: 'production', SERVICE_KEY: serviceKey }
    expect(() => readBusinessConfig({ ...env, AUTH_PUBLIC_URL: 'http://auth.example.com' })).to.throw('every password')
    expect(readBusinessConfig({ ...env, AUTH_PUBLIC_URL: 'http://auth:3001' }).forwardUrl).to.equal('http://auth:3001')
    expect(readBusinessConfig(env).forwardUrl).to.equal(null)
  })
})

describe('the layout of ./startServer', () => {
  it('passes the environment to both services if PORT is not set', () => {
    const env = { HOST: '0.0.0.0', AUTH_PORT: '1', PORT: ' ' }
    const given = { HOST: '0.0.0.0', AUTH_PORT: '1' }
    expect(layOut(env)).to.deep.equal({ auth: given, business: given, isSingle: false })
  })

  it('keeps Auth on loopback with PORT, whatever HOST is, and lets it trust only Business', () => {
    const outside = {
      HOST: '192.0.2.1',
      INTERNAL_HOST: '0.0.0.0',
      TRUSTED_PROXIES: '10.0.0.0/8',
      PUBLIC_URL: 'https://a',
    }
    const { auth, business } = layOut({ ...outside, PORT: '5000', TLS_CERT_FILE: 'c', TLS_KEY_FILE: 'k' })
    expect(auth).to.include({ HOST: '127.0.0.1', INTERNAL_HOST: '127.0.0.1', TRUSTED_PROXIES: '1' })
    expect(auth).to.include({ CONSOLE_BUSINESS_URL: 'self', PUBLIC_URL: 'https://a', TLS_CERT_FILE: undefined })
    expect(business).to.include({ HOST: '192.0.2.1', INTERNAL_HOST: '127.0.0.1', TRUSTED_PROXIES: '10.0.0.0/8' })
    expect(business).to.include({ BUSINESS_PORT: '5000', TLS_CERT_FILE: 'c' })
    for (const env of [auth, business]) expect(env).to.not.have.property('PORT')
    expect(layOut({ PORT: '5000' }).business['HOST']).to.equal('0.0.0.0')
    expect(layOut({ PORT: '5000' }).auth['PUBLIC_URL']).to.equal('http://localhost:5000')
    expect(layOut({ PORT: '5000', NODE_ENV: 'production' }).auth['PUBLIC_URL']).to.equal(undefined)
  })

  it('moves our other listeners to a free port if they conflict with PORT', () => {
    expect(layOut({ PORT: '3001' }).auth['AUTH_PORT']).to.equal('0')
    expect(layOut({ PORT: '3101' }).auth['AUTH_INTERNAL_PORT']).to.equal('0')
    expect(layOut({ PORT: '3100' }).business['BUSINESS_INTERNAL_PORT']).to.equal('0')
    expect(layOut({ PORT: '3001', AUTH_PORT: '4001' }).auth['AUTH_PORT']).to.equal('4001')
  })

  it('uses the stores of Heroku on Heroku only, unless others are set', () => {
    const told: string[][] = []
    const stores = (env: Environment) => {
      const found = storesOfHeroku(env, (...names) => void told.push(names))
      return [found['USER_STORE_URL'], found['TOKEN_STORE_URL']]
    }
    const urls = { DATABASE_URL: 'postgres://a:b@db.example.com:5432/d', REDIS_URL: 'rediss://:p@r.example.com:6380' }
    expect(stores(urls)).to.deep.equal([undefined, undefined])
    expect(told).to.deep.equal([])
    const DYNO = 'web.1'
    expect(stores({ ...urls, DYNO })).to.deep.equal([
      'postgres://a:b@db.example.com:5432/d?sslmode=no-verify',
      'rediss://:p@r.example.com:6380?tls=no-verify',
    ])
    expect(told).to.deep.equal([
      ['USER_STORE_URL', 'DATABASE_URL'],
      ['TOKEN_STORE_URL', 'REDIS_URL'],
    ])
    expect(stores({ ...urls, DYNO, USER_STORE_URL: 'sqlite:a', TOKEN_STORE_URL_FILE: 'b' })).to.deep.equal([
      'sqlite:a',
      undefined,
    ])
    for (const [given, found] of [
      ['postgres://localhost/d', 'postgres://localhost/d'],
      ['postgres://u@127.0.0.1/d', 'postgres://u@127.0.0.1/d'],
      ['postgres://[::1]/d', 'postgres://[::1]/d'],
      ['postgresql://h/d?a=b', 'postgresql://h/d?a=b&sslmode=no-verify'],
      ['postgres://h/d?sslmode=verify-full', 'postgres://h/d?sslmode=verify-full'],
      ['not a URL', 'not a URL'],
    ]) {
      expect(stores({ DATABASE_URL: given, DYNO })[0]).to.equal(found)
    }
    for (const [given, found] of [
      ['redis://h:1', 'redis://h:1'],
      ['rediss://h:1?tls=verify', 'rediss://h:1?tls=verify'],
    ]) {
      expect(stores({ REDIS_URL: given, DYNO })[1]).to.equal(found)
    }
  })
})

describe('./startServer with PORT', () => {
  after(cleanUp)

  it('names PORT if it is invalid or in use', async () => {
    const wrong = runStartServer({ env: { PORT: 'http' } })
    expect(await wrong.ended).to.equal(1)
    expect(wrong.stderr()).to.include('PORT: expected a port').and.to.not.include('BUSINESS_PORT')
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const taken = runStartServer({ env: { PORT: String(port), HOST: '127.0.0.1' } })
    expect(await taken.ended).to.equal(1)
    expect(taken.stderr()).to.include(`Port ${port} on 127.0.0.1 is already in use`).and.to.include('Set PORT ')
    server.close()
  })

  it('has one address, keeps the rest on loopback, and loses no request on SIGTERM to every process', async () => {
    const run = runStartServer({
      env: { PORT: '0', INTERNAL_HOST: '0.0.0.0', ACCESS_LOG: 'off', TOKEN_LIMIT_PER_USER: '10000' },
    })
    const { business, auth, authInternal } = await run.ready
    expect(business).to.match(/^http:\/\/0\.0\.0\.0:/)
    for (const url of [auth, authInternal]) expect(url).to.match(/^http:\/\/127\.0\.0\.1:/)
    const url = business.replace('0.0.0.0', '127.0.0.1')
    const token = await logIn(url)
    const counts: Record<string, number> = {}
    const { promise: underLoad, resolve } = Promise.withResolvers<void>()
    let refused = false
    const client = async (path: string) => {
      while (!refused) {
        try {
          // Keep the connections alive: no request on such a connection may be lost either.
          const body = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(demo) }
          const answer = await fetch(url + path, path === '/login' ? body : { headers: { token } })
          await answer.text()
          const outcome = `${path} ${answer.status}`
          counts[outcome] = (counts[outcome] ?? 0) + 1
          if ((counts['/users/me 200'] ?? 0) > 100 && (counts['/login 200'] ?? 0) > 2) resolve()
        } catch (error) {
          // If the connection is refused, Business has stopped, and no request is lost. If it is reset, a request is lost.
          const code = (error as { cause?: { code?: string } }).cause?.code ?? 'error'
          if (code !== 'ECONNREFUSED') counts[code] = (counts[code] ?? 0) + 1
          refused = true
        }
      }
    }
    const clients = ['/data', '/users/me', '/users/me', '/login'].flatMap(path =>
      Array.from({ length: 4 }, () => client(path)),
    )
    await underLoad
    for (const { pid } of descendantsOf(run.process.pid as number)) process.kill(pid, 'SIGTERM')
    run.process.kill('SIGTERM')
    expect(await run.ended).to.equal(0)
    await Promise.all(clients)
    expect(Object.keys(counts)).to.have.members(['/data 200', '/users/me 200', '/login 200'])
  })
})
