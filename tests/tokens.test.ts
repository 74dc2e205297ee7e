// tokens/tokens.ts over the memory store and a clock that stands still.
import { expect } from 'chai'
import { openTokenStore } from '../services/auth/stores/memory.ts'
import type { TokenStore } from '../services/auth/stores/ports.ts'
import { drawSecret } from '../services/auth/tokens/format.ts'
import { createTokens, type IssuedToken, type TokenEvent, type Tokens } from '../services/auth/tokens/tokens.ts'
import { AppError } from '../shared/errors.ts'
import { createClock } from './support/servers.ts'

const ttlMs = 30_000
const absoluteTtlMs = 100_000
const owner = { id: 'user-1', username: 'somebody@example.com', credentialVersion: 1 }

describe('tokens', () => {
  let store: TokenStore
  let clock: ReturnType<typeof createClock>
  let tokens: Tokens
  let events: TokenEvent[]

  beforeEach(async () => {
    store = await openTokenStore()
    clock = createClock()
    events = []
    tokens = createTokens({ store, now: clock.now, ttlMs, absoluteTtlMs, observe: event => events.push(event) })
  })

  const issue = async () => (await tokens.issue(owner)) as IssuedToken
  const isLive = async (secret: string) => (await tokens.validate([secret]))[0] !== null

  it('are issued with an idle time and an absolute end', async () => {
    const { expiresAt, absoluteExpiresAt } = await issue()
    expect(expiresAt).to.equal(clock.now() + ttlMs)
    expect(absoluteExpiresAt).to.equal(clock.now() + absoluteTtlMs)
  })

  it('slide: each validation gives a new idle time and counts a refresh', async () => {
    const { secret } = await issue()
    for (let count = 1; count <= 3; count++) {
      clock.advance(ttlMs - 1)
      const [token] = await tokens.validate([secret])
      expect(token).to.include({ refreshCount: count, username: owner.username, userId: owner.id })
    }
  })

  it('are dead when left unused for their idle time, swept or not', async () => {
    const { secret } = await issue()
    clock.advance(ttlMs)
    expect(await isLive(secret)).to.equal(false)
  })

  it('are dead at their absolute end, however busy', async () => {
    const { secret } = await issue()
    for (let age = 0; age < absoluteTtlMs; age += 10_000) {
      expect(await isLive(secret), `after ${age} ms`).to.equal(true)
      clock.advance(10_000)
    }
    expect(await isLive(secret)).to.equal(false)
  })

  it('are refused from the moment their revocation is answered; a second revocation changes nothing', async () => {
    const { secret } = await issue()
    await tokens.revoke(secret)
    expect(await isLive(secret)).to.equal(false)
    await tokens.revoke(secret)
  })

  it('are not issued to an owner whose credentials have changed since they were verified', async () => {
    await store.endUser('any', owner.id, 2)
    expect(await tokens.issue(owner)).to.equal(null)
  })

  it('are validated in batches that keep their order, junk in its place', async () => {
    const [first, second] = [await issue(), await issue()]
    const answers = await tokens.validate(['junk', second.secret, drawSecret('Abcd'), first.secret, ''])
    expect(answers.map(token => token !== null)).to.deep.equal([false, true, false, true, false])
    expect(answers[1]?.id).to.not.equal(answers[3]?.id)
  })

  it('that are junk are refused without touching the store', async () => {
    await store.close()
    expect(await tokens.validate(['junk', 'lk_', `${(drawSecret('Abcd')).slice(0, -1)}!`])).to.deep.equal([
      null,
      null,
      null,
    ])
    await tokens.revoke('junk')
  })

  it('are neither live nor dead where the store cannot be asked: unavailable, with the cause', async () => {
    const { secret } = await issue()
    await store.close()
    for (const call of [() => tokens.validate([secret]), () => tokens.revoke(secret), () => tokens.issue(owner)]) {
      const error = await call().then(
        () => null,
        (error: unknown) => error as AppError,
      )
      expect(error).to.be.instanceOf(AppError)
      expect(error?.code).to.equal('unavailable')
      expect(error?.cause).to.be.instanceOf(Error)
    }
  })

  it('tell what happened by their ids, never by their secrets', async () => {
    const { secret } = await issue()
    await tokens.validate([secret, 'junk', drawSecret('Abcd')])
    await tokens.revoke(secret)
    expect(events.map(({ type }) => type)).to.deep.equal(['issued', 'slid', 'refused', 'refused', 'revoked'])
    expect(JSON.stringify(events)).to.not.include(secret)
    expect(JSON.stringify(events)).to.not.include('lk_')
  })
})
