// What one client can do to other clients: attacks on the queue of hashes, and what the limits reveal about accounts.
import { expect } from 'chai'
import { accountLimits } from '../../../services/auth/defence/throttles.ts'
import { demo } from '../../support/credentials.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, openTestAuth, startAuth } from '../../support/servers.ts'
import { until } from '../../support/until.ts'
import { ask as send, times } from './limitsSetup.ts'

const attacker = '203.0.113.66'
const victim = '192.0.2.1'
const wrong = 'not the CANARY'
const good = 'a bright new CANARY 77'

const ask = (method: string, url: string, from: string, body?: unknown, bearer?: string) =>
  send(method, url, { from, body, bearer })

async function figure(internalUrl: string, name: string): Promise<number> {
  const metrics = await (await fetch(`${internalUrl}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(metrics)?.[1])
}

describe('the work of one client', () => {
  let auth: Awaited<ReturnType<typeof startAuth>>
  before(async () => {
    const env = { TRUSTED_PROXIES: '1', TOKEN_TTL_SECONDS: '600' }
    // A hash must take longer than a request, so that the attack fills the queue.
    auth = await startAuth({ env, limitsPerAccount: accountLimits, hashCost: 8 })
  })
  after(closeServers)

  const logIn = (from: string, credentials: { username: string; password: string }) =>
    ask('POST', `${auth.url}/login`, from, credentials)
  const register = (from: string, username: string) =>
    ask('POST', `${auth.url}/users`, from, { username, password: good })
  const change = (from: string, currentPassword: string, bearer: string | undefined) =>
    ask('PATCH', `${auth.url}/users/me`, from, { currentPassword, password: `${good} more` }, bearer)

  /**
   * As soon as at least `queued` hashes of the attack are in the queue, sends from another address every kind of
   * request that needs a hash, and returns the statuses.
   */
  async function victimDuring(attack: () => Promise<unknown>, queued: number): Promise<Record<string, number>> {
    const username = `victim ${performance.now()}`
    await register(victim, username)
    const { token } = (await logIn(victim, { username, password: good })).body
    const attacks = attack()
    await until(async () => (await figure(auth.internalUrl, 'latchkey_hash_queue_length')) >= queued)
    const answers = {
      known: logIn(victim, { username, password: good }),
      stranger: logIn('192.0.2.2', { username, password: good }),
      failure: logIn(victim, { username: 'nobody', password: wrong }),
      registration: register(victim, `${username} too`),
      refusedChange: change(victim, wrong, token),
    }
    const statuses: Record<string, number> = {}
    for (const [what, answer] of Object.entries(answers)) statuses[what] = (await answer).status
    statuses['change'] = (await change(victim, good, token)).status
    await attacks
    return statuses
  }

  const served = { known: 200, stranger: 200, failure: 401, registration: 201, refusedChange: 401, change: 200 }

  it('is refused before the work of others: an address with twelve accounts', async () => {
    const own = (i: number) => ({ username: `own ${i % 12}`, password: good })
    await times(12, i => register(attacker, own(i).username))
    await times(12, i => logIn(attacker, own(i)))
    const attack = () => times(120, i => logIn(attacker, own(i)))
    expect(await victimDuring(attack, 30)).to.deep.equal(served)
  })

  it('is refused before the work of others: an account with twenty sessions', async () => {
    await register(attacker, 'owner')
    const logins = await times(20, () => logIn(attacker, { username: 'owner', password: good }))
    const attack = () => times(100, i => change(attacker, wrong, logins[i % 20]?.body['token']))
    expect(await victimDuring(attack, 4)).to.deep.equal(served)
  })

  it('is refused before the work of others: an account that has logged in from many networks', async () => {
    const traveller = { username: 'traveller', password: good }
    const from = (i: number) => `203.0.113.${i % 34}`
    await register(attacker, traveller.username)
    await times(34, i => logIn(from(i), traveller))
    const attack = () => times(68, i => logIn(from(i), traveller))
    expect(await victimDuring(attack, 10)).to.deep.equal(served)
  })
})

describe('guesses within sessions', () => {
  after(closeServers)

  it('stop after five, however many sessions a refresh token creates, and never keep the user from changing the password', async () => {
    const { service, lines } = await openTestAuth({
      env: { TRUSTED_PROXIES: '1', DIALECTS: 'flask-auth:0', TOKEN_TTL_SECONDS: '600', TOKEN_LIMIT_PER_USER: '1000' },
      limitsPerAccount: accountLimits,
      monotonicNow: () => 1000, // the wait after five failures does not end, however slow this machine is
    })
    const { auth, flaskAuth } = await service.listen()
    const home = await ask('POST', `${auth}/login`, victim, demo)
    const credentials = { email: demo.username, password: demo.password }
    const stolen = await ask('POST', `${flaskAuth}/login`, victim, credentials)
    let refresh = stolen.body['refresh_token']
    const statuses: Record<number, number> = {}
    for (let i = 0; i < 150; i++) {
      const { body } = await ask('POST', `${flaskAuth}/token/refresh`, attacker, undefined, refresh)
      refresh = body['refresh_token'] ?? refresh
      const guess = { currentPassword: `${wrong} ${i}`, password: good }
      const { status } = await ask('PATCH', `${auth}/users/me`, attacker, guess, body['access_token'])
      statuses[status] = (statuses[status] ?? 0) + 1
    }
    expect(statuses).to.deep.equal({ 401: 5, 429: 145 })
    expect(lines.filter(({ event }) => event === 'password_refused')).to.have.length(5)
    const change = { currentPassword: demo.password, password: good }
    expect((await ask('PATCH', `${auth}/users/me`, victim, change, home.body['token'])).status).to.equal(200)
  })
})

describe('at the limit of an address', () => {
  let auth: Awaited<ReturnType<typeof startAuth>>
  let at = 1000
  const shared = '198.51.100.1'
  const elsewhere = '198.51.100.2'
  const known = { username: 'known@example.com', password: good }
  const paused = { username: 'paused@example.com', password: good }
  const foreign = { username: 'foreign@example.com', password: good }
  const unknown = { username: 'unknown@example.com', password: good }

  beforeEach(async () => {
    const env = { TRUSTED_PROXIES: '1', LOGIN_LIMIT_PER_ADDRESS: '30' }
    auth = await startAuth({ env, limitsPerAccount: accountLimits, monotonicNow: () => at })
    for (const user of [known, paused, foreign]) await ask('POST', `${auth.url}/users`, elsewhere, user)
    for (const user of [known, paused]) await logIn(user, shared)
    await logIn(foreign, elsewhere)
    for (let i = 0; i < 5; i++) await logIn({ ...paused, password: wrong }, shared)
    for (let i = 5; i < 30; i++) await logIn({ username: `nobody ${i}`, password: wrong }, shared)
  })
  afterEach(closeServers)

  const logIn = (credentials: unknown, from: string) => ask('POST', `${auth.url}/login`, from, credentials)

  /** How many hashes the request cost, and the whole answer except its date. */
  async function logInRaw(credentials: unknown): Promise<{ answer: string; hashes: number }> {
    const before = await figure(auth.internalUrl, 'latchkey_hashes_total')
    const body = JSON.stringify(credentials)
    const head = `POST /login HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ${shared}\r\nX-Request-Id: x\r\nConnection: close\r\n`
    const type = `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n`
    const { text, closed } = await sendRaw(auth.url, head + type + body, 20_000)
    expect(closed).to.equal(true)
    const hashes = (await figure(auth.internalUrl, 'latchkey_hashes_total')) - before
    return { answer: text.replace(/^Date: .*\r\n/im, ''), hashes }
  }

  it('each refusal has the same bytes and costs the same work, whether or not the account is known there', async () => {
    const cases = {
      'known there, wrong password': { ...known, password: wrong },
      'known there and paused, wrong password': { ...paused, password: wrong },
      'known there and paused, right password': paused,
      'known elsewhere, right password': foreign,
      'known elsewhere, wrong password': { ...foreign, password: wrong },
      'no such account': unknown,
      'no name that an account could have': { ...unknown, username: 'a\0b' },
    }
    const reference = await logInRaw({ ...unknown, username: 'nobody' })
    expect(reference.answer).to.match(/^HTTP\/1\.1 429 .*\r\nRetry-After: 60\r\n/is)
    expect(reference.hashes).to.equal(1)
    for (const [what, credentials] of Object.entries(cases)) {
      expect(await logInRaw(credentials), what).to.deep.equal(reference)
    }
  })

  it('the right password of a user known there is accepted', async () => {
    expect((await logIn(known, shared)).status).to.equal(200)
    at += 5000 // after this, the pause of the account is over, but not the limit of the address
    expect((await logIn(paused, shared)).status).to.equal(200)
    expect((await logIn(foreign, shared)).status).to.equal(429)
  })

  it('an attempt that is refused without verification counts as neither success, failure nor guess', async () => {
    const before = auth.lines.length
    for (let i = 0; i < 10; i++) await logIn({ ...foreign, password: i ? wrong : good }, shared)
    const events = auth.lines.slice(before).map(({ event }) => event)
    expect(events).to.include('rate_limited')
    expect(events.filter(event => /^login|^account_locked/.test(event))).to.deep.equal([])
    expect((await logIn(foreign, elsewhere)).status).to.equal(200)
    expect((await logIn(foreign, '198.51.100.3')).status).to.equal(200)
  })

  it('guesses at an account known there count: after five, the next one must wait', async () => {
    for (let i = 0; i < 9; i++) await logIn({ ...known, password: wrong }, shared)
    expect(auth.lines.filter(({ event }) => event === 'account_locked')).to.have.length(2)
    expect((await logIn(known, shared)).status).to.equal(429)
  })

  it('no attempt shows afterwards which accounts are known there', async () => {
    const guess = ({ username }: typeof known) => logIn({ username, password: wrong }, shared)
    for (let i = 0; i < 9; i++) for (const user of [known, unknown]) await guess(user)
    at += 60_000
    for (let i = 0; i < 7; i++) {
      const [here, nowhere] = [await guess(known), await guess(unknown)]
      expect([here.status, nowhere.status]).to.deep.equal(i < 5 ? [401, 401] : [429, 429])
    }
  })
})
