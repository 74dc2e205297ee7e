// GET /data with an Auth that misbehaves: it fails closed, in time, and recovers.
import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { expect } from 'chai'
import { createClock } from '../support/clock.ts'
import { serviceKey } from '../support/credentials.ts'
import { logIn } from '../support/factories.ts'
import {
  admissionOf,
  type Behaviour,
  behaveWell,
  type Changes,
  drip,
  type FakeAuth,
  hold,
  pour,
  startFakeAuth,
} from '../support/fakeAuth.ts'
import { sendRaw } from '../support/raw.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'
import { slackMs } from '../support/slack.ts'

const deadlineMs = 1000 // from a request's arrival to its verdict or its 503

const marginMs = 200 + slackMs // tolerance for a late 503

const challenge = 'Bearer realm="latchkey"'

const refusal = `${challenge}, error="invalid_token"`

let auth: FakeAuth

let elsewhere: FakeAuth // a host that Business must never call

let business: Awaited<ReturnType<typeof startBusiness>>

async function get(path: string, headers: Record<string, string> = {}) {
  const startedAt = performance.now()
  const answer = await fetch(`${business.url}${path}`, { headers, redirect: 'manual' })
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, text, tookMs: performance.now() - startedAt }
}

type Answer = Awaited<ReturnType<typeof get>>

const getData = (token = 'good') => get('/data', { authorization: `Bearer ${token}` })

/** Sends one GET /data with exactly these header lines, and with `origin` before the path. */
function getRaw(lines: string[], origin = '') {
  const head = [`GET ${origin}/data HTTP/1.1`, ...lines, 'Connection: close']
  return sendRaw(business.url, `${head.join('\r\n')}\r\n\r\n`)
}

function expectUnavailable(answer: Answer): void {
  expect(answer.status).to.equal(503)
  expect(answer.headers.get('content-type')).to.equal('application/problem+json')
  expect(answer.headers.get('retry-after')).to.match(/^[1-9]\d*$/)
  expect(answer.headers.get('www-authenticate')).to.equal(null)
  expect(answer.headers.get('cache-control')).to.equal('no-store')
  expect(JSON.parse(answer.text)).to.include({
    type: 'about:blank',
    title: 'Service Unavailable',
    status: 503,
    error: 'unavailable',
    requestId: answer.headers.get('x-request-id'),
  })
}

function expectInTime({ tookMs }: Answer): void {
  expect(tookMs).to.be.below(deadlineMs + marginMs)
}

/** Requests /data until the answer is 200. Resolves to the time that this took. */
async function servedAgainAfterMs(): Promise<number> {
  const startedAt = performance.now()
  for (;;) {
    const { status } = await getData()
    const tookMs = performance.now() - startedAt
    if (status === 200 || tookMs > 5000) return tookMs
    await turn()
  }
}

async function expectAliveButNotReady(): Promise<void> {
  const [alive, ready] = await Promise.all([get('/health'), get('/ready')])
  expect(alive.status).to.equal(200)
  expect(alive.tookMs).to.be.below(deadlineMs / 2)
  expectUnavailable(ready)
  expectInTime(ready)
  expect(JSON.parse(ready.text)).to.include({ detail: 'Auth gives no verdicts.' })
}

async function expectAliveAndReady(): Promise<void> {
  expect((await get('/health')).status).to.equal(200)
  const ready = await get('/ready')
  expect(ready.status).to.equal(200)
  expect(JSON.parse(ready.text)).to.deep.equal({ status: 'ready' })
}

const reply =
  (changes: Changes): Behaviour =>
  call =>
    call.reply(changes)

const write =
  (bytes: string | Buffer): Behaviour =>
  ({ socket }) =>
    void socket.write(bytes)

const verdict = (value: unknown) => reply({ body: { verdicts: [value] } })

const good = admissionOf('good')

const goodBody = JSON.stringify({ verdicts: [good] })

const chunked = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`

const inChunks = { 'content-length': undefined, 'transfer-encoding': 'chunked' }

const untilClose = { 'content-length': undefined, connection: 'close' }

const tooMany = 100 * 1024 * 1024 // bytes

const lines64KiB = Buffer.alloc(65536, `${'x'.repeat(63)}\n`)

/**
 * Answers that must lead to 503 if Auth gives them to a call about one valid token. Nearly all differ from a valid answer
 * in one detail.
 */
const nonsense: Record<string, Behaviour> = {
  'garbage bytes': write(Buffer.from('0016030100fffe0a0d00', 'hex')),
  'another protocol': write('SSH-2.0-OpenSSH_9.9\r\n'),
  'the body without a head': write(goodBody),
  'a close without an answer': ({ socket }) => void socket.end(),
  'a reset without an answer': ({ socket }) => void socket.resetAndDestroy(),
  'a reset within the head': ({ socket, compose }) =>
    void socket.write(compose().subarray(0, 40), () => socket.resetAndDestroy()),
  'a reset within the body': ({ socket, compose }) =>
    void socket.write(compose().subarray(0, -10), () => socket.resetAndDestroy()),
  'a close within the head': ({ socket, compose }) => void socket.end(compose().subarray(0, 40)),
  'a close within a body of known length': ({ socket, compose }) => void socket.end(compose().subarray(0, -10)),
  'a close within a body that ends with the connection': ({ socket, compose }) =>
    void socket.end(compose({ headers: untilClose }).subarray(0, -10)),
  'a close before the last chunk': ({ socket, compose }) =>
    void socket.end(compose({ headers: inChunks, body: chunked(goodBody) })),
  'a chunk without a length': reply({ headers: inChunks, body: `zz\r\n${goodBody}\r\n0\r\n\r\n` }),
  'a length that cuts the body': reply({ headers: { 'content-length': String(goodBody.length - 1) } }),
  'a length that is not a number': reply({ headers: { 'content-length': 'many' } }),
  'two lengths that differ': reply({ headers: { 'content-length': [`${goodBody.length}`, '5'] } }),
  'two lengths that are the same': reply({
    headers: { 'content-length': [`${goodBody.length}`, `${goodBody.length}`] },
  }),
  'a length and chunks': ({ reply }) => {
    const body = `${chunked(goodBody)}0\r\n\r\n`
    reply({ headers: { 'content-length': `${body.length}`, 'transfer-encoding': 'chunked' }, body })
  },
  'two answers at once, the first of them to another call': ({ socket, compose }) =>
    void socket.write(Buffer.concat([compose({ headers: { 'x-request-id': 'other' } }), compose()])),
  'the answer to another call': reply({ headers: { 'x-request-id': 'another.1' } }),
  'an answer without a request id': reply({ headers: { 'x-request-id': undefined } }),
  'an answer with two request ids': ({ requestId, reply }) =>
    reply({ headers: { 'x-request-id': [requestId, requestId] } }),
  'a switch of protocols': write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n'),
  'an unexpected 100 Continue': ({ socket, compose }) =>
    void socket.write(Buffer.concat([Buffer.from('HTTP/1.1 100 Continue\r\n\r\n'), compose()])),
  'interim answers without end': ({ socket }) =>
    pour(socket, Buffer.from('HTTP/1.1 102 Processing\r\n\r\n'.repeat(100)), Infinity),
  'a head that drips': ({ socket, compose }) => drip(socket, compose(), 200),
  'a body that drips': ({ socket, compose }) => {
    const answer = compose()
    const bodyAt = answer.length - goodBody.length
    socket.write(answer.subarray(0, bodyAt))
    drip(socket, answer.subarray(bodyAt), 200)
  },
  'a header of 100 KB': reply({ headers: { 'x-filler': 'x'.repeat(100_000) } }),
  'ten thousand headers': reply({ headers: { 'x-filler': Array.from({ length: 10_000 }, (_, i) => `${i}`) } }),
  'a body of 100 MB': ({ socket, compose }) => {
    socket.write(compose({ headers: { 'content-length': `${tooMany}` }, body: '' }))
    pour(socket, lines64KiB, tooMany)
  },
  'an error with a body of 100 MB': ({ socket, compose }) => {
    socket.write(compose({ status: 500, headers: { 'content-length': `${tooMany}` }, body: '' }))
    pour(socket, lines64KiB, tooMany)
  },
  'a good verdict and 3 KB of space': reply({ body: goodBody + ' '.repeat(3072) }),
  'a gzip body': reply({ headers: { 'content-encoding': 'gzip' }, body: gzipSync(goodBody) }),
  'a gzip bomb': reply({ headers: { 'content-encoding': 'gzip' }, body: gzipSync(Buffer.alloc(10_000_000)) }),
  '500 with a page': reply({ status: 500, headers: { 'content-type': 'text/html' }, body: '<h1>Oops</h1>' }),
  '200 with a page': reply({ headers: { 'content-type': 'text/html' }, body: '<h1>Log in</h1>' }),
  '302 to itself': ({ reply }) => reply({ status: 302, headers: { location: `${auth.url}/validateToken` } }),
  '204 without a body': reply({ status: 204, headers: { 'content-length': undefined }, body: '' }),
  '200 without a body': reply({ body: '' }),
  '200 without a content type': reply({ headers: { 'content-type': undefined } }),
  'a text content type': reply({ headers: { 'content-type': 'text/plain' } }),
  'a content type that only begins like JSON': reply({ headers: { 'content-type': 'application/json-seq' } }),
  'half a JSON text': reply({ body: goodBody.slice(0, -10) }),
  'two JSON texts': reply({ body: goodBody + goodBody }),
  'JSON that is true': reply({ body: true }),
  'JSON that is [true]': reply({ body: [true] }),
  'JSON that is null': reply({ body: null }),
  'JSON that is 1': reply({ body: 1 }),
  'JSON that is "true"': reply({ body: '"true"' }),
  'JSON that is {}': reply({ body: {} }),
  'a verdict outside verdicts': reply({ body: good }),
  'a bare list of verdicts': reply({ body: [good] }),
  'verdicts that are not a list': reply({ body: { verdicts: { 0: good, length: 1 } } }),
  'verdicts behind __proto__': reply({ body: `{"__proto__":${goodBody}}` }),
  'no verdicts': reply({ body: { verdicts: [] } }),
  'more verdicts than tokens': reply({ body: { verdicts: [good, good] } }),
  'a verdict that is true': verdict(true),
  'a verdict that is "true"': verdict('true'),
  'a verdict that is null': verdict(null),
  'a verdict that is 1': verdict(1),
  'a verdict that is {}': verdict({}),
  'a verdict that is [true]': verdict([true]),
  'a verdict that is a list of one': verdict([good]),
  'a verdict behind __proto__': reply({ body: `{"verdicts":[{"__proto__":${JSON.stringify(good)}}]}` }),
  'a verdict that says only authenticated': verdict({ authenticated: true }),
  'a verdict in the form of RFC 7662': verdict({ ...good, authenticated: undefined, active: true }),
  'a verdict of another kind': verdict({ ...good, kind: 'eternal' }),
}

for (const status of [201, 202, 206, 301, 302, 304, 307, 400, 401, 403, 404, 407, 418, 429, 500, 502, 503, 504, 599]) {
  nonsense[`a good verdict under ${status}`] = reply({ status })
}

for (const value of ['true', 'false', 1, 0, [true], null, {}, '']) {
  nonsense[`authenticated that is ${JSON.stringify(value)}`] = verdict({ ...good, authenticated: value })
}

for (const [member, value] of Object.entries(good)) {
  nonsense[`a verdict without ${member}`] = verdict({ ...good, [member]: undefined })
  for (const wrong of [typeof value === 'number' ? String(value) : 7, 1.5, [value], { value }]) {
    nonsense[`${member} that is ${JSON.stringify(wrong)}`] = verdict({ ...good, [member]: wrong })
  }
}

describe('Business', () => {
  before(async () => {
    auth = await startFakeAuth()
    elsewhere = await startFakeAuth()
    business = await startBusiness(auth.url)
  })

  beforeEach(() => auth.reset())

  after(async () => {
    auth.reset()
    await closeServers()
    await Promise.all([auth.stop(), elsewhere.stop()])
  })

  describe('GET /data', () => {
    it('is 200 for a token that Auth admits, in either header form', async () => {
      for (const headers of [{ authorization: 'Bearer good' }, { authorization: 'bearer good' }, { token: 'good' }]) {
        const answer = await get('/data', headers)
        expect(answer.status).to.equal(200)
        expect(JSON.parse(answer.text)).to.deep.equal({ data: 'Hello, good!' })
        expect(answer.headers.get('content-type')).to.match(/^application\/json\b/)
        expect(answer.headers.get('cache-control')).to.equal('no-store')
        expect(answer.headers.get('www-authenticate')).to.equal(null)
      }
      expect(auth.tokens()).to.deep.equal(['good', 'good', 'good'])
    })

    it('sends the service key to Auth, and puts the token in no URL', async () => {
      await getData()
      expect(auth.calls[0]).to.deep.include({ requestLine: 'POST /validateToken HTTP/1.1', tokens: ['good'] })
      expect(auth.calls[0]?.headers).to.include({ authorization: `Bearer ${serviceKey}`, host: auth.host })
    })

    it('greets a guest, whose username is null', async () => {
      auth.behave(call =>
        call.reply({ body: { verdicts: [{ ...admissionOf('good'), username: null, userId: null }] } }),
      )
      expect(JSON.parse((await getData()).text)).to.deep.equal({ data: 'Hello, guest!' })
    })

    it('sends a token of 2048 characters to Auth', async () => {
      const token = 'good'.padEnd(2048, '-')
      expect((await getData(token)).status).to.equal(200)
      expect(auth.tokens()).to.deep.equal([token])
    })

    for (const [what, path, headers] of [
      ['no token', '/data', {}],
      ['another scheme', '/data', { authorization: 'Basic Z29vZDpnb29k' }],
      ['a token in the query', '/data?token=good&access_token=good', {}],
      ['a token in a cookie', '/data', { cookie: 'token=good; access_token=good' }],
    ] as const) {
      it(`is 401 without a call to Auth for ${what}, and names no error, because no token was sent`, async () => {
        const answer = await get(path, headers)
        expect(answer.status).to.equal(401)
        expect(answer.headers.get('www-authenticate')).to.equal(challenge)
        expect(answer.headers.get('content-type')).to.equal('application/problem+json')
        expect(JSON.parse(answer.text)).to.include({ status: 401, error: 'invalid_token' })
        expect(auth.calls).to.deep.equal([])
      })
    }

    for (const [what, token] of [
      ['more than 2 KB', 'good'.padEnd(2049, '-')],
      ['a space', 'good good'],
      ['a comma', 'good,good'],
      ['an escaped line break', 'good%0d%0a'],
      ['= in its middle', 'go=od'],
      ['a letter that is not ASCII', 'g\u00f6\u00f6d'],
      ['a quote', '"good"'],
    ] as const) {
      it(`is 401 without a call to Auth for a token with ${what}`, async () => {
        for (const headers of [{ authorization: `Bearer ${token}` }, { token }]) {
          const answer = await get('/data', headers)
          expect(answer.status).to.equal(401)
          expect(answer.headers.get('www-authenticate')).to.equal(refusal)
          expect(JSON.parse(answer.text)).to.include({ status: 401, error: 'invalid_token' })
        }
        expect(auth.calls).to.deep.equal([])
      })
    }

    it('is 401 without a call to Auth for an empty token', async () => {
      for (const line of ['Token:', 'Authorization: Bearer', 'Authorization: Bearer ']) {
        expect((await getRaw(['Host: x', line])).status).to.equal(401)
      }
      expect(auth.calls).to.deep.equal([])
    })

    for (const [what, lines] of [
      ['both header forms at once', ['Authorization: Bearer good', 'Token: good']],
      ['Authorization twice', ['Authorization: Bearer good', 'Authorization: Bearer good']],
      ['Authorization twice with different tokens', ['Authorization: Bearer bad', 'Authorization: Bearer good']],
      [
        'Authorization twice, once of another scheme',
        ['Authorization: Basic Zm9vOmJhcg==', 'Authorization: Bearer good'],
      ],
      ['Authorization twice, without a token', ['Authorization: Bearer good', 'Authorization:']],
      ['Authorization twice beside a token', ['Authorization: Basic YQ==', 'Authorization: Basic Yg==', 'Token: good']],
      ['the header token twice', ['Token: good', 'token: good']],
    ] as const) {
      it(`is 400 without a call to Auth for ${what}`, async () => {
        const { status, text } = await getRaw(['Host: x', ...lines])
        expect(status).to.equal(400)
        expect(text).to.match(/^content-type: application\/problem\+json\r$/im)
        expect(text).to.include('"error":"invalid_request"')
        expect(auth.calls).to.deep.equal([])
      })
    }

    it('is 401 for a token that Auth refuses', async () => {
      const answer = await getData('bad')
      expect(answer.status).to.equal(401)
      expect(answer.headers.get('www-authenticate')).to.equal(refusal)
      expect(answer.headers.get('content-type')).to.equal('application/problem+json')
      expect(answer.headers.get('retry-after')).to.equal(null)
      expect(JSON.parse(answer.text)).to.deep.equal({
        type: 'about:blank',
        title: 'Unauthorized',
        status: 401,
        detail: 'The token is missing, unknown, expired or revoked.',
        error: 'invalid_token',
        requestId: answer.headers.get('x-request-id'),
      })
      expect(auth.tokens()).to.deep.equal(['bad'])
    })

    it('answers a dead, an unknown and a revoked token with the same bytes', async () => {
      const clock = createClock()
      const realAuth = await startAuth({ now: clock.now })
      const { url } = await startBusiness(realAuth.internalUrl)
      const ask = async (token: string) => {
        const lines = ['GET /data HTTP/1.1', 'Host: x', 'X-Request-Id: r', `Authorization: Bearer ${token}`]
        const { text } = await sendRaw(url, `${[...lines, 'Connection: close'].join('\r\n')}\r\n\r\n`)
        return text.replace(/^Date: .*$/im, 'Date: -')
      }

      const dead = await logIn(realAuth.url)
      expect(await ask(dead)).to.match(/^HTTP\/1\.1 200 /)
      clock.advance(30_000)
      const revoked = await logIn(realAuth.url)
      await fetch(`${realAuth.url}/logout`, { method: 'POST', headers: { authorization: `Bearer ${revoked}` } })

      const unknown = `${dead.slice(0, -1)}${dead.endsWith('0') ? '1' : '0'}`
      const answers = await Promise.all([dead, revoked, unknown, 'unknown', '%'].map(ask))
      expect(answers[0]).to.match(/^HTTP\/1\.1 401 /)
      expect(new Set(answers).size, answers.join('\n')).to.equal(1)
    })
  })

  describe('while Auth answers nonsense, GET /data', () => {
    for (const [what, behaviour] of Object.entries(nonsense)) {
      it(`is 503 for ${what}, and the next request is served`, async () => {
        auth.behave(behaviour)
        const answer = await getData('good-secret')
        expectUnavailable(answer)
        expectInTime(answer)
        expect(auth.tokens()).to.deep.equal(['good-secret'])

        auth.behave(behaveWell)
        expect((await getData('good-secret')).status).to.equal(200)
        expect(auth.tokens()).to.deep.equal(['good-secret', 'good-secret'])
      })
    }

    it('disconnects from an answer of 100 MB before it costs memory', async () => {
      auth.behave(nonsense['a body of 100 MB'] as Behaviour)
      const rssBefore = process.memoryUsage.rss()
      expectUnavailable(await getData())
      expect(process.memoryUsage.rss() - rssBefore).to.be.below(50 * 1024 * 1024)
      const { socket } = auth.calls[0] as FakeAuth['calls'][0]
      if (!socket.destroyed) await once(socket, 'close')
      expect(socket.bytesWritten).to.be.below(tooMany / 2)
    })

    it('follows no redirect', async () => {
      for (const status of [301, 302, 303, 307, 308]) {
        auth.behave(reply({ status, headers: { location: `${elsewhere.url}/validateToken` } }))
        expectUnavailable(await getData())
      }
      expect(elsewhere.connectionCount()).to.equal(0)
    })

    it('does not use an unsolicited answer for any request', async () => {
      await getData()
      const { socket, compose } = auth.calls[0] as FakeAuth['calls'][0]
      const hungUp = once(socket, 'close')
      socket.write(compose())
      await hungUp
      expect((await getData('bad')).status).to.equal(401)
      expect(auth.tokens()).to.deep.equal(['good', 'bad'])
    })

    it('does not use the second of two answers for any request', async () => {
      auth.behave(({ socket, compose }) => void socket.write(Buffer.concat([compose(), compose({ body: goodBody })])))
      expect((await getData('bad-1')).status).not.to.equal(200)
      auth.behave(behaveWell)
      expect((await getData('bad-2')).status).to.equal(401)
      expect(auth.tokens()).to.deep.equal(['bad-1', 'bad-2'])
    })

    it('logs neither a token nor the key', () => {
      const log = JSON.stringify(business.lines)
      expect(log).to.include('auth_unavailable')
      expect(log).not.to.include('good-secret')
      expect(log).not.to.include(serviceKey)
    })
  })

  describe('while Auth is down', () => {
    before(() => getData()) // opens connections, which break when Auth stops
    beforeEach(() => auth.stop())
    afterEach(async () => {
      await auth.stop()
      await auth.listen()
    })

    it('answers 503 in time, and serves again within 2 s of its return', async () => {
      const answers = await Promise.all(Array.from({ length: 50 }, () => getData()))
      for (const answer of answers) {
        expectUnavailable(answer)
        expectInTime(answer)
      }
      await auth.listen()
      expect(await servedAgainAfterMs()).to.be.below(2000 + slackMs)
    })

    it('is alive but not ready, and ready again after its return', async () => {
      await expectAliveButNotReady()
      await auth.listen()
      await servedAgainAfterMs()
      await expectAliveAndReady()
    })
  })

  describe('while Auth hangs', () => {
    it('answers 503 in time and stays alive but not ready, and serves again within 2 s', async () => {
      auth.behave(hold)
      const [answer] = await Promise.all([getData(), expectAliveButNotReady()])
      expectUnavailable(answer)
      expectInTime(answer)

      auth.behave(behaveWell)
      expect(await servedAgainAfterMs()).to.be.below(2000 + slackMs)
      await expectAliveAndReady()
    })

    it('answers each of 300 simultaneous requests with 503 in time, leaves no call open and sends no token twice', async () => {
      const requests = Array.from({ length: 300 }, (_, i) => `good-${i}`)
      await Promise.all(requests.map(getData)) // opens the connections before the measurement
      auth.reset()

      auth.behave(hold)
      for (const answer of await Promise.all(requests.map(getData))) {
        expectUnavailable(answer)
        expectInTime(answer)
      }
      expect(auth.tokens().length).to.equal(new Set(auth.tokens()).size)
      for (const { socket } of auth.calls) if (!socket.destroyed) await once(socket, 'close')

      auth.behave(behaveWell)
      expect(await servedAgainAfterMs()).to.be.below(2000 + slackMs)
    })
  })

  describe('while Auth is slow, GET /data', () => {
    it('is 200 if the answer arrives before the deadline', async () => {
      auth.behave(call => void setTimeout(() => call.reply(), 300))
      const answers = await Promise.all(Array.from({ length: 20 }, () => getData()))
      for (const { status, tookMs } of answers) {
        expect(status).to.equal(200)
        expect(tookMs).to.be.within(295, deadlineMs)
      }
    })

    it('is 503 in time if it arrives later, and Business disconnects from the late call', async () => {
      auth.behave(call => void setTimeout(() => call.reply(), deadlineMs + 2 * marginMs))
      const answer = await getData()
      expectUnavailable(answer)
      expectInTime(answer)

      const { socket } = auth.calls[0] as FakeAuth['calls'][0]
      if (!socket.destroyed) await once(socket, 'close')
      auth.behave(behaveWell)
      expect((await getData('bad')).status).to.equal(401)
    })
  })
})
