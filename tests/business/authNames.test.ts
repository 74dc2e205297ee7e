// The names of Auth: one with several addresses, one whose addresses change, and one that cannot be resolved. And the choice
// of another Auth for calls that may be repeated.
import type { LookupAddress } from 'node:dns'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import type { Lookup } from '../../packages/client/addresses.ts'
import { type Attempt, exchange } from '../../packages/client/exchange.ts'
import { openUpstreams, type UpstreamsOptions } from '../../packages/client/upstreams.ts'
import { closeClients, openTestClient, unanswered } from '../support/authClients.ts'
import { makeCertificate } from '../support/certificate.ts'
import { behaveWell, type FakeAuth, hold, startFakeAuth } from '../support/fakeAuth.ts'
import { collectLog } from '../support/log.ts'
import { until } from '../support/until.ts'

const ipv4 = (address: string): LookupAddress => ({ address, family: 4 })

const ipv6 = (address: string): LookupAddress => ({ address, family: 6 })

const [first, second] = ['127.0.0.1', '127.0.0.2']

interface Names {
  addresses: LookupAddress[]
  /** How often a name was to be resolved. */
  asked: number
  /** If set, no name can be resolved. */
  error: Error | null
  /** If set, the name server does not answer. */
  isSilent: boolean
  lookup: Lookup
}

/** The real clock, which a test can put ahead. */
function createRealClock() {
  let aheadMs = 0
  return {
    now: () => performance.now() + aheadMs,
    advance(byMs: number) {
      aheadMs += byMs
    },
  }
}

/** A name server whose answers a test sets. */
function startNames(...addresses: LookupAddress[]): Names {
  const names: Names = {
    ...{ addresses, asked: 0, error: null, isSilent: false },
    async lookup() {
      names.asked++
      if (names.isSilent) await new Promise(() => {})
      if (names.error) throw names.error
      return names.addresses
    },
  }
  return names
}

let fakes: FakeAuth[] = []

async function start(host: string, port = 0): Promise<FakeAuth> {
  const fake = await startFakeAuth(host, port)
  fakes.push(fake)
  return fake
}

/** Two Auths at the same port of two addresses. */
async function startBoth(): Promise<[FakeAuth, FakeAuth]> {
  const one = await start(first)
  return [one, await start(second, one.port)]
}

const opened: (() => Promise<void>)[] = []

afterEach(async () => {
  for (const fake of fakes) fake.reset()
  await closeClients()
  await Promise.all(opened.splice(0).map(close => close()))
  await Promise.all(fakes.map(fake => fake.stop()))
  fakes = []
})

describe('a name of Auth', () => {
  it('with two addresses is two Auths; each call has the name as its host', async () => {
    const [one, other] = await startBoth()
    const { ask, client } = openTestClient(`http://auth.test:${one.port}`, startNames(ipv4(first), ipv4(second)))
    for (let i = 0; i < 20; i++) expect((await ask()).outcome).to.equal('admitted')
    expect([one.calls.length, other.calls.length].toSorted()).to.deep.equal([10, 10])
    expect(client.auths()).to.deep.equal({ healthy: 2, ejected: 0 })
    for (const { headers } of [...one.calls, ...other.calls]) {
      expect(headers['host']).to.equal(`auth.test:${one.port}`)
    }
  })

  it('loses only what was sent to the one of its addresses that hangs, and names it in the log', async () => {
    const [one, other] = await startBoth()
    const { ask, askFor, events } = openTestClient(
      `http://auth.test:${one.port}`,
      startNames(ipv4(first), ipv4(second)),
    )
    await ask()
    await ask()
    other.behave(hold)
    const asked = await askFor(1500)
    expect(unanswered(asked).map(({ token }) => token)).to.have.members(
      other.tokens().filter(token => token.startsWith('good') && asked.some(one => one.token === token)),
    )
    expect(events()).to.deep.equal([`auth_ejected http://auth.test:${one.port} (${second})`])
  })

  it('with an address of each IP version is one Auth, of which one address may refuse', async () => {
    const one = await start(first)
    const { ask, client, events } = openTestClient(`http://auth.test:${one.port}`, startNames(ipv6('::1'), ipv4(first)))
    for (let i = 0; i < 5; i++) expect((await ask()).outcome).to.equal('admitted')
    expect(client.auths()).to.deep.equal({ healthy: 1, ejected: 0 })
    expect(events()).to.deep.equal([])
  })

  it('with other addresses after a redeploy is called there, and loses no request if Auth closes in order', async () => {
    const [one, other] = await startBoth()
    const names = startNames(ipv4(first))
    const { now, advance } = createRealClock()
    const { ask, client } = openTestClient(`http://auth.test:${one.port}`, { ...names, monotonicNow: now })
    await ask()
    names.addresses = [ipv4(second)]
    advance(1000)
    await one.stop()
    const asked = [await ask(), await ask()]
    expect(unanswered(asked)).to.deep.equal([])
    expect(other.tokens()).to.deep.equal(asked.map(({ token }) => token))
    expect(client.auths()).to.deep.equal({ healthy: 1, ejected: 0 })
  })

  it('gets the key only at addresses that it has when the connection is opened', async () => {
    const [one, other] = await startBoth()
    const names = startNames(ipv4(first), ipv4(second))
    const { now, advance } = createRealClock()
    const { ask } = openTestClient(`http://auth.test:${one.port}`, { ...names, monotonicNow: now })
    for (let i = 0; i < 4; i++) await ask()
    names.addresses = [ipv4(first)]
    advance(1000)
    await other.stop()
    await other.listen() // another service that got the address
    const connections = other.connectionCount()
    for (let i = 0; i < 10; i++) expect((await ask()).outcome).to.equal('admitted')
    expect(other.connectionCount()).to.equal(connections)
  })

  it('with another one of its addresses in each answer is called at all of them, without a lookup per call', async () => {
    const [one, other] = await startBoth()
    const both = [ipv4(first), ipv4(second)]
    let asked = 0
    const lookup: Lookup = async () => [both[asked++ % 2] as LookupAddress]
    const { call } = openTestUpstreams(`http://auth.test:${one.port}`, { lookup, maxConnectionAgeMs: 50 })
    for (let i = 0; i < 100; i++) {
      expect((await call('good', false)).status).to.equal(200)
      await sleep(2)
    }
    expect(Math.min(one.calls.length, other.calls.length)).to.be.at.least(20)
    expect(asked).to.be.below(50)
  })

  it('that cannot be resolved any more keeps its last addresses', async () => {
    const [one] = await startBoth()
    const names = startNames(ipv4(first), ipv4(second))
    const { ask } = openTestClient(`http://auth.test:${one.port}`, names)
    await ask()
    for (const change of [{ error: new Error('EAI_AGAIN') }, { isSilent: true }]) {
      Object.assign(names, change)
      for (const fake of fakes) await fake.stop()
      for (const fake of fakes) await fake.listen()
      const asked = names.asked
      expect((await ask()).outcome).to.equal('admitted')
      expect(names.asked).to.be.above(asked)
    }
  })

  it('that cannot be resolved at first is 503, and is called once it can be', async () => {
    const one = await start(first)
    const names = startNames(ipv4(first))
    names.error = new Error('ENOTFOUND')
    const { ask } = openTestClient(`http://auth.test:${one.port}`, names)
    expect((await ask()).outcome).to.equal('unavailable')
    names.error = null
    expect((await ask()).outcome).to.equal('admitted')
  })

  it('that is resolved too slowly loses no request, if there is another Auth: nothing was sent', async () => {
    const other = await start(second)
    const names = startNames()
    names.isSilent = true
    const { ask, client } = openTestClient([`http://auth.test:${other.port}`, other.url], names)
    const asked = await Promise.all([ask('good-1'), ask('good-2')])
    expect(unanswered(asked)).to.deep.equal([])
    expect(other.tokens()).to.deep.equal(['good-1', 'good-2'])
    expect(client.auths()).to.deep.equal({ healthy: 1, ejected: 1 })
  })

  it('that is resolved slowly is waited for until the deadline, if the other Auth has failed', async () => {
    const [one, other] = await startBoth()
    await one.stop()
    const lookup: Lookup = async () => {
      await sleep(700)
      return [ipv4(second)]
    }
    const { ask } = openTestClient([one.url, `http://auth.test:${one.port}`], { lookup })
    expect((await ask('good-1')).outcome).to.equal('admitted')
    expect(other.tokens()).to.deep.equal(['good-1'])
  })

  it('is the name in its certificate, whatever the address', async () => {
    const certificate = makeCertificate()
    const [key, cert] = [readFileSync(certificate.keyFile), readFileSync(certificate.certFile)]
    const named: unknown[] = []
    const server = createServer({ key, cert }, (req, res) => res.end(req.headers.host))
    server.on('secureConnection', socket => named.push(socket.servername))
    await new Promise<void>(resolve => server.listen(0, second, resolve))
    const { port } = server.address() as AddressInfo
    const { call } = openTestUpstreams(`https://localhost:${port}`, startNames(ipv4(second)))
    // The certificate is self-signed, so the call must fail, and for that reason only: the name was right.
    const error = await call().catch((error: Error & { code?: string }) => error)
    expect(error).to.include({ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' })
    server.close()
    certificate.remove()
  })
})

/** The client without its batches. */
function openTestUpstreams(url: UpstreamsOptions['url'], options: Partial<UpstreamsOptions> = {}) {
  const monotonicNow = () => performance.now()
  const upstreams = openUpstreams({
    ...{ url, monotonicNow, deadlineMs: 1000, maxCalls: 2, watchEveryMs: 20, log: collectLog('client').log },
    probe: async () => {},
    onFree: () => {},
    ...options,
  })
  const watch = setInterval(() => upstreams.watch(performance.now()), 20).unref()
  opened.push(async () => {
    clearInterval(watch)
    await upstreams.close()
  })
  const ask = (token: string) => async (attempt: Attempt) => {
    const body = JSON.stringify({ tokens: [token] })
    const answer = await exchange(attempt, { method: 'POST', path: '/validateToken', body }, 10_000)
    if (answer.status !== 200) throw new Error(`${answer.status}`)
    return answer
  }
  return {
    call(token = 'good', isRepeatable = true) {
      const abort = new AbortController()
      const deadline = setTimeout(() => abort.abort(new Error('late')), 1000)
      const called = upstreams.call(ask(token), { signal: abort.signal, isRepeatable })
      return called.finally(() => clearTimeout(deadline))
    },
  }
}

describe('a connection to Auth', () => {
  it('is replaced when it is old, so that a new address of the name is called', async () => {
    const [one, other] = await startBoth()
    const names = startNames(ipv4(first))
    const { call } = openTestUpstreams(`http://auth.test:${one.port}`, {
      ...names,
      maxCalls: 1,
      maxConnectionAgeMs: 100,
    })
    await call()
    names.addresses = [ipv4(first), ipv4(second)]
    await call()
    expect([one.connectionCount(), other.connectionCount()]).to.deep.equal([1, 0])
    await sleep(120)
    for (let i = 0; i < 4; i++) await call()
    expect(other.calls.length).to.be.above(0)
  })
})

describe('a call to Auth', () => {
  const startPair = async () => [await start(first), await start(first)] as const

  it('that changes nothing goes to another Auth if the first hangs', async () => {
    const [one, other] = await startPair()
    one.behave(hold)
    const { call } = openTestUpstreams([one.url, other.url])
    const startedAt = performance.now()
    expect((await call('good')).status).to.equal(200)
    expect(performance.now() - startedAt).to.be.within(490, 990)
    expect([one.tokens(), other.tokens()]).to.deep.equal([['good'], ['good']])
  })

  it('that changes something does not', async () => {
    const [one, other] = await startPair()
    one.behave(hold)
    const { call } = openTestUpstreams([one.url, other.url])
    const failed = await call('good', false).catch((error: Error) => error)
    expect(failed).to.include({ message: 'late' })
    expect([one.tokens(), other.tokens()]).to.deep.equal([['good'], []])
  })

  for (const status of [500, 503, 401]) {
    it(`that changes nothing goes to another Auth if the first answers ${status}`, async () => {
      const [one, other] = await startPair()
      one.behave(call => call.reply({ status }))
      const { call } = openTestUpstreams([one.url, other.url])
      expect((await call('good')).status).to.equal(200)
    })
  }

  it('that changes nothing is sent to each Auth once at most, and fails if none answers it', async () => {
    const [one, other] = await startPair()
    for (const fake of [one, other]) fake.behave(call => call.reply({ status: 503 }))
    const { call } = openTestUpstreams([one.url, other.url])
    expect(await call('good').catch((error: Error) => error)).to.include({ message: '503' })
    expect([one.tokens(), other.tokens()]).to.deep.equal([['good'], ['good']])
  })

  it('waits for the other Auth if that has maxCalls calls, and is then the next one', async () => {
    const [one, other] = await startPair()
    const { call } = openTestUpstreams([one.url, other.url], { maxCalls: 1 })
    for (const fake of [one, other]) fake.behave(hold)
    const toOne = call('good-1')
    await one.called(1)
    const toOther = call('good-2')
    await other.called(1)
    one.calls[0]?.reply({ status: 503 })
    await until(() => one.calls.length === 1)
    await sleep(50)
    expect(other.tokens()).to.deep.equal(['good-2'])
    other.behave(behaveWell)
    other.calls[0]?.reply()
    expect((await Promise.all([toOne, toOther])).map(({ status }) => status)).to.deep.equal([200, 200])
    expect(other.tokens()).to.deep.equal(['good-2', 'good-1'])
    expect(other.maxInFlight()).to.equal(1)
  })
})
