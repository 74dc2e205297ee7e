// tokens/tokens.ts with the memory store and a clock that a test sets.
import { expect } from 'chai'
import { instrument } from '../../../services/auth/observability/instrument.ts'
import { openTokenStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { noAuthority, type TokenStore, tagOf } from '../../../services/auth/stores/tokenPort.ts'
import type { TokenEvent } from '../../../services/auth/tokens/events.ts'
import { drawSecret, drawTokenId } from '../../../services/auth/tokens/format.ts'
import { createTokens, type IssuedToken, type Tokens, type TokenTerms } from '../../../services/auth/tokens/tokens.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { createClock } from '../../support/clock.ts'
import { answered } from '../../support/storeFixtures.ts'

const ttlMs = 30_000
const absoluteTtlMs = 100_000
const owner = { id: 'user-1', username: 'somebody@example.com', credentialVersion: 1, authority: noAuthority }

const limits = { perUser: 5, total: 100 }
const session = { purpose: null, touch: true }

describe('tokens', () => {
  let store: TokenStore
  let clock: ReturnType<typeof createClock>
  let tokens: Tokens
  let events: TokenEvent[]

  const open = (own = store) =>
    createTokens({ store: own, now: clock.now, ttlMs, absoluteTtlMs, limits, emit: event => events.push(event) })

  beforeEach(async () => {
    store = await openTokenStore()
    clock = createClock()
    events = []
    tokens = open()
  })

  const logIn = async () => (await tokens.issueSession(owner)) as IssuedToken
  const issue = async (terms: Partial<TokenTerms>) =>
    (await tokens.issue({
      kind: 'fixed',
      purpose: null,
      owner,
      login: null,
      ttlMs,
      absoluteTtlMs,
      ...terms,
    })) as IssuedToken
  const isLive = async (secret: string) => (await tokens.validateAll([secret], session))[0] !== null
  const lastReason = async () => {
    await new Promise(setImmediate)
    const {
      tokenId: _,
      type: __,
      ...told
    } = events.findLast(({ type }) => type === 'refused') as TokenEvent & { tokenId: string }
    return told
  }

  it('are issued with an idle time and an absolute end', async () => {
    const { token } = await logIn()
    expect(token.expiresAt).to.equal(clock.now() + ttlMs)
    expect(token.absoluteExpiresAt).to.equal(clock.now() + absoluteTtlMs)
  })

  it('carry the tag and the credential version of their owner', async () => {
    const { token } = await logIn()
    expect(token.id.slice(0, 4)).to.equal(tagOf(owner.id))
    await tokens.revokeByUser(owner.id, 2, null)
    const changed = (await tokens.issueSession({ ...owner, credentialVersion: 2 })) as IssuedToken
    expect(changed.token.credentialVersion).to.equal(2)
    expect(await isLive(changed.secret)).to.equal(true)
  })

  it('never outlive their absolute end, even if the idle time is longer', async () => {
    const { token } = await issue({ kind: 'sliding', ttlMs: 5000, absoluteTtlMs: 3000 })
    expect(token.expiresAt).to.equal(token.absoluteExpiresAt)
  })

  it('slide: each validation restarts the idle time and counts a refresh', async () => {
    const { secret } = await logIn()
    for (let count = 1; count <= 3; count++) {
      clock.advance(ttlMs - 1)
      const [token] = await tokens.validateAll([secret], session)
      expect(token).to.include({ refreshCount: count, username: owner.username, userId: owner.id })
    }
  })

  it('are dead when left unused for their idle time, swept or not', async () => {
    const { secret } = await logIn()
    clock.advance(ttlMs)
    expect(await isLive(secret)).to.equal(false)
  })

  it('are dead at their absolute end, however often they are used', async () => {
    const { secret } = await logIn()
    for (let age = 0; age < absoluteTtlMs; age += 10_000) {
      expect(await isLive(secret), `after ${age} ms`).to.equal(true)
      clock.advance(10_000)
    }
    expect(await isLive(secret)).to.equal(false)
  })

  it('that are fixed live for their whole lifetime, used or not; single-use tokens are accepted once', async () => {
    const [fixed, single] = [await issue({ kind: 'fixed' }), await issue({ kind: 'single-use' })]
    expect(fixed.token.absoluteExpiresAt).to.equal(fixed.token.expiresAt)
    clock.advance(ttlMs - 1)
    expect([await isLive(fixed.secret), await isLive(single.secret)]).to.deep.equal([true, true])
    expect(await isLive(single.secret)).to.equal(false)
    clock.advance(1)
    expect(await isLive(fixed.secret)).to.equal(false)
  })

  it('are refused once their revocation is answered; revoking them again changes nothing', async () => {
    const { secret } = await logIn()
    expect(await tokens.revokeSession(secret)).to.equal(true)
    expect(await isLive(secret)).to.equal(false)
    expect(await tokens.revokeSession(secret)).to.equal(true)
    expect(events.filter(({ type }) => type === 'revoked')).to.have.length(1)
  })

  it('are revoked by id by an operator, and by a user only if they are sessions of that user', async () => {
    const [own, fixed] = [await logIn(), await issue({ kind: 'fixed' })]
    expect(await tokens.revokeById(own.token.id, 'user-2')).to.equal(false)
    expect(await tokens.revokeById(fixed.token.id, owner.id)).to.equal(false)
    expect([await isLive(own.secret), await isLive(fixed.secret)]).to.deep.equal([true, true])
    expect(await tokens.revokeById(own.token.id, owner.id)).to.equal(true)
    expect(await tokens.revokeById(fixed.token.id, null)).to.equal(true)
    expect([await isLive(own.secret), await isLive(fixed.secret)]).to.deep.equal([false, false])
  })

  it('that are not sessions cannot be used, renewed or ended as one, and stay unchanged', async () => {
    const others = [
      await issue({ kind: 'fixed' }),
      await issue({ kind: 'single-use' }),
      await issue({ kind: 'sliding', purpose: 'reset' }),
      await issue({ kind: 'sliding', owner: null }),
    ]
    for (const { secret, token } of others) {
      expect(await tokens.useSession(secret)).to.equal(null)
      expect(await tokens.renew(secret)).to.equal(null)
      expect(await tokens.revokeSession(secret)).to.equal(false)
      const [found] = await tokens.validateAll([secret], { purpose: token.purpose, touch: false })
      expect(found).to.deep.equal(token)
    }
  })

  for (const which of ['current', 'earlier'] as const) {
    it(`end with a log-out by the ${which} secret, even if a renewal that began later comes in between`, async () => {
      const first = await logIn()
      const current = (await tokens.renew(first.secret)) as IssuedToken
      let renewed: IssuedToken | null = null
      const own: TokenStore = {
        ...store,
        async delete(...args) {
          clock.advance(1)
          renewed = await tokens.renew(current.secret)
          return store.delete(...args)
        },
      }
      expect(await open(own).revokeSession(which === 'current' ? current.secret : first.secret)).to.equal(true)
      expect(renewed).to.not.equal(null)
      expect(await isLive((renewed as unknown as IssuedToken).secret)).to.equal(false)
    })
  }

  it('get a new secret when they are renewed; the session stays, and the old secret is dead', async () => {
    const { secret, token } = await logIn()
    clock.advance(1000)
    const renewed = (await tokens.renew(secret)) as IssuedToken
    expect(renewed.token).to.include({ id: token.id, absoluteExpiresAt: token.absoluteExpiresAt, refreshCount: 1 })
    expect([await isLive(secret), await isLive(renewed.secret)]).to.deep.equal([false, true])
    expect(await tokens.renew(secret)).to.equal(null)
  })

  it('are not issued to an owner whose credentials have changed since they were verified', async () => {
    await tokens.revokeByUser(owner.id, 2, null)
    expect(await tokens.issueSession(owner)).to.equal(null)
  })

  it('get another id if the drawn one is taken', async () => {
    const { insert } = store
    const ids: string[] = []
    store.insert = async (ref, token, ...rest) => {
      ids.push(ref.id)
      return ids.length === 1 ? 'taken' : insert(ref, token, ...rest)
    }
    const { token, secret } = await logIn()
    expect(ids).to.have.length(2)
    expect(token.id).to.equal(ids[1]).and.to.not.equal(ids[0])
    expect(await isLive(secret)).to.equal(true)
  })

  it('end the oldest session of the user at the limit per user, and are unavailable at the total limit', async () => {
    const sessions = []
    for (let i = 0; i < limits.perUser + 1; i++) sessions.push(await logIn())
    expect(await Promise.all(sessions.map(({ secret }) => isLive(secret)))).to.deep.equal([
      false,
      true,
      true,
      true,
      true,
      true,
    ])
    for (let i = 0; i < limits.total / 2; i++) await issue({ owner: null })
    for (let i = 0; i < limits.total / 2 - limits.perUser; i++) await issue({ owner: { ...owner, id: `other-${i}` } })
    const refused = await tokens.issueSession({ ...owner, id: 'user-2' }).catch((error: AppError) => error.code)
    expect(refused).to.equal('unavailable')
  })

  it('are validated in batches that keep their order, junk included', async () => {
    const [first, second] = [await logIn(), await logIn()]
    const unknown = drawSecret(drawTokenId(null, clock.now()))
    const answers = await tokens.validateAll(['junk', second.secret, unknown, first.secret, ''], session)
    expect(answered(answers).map(token => token?.id ?? null)).to.deep.equal([
      null,
      second.token.id,
      null,
      first.token.id,
      null,
    ])
  })

  it('that are malformed are refused without a call to the store', async () => {
    await store.close()
    const flipped = `${drawSecret(drawTokenId(null, clock.now())).slice(0, -1)}!`
    expect(await tokens.validateAll(['junk', 'lk_', flipped], session)).to.deep.equal([null, null, null])
    expect(await tokens.revokeSession('junk')).to.equal(true)
    expect(await tokens.renew('junk')).to.equal(null)
  })

  it('are unavailable, with the cause, if the store fails: neither live nor dead', async () => {
    const { secret, token } = await logIn()
    tokens = open(instrument(store, 'tokens', null))
    await store.close()
    const calls = [
      () => tokens.validateAll([secret], session),
      () => tokens.useSession(secret),
      () => tokens.renew(secret),
      () => tokens.revokeSession(secret),
      () => tokens.revokeById(token.id, null),
      () => tokens.revokeById(token.id, owner.id),
      () => tokens.revokeByUser(owner.id, 2, null),
      () => tokens.listSessions(owner.id),
      () => tokens.issueSession(owner),
    ]
    for (const call of calls) {
      const error = await call().then(
        () => null,
        (error: unknown) => error as AppError,
      )
      expect(error).to.be.instanceOf(AppError)
      expect(error?.code).to.equal('unavailable')
      expect(error?.cause).to.be.instanceOf(Error)
    }
  })

  it('with a purpose end when the user gets a new one for that purpose; all other tokens stay', async () => {
    const reset = { kind: 'single-use', purpose: 'reset', owner, login: null, ttlMs, absoluteTtlMs } as const
    const isLiveReset = async ({ secret }: IssuedToken) =>
      (await tokens.validateAll([secret], { purpose: 'reset', touch: false }))[0] !== null
    const login = await logIn()
    const confirm = await issue({ kind: 'fixed', purpose: 'confirm' })
    const strangers = await issue({ ...reset, owner: { ...owner, id: 'user-2' } })
    const older = [await issue(reset), await issue(reset)]
    const newest = (await tokens.issueOnly(reset)) as IssuedToken
    for (const token of older) expect(await isLiveReset(token)).to.equal(false)
    for (const token of [newest, strangers]) expect(await isLiveReset(token)).to.equal(true)
    expect((await tokens.listByUser(owner.id)).map(({ id }) => id)).to.deep.equal(
      [login, confirm, newest].map(({ token }) => token.id),
    )
    const revoked = events.flatMap(event => (event.type === 'revoked' ? [event.tokenId] : []))
    expect(revoked).to.deep.equal(older.map(({ token }) => token.id))
  })

  it('of any kind and purpose are revoked by their secret; an unknown secret revokes nothing', async () => {
    const [own, bound] = [await logIn(), await issue({ purpose: 'reset' })]
    const kept = await logIn()
    const unknown = drawSecret(drawTokenId(owner.id, clock.now()))
    for (const secret of ['junk', unknown, own.secret, own.secret, bound.secret]) await tokens.revoke(secret)
    expect(await tokens.listByUser(owner.id)).to.deep.equal([kept.token])
    const revoked = events.flatMap(event => (event.type === 'revoked' ? [event.tokenId] : []))
    expect(revoked).to.deep.equal([own.token.id, bound.token.id])
  })

  it('that are sessions are extended when they are used', async () => {
    const { secret, token } = await logIn()
    clock.advance(1000)
    expect(await tokens.useSession(secret)).to.deep.equal({
      ...token,
      lastUsedAt: clock.now(),
      expiresAt: clock.now() + ttlMs,
      refreshCount: 1,
    })
  })

  it('that are sessions are used, and ended by their user, with one store call each', async () => {
    const calls: string[] = []
    const counting = Object.entries(store).map(([name, method]) => [
      name,
      (...args: unknown[]) => {
        calls.push(name)
        return method(...args)
      },
    ])
    tokens = open(Object.fromEntries(counting) as TokenStore)
    const { secret, token } = await logIn()
    calls.length = 0
    expect(await tokens.useSession(secret)).to.include({ id: token.id })
    expect(calls).to.deep.equal(['touchSession'])
    expect(await tokens.revokeById(token.id, owner.id)).to.equal(true)
    expect(calls).to.deep.equal(['touchSession', 'deleteById'])
  })

  it('that are not sessions are neither listed as sessions nor ended as one by their user', async () => {
    const own = await logIn()
    const others = [await issue({ kind: 'fixed' }), await issue({ kind: 'sliding', purpose: 'reset' })]
    expect(await tokens.listSessions(owner.id)).to.deep.equal([own.token])
    for (const { token } of others) expect(await tokens.revokeById(token.id, owner.id)).to.equal(false)
    expect(await tokens.listByUser(owner.id)).to.deep.equal([own, ...others].map(({ token }) => token))
  })

  it('that do not exist are not revoked: the result is false and no event is emitted', async () => {
    expect(await tokens.revokeById(drawTokenId(owner.id, clock.now()), null)).to.equal(false)
    expect(events).to.deep.equal([])
  })

  it('are counted by kind, and a ping of the store emits no event', async () => {
    await logIn()
    await issue({ kind: 'fixed' })
    events.length = 0
    tokens = open(instrument(store, 'tokens', null))
    expect(await tokens.counts()).to.deep.equal({ sliding: 1, fixed: 1, 'single-use': 0 })
    await tokens.ping()
    await new Promise(setImmediate)
    expect(events).to.deep.equal([])
    await store.close()
    expect(await tokens.ping().catch((error: AppError) => error.code)).to.equal('unavailable')
  })

  it('appear in events by their ids, never by their secrets', async () => {
    const { secret, token } = await logIn()
    await tokens.validateAll([secret, 'junk'], session)
    await tokens.renew(secret)
    await tokens.revokeById(token.id, null)
    await tokens.revokeByUser(owner.id, 2, null)
    expect(events.map(({ type }) => type)).to.deep.equal([
      'issued',
      'slid',
      'refused',
      'renewed',
      'revoked',
      'sessions_revoked',
    ])
    expect(JSON.stringify(events)).to.include(token.id)
    expect(JSON.stringify(events)).to.not.include('lk_')
  })

  it('emit which session is kept when all others of a user end', async () => {
    const { token } = await logIn()
    await tokens.revokeByUser(owner.id, 2, token.id)
    await tokens.revokeByUser(owner.id, 3, null)
    expect(events.filter(({ type }) => type === 'sessions_revoked')).to.deep.equal([
      { type: 'sessions_revoked', userId: owner.id, keep: token.id },
      { type: 'sessions_revoked', userId: owner.id, keep: null },
    ])
  })

  describe('that are refused emit the reason:', () => {
    const refuse = async (secret: string) => {
      expect(await isLive(secret)).to.equal(false)
      return lastReason()
    }

    it('never_existed', async () => {
      const unknown = drawSecret(drawTokenId(owner.id, clock.now() + 1000))
      expect(await refuse(unknown)).to.deep.equal({ reason: 'never_existed' })
    })

    it('before_restart', async () => {
      const { secret } = await logIn()
      clock.advance(5000)
      store = await openTokenStore()
      tokens = open()
      expect(await refuse(secret)).to.deep.equal({ reason: 'before_restart' })
    })

    it('expired n seconds ago', async () => {
      const { secret } = await logIn()
      clock.advance(ttlMs + 7000)
      expect(await refuse(secret)).to.deep.equal({ reason: 'expired', secondsAgo: 7 })
    })

    it('expired just now, if an Auth whose clock is ahead has refused it before', async () => {
      const { secret } = await logIn()
      clock.advance(ttlMs + 7000)
      await refuse(secret)
      clock.advance(-8000)
      expect(await refuse(secret)).to.deep.equal({ reason: 'expired', secondsAgo: 0 })
    })

    it('revoked by a log-out', async () => {
      const { secret } = await logIn()
      await tokens.revokeSession(secret)
      clock.advance(3000)
      expect(await refuse(secret)).to.deep.equal({ reason: 'revoked', secondsAgo: 3 })
    })

    it('renewed', async () => {
      const { secret } = await logIn()
      await tokens.renew(secret)
      expect(await refuse(secret)).to.deep.equal({ reason: 'renewed', secondsAgo: 0 })
    })

    it('all_sessions_revoked', async () => {
      const { secret } = await logIn()
      await tokens.revokeByUser(owner.id, 2, null)
      expect(await refuse(secret)).to.deep.equal({ reason: 'all_sessions_revoked' })
    })

    it('consumed, evicted, or for another purpose', async () => {
      const single = await issue({ kind: 'single-use' })
      await isLive(single.secret)
      expect(await refuse(single.secret)).to.deep.equal({ reason: 'consumed', secondsAgo: 0 })
      const evicted = await logIn()
      for (let i = 0; i < limits.perUser; i++) await logIn()
      expect(await refuse(evicted.secret)).to.deep.equal({ reason: 'evicted', secondsAgo: 0 })
      const bound = await issue({ purpose: 'reset', owner: null })
      expect(await refuse(bound.secret)).to.deep.equal({ reason: 'other_purpose' })
    })

    it('malformed, or not a session where one is required', async () => {
      await tokens.validateAll(['junk'], session)
      expect(await lastReason()).to.deep.equal({ reason: 'malformed' })
      await tokens.useSession((await issue({ kind: 'fixed' })).secret)
      expect(await lastReason()).to.deep.equal({ reason: 'not_a_session' })
    })

    it('revoked, even in the middle of a renewal', async () => {
      const { secret, token } = await logIn()
      const { renew } = store
      store.renew = async (...args) => {
        await store.deleteById(token.id, clock.now(), null)
        return renew(...args)
      }
      expect(await tokens.renew(secret)).to.equal(null)
      expect(await lastReason()).to.deep.equal({ reason: 'revoked', secondsAgo: 0 })
    })

    it('but look up no more than 100 at a time, so that a scan does not cost the store twice', async () => {
      const unknown = Array.from({ length: 150 }, () => drawSecret(drawTokenId(null, clock.now())))
      await tokens.validateAll(unknown, session)
      await new Promise(setImmediate)
      const reasons = events.map(event => (event.type === 'refused' ? event.reason : ''))
      expect(reasons.filter(reason => reason === 'not_looked_up')).to.have.length(50)
      expect(reasons.filter(reason => reason === 'never_existed')).to.have.length(100)
      const next = drawSecret(drawTokenId(null, clock.now()))
      expect(await refuse(next), 'one after them').to.deep.equal({ reason: 'never_existed' })
    })
  })
})
