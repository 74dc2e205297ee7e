// The batching client with an Auth that misbehaves: which requests share a call, how many calls there are, and
// deadlines.
import { once } from 'node:events'
import { connect } from 'node:net'
import { text as readText } from 'node:stream/consumers'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { expect } from 'chai'
import { type AuthClientOptions, openAuthClient } from '../../packages/client/authClient.ts'
import { TokenError } from '../../packages/client/errors.ts'
import { serviceKey } from '../support/credentials.ts'
import {
  admissionOf,
  type Behaviour,
  behaveWell,
  type Changes,
  type FakeAuth,
  hold,
  startFakeAuth,
  verdictFor,
} from '../support/fakeAuth.ts'
import { collectLog } from '../support/log.ts'
import { sendRaw } from '../support/raw.ts'
import { closeServers, startBusiness } from '../support/servers.ts'
import { slackMs } from '../support/slack.ts'

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

/**
 * Sends one GET /data per token, each on its own connection, all in one turn of the event loop. Returns the answers in
 * the order of the tokens.
 */
async function getTogether(tokens: string[]): Promise<string> {
  const { hostname, port } = new URL(business.url)
  const sockets = tokens.map(() => connect({ host: hostname, port: Number(port) }))
  // Wait for one answer on each connection first, because Node accepts only one connection per turn of the event loop.
  for (const socket of sockets) socket.write('GET /health HTTP/1.1\r\nHost: x\r\n\r\n')
  await Promise.all(sockets.map(socket => once(socket, 'data')))
  for (const [i, token] of tokens.entries()) {
    sockets[i]?.write(`GET /data HTTP/1.1\r\nHost: x\r\nToken: ${token}\r\nConnection: close\r\n\r\n`)
  }
  return (await Promise.all(sockets.map(socket => readText(socket)))).join('')
}

/** Sends one GET /data with exactly these header lines, and with `origin` before the path. */
function getRaw(lines: string[], origin = '') {
  const head = [`GET ${origin}/data HTTP/1.1`, ...lines, 'Connection: close']
  return sendRaw(business.url, `${head.join('\r\n')}\r\n\r\n`)
}

const reply =
  (changes: Changes): Behaviour =>
  call =>
    call.reply(changes)

const good = admissionOf('good')

describe('the batching client', () => {
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

  const opened: ReturnType<typeof openAuthClient>[] = []

  function open(options: Partial<AuthClientOptions> = {}) {
    const { log, lines } = collectLog('client')
    const monotonicNow = () => performance.now()
    const client = openAuthClient({ url: auth.url, key: serviceKey, log, monotonicNow, ...options })
    opened.push(client)
    return {
      validate: async (token: string, requestId = 'r') => (await client.validate(token, { requestId })).verdict,
      lines,
    }
  }

  afterEach(async () => {
    auth.reset()
    await Promise.all(opened.splice(0).map(client => client.close()))
  })

  const namesOf = (count: number) => Array.from({ length: count }, (_, i) => `${i % 3 === 0 ? 'bad' : 'good'}-${i}`)

  async function expectLost(requests: Promise<unknown>[]): Promise<void> {
    for (const outcome of await Promise.allSettled(requests)) {
      const error = outcome.status === 'rejected' ? outcome.reason : outcome.value
      expect(error).to.be.instanceOf(TokenError)
      expect(error.code).to.equal('unavailable')
    }
  }

  it('sends the requests of one event-loop turn in one call, in order', async () => {
    const { validate } = open()
    const tokens = namesOf(100)
    const verdicts = await Promise.all(tokens.map(token => validate(token)))
    expect(auth.calls.map(call => call.tokens)).to.deep.equal([tokens])
    expect(verdicts).to.deep.equal(tokens.map(verdictFor))
  })

  it('shares one call among requests for /data that arrive together', async () => {
    const tokens = namesOf(50)
    const text = await getTogether(tokens)
    expect(auth.calls.map(call => call.tokens)).to.deep.equal([tokens])
    const outcomes = Array.from(
      text.matchAll(/Hello, (good-\d+)!|"error":"(\w+)"/g),
      ([, name, error]) => name ?? error,
    )
    expect(outcomes).to.deep.equal(tokens.map(token => (token.startsWith('good') ? token : 'invalid_token')))
  })

  it('sends a lone request at once, in a call of its own', async () => {
    const { validate } = open()
    const roundTripsMs: number[] = []
    for (const token of namesOf(20)) {
      const startedAt = performance.now()
      await validate(token)
      roundTripsMs.push(performance.now() - startedAt)
    }
    expect(auth.calls.map(call => call.tokens)).to.deep.equal(namesOf(20).map(token => [token]))
    expect(Math.min(...roundTripsMs)).to.be.below(5) // a request that waited for others would never be this fast
  })

  it('has at most maxCalls calls in flight, and requests that wait share the next one', async () => {
    const { validate } = open({ maxCalls: 2 })
    auth.behave(hold)
    const first = validate('good-first')
    await auth.called(1)
    const second = validate('good-second')
    await auth.called(2)
    const tokens = namesOf(50)
    const rest: Promise<unknown>[] = []
    for (const token of tokens) {
      rest.push(validate(token))
      if (rest.length % 10 === 0) await turn()
    }
    auth.calls[1]?.reply()
    expect(await second).to.deep.equal(verdictFor('good-second'))
    await auth.called(3)
    expect(auth.calls.map(call => call.tokens)).to.deep.equal([['good-first'], ['good-second'], tokens])
    auth.calls[0]?.reply()
    auth.calls[2]?.reply()
    expect(await Promise.all([first, ...rest])).to.deep.equal(['good-first', ...tokens].map(verdictFor))
    expect(auth.maxInFlight()).to.equal(2)
  })

  it('has all waiting requests share the next call, however far apart they arrived', async () => {
    const { validate } = open({ maxCalls: 1 })
    auth.behave(hold)
    const first = validate('good-first')
    await auth.called(1)
    const tokens = namesOf(4)
    const rest: Promise<unknown>[] = []
    for (const token of tokens) {
      rest.push(validate(token))
      await sleep(70)
    }
    auth.calls[0]?.reply()
    await auth.called(2)
    auth.calls[1]?.reply()
    expect(await Promise.all([first, ...rest])).to.deep.equal(['good-first', ...tokens].map(verdictFor))
    expect(auth.calls.map(call => call.tokens)).to.deep.equal([['good-first'], tokens])
  })

  it('has at most maxCalls calls in flight, even while they fail', async () => {
    const { validate } = open({ maxCalls: 2 })
    for (const status of [500, 200]) {
      auth.behave(call => void setImmediate(() => call.reply({ status })))
      await Promise.allSettled(namesOf(2000).map(token => validate(token)))
    }
    expect(auth.calls.length).to.be.at.least(16)
    expect(auth.maxInFlight()).to.equal(2)
  })

  it('sends at most 255 tokens in a call, so that the longest ones fit into the body limit of Auth', async () => {
    const { validate } = open()
    const tokens = namesOf(2 * 255 + 88)
    await Promise.all(tokens.map(token => validate(token)))
    const sizes = auth.calls.map(call => call.tokens.length).sort((a, b) => b - a)
    expect(sizes).to.deep.equal([255, 255, 88])
    expect(JSON.stringify({ tokens: Array(255).fill('x'.repeat(2048)) }).length).to.be.at.most(512 * 1024)
    expect(auth.tokens().sort()).to.deep.equal(tokens.sort())
  })

  it('gives each of 200 requests for /data its own answer', async () => {
    const tokens = namesOf(200)
    const answers = await Promise.all(tokens.map(getData))
    expect(answers.map(({ status, text }) => (status === 200 ? text : status))).to.deep.equal(
      tokens.map(token => (token.startsWith('good') ? `{"data":"Hello, ${token}!"}` : 401)),
    )
    expect(auth.calls.length).to.be.below(tokens.length)
  })

  it('lets a request join only a call that is sent after it arrived, even if the same token is in flight', async () => {
    const { validate } = open({ maxCalls: 1 })
    auth.behave(hold)
    const early = validate('good')
    await auth.called(1)
    const late = validate('good')
    auth.calls[0]?.reply()
    expect(await early).to.deep.equal(verdictFor('good'))
    await auth.called(2) // meanwhile the token was revoked
    auth.calls[1]?.reply({ body: { verdicts: [{ authenticated: false }] } })
    expect(await late).to.deep.equal({ authenticated: false })
    expect(auth.tokens()).to.deep.equal(['good', 'good'])
  })

  it('returns no verdict that was computed before its request arrived', async () => {
    const { validate } = open({ maxCalls: 2 })
    auth.behave(call => {
      const computedAt = performance.now()
      const verdicts = call.tokens.map(() => ({ ...good, username: String(computedAt) }))
      setImmediate(() => call.reply({ body: { verdicts } }))
    })
    const ages: Promise<number>[] = []
    for (let i = 0; i < 300; i++) {
      const arrivedAt = performance.now()
      const asked = validate('good')
      ages.push(asked.then(verdict => Number('username' in verdict && verdict.username) - arrivedAt))
      if (i % 3 === 0) await turn()
    }
    expect(Math.min(...(await Promise.all(ages)))).to.be.at.least(0)
    expect(auth.calls.length).to.be.within(2, 299)
  })

  it('answers 503 to all requests of a call whose answer is lost, and sends none of their tokens again', async () => {
    auth.behave(({ socket }) => void socket.resetAndDestroy())
    const tokens = namesOf(50)
    const text = await getTogether(tokens)
    expect(text.match(/HTTP\/1\.1 \d+/g)).to.deep.equal(tokens.map(() => 'HTTP/1.1 503'))
    auth.behave(behaveWell)
    await getData('good-after')
    expect(auth.tokens()).to.deep.equal([...tokens, 'good-after'])
  })

  it('refuses a request at once if maxWaiting requests are already waiting', async () => {
    const { validate } = open({ maxCalls: 1, maxWaiting: 3, deadlineMs: 60_000 })
    auth.behave(hold)
    const inFlight = validate('good-0')
    await auth.called(1)
    const waiting = ['good-1', 'bad-2', 'good-3'].map(token => validate(token))
    const startedAt = performance.now()
    await expectLost([validate('good-4'), validate('good-5')])
    expect(performance.now() - startedAt).to.be.below(500 + slackMs)

    auth.behave(behaveWell)
    auth.calls[0]?.reply()
    const verdicts = await Promise.all([inFlight, ...waiting])
    expect(verdicts).to.deep.equal(['good-0', 'good-1', 'bad-2', 'good-3'].map(verdictFor))
    expect(auth.tokens()).to.deep.equal(['good-0', 'good-1', 'bad-2', 'good-3'])
    expect(await validate('good-6')).to.deep.equal(verdictFor('good-6'))
  })

  it('counts the wait for a free call against the deadline', async () => {
    let now = 0
    const { validate, lines } = open({ maxCalls: 1, deadlineMs: 20_000, monotonicNow: () => now })
    auth.behave(hold)
    const inFlight = validate('good-0')
    await auth.called(1)
    const waiting = validate('good-1')
    now = 19_999
    const later = validate('good-2')
    now = 20_000
    await expectLost([inFlight, waiting])
    await auth.called(2)
    now = 39_999 // less than 20 s after the second call was sent
    await expectLost([later])
    auth.behave(behaveWell)
    expect(await validate('good-3')).to.deep.equal(verdictFor('good-3'))
    expect(auth.tokens()).to.deep.equal(['good-0', 'good-2', 'good-3'])
    expect(lines.map(({ event }) => event)).to.deep.equal(['auth_unavailable', 'auth_recovered'])
  })

  it('gives each request its own deadline, even if an older one shares its call', async () => {
    let now = 0
    const { validate } = open({ maxCalls: 1, deadlineMs: 20_000, monotonicNow: () => now })
    auth.behave(hold)
    const first = validate('good-first')
    await auth.called(1)
    now = 100
    const older = validate('good-older')
    now = 15_000
    const younger = validate('bad-younger')
    auth.calls[0]?.reply()
    await first
    await auth.called(2)
    expect(auth.calls[1]?.tokens).to.deep.equal(['good-older', 'bad-younger'])
    now = 20_100
    await expectLost([older])
    auth.calls[1]?.reply()
    expect(await younger).to.deep.equal(verdictFor('bad-younger'))
  })

  it('is 200 for all requests of a steady stream while Auth takes 300 ms for each call', async () => {
    auth.behave(call => void setTimeout(() => call.reply(), 300))
    const answers: Promise<Answer>[] = []
    for (let i = 0; i < 100; i++) {
      answers.push(getData(`good-${i}`))
      await sleep(20)
    }
    expect(new Set((await Promise.all(answers)).map(({ status }) => status))).to.deep.equal(new Set([200]))
  })

  it('calls only the configured Auth, whatever a request contains', async () => {
    const { host, url } = elsewhere
    const steered = [
      [`Host: ${host}`],
      ['Host: x', `X-Forwarded-Host: ${host}`, `X-Forwarded-Proto: http`, `Forwarded: host="${host}"`],
      ['Host: x', `X-Original-URL: ${url}/validateToken`, `X-Rewrite-URL: ${url}`, `Origin: ${url}`, `Referer: ${url}`],
    ]
    for (const origin of ['', url]) {
      for (const lines of steered) {
        const { status } = await getRaw([...lines, 'Token: good'], origin)
        expect(status, `${origin} ${lines}`).to.equal(200)
      }
    }
    expect((await get(`/data?url=${url}&auth=${url}`, { token: 'good' })).status).to.equal(200)
    expect(elsewhere.connectionCount()).to.equal(0)
    expect(auth.calls).to.have.lengthOf(7)
    for (const { requestLine, headers } of auth.calls) {
      expect(requestLine).to.equal('POST /validateToken HTTP/1.1')
      expect(headers['host']).to.equal(auth.host)
      expect(JSON.stringify(headers)).not.to.include(host)
    }
  })

  it('begins the id of a call with the id of its first request, and never uses one twice', async () => {
    const longest = 'x'.repeat(64)
    for (const id of ['order-66', 'order-66', longest]) {
      const { headers } = await get('/data', { token: 'good', 'x-request-id': id })
      expect(headers.get('x-request-id')).to.equal(id)
    }
    const ids = auth.calls.map(call => call.requestId)
    expect(ids[0]).to.match(/^order-66\./)
    expect(ids[1]).to.match(/^order-66\./)
    expect(ids[2]?.startsWith('x'.repeat(48))).to.equal(true)
    expect(new Set(ids).size).to.equal(3)
    for (const id of ids) expect(id).to.match(/^[A-Za-z0-9._-]{1,64}$/)
  })

  it('logs an outage once when it begins and once when it ends', async () => {
    await getData()
    const from = business.lines.length
    auth.behave(reply({ status: 401 })) // the key is wrong, which concerns the operator, not the user
    for (let i = 0; i < 5; i++) await getData()
    await Promise.all(Array.from({ length: 20 }, () => getData()))
    auth.behave(behaveWell)
    for (let i = 0; i < 3; i++) await getData()

    const told = business.lines.slice(from).filter(({ event }) => event !== 'request')
    expect(told.map(({ level, event }) => `${level}: ${event}`)).to.deep.equal([
      'warn: auth_unavailable',
      'info: auth_recovered',
    ])
    expect(told[0]?.['cause']).to.include({ message: 'Auth answered 401' })
    expect(told[1]).to.include({ failedRequests: 25 })
  })
})
