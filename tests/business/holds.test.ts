// Held tokens in the batching client: when they are looked at, in which calls, and when their connections end. Auth is a fake.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import { expect } from 'chai'
import { type AuthClient, type AuthClientOptions, openAuthClient } from '../../packages/client/authClient.ts'
import type { HoldEnd, HoldOptions } from '../../packages/client/holds.ts'
import { createClock } from '../support/clock.ts'
import { serviceKey } from '../support/credentials.ts'
import { issueToken, validate } from '../support/factories.ts'
import {
  admissionOf,
  type Behaviour,
  type FakeAuth,
  hold as holdBack,
  startFakeAuth,
  verdictFor,
} from '../support/fakeAuth.ts'
import { collectLog } from '../support/log.ts'
import { closeServers, startAuth } from '../support/servers.ts'
import { until } from '../support/until.ts'

const refused = { authenticated: false }

describe('a held token', () => {
  let auth: FakeAuth
  let now: number
  const opened: AuthClient[] = []

  before(async () => {
    auth = await startFakeAuth()
  })
  beforeEach(() => {
    now = 1_000_000
  })
  afterEach(async () => {
    auth.reset()
    await Promise.all(opened.splice(0).map(client => client.close()))
    auth.reset() // a call may have arrived meanwhile
  })
  after(() => auth.stop())

  function open(options: Partial<AuthClientOptions> = {}) {
    const { log, lines } = collectLog('client')
    const client = openAuthClient({ url: auth.url, key: serviceKey, log, monotonicNow: () => now, ...options })
    opened.push(client)
    return {
      client,
      lines,
      validate: async (token: string) => (await client.validate(token, { requestId: 'r' })).verdict,
      /** Holds the token and collects the reasons of its end. */
      hold(token: string, options: Partial<HoldOptions> = {}) {
        const ends: HoldEnd[] = []
        const { release } = client.hold(token, { onEnd: reason => void ends.push(reason), ...options })
        return { ends, release }
      },
    }
  }

  /** Every held token in the calls so far, as often as it was sent. */
  const looks = () => auth.calls.flatMap(call => call.held)
  /** Time for some ticks of the client, while the clock stands still: enough to see that nothing happens. */
  const ticks = () => sleep(80)

  /** Waits until Auth has been called so often and the client has read every answer. */
  async function answered(calls: number): Promise<void> {
    await auth.called(calls)
    await until(() => opened.every(client => client.callsInFlight() === 0))
  }

  /** Advances the clock and waits for the call that this causes. */
  async function pass(ms: number): Promise<void> {
    const next = auth.calls.length + 1
    now += ms
    await answered(next)
  }

  const answerHeld =
    (verdictOf: (token: string) => unknown): Behaviour =>
    call =>
      call.reply({ body: { verdicts: call.tokens.map(verdictFor), held: call.held.map(verdictOf) } })

  it('is looked at soon, and then once a second, in calls of its own if no other leaves', async () => {
    const { hold } = open()
    const { ends } = hold('good')
    await answered(1)
    now += 999
    await ticks()
    expect(auth.calls).to.have.length(1)
    await pass(1)
    await pass(1000)
    expect(auth.calls.map(({ tokens, held }) => [tokens, held])).to.deep.equal(Array(3).fill([[], ['good']]))
    expect(ends).to.deep.equal([])
  })

  it('ends once with "ended" when Auth refuses it, and is not looked at again', async () => {
    const { hold, client } = open()
    const { ends } = hold('good')
    const other = hold('good-other')
    await answered(1)
    auth.behave(answerHeld(token => (token === 'good' ? refused : admissionOf(token))))
    await pass(1000)
    expect(ends).to.deep.equal(['ended'])
    expect(client.holds()).to.equal(1)
    await pass(1000)
    expect(auth.calls.at(-1)?.held).to.deep.equal(['good-other'])
    expect([ends, other.ends]).to.deep.equal([['ended'], []])
  })

  it('ends once with "insufficient_scope" when it loses the role or the scope that it needs, and others of the token stay', async () => {
    const { hold, client } = open()
    let granted = { roles: ['admin', 'editor'], scope: 'orders:read orders:write' as string | null }
    auth.behave(answerHeld(token => ({ ...admissionOf(token), ...granted })))
    const plain = hold('good')
    const both = hold('good', { role: ['admin', 'editor'] })
    const scoped = hold('good', { scope: 'orders:write' })
    await answered(1)
    granted = { roles: ['editor'], scope: 'orders:read orders:write' }
    await pass(1000)
    expect([plain.ends, both.ends, scoped.ends]).to.deep.equal([[], ['insufficient_scope'], []])
    granted = { roles: [], scope: null }
    await pass(1000)
    expect(scoped.ends, 'a session has no scope').to.deep.equal([])
    granted = { roles: [], scope: 'orders:read orders:writes' }
    await pass(1000)
    await pass(1000)
    expect([plain.ends, both.ends, scoped.ends]).to.deep.equal([[], ['insufficient_scope'], ['insufficient_scope']])
    expect(client.holds()).to.equal(1)
  })

  it('ends with "insufficient_scope" when the scope of its token becomes empty, and stays if it needs none', async () => {
    const { hold } = open()
    let scope: string | null = null
    auth.behave(answerHeld(token => ({ ...admissionOf(token), scope })))
    const [plain, scoped] = [hold('good'), hold('good', { scope: 'orders:write' })]
    await answered(1)
    expect([plain.ends, scoped.ends]).to.deep.equal([[], []])
    scope = ''
    await pass(1000)
    expect([plain.ends, scoped.ends]).to.deep.equal([[], ['insufficient_scope']])
  })

  it('loses a role within two seconds also if each look extends it', async () => {
    const { hold } = open()
    const { ends } = hold('good', { role: 'admin', extend: true })
    const admission = { ...admissionOf('good'), roles: ['admin'] }
    const answer =
      (roles: string[]): Behaviour =>
      call =>
        call.reply({
          body: {
            verdicts: call.tokens.map(() => ({ ...admission, roles })),
            held: call.held.map(() => ({ ...admission, roles })),
          },
        })
    auth.behave(answer(['admin']))
    await answered(1)
    await pass(1000)
    expect(auth.calls.at(-1)?.tokens).to.deep.equal(['good'])
    auth.behave(answer([]))
    await pass(1000)
    expect(ends).to.deep.equal(['insufficient_scope'])
  })

  it('ends with "ended", and not with a lost role, if Auth refuses the token', async () => {
    const { hold } = open()
    auth.behave(answerHeld(() => refused))
    const { ends } = hold('good', { role: 'admin' })
    await answered(1)
    expect(ends).to.deep.equal(['ended'])
  })

  it('throws at once for a malformed role or scope', () => {
    const { hold, client } = open()
    for (const role of ['Admin', '', []]) expect(() => hold('good', { role })).to.throw(TypeError, 'expected a role')
    for (const scope of ['a b', '', []]) expect(() => hold('good', { scope })).to.throw(TypeError, 'expected a scope')
    expect(client.holds()).to.equal(0)
  })

  it('joins calls of requests that leave when its look is due, at free places only', async () => {
    const { hold, validate } = open({ maxBatch: 3 })
    hold('good-a')
    await answered(1)
    hold('good-b')
    now += 950
    await Promise.all(['1', '2'].map(name => validate(`good-${name}`)))
    await Promise.all(['3', '4', '5'].map(name => validate(`good-${name}`)))
    await validate('good-6')
    await validate('good-7')
    expect(auth.calls.map(({ tokens, held }) => [tokens, held])).to.deep.equal([
      [[], ['good-a']],
      [['good-1', 'good-2'], ['good-b']],
      [['good-3', 'good-4', 'good-5'], []],
      [['good-6'], ['good-a']],
      [['good-7'], []],
    ])
    now += 999 // as the calls of requests carried both, none is overdue
    await ticks()
    expect(auth.calls).to.have.length(5)
  })

  it('joins no call of requests before Auth has accepted a look, because an older Auth refuses the whole call', async () => {
    const { hold, validate } = open()
    auth.behave(call => call.reply(call.held.length > 0 ? { status: 400 } : {}))
    hold('good-held')
    await answered(1)
    now += 2000
    for (let i = 0; i < 5; i++) expect(await validate('good')).to.deep.equal(verdictFor('good'))
    expect(auth.calls.filter(({ tokens, held }) => tokens.length > 0 && held.length > 0)).to.deep.equal([])
  })

  it('has its verdict in the call of a request whose own verdict stays its own', async () => {
    const { hold, validate } = open()
    const { ends } = hold('good-held')
    await answered(1)
    now += 950
    auth.behave(answerHeld(() => refused))
    expect(await validate('good')).to.deep.equal(verdictFor('good'))
    expect(ends).to.deep.equal(['ended'])
  })

  it('shares one look with every hold of the same token, and each hold ends by itself', async () => {
    const { hold, client } = open()
    const [first, second, third] = [hold('good'), hold('good'), hold('good')]
    await answered(1)
    expect(looks()).to.deep.equal(['good'])
    expect(client.holds()).to.equal(3)
    second?.release()
    auth.behave(answerHeld(() => refused))
    await pass(1000)
    expect([first?.ends, second?.ends, third?.ends]).to.deep.equal([['ended'], [], ['ended']])
    expect(client.holds()).to.equal(0)
  })

  it('is not looked at after release, and its hold never ends', async () => {
    const { hold, client } = open()
    auth.behave(holdBack)
    const { ends, release } = hold('good')
    await auth.called(1)
    release()
    release()
    expect(client.holds()).to.equal(0)
    auth.calls[0]?.reply({ body: { verdicts: [], held: [refused] } })
    now += 60_000
    await ticks()
    expect(ends).to.deep.equal([])
    expect(auth.calls).to.have.length(1)
  })

  it('is released by `using`', () => {
    const { client } = open()
    {
      using _hold = client.hold('good', { onEnd: () => {} })
      expect(client.holds()).to.equal(1)
    }
    expect(client.holds()).to.equal(0)
  })

  it('ends with "unavailable" after maxSilenceMs without a verdict, that of the hold or of the client', async () => {
    const { hold, lines } = open({ maxSilenceMs: 10_000 })
    const [usual, strict] = [hold('good-a'), hold('good-b', { maxSilenceMs: 3000 })]
    await answered(1)
    auth.behave(call => call.reply({ status: 503 }))
    now += 2999
    await ticks()
    expect([usual.ends, strict.ends]).to.deep.equal([[], []])
    now += 251
    await until(() => strict.ends.length > 0)
    expect([usual.ends, strict.ends]).to.deep.equal([[], ['unavailable']])
    now += 6500
    await ticks()
    expect(usual.ends).to.deep.equal([])
    now += 500
    await until(() => usual.ends.length > 0)
    expect([usual.ends, strict.ends]).to.deep.equal([['unavailable'], ['unavailable']])
    expect(lines.map(({ event }) => event)).to.deep.equal(['auth_unavailable'])
  })

  it('survives an outage that is shorter than maxSilenceMs', async () => {
    const { hold, lines } = open({ maxSilenceMs: 10_000 })
    const { ends } = hold('good')
    await answered(1)
    auth.behave(call => call.socket.destroy())
    for (let second = 0; second < 6; second++) await pass(1000)
    auth.behave(call => call.reply())
    await pass(1000)
    now += 9000 // since the last verdict, but longer since the one before the outage
    await ticks()
    expect(ends).to.deep.equal([])
    expect(lines.map(({ event }) => event)).to.deep.equal(['auth_unavailable', 'auth_recovered'])
  })

  it('gets no verdict from a call in which Auth could not look', async () => {
    const { hold, validate } = open({ maxSilenceMs: 5000 })
    const { ends } = hold('good-held')
    await answered(1)
    auth.behave(call => call.reply({ body: { verdicts: call.tokens.map(verdictFor), held: null } }))
    now += 1000
    expect(await validate('good')).to.deep.equal(verdictFor('good'))
    expect(ends).to.deep.equal([])
    now += 4000
    await until(() => ends.length > 0)
    expect(ends).to.deep.equal(['unavailable'])
  })

  it('travels among the tokens of requests if the hold extends it, unless it is not a sliding token', async () => {
    const { hold, validate } = open()
    hold('good-extended', { extend: true })
    hold('good-once', { extend: true })
    hold('good-watched')
    auth.behave(
      answerHeld(token => ({ ...admissionOf(token), kind: token === 'good-once' ? 'single-use' : 'sliding' })),
    )
    await answered(1)
    expect(auth.calls[0]?.tokens).to.deep.equal([]) // the first look finds out the kind
    await pass(1000)
    expect(auth.calls[1]).to.include({ requestLine: 'POST /validateToken HTTP/1.1' })
    expect(auth.calls[1]?.tokens).to.deep.equal(['good-extended'])
    expect(auth.calls[1]?.held).to.deep.equal(['good-once', 'good-watched'])
    now += 950
    expect(await validate('bad')).to.deep.equal(refused)
    expect(auth.calls[2]?.tokens).to.deep.equal(['bad', 'good-extended'])
  })

  it('of a hold that extends lives while its limits allow no touch', async () => {
    const { hold } = open({ maxSilenceMs: 2000 })
    const { ends } = hold('good', { extend: true })
    await answered(1)
    const limited = { authenticated: false, limited: true, retryAfterMs: 60_000 }
    auth.behave(call => call.reply({ body: { verdicts: [limited] } }))
    for (let second = 0; second < 5; second++) await pass(1000)
    expect(ends).to.deep.equal([])
    auth.behave(call => call.reply({ body: { verdicts: [refused] } }))
    await pass(1000)
    expect(ends).to.deep.equal(['ended'])
  })

  it('of a hold that extends ends too when Auth refuses it', async () => {
    const { hold } = open()
    const { ends } = hold('good', { extend: true })
    await answered(1)
    auth.behave(call => call.reply({ body: { verdicts: [refused] } }))
    await pass(1000)
    expect(ends).to.deep.equal(['ended'])
  })

  it('ends although the onEnd of another hold throws or rejects', async () => {
    const { client, hold, lines } = open()
    const onEnds = [
      () => {
        throw new Error('thrown')
      },
      async () => {
        throw new Error('rejected')
      },
    ]
    for (const onEnd of onEnds) client.hold('bad', { onEnd })
    const { ends } = hold('bad')
    await until(() => ends.length > 0)
    await turn()
    expect(ends).to.deep.equal(['ended'])
    expect(lines.map(({ event, cause }) => [event, (cause as Error).message])).to.deep.equal([
      ['hold_end_failed', 'thrown'],
      ['hold_end_failed', 'rejected'],
    ])
  })

  it('ends with "closed" when the client closes, also if it is held afterwards', async () => {
    const { client, hold } = open()
    const { ends } = hold('good')
    await client.close()
    expect(ends).to.deep.equal(['closed'])
    const late = hold('good')
    await until(() => late.ends.length > 0)
    expect(late.ends).to.deep.equal(['closed'])
    expect(client.holds()).to.equal(0)
  })

  it('must have the form of a token, and maxSilenceMs must leave time for a look', () => {
    const { client } = open()
    const onEnd = () => {}
    for (const token of ['', 'a b', 'x'.repeat(2049), undefined as unknown as string]) {
      expect(() => client.hold(token, { onEnd })).to.throw(TypeError, 'expected a token that was just validated')
    }
    expect(() => client.hold('good', { onEnd, maxSilenceMs: 1999 })).to.throw(RangeError, 'expected at least 2000')
    expect(() => open({ maxSilenceMs: Number.NaN })).to.throw(RangeError, 'expected at least 2000')
    expect(client.holds()).to.equal(0)
  })

  it('never makes a request wait: looks have connections of their own', async () => {
    const { hold, validate } = open({ maxCalls: 1 })
    auth.behave(call => {
      if (call.held.length === 0) call.reply()
    })
    for (let i = 0; i < 1000; i++) hold(`good-${i}`)
    await auth.called(1)
    now += 600
    await auth.called(2)
    now += 300
    await ticks()
    expect(auth.calls).to.have.length(2) // no more than two such calls are in flight
    for (let i = 0; i < 5; i++) expect(await validate('good')).to.deep.equal(verdictFor('good'))
  })

  it('costs nothing on the wire when it is not held: the body of a call has only `tokens`', async () => {
    const { hold, validate } = open()
    hold('good-held').release()
    await validate('good')
    expect(auth.calls).to.have.length(1)
    expect(auth.calls[0]?.body).to.equal('{"tokens":["good"]}')
  })
})

describe('10,000 held tokens', () => {
  it('cost about 40 calls a second', async function () {
    this.timeout(20_000)
    const auth = await startFakeAuth()
    const { log } = collectLog('client')
    const monotonicNow = () => performance.now()
    const client = openAuthClient({ url: auth.url, key: serviceKey, log, monotonicNow })
    for (let i = 0; i < 10_000; i++) client.hold(`good-${i}`, { onEnd: () => {} })
    const startedAt = performance.now()
    await sleep(3000)
    const callsPerSecond = (auth.calls.length * 1000) / (performance.now() - startedAt)
    const held = auth.calls.map(call => call.held)
    await client.close()
    await auth.stop()
    expect(callsPerSecond).to.be.within(10, 45) // fewer if the machine is busy
    expect(Math.max(...held.map(({ length }) => length))).to.be.at.most(255)
    expect(new Set(held.flat()).size).to.equal(10_000)
  })
})

describe('a held sliding token at a real Auth', () => {
  after(closeServers)

  it('lives only as long as requests extend it, unless its hold extends it', async function () {
    this.timeout(30_000)
    const clock = createClock()
    const auth = await startAuth({ now: clock.now })
    const { log } = collectLog('client')
    const monotonicNow = () => performance.now()
    const client = openAuthClient({ url: auth.internalUrl, key: serviceKey, log, monotonicNow })
    const issue = async () => (await issueToken(auth.internalUrl, { kind: 'sliding', ttlSeconds: 30 })).token
    const tokens = { idle: await issue(), used: await issue(), extended: await issue() }
    const ended: string[] = []
    for (const [name, token] of Object.entries(tokens)) {
      client.hold(token, { onEnd: () => void ended.push(name), extend: name === 'extended' })
    }
    const verdictOf = async (token: string) => (await validate(auth.internalUrl, { token, touch: false })).body
    const extendedSoFar = async () => Number((await verdictOf(tokens.extended))['refreshCount'])
    await until(async () => (await extendedSoFar()) > 0)
    for (let i = 0; i < 3; i++) {
      clock.advance(20_000)
      const before = await extendedSoFar()
      await client.validate(tokens.used, { requestId: 'r' })
      await until(async () => (await extendedSoFar()) > before)
    }
    await until(() => ended.length > 0)
    expect(ended).to.deep.equal(['idle'])
    expect(await verdictOf(tokens.used)).to.include({ authenticated: true, refreshCount: 3 })
    await client.close()
    expect(ended).to.have.members(['idle', 'used', 'extended']) // by the close of the client
  })
})
