// GET /data with an Auth that misbehaves: it fails closed, in time, and recovers. vectors.test.ts has more of this, as data.
import { once } from 'node:events'
import { connect } from 'node:net'
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
  type FakeAuth,
  hold,
  pour,
  startFakeAuth,
} from '../support/fakeAuth.ts'
import { sendRaw } from '../support/raw.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'
import { slackMs } from '../support/slack.ts'
import { until } from '../support/until.ts'

const deadlineMs = 1000 // from a request's arrival to its verdict or its 503

const marginMs = 200 + slackMs // tolerance for a late 503

const challenge = 'Bearer realm="latchkey"'

const refusal = `${challenge}, error="invalid_token"`

let auth: FakeAuth

let business: Awaited<ReturnType<typeof startBusiness>>

async function get(path: string, headers: Record<string, string> = {}) {
  const startedAt = performance.now()
  const answer = await fetch(`${business.url}${path}`, { headers, redirect: 'manual' })
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, text, tookMs: performance.now() - startedAt }
}

type Answer = Awaited<ReturnType<typeof get>>

const getData = (token = 'good') => get('/data', { authorization: `Bearer ${token}` })

function expectUnavailable(answer: Answer): void {
  expect(answer.status).to.equal(503)
  expect(answer.headers.get('content-type')).to.equal('application/problem+json')
  expect(answer.headers.get('retry-after')).to.match(/^[1-9]\d*$/)
  expect(answer.headers.get('www-authenticate')).to.equal(null)
  expect(answer.headers.get('cache-control')).to.equal('no-store')
  expect(JSON.parse(answer.text)).to.include({
    type: '/problems/unavailable',
    title: 'Unavailable',
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

const goodBody = JSON.stringify({ verdicts: [admissionOf('good')] })

const chunked = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`

const tooMany = 100 * 1024 * 1024 // bytes

const lines64KiB = Buffer.alloc(65536, `${'x'.repeat(63)}\n`)

/**
 * Answers that must lead to 503, beside those of the conformance vectors: other HTTP libraries accept some of them, and the
 * others take code.
 */
const nonsense: Record<string, Behaviour> = {
  'two lengths that are the same': reply({
    headers: { 'content-length': [`${goodBody.length}`, `${goodBody.length}`] },
  }),
  'a length and chunks': ({ reply }) => {
    const body = `${chunked(goodBody)}0\r\n\r\n`
    reply({ headers: { 'content-length': `${body.length}`, 'transfer-encoding': 'chunked' }, body })
  },
  'an unexpected 100 Continue': ({ socket, compose }) =>
    void socket.write(Buffer.concat([Buffer.from('HTTP/1.1 100 Continue\r\n\r\n'), compose()])),
  'a header of 100 KB': reply({ headers: { 'x-filler': 'x'.repeat(100_000) } }),
  'ten thousand headers': reply({ headers: { 'x-filler': Array.from({ length: 10_000 }, (_, i) => `${i}`) } }),
  'a good verdict and 5 KB of space': reply({ body: goodBody + ' '.repeat(5120) }),
  'a gzip bomb': reply({ headers: { 'content-encoding': 'gzip' }, body: gzipSync(Buffer.alloc(10_000_000)) }),
}

describe('Business', () => {
  before(async () => {
    auth = await startFakeAuth()
    business = await startBusiness(auth.url)
  })

  beforeEach(() => auth.reset())

  after(async () => {
    auth.reset()
    await closeServers()
    await auth.stop()
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

    it('greets a guest, whose username is null', async () => {
      auth.behave(call =>
        call.reply({ body: { verdicts: [{ ...admissionOf('good'), username: null, userId: null }] } }),
      )
      expect(JSON.parse((await getData()).text)).to.deep.equal({ data: 'Hello, guest!' })
    })

    it('is 401 without a call to Auth for a token in the query', async () => {
      const answer = await get('/data?token=good&access_token=good')
      expect(answer.status).to.equal(401)
      expect(answer.headers.get('www-authenticate')).to.equal(challenge)
      expect(answer.headers.get('content-type')).to.equal('application/problem+json')
      expect(JSON.parse(answer.text)).to.include({ status: 401, error: 'invalid_token' })
      expect(auth.calls).to.deep.equal([])
    })

    it('is 401 for a token that Auth refuses', async () => {
      const answer = await getData('bad')
      expect(answer.status).to.equal(401)
      expect(answer.headers.get('www-authenticate')).to.equal(refusal)
      expect(answer.headers.get('content-type')).to.equal('application/problem+json')
      expect(answer.headers.get('retry-after')).to.equal(null)
      expect(JSON.parse(answer.text)).to.deep.equal({
        type: '/problems/invalid_token',
        title: 'Invalid token',
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
      auth.behave(({ socket, compose }) => {
        socket.write(compose({ headers: { 'content-length': `${tooMany}` }, body: '' }))
        pour(socket, lines64KiB, tooMany)
      })
      const rssBefore = process.memoryUsage.rss()
      expectUnavailable(await getData())
      expect(process.memoryUsage.rss() - rssBefore).to.be.below(50 * 1024 * 1024)
      const { socket } = auth.calls[0] as FakeAuth['calls'][0]
      if (!socket.destroyed) await once(socket, 'close')
      expect(socket.bytesWritten).to.be.below(tooMany / 2)
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

  it('logs no error of its own if a client disconnects in the middle of a body, before its verdict', async () => {
    const requestId = 'half-an-order'
    const { promise, resolve } = Promise.withResolvers<FakeAuth['calls'][0]>()
    auth.behave(resolve)
    const socket = connect({ port: Number(new URL(business.url).port), host: '127.0.0.1' })
    const head = ['POST /orders HTTP/1.1', 'Host: business', 'Authorization: Bearer good', `X-Request-Id: ${requestId}`]
    socket.write(`${[...head, 'Content-Type: application/json', 'Content-Length: 20'].join('\r\n')}\r\n\r\n{"item"`)
    const call = await promise
    socket.destroy()
    await get('/health') // Business has noticed it by now
    call.reply()
    const ownLines = () => business.lines.filter(line => line['requestId'] === requestId)
    await until(() => ownLines().length > 0)
    expect(ownLines().filter(({ level }) => level === 'error')).to.deep.equal([])
  })
})
