// What one client can do to the others: attacks on the queue of hashes.
import { expect } from 'chai'
import { accountLimits } from '../services/auth/defence/throttles.ts'
import { closeServers, startAuth } from './support/servers.ts'
import { until } from './support/until.ts'

const attacker = '203.0.113.66'
const victim = '192.0.2.1'
const wrong = 'not the CANARY'
const good = 'a bright new CANARY 77'
const times = <T>(count: number, make: (i: number) => Promise<T>) =>
  Promise.all(Array.from({ length: count }, (_, i) => make(i)))

interface Answer {
  status: number
  body: Record<string, string>
}

async function ask(method: string, url: string, from: string, body?: unknown, bearer?: string): Promise<Answer> {
  const headers: Record<string, string> = {
    connection: 'close',
    'x-forwarded-for': from,
    ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
    ...(body !== undefined && { 'content-type': 'application/json' }),
  }
  const answer = await fetch(url, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) })
  const text = await answer.text()
  return { status: answer.status, body: text.startsWith('{') ? JSON.parse(text) : {} }
}

async function figure(internalUrl: string, name: string): Promise<number> {
  const metrics = await (await fetch(`${internalUrl}/metrics`)).text()
  return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(metrics)?.[1])
}

describe('the work of one client', () => {
  let auth: Awaited<ReturnType<typeof startAuth>>
  before(async () => {
    const env = { PASSWORD_HASH_COST: '10', TRUSTED_PROXIES: '1', TOKEN_TTL_SECONDS: '600' }
    auth = await startAuth({ env, limitsPerAccount: accountLimits })
  })
  after(closeServers)

  const logIn = (from: string, credentials: { username: string; password: string }) =>
    ask('POST', `${auth.url}/login`, from, credentials)
  const register = (from: string, username: string) =>
    ask('POST', `${auth.url}/users`, from, { username, password: good })
  const change = (from: string, currentPassword: string, bearer: string | undefined) =>
    ask('PATCH', `${auth.url}/users/me`, from, { currentPassword, password: `${good} more` }, bearer)

  /**
   * The statuses of everything that needs a hash, from another address, while the attack fills the queue. `queued`: as many
   * hashes of the attack wait at a time at least.
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

  it('is refused before that of others: an address with twelve accounts of its own', async () => {
    const own = (i: number) => ({ username: `own ${i % 12}`, password: good })
    await times(12, i => register(attacker, own(i).username))
    await times(12, i => logIn(attacker, own(i)))
    const attack = () => times(120, i => logIn(attacker, own(i)))
    expect(await victimDuring(attack, 30)).to.deep.equal(served)
  })

  it('is refused before that of others: an account with twenty sessions', async () => {
    await register(attacker, 'owner')
    const logins = await times(20, () => logIn(attacker, { username: 'owner', password: good }))
    const attack = () => times(100, i => change(attacker, wrong, logins[i % 20]?.body['token']))
    expect(await victimDuring(attack, 4)).to.deep.equal(served)
  })

  it('is refused before that of others: an account that has logged in from many networks', async () => {
    const traveller = { username: 'traveller', password: good }
    const from = (i: number) => `203.0.113.${i % 34}`
    await register(attacker, traveller.username)
    await times(34, i => logIn(from(i), traveller))
    const attack = () => times(68, i => logIn(from(i), traveller))
    expect(await victimDuring(attack, 10)).to.deep.equal(served)
  })
})
