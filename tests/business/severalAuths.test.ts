// The batching client with several Auths, of which one refuses, resets, hangs or gives no verdicts: who is called, what is
// lost, and what is never sent twice.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { type AuthClientOptions, openAuthClient } from '../../packages/client/authClient.ts'
import { closeClients, openTestClient, unanswered } from '../support/authClients.ts'
import { type Behaviour, behaveWell, type FakeAuth, hold, startFakeAuth } from '../support/fakeAuth.ts'
import { slackMs } from '../support/slack.ts'
import { until } from '../support/until.ts'

const deadlineMs = 1000
const watchEveryMs = 50

describe('the client with two Auths', () => {
  let one: FakeAuth
  let other: FakeAuth
  const fakes = () => [one, other] as const

  beforeEach(async () => {
    one = await startFakeAuth()
    other = await startFakeAuth()
  })

  afterEach(async () => {
    for (const fake of fakes()) fake.reset()
    await closeClients()
    await Promise.all(fakes().map(fake => fake.stop()))
  })

  const open = (options: Partial<AuthClientOptions> = {}) => openTestClient([one.url, other.url], options)

  const goodTokens = (fake: FakeAuth) => fake.tokens().filter(token => token.startsWith('good'))

  const allTokens = () => fakes().flatMap(goodTokens).toSorted()

  /** Opens a client that has a connection to each Auth. */
  async function openWarm(options: Partial<AuthClientOptions> = {}) {
    const opened = open(options)
    await opened.ask()
    await opened.ask()
    expect(fakes().map(({ calls }) => calls.length)).to.deep.equal([1, 1])
    for (const fake of fakes()) fake.calls.length = 0
    return opened
  }

  it('balances calls over both', async () => {
    const { ask, client } = open()
    for (let i = 0; i < 100; i++) await ask()
    expect(fakes().map(({ calls }) => calls.length)).to.deep.equal([50, 50])
    expect(client.auths()).to.deep.equal({ healthy: 2, ejected: 0 })
  })

  it('calls the one with fewer calls in flight', async () => {
    const { ask } = await openWarm()
    one.behave(hold)
    const held = ask('good-held')
    await one.called(1)
    for (let i = 0; i < 20; i++) await ask()
    expect(goodTokens(one)).to.deep.equal(['good-held'])
    one.calls[0]?.reply()
    expect((await held).outcome).to.equal('admitted')
  })

  it('has at most maxCalls calls in flight at each', async () => {
    const { ask } = open({ maxCalls: 2 })
    for (const fake of fakes()) fake.behave(call => void setTimeout(call.reply, 20))
    const asked = await Promise.all(Array.from({ length: 3000 }, () => ask()))
    expect(unanswered(asked)).to.deep.equal([])
    expect(fakes().map(fake => fake.maxInFlight())).to.deep.equal([2, 2])
  })

  it('takes a list with commas', async () => {
    const { ask } = openTestClient(`${one.url}, ${other.url}`)
    await ask()
    await ask()
    expect(fakes().map(({ calls }) => calls.length)).to.deep.equal([1, 1])
  })

  it('loses no request to one that refuses connections, and sends each token once', async () => {
    await one.stop()
    const { ask, events, client } = open()
    const asked = await Promise.all(Array.from({ length: 2000 }, () => ask()))
    expect(unanswered(asked)).to.deep.equal([])
    expect(allTokens()).to.deep.equal(asked.map(({ token }) => token).toSorted())
    expect(other.maxInFlight()).to.be.at.most(2)
    expect(events()).to.deep.equal([`auth_ejected ${one.url}`])
    expect(client.auths()).to.deep.equal({ healthy: 1, ejected: 1 })
  })

  it('uses one again that has come back, without a request that finds out', async () => {
    await one.stop()
    const { ask, events, client } = open()
    await ask()
    await ask()
    await one.listen()
    await until(() => client.auths().healthy === 2)
    expect(events()).to.deep.equal([`auth_ejected ${one.url}`, `auth_readmitted ${one.url}`])
    const before = one.calls.length
    for (let i = 0; i < 10; i++) await ask()
    expect(one.calls.length - before).to.equal(5)
  })

  for (const [how, lose] of Object.entries({
    'resets its connection': ({ socket }) => void socket.resetAndDestroy(),
    'closes its connection': ({ socket }) => void socket.end(),
    'answers 503': call => call.reply({ status: 503 }),
    'answers 401, because it has another key': call => call.reply({ status: 401 }),
    'answers nonsense': call => call.reply({ body: '<html>' }),
  } satisfies Record<string, Behaviour>)) {
    it(`loses only the call that one received which ${how}, and sends its tokens to no other`, async () => {
      const { ask, events } = await openWarm()
      one.behave(lose)
      const lost = await Promise.all([ask('good-lost'), ask('good-lost-too')])
      const next = await Promise.all(Array.from({ length: 50 }, () => ask()))
      expect(unanswered([...lost, ...next]).map(({ token }) => token)).to.deep.equal(['good-lost', 'good-lost-too'])
      expect(goodTokens(one)).to.deep.equal(['good-lost', 'good-lost-too'])
      expect(goodTokens(other)).to.not.include('good-lost')
      expect(events()).to.deep.equal([`auth_ejected ${one.url}`])
    })
  }

  it('does not readmit one that accepts connections but gives no verdicts', async () => {
    const { ask, client } = await openWarm()
    one.behave(call => call.reply({ status: 401 }))
    await ask()
    await until(() => one.calls.length > 3) // the lost call and three probes
    expect(client.auths()).to.deep.equal({ healthy: 1, ejected: 1 })
    expect(goodTokens(one)).to.have.length(1)
    one.behave(behaveWell)
    await until(() => client.auths().healthy === 2)
  })

  it('loses at most maxCalls calls to one that hangs, each in time, and then none', async () => {
    const { askFor, events, client } = await openWarm({ maxCalls: 2 })
    one.behave(hold)
    const hungAt = performance.now()
    const asked = await askFor(2500)
    const lost = unanswered(asked)
    expect(one.calls.filter(({ tokens }) => tokens[0] !== 'ready').length).to.be.within(1, 2)
    expect(lost.map(({ token }) => token).toSorted()).to.deep.equal(goodTokens(one).toSorted())
    for (const { beganMs, endedMs } of lost) {
      expect(endedMs - beganMs).to.be.below(deadlineMs + watchEveryMs + slackMs)
      expect(endedMs - hungAt).to.be.below(deadlineMs + 2 * watchEveryMs + slackMs)
    }
    expect(events()).to.deep.equal([`auth_ejected ${one.url}`])

    one.behave(behaveWell)
    await until(() => client.auths().healthy === 2)
    expect(unanswered(await askFor(200))).to.deep.equal([])
    expect(goodTokens(one).length).to.be.above(lost.length)
  })

  it('fails all late calls of one that hangs once the first has reached its deadline', async () => {
    const { ask } = await openWarm()
    for (const fake of fakes()) fake.behave(hold)
    const first = ask('good-1') // to one
    await one.called(1)
    const second = ask('good-2') // to the other, so that the third goes to the first again
    await other.called(1)
    await sleep(300)
    const third = ask('good-3')
    await one.called(2)
    other.calls[0]?.reply()
    other.behave(behaveWell)
    expect((await second).outcome).to.equal('admitted')
    const [early, late] = await Promise.all([first, third])
    expect([early, late].map(({ outcome }) => outcome)).to.deep.equal(['unavailable', 'unavailable'])
    expect(late.endedMs - early.endedMs).to.be.below(150)
  })

  it('uses the verdicts of one that answers late, and calls the other meanwhile', async () => {
    const { ask, events, client } = await openWarm()
    one.behave(hold)
    const slow = ask('good-slow')
    await one.called(1)
    await until(() => client.auths().ejected === 1)
    const asked = await Promise.all([ask(), ask()])
    expect(unanswered(asked)).to.deep.equal([])
    one.behave(behaveWell)
    one.calls[0]?.reply()
    expect((await slow).outcome).to.equal('admitted')
    expect(client.auths()).to.deep.equal({ healthy: 2, ejected: 0 })
    expect(events()).to.deep.equal([`auth_ejected ${one.url}`, `auth_readmitted ${one.url}`])
  })

  it('looks at a held token elsewhere if the look hangs', async () => {
    const { client } = await openWarm()
    one.behave(hold)
    const watched = client.hold('good-looked-at', { onEnd: () => {} })
    await one.called(1)
    await other.called(1)
    expect([one.calls[0]?.held, other.calls[0]?.held]).to.deep.equal([['good-looked-at'], ['good-looked-at']])
    watched.release()
  })

  it('tries both, again and again, if both have failed', async () => {
    const { ask, client } = await openWarm()
    for (const fake of fakes()) fake.behave(({ socket }) => void socket.resetAndDestroy())
    for (let i = 0; i < 6; i++) expect((await ask()).outcome).to.equal('unavailable')
    expect(client.auths()).to.deep.equal({ healthy: 0, ejected: 2 })
    expect(fakes().map(fake => goodTokens(fake).length)).to.deep.equal([3, 3])
    other.behave(behaveWell)
    const asked = [await ask(), await ask()]
    expect(asked.map(({ outcome }) => outcome)).to.include('admitted')
    expect(unanswered(await Promise.all([ask(), ask()]))).to.deep.equal([])
  })

  it('logs an Auth that comes and goes at most once in ten seconds', async () => {
    const { ask, client, events } = await openWarm()
    for (let i = 0; i < 3; i++) {
      one.behave(({ socket }) => void socket.resetAndDestroy())
      await until(async () => {
        await ask()
        return client.auths().ejected === 1
      })
      one.behave(behaveWell)
      await until(() => client.auths().ejected === 0)
    }
    expect(events()).to.deep.equal([`auth_ejected ${one.url}`, `auth_readmitted ${one.url}`])
  })

  for (const [how, fail] of Object.entries({
    hangs: fake => void fake.behave(hold),
    refuses: fake => fake.stop(),
    'answers 503': fake => void fake.behave(call => call.reply({ status: 503 })),
  } satisfies Record<string, (fake: FakeAuth) => void | Promise<void>>)) {
    it(`is ready as long as one gives verdicts, while the other ${how}`, async () => {
      const { client } = await openWarm()
      await fail(one)
      for (let i = 0; i < 3; i++) expect(await client.whyNotReady({ requestId: 'r' })).to.equal(null)
      await fail(other)
      await sleep(1000) // the answer of /ready is kept for a second
      expect(await client.whyNotReady({ requestId: 'r' })).to.equal('Auth gives no verdicts.')
    })
  }

  it('never ejects a single Auth', async () => {
    const { ask, client, events } = openTestClient(one.url)
    await ask()
    one.behave(({ socket }) => void socket.resetAndDestroy())
    for (let i = 0; i < 3; i++) expect((await ask()).outcome).to.equal('unavailable')
    expect(client.auths()).to.deep.equal({ healthy: 1, ejected: 0 })
    expect(events()).to.deep.equal([])
  })

  it('closes its connections', async () => {
    await openWarm()
    expect(fakes().map(fake => fake.openConnections())).to.deep.equal([1, 1])
    await closeClients()
    await until(() => fakes().every(fake => fake.openConnections() === 0))
  })
})

describe('the URLs of the client', () => {
  for (const [url, problem] of [
    ['auth:3101', /^url: expected an http or https address without a path, .*; got "auth:3101"$/],
    ['http://auth/path', /got "http:\/\/auth\/path"$/],
    [['http://auth', 'ftp://auth'], /got "ftp:\/\/auth"$/],
    ['http://auth,', /got ""$/],
    [[], /got an empty list$/],
    ['http://auth:3101,http://auth:3101/', /http:\/\/auth:3101 is listed twice$/],
  ] as const) {
    it(`cannot be ${JSON.stringify(url)}`, () => {
      expect(() => openAuthClient({ url, key: 'k', log: console, monotonicNow: () => 0 })).to.throw(TypeError, problem)
    })
  }
})
