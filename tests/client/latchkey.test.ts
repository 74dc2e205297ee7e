// What the package adds to the batching client: options, the headers of a request of fetch, and the headers of answers.
import { expect } from 'chai'
import { Hono } from 'hono'
import type { Check } from '../../packages/client/guards.ts'
import { latchkey as forHono } from '../../packages/client/hono.ts'
import { latchkey } from '../../packages/client/index.ts'
import { openLatchkey } from '../../packages/client/latchkey.ts'
import type { LatchkeyOptions } from '../../packages/client/options.ts'
import { serviceKey } from '../support/credentials.ts'
import { type FakeAuth, startFakeAuth } from '../support/fakeAuth.ts'
import { until } from '../support/until.ts'

const quiet = { info: () => {}, warn: () => {} }

describe('latchkey()', () => {
  let auth: FakeAuth
  const { SERVICE_KEY, AUTH_INTERNAL_URL } = process.env

  before(async () => {
    auth = await startFakeAuth()
  })

  beforeEach(() => auth.reset())

  afterEach(() => {
    for (const [name, value] of Object.entries({ SERVICE_KEY, AUTH_INTERNAL_URL })) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  })

  after(() => auth.stop())

  const open = (options: LatchkeyOptions = {}) =>
    openLatchkey({ url: auth.url, key: serviceKey, log: quiet, ...options })

  it('takes the address and the key from the environment', async () => {
    Object.assign(process.env, { SERVICE_KEY: 'the-key', AUTH_INTERNAL_URL: auth.url })
    const client = latchkey()
    expect(await client.authenticate(new Request('http://x', { headers: { token: 'good' } }))).to.include({
      username: 'good',
    })
    expect(auth.calls[0]?.headers['authorization']).to.equal('Bearer the-key')
    await client.close()
  })

  it('takes an option that is undefined for one that is missing', () => {
    Object.assign(process.env, { SERVICE_KEY: 'the-key' })
    const options = { url: undefined, key: undefined, log: undefined, deadlineMs: undefined, onCall: undefined }
    expect(() => latchkey(options)).to.not.throw()
  })

  it('holds the token of a request of either kind, or a token', async () => {
    const { auth: client } = open()
    const ends: string[] = []
    const onEnd = (reason: string) => void ends.push(reason)
    client.hold(new Request('http://x', { headers: { token: 'fetch' } }), { onEnd })
    client.hold({ rawHeaders: ['Authorization', 'Bearer node'] }, { onEnd })
    client.hold('alone', { onEnd })
    expect(client.holds()).to.equal(3)
    await until(() => ends.length === 3)
    expect(auth.calls.flatMap(({ held }) => held)).to.have.members(['fetch', 'node', 'alone'])
    expect(ends).to.deep.equal(['ended', 'ended', 'ended'])
    expect(() => client.hold(new Request('http://x'), { onEnd })).to.throw('A bearer token is needed')
    expect(() => client.hold('good', {} as never)).to.throw(TypeError, 'expected a function onEnd')
    await client.close()
  })

  it('throws at once for a wrong option, says what is expected, and never shows the key', () => {
    delete process.env['SERVICE_KEY']
    const wrong: [unknown, RegExp][] = [
      [{ url: auth.url }, /the service key is missing\. Pass { key }, or set SERVICE_KEY/],
      [{ key: '' }, /the service key is missing/],
      [{ key: 'se cret' }, /key must be a string of visible ASCII characters/],
      [{ key: 12_345 }, /key must be a string/],
      [{ deadline: 5, key: serviceKey }, /there is no option deadline\. The options are url, key, /],
      [{ key: serviceKey, deadlineMs: 0 }, /deadlineMs must be a whole number from 1, not 0/],
      [{ key: serviceKey, deadlineMs: '1000' }, /deadlineMs must be a whole number/],
      [{ key: serviceKey, maxCalls: 1.5 }, /maxCalls must be a whole number from 1, not 1.5/],
      [{ key: serviceKey, maxBatch: 256 }, /maxBatch must be a whole number from 1 to 255, not 256/],
      [{ key: serviceKey, maxWaiting: Number.NaN }, /maxWaiting must be a whole number/],
      [{ key: serviceKey, maxSilenceMs: 1999 }, /maxSilenceMs must be a whole number from 2000, not 1999/],
      [{ key: serviceKey, log: () => {} }, /log needs the methods info and warn/],
      [{ key: serviceKey, onCall: 'x' }, /onCall must be a function/],
      [{ key: serviceKey, url: 'localhost' }, /url/i],
      [{ key: serviceKey, url: 'ftp://localhost' }, /http/i],
    ]
    for (const [options, message] of wrong) {
      let thrown: unknown
      try {
        latchkey(options as LatchkeyOptions)
      } catch (error) {
        thrown = error
      }
      expect(thrown, JSON.stringify(options)).to.be.instanceOf(Error)
      expect(String(thrown)).to.match(message)
      expect(String(thrown)).to.not.include('se cret').and.not.include('12345').and.not.include(serviceKey)
    }
  })

  it('finds two tokens in a request of fetch, which joins headers of the same name', async () => {
    const { auth: client } = open()
    const lines: [string, string][][] = [
      [
        ['authorization', 'Bearer good'],
        ['token', 'good'],
      ],
      [
        ['token', 'good'],
        ['token', 'good'],
      ],
      [
        ['authorization', 'Bearer good'],
        ['authorization', 'Bearer good'],
      ],
      [
        ['authorization', 'Basic Z29vZA=='],
        ['authorization', 'Bearer good'],
      ],
    ]
    for (const headers of lines) {
      const outcome = await client.authenticate(new Request('http://x', { headers })).catch(error => error)
      expect(outcome, JSON.stringify(headers)).to.include({ status: 400, code: 'invalid_request' })
    }
    const digest = { authorization: 'Digest username="a b", realm="c", uri="/d e"' }
    const outcome = await client.authenticate(new Request('http://x', { headers: digest })).catch(error => error)
    expect(outcome).to.include({ status: 401 })
    expect(auth.calls).to.deep.equal([])
    await client.close()
  })

  it('is not ready while Auth gives no verdict', async () => {
    const { auth: client } = open()
    expect(await client.whyNotReady()).to.equal(null)
    auth.behave(call => call.reply({ status: 401 }))
    expect(await client.whyNotReady()).to.be.a('string')
    await client.close()
  })

  it('gives no verdict after close', async () => {
    const { auth: client } = open()
    await client.close()
    const outcome = await client.authenticate({ rawHeaders: ['token', 'good'] }).catch(error => error)
    expect(outcome).to.include({ status: 503, code: 'unavailable' })
    expect(outcome.headers).to.deep.equal({ 'Retry-After': '1' })
  })

  describe('the check', () => {
    let check: Check
    let close: () => Promise<void>

    beforeEach(() => {
      const opened = open()
      check = opened.check
      close = opened.auth.close
    })

    afterEach(() => close())

    const withToken = (...headers: string[]) => check({ rawHeaders: ['Token', 'good', ...headers] })

    it('takes the id of the framework, then a well-formed one of the request, then a new one', async () => {
      const given = await check({ rawHeaders: ['token', 'good', 'X-Request-Id', 'a'] }, 'of the framework')
      expect(given.headers['X-Request-Id']).to.equal('of the framework')
      expect((await withToken('X-REQUEST-ID', 'a.b-c_1')).headers['X-Request-Id']).to.equal('a.b-c_1')
      for (const wrong of ['', 'a b', 'x'.repeat(65), '"']) {
        expect((await withToken('x-request-id', wrong)).headers['X-Request-Id']).to.match(/^[0-9a-f-]{36}$/)
      }
    })

    it('passes a well-formed traceparent on to Auth, and no other', async () => {
      const trace = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`
      await withToken('Traceparent', trace)
      await withToken('traceparent', `${trace}-x`)
      expect(auth.calls.map(({ headers }) => headers['traceparent'])).to.deep.equal([trace, undefined])
    })

    it('shows strangers no timing of Auth', async () => {
      expect((await withToken()).headers).to.have.property('Server-Timing')
      expect((await check({ rawHeaders: ['token', 'bad'] })).headers).to.not.have.property('Server-Timing')
    })
  })

  it('keeps the headers that a Hono service has set', async () => {
    const client = forHono({ url: auth.url, key: serviceKey, log: quiet })
    const app = new Hono()
    app.use(async (c, next) => {
      c.header('X-Request-Id', 'from-before')
      c.header('Cache-Control', 'private')
      await next()
    })
    app.get('/', client.requireToken(), c => c.text(c.var.auth.username ?? 'guest'))
    const served = await app.request('/', { headers: { token: 'good' } })
    expect(await served.text()).to.equal('good')
    expect(served.headers.get('x-request-id')).to.equal('from-before')
    expect(served.headers.get('cache-control')).to.equal('private')
    const refused = await app.request('/', { headers: { token: 'bad' } })
    expect(refused.status).to.equal(401)
    expect(await refused.json()).to.include({ error: 'invalid_token', requestId: 'from-before' })
    await client.close()
  })
})
