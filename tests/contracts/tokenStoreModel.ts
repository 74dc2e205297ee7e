// Compares every TokenStore with a model: for any commands in any order, both give the same answers. Names no store. A
// failure prints its seed and the shortest list of commands that still fails.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import { isSameRate, takeFrom } from '../../services/auth/stores/rates.ts'
import {
  type Authority,
  type InsertOutcome,
  isHeldByProgram,
  type Limited,
  noAuthority,
  programLimit,
  type TokenChanges,
  type TokenLimits,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../../services/auth/tokens/format.ts'

// An hour ahead, so that the tokens stay in a store that also expires keys by its own clock.
const start = Date.now() + 3_600_000
const whenAllAreDead = start + 3_600_000
const limits: TokenLimits = { perUser: 4, total: 7 } // small, so that they are reached often

/** The simplest possible store. It keeps dead tokens, because a store may or may not still have them. */
function createModel() {
  const tokens = new Map<string, { hash: string; token: TokenRecord }>()
  const floors = new Map<string | null, number>()
  const renewals = new Map<string, { lineage: string; at: number }>()
  const authorities = new Map<string, Authority>()
  const authorityOf = (userId: string | null) => authorities.get(userId ?? '') ?? noAuthority
  const fullAtUs = new Map<string, number>() // of the buckets of tokens and users, by id
  const found = new Set<string>() // the ids of tokens that a call has found expired
  const uncertain = new Set<string>() // the ids of dead tokens that the store may have deleted
  const isEnded = (token: TokenRecord) => token.credentialVersion < (floors.get(token.userId) ?? 0)
  const parentOf = ({ parent }: TokenRecord) => tokens.get(parent?.id ?? '')?.token
  /** Whether it is live, apart from what its parent may be. */
  const isLive = (token: TokenRecord, now: number) => now < token.expiresAt && !found.has(token.id) && !isEnded(token)
  const isOrphaned = (token: TokenRecord, now: number) => {
    const parent = parentOf(token)
    return token.parent !== null && (parent === undefined || !isLive(parent, now))
  }
  const all = () => [...tokens.values()].map(({ token }) => shown(token))
  const live = (now: number) => all().filter(token => isLive(token, now))
  const findByUser = (userId: string | null, now: number) => live(now).filter(token => token.userId === userId)

  /** Returns the token in the form in which a store returns it. */
  function shown(token: TokenRecord): TokenRecord {
    const { scope = '', name = null } = parentOf(token) ?? {}
    return {
      ...token,
      parent: token.parent && { id: token.parent.id, scope, name },
      authority: authorityOf(token.userId),
    }
  }

  /** A token that is live apart from what its parent may be, even if it is paused. */
  function findLive({ id, hash }: TokenRef, now: number): TokenRecord | null {
    const { token, hash: own } = tokens.get(id) ?? {}
    if (!token || own !== hash) return null
    if (now >= token.expiresAt) found.add(id)
    return isLive(token, now) ? shown(token) : null
  }

  function look(ref: TokenRef, now: number, purpose: string | null): TokenRecord | null {
    const token = findLive(ref, now)
    if (token?.purpose !== purpose || token.paused || token.authority.paused) return null
    const parent = parentOf(token)
    if (parent && now >= parent.expiresAt) found.add(parent.id)
    return isOrphaned(token, now) || parent?.paused ? null : token
  }

  /** The milliseconds until the limits of the token, its parent and its user allow a touch; 0 if they do. */
  function take(token: TokenRecord, now: number, purpose: string | null): number {
    const { id, userId, rate, authority } = token
    const parent = parentOf(token)
    const ofUser = [userId ?? '', purpose === null ? authority.rate : null] as const
    const rates = [[id, rate] as const, [parent?.id ?? '', parent?.rate ?? null] as const, ofUser]
    const buckets = rates.flatMap(([key, rate]) => (rate ? [{ key, rate, fullAtUs: fullAtUs.get(key) ?? 0 }] : []))
    const retryAfterMs = takeFrom(buckets, now)
    for (const bucket of buckets) fullAtUs.set(bucket.key, bucket.fullAtUs)
    return retryAfterMs
  }

  function touch(ref: TokenRef, now: number, purpose: string | null): TokenRecord | Limited | null {
    const token = look(ref, now, purpose)
    if (token === null) return null
    const retryAfterMs = take(token, now, purpose)
    if (retryAfterMs > 0) return { limited: true, retryAfterMs }
    if (token.usesLeft !== null) token.usesLeft--
    const parent = parentOf(token)
    if (parent?.usesLeft != null && --parent.usesLeft === 0) tokens.delete(parent.id)
    return use(ref, token, now)
  }

  function use(ref: TokenRef, token: TokenRecord, now: number): TokenRecord {
    if (token.kind === 'sliding') {
      token.expiresAt = Math.max(token.expiresAt, Math.min(now + token.ttlMs, token.absoluteExpiresAt))
    }
    token.lastUsedAt = now
    token.refreshCount++
    tokens.set(ref.id, { ...ref, token })
    if (token.kind === 'single-use' || token.usesLeft === 0) tokens.delete(ref.id)
    return { ...token }
  }

  function renew(ref: TokenRef, hash: string, lineage: string, now: number): TokenRecord | null {
    const token = look(ref, now, null)
    if (token?.kind !== 'sliding') return null
    renewals.set(ref.id, { lineage, at: now })
    return use({ ...ref, hash }, token, now)
  }

  function raiseFloor(userId: string, version: number, keep: string | null): void {
    const kept = tokens.get(keep ?? '')?.token
    if (kept?.userId === userId && !isEnded(kept)) kept.credentialVersion = Math.max(kept.credentialVersion, version)
    floors.set(userId, Math.max(floors.get(userId) ?? 0, version))
  }

  function setAuthority(userId: string, authority: Authority): void {
    if (authority.version <= authorityOf(userId).version) return
    if (!isSameRate(authority.rate, authorityOf(userId).rate)) fullAtUs.delete(userId)
    authorities.set(userId, authority)
  }

  function change(id: string, changes: TokenChanges, now: number): TokenRecord | null {
    const { token } = tokens.get(id) ?? {}
    if (!token || !isLive(token, now) || isOrphaned(token, now)) return null
    if (changes.rate !== undefined && !isSameRate(changes.rate, token.rate)) fullAtUs.delete(id)
    return shown(Object.assign(token, changes))
  }

  /** The permitted outcomes of inserting the token, and the token that the insertion evicts. */
  function roomFor(token: TokenRecord, now: number): { may: InsertOutcome[]; evicted?: string } {
    if (isEnded(token) || isOrphaned(token, now)) return { may: ['ended'] }
    const own = findByUser(token.userId, now)
    const evicting = (one: TokenRecord | undefined) =>
      one ? { may: ['inserted' as const], evicted: one.id } : { may: ['full' as const] }
    if (token.userId !== null && isHeldByProgram(token)) {
      const held = own.filter(isHeldByProgram)
      if (held.length >= programLimit(limits.perUser)) return evicting(held.find(({ parent }) => parent !== null))
    }
    if (token.userId !== null && own.length >= limits.perUser) {
      const { parent } = token
      const isOther = ({ id }: TokenRecord) => id !== parent?.id
      return evicting(own.find(one => one.kind === 'sliding' && one.purpose === null && isOther(one)))
    }
    const guests = [...tokens.values()].filter(({ token }) => token.userId === null)
    const maxGuests = token.userId === null ? Math.ceil(limits.total / 2) : Infinity
    if (live(now).length >= limits.total || findByUser(null, now).length >= maxGuests) return { may: ['full'] }
    const isCrowded = tokens.size >= limits.total || guests.length >= maxGuests
    return { may: isCrowded ? ['inserted', 'full'] : ['inserted'] }
  }

  function list(userId: string, now: number): TokenRecord[] {
    for (const { token } of tokens.values()) if (token.userId === userId && now >= token.expiresAt) found.add(token.id)
    return findByUser(userId, now).filter(token => !isOrphaned(token, now))
  }

  /** The store has done what may delete any token that is dead now. */
  function expectLosses(now: number): void {
    for (const { token } of tokens.values()) if (!isLive(token, now)) uncertain.add(token.id)
  }

  /** The answer to a late call reveals whether a token is still in the store that a sweep may have deleted. */
  function learn(id: string, answer: unknown): void {
    const { parent } = tokens.get(id)?.token ?? {}
    if (uncertain.delete(id)) {
      if (answer === null) found.add(id)
    } else if (parent && uncertain.delete(parent.id) && answer === null) found.add(parent.id)
  }

  const acts = { findLive, look, touch, renew, raiseFloor, setAuthority, change, list }
  return { tokens, renewals, shown, isLive, isOrphaned, all, live, roomFor, expectLosses, learn, ...acts }
}

/** One run: the model, the clock, and every reference so far, including old hashes. */
function createRun(users: number) {
  const userIds = Array.from({ length: users }, () => randomUUID())
  return { model: createModel(), now: start, refs: [unknownRef()], userIds, owners: [...userIds, null] }
}

type Run = ReturnType<typeof createRun>

const newHash = () => Buffer.from(randomUUID().replaceAll('-', '').repeat(2), 'hex').toString('base64url')
const unknownRef = () => ({ id: drawTokenId(null, start), hash: newHash() })

const purpose = fc.constantFrom(null, null, null, 'reset', 'confirm')
const msLate = fc.constantFrom(0, 0, 0, 1, 20)
const user = fc.nat({ max: 99 }) // taken modulo the number of users
const ttlMs = fc.constantFrom(1, 5, 20, 100)
const recent = fc.record({ back: fc.nat({ max: 11 }), isHashWrong: fc.nat({ max: 7 }).map(n => n === 0) })

/** The reference that is `back` places before the newest. */
function pick({ refs }: Run, { back, isHashWrong }: { back: number; isHashWrong: boolean }): TokenRef {
  const ref = refs.at(-1 - (back % refs.length)) as TokenRef
  return isHashWrong ? { ...ref, hash: newHash() } : ref
}

function command<T>(name: string, values: fc.Arbitrary<T>, run: (values: T, run: Run, store: TokenStore) => unknown) {
  return values.map(
    (values): fc.AsyncCommand<Run, TokenStore> => ({
      check: () => true,
      run: async (state, store) => void (await run(values, state, store)),
      toString: () => `${name} ${fc.stringify(values)}`,
    }),
  )
}

const rate = fc.constantFrom(null, null, { perMinute: 6000, burst: 1 }, { perMinute: 70, burst: 3 })
const name = fc.constantFrom(null, null, null, 'deploy')
const usesLeft = fc.constantFrom(null, null, 1, 2)
const scope = fc.constantFrom(null, 'orders:read', 'orders:read orders:write')
const authority = fc.record({
  version: fc.integer({ min: 1, max: 5 }),
  roles: fc.constantFrom<string[][]>([], ['admin'], ['admin', 'editor']),
  paused: fc.constantFrom(false, false, true),
  rate,
})

const newToken = fc.record({
  user,
  purpose,
  ttlMs,
  kind: fc.constantFrom('sliding', 'sliding', 'fixed', 'single-use'),
  version: fc.integer({ min: 1, max: 3 }),
  absoluteTtlMs: fc.constantFrom(0, 30, 200),
  login: fc.constantFrom('own', 'own', 'other', 'none'),
  scope,
  paused: fc.constantFrom(false, false, false, true),
  rate,
  usesLeft,
  name,
  isDelegated: fc.nat({ max: 2 }).map(n => n === 0),
  authority: fc.oneof({ weight: 2, arbitrary: fc.constant(noAuthority) }, { weight: 1, arbitrary: authority }),
})

const insertTaken = command(
  'insert with an id that is taken',
  newToken,
  async ({ user, version, isDelegated: _, ...terms }, run, store) => {
    const userId = run.owners[user % run.owners.length] as string | null
    const holder = run.model.live(run.now).find(token => token.userId === userId)
    if (holder === undefined) return
    const { absoluteTtlMs: __, login: ___, ...rest } = terms
    const token: TokenRecord = { ...holder, ...rest, credentialVersion: userId === null ? 0 : version }
    const outcome = await store.insert({ id: holder.id, hash: newHash() }, token, limits, run.now)
    const { may } = run.model.roomFor(token, run.now)
    expect(['taken', ...may.filter(other => other !== 'inserted')]).to.include(outcome)
  },
)

const insert = command(
  'insert',
  newToken,
  async ({ user, version, absoluteTtlMs, login, authority, isDelegated, ...terms }, run, store) => {
    const now = ++run.now // so that no two tokens have the same age
    const userId = run.owners[user % run.owners.length] as string | null
    const id = drawTokenId(userId, now)
    // Perhaps a dead one.
    const parent = isDelegated
      ? run.model.all().findLast(token => userId !== null && isParent(token, userId))
      : undefined
    const token: TokenRecord = {
      ...terms,
      kind: parent ? 'fixed' : terms.kind,
      id,
      parent: parent ? { id: parent.id, scope: parent.scope, name: parent.name } : null,
      userId,
      username: userId && `${userId}@example.com`,
      credentialVersion: userId === null ? 0 : version,
      createdAt: now,
      loginId: userId === null || login === 'none' ? null : login === 'own' ? id : drawTokenId(userId, now),
      lastUsedAt: now,
      expiresAt: now + terms.ttlMs,
      absoluteExpiresAt: now + terms.ttlMs + absoluteTtlMs,
      refreshCount: 0,
      authority: userId === null ? noAuthority : authority,
    }
    const ref = { id, hash: newHash() }
    const { may, evicted } = run.model.roomFor(token, now)
    const outcome = await store.insert(ref, token, limits, now)
    run.model.expectLosses(now)
    expect(may, 'the outcomes that are right').to.include(outcome)
    run.refs.push(ref)
    if (evicted !== undefined) run.model.tokens.delete(evicted)
    if (outcome !== 'inserted') return
    run.model.tokens.set(id, { hash: ref.hash, token: { ...token } })
    if (userId !== null) run.model.setAuthority(userId, authority)
  },
)

const isParent = ({ userId, kind, parent }: TokenRecord, owner: string) =>
  userId === owner && kind !== 'single-use' && parent === null

const batch = fc.record({ purpose, msLate, picks: fc.array(recent, { maxLength: 6, size: 'max' }) })

/** Asks the store and the model about the same tokens in the same way. */
const ask = (call: 'touch' | 'look') =>
  command(call, batch, async ({ picks, purpose, msLate }, run, store) => {
    const [refs, now] = [picks.map(one => pick(run, one)), run.now - msLate]
    const answers = await store[call](refs, now, purpose)
    const expected = refs.map((ref, i) => {
      if (run.model.look(ref, now, purpose)) run.model.learn(ref.id, answers[i])
      return run.model[call](ref, now, purpose)
    })
    expect(answers).to.deep.equal(expected)
  })
const [touch, look] = [ask('touch'), ask('look')]

const lineages = [newHash(), newHash()] as [string, string]
const ofLineage = fc.record({ one: recent, msLate, lineage: fc.constantFrom(lineages[0], lineages[0], lineages[1]) })

const renew = command('renew', ofLineage, async ({ one, lineage, msLate }, run, store) => {
  const [ref, now] = [pick(run, one), run.now - msLate]
  const hash = newHash()
  const answer = await store.renew(ref, hash, lineage, now)
  if (run.model.look(ref, now, null)?.kind === 'sliding') run.model.learn(ref.id, answer)
  expect(answer).to.deep.equal(run.model.renew(ref, hash, lineage, now))
  if (answer) run.refs.push({ ...ref, hash })
})

/** A dead token may still be in the store; a live token must be. */
function expectDeleted(answer: TokenRecord | null, ref: TokenRef, { model, now }: Run): void {
  const found = model.tokens.get(ref.id)
  const token = found?.hash === ref.hash ? model.shown(found.token) : null
  if (token === null || answer !== null || model.isLive(token, now)) {
    // A dead parent may or may not be in the store.
    const isUncertain = token?.parent && model.isOrphaned(token, now)
    const expected = isUncertain && answer ? { ...token, parent: answer.parent } : token
    expect(answer).to.deep.equal(expected)
  }
  if (token !== null) model.tokens.delete(ref.id)
}

const remove = command('delete', recent, async (one, run, store) => {
  const ref = pick(run, one)
  expectDeleted(await store.delete(ref, run.now), ref, run)
})

const renewedMs = fc.record({ of: ofLineage, msAgo: fc.constantFrom(0, 0, 1, 20) })
const removeRenewed = command(
  'findRenewed, then deleteById',
  renewedMs,
  async ({ of: { one, lineage }, msAgo }, run, store) => {
    const { id } = pick(run, one)
    const renewal = run.model.renewals.get(id)
    const renewed = await store.findRenewed(id, lineage, run.now - msAgo)
    const answer = renewed && (await store.deleteById(id, run.now, null))
    expect(answer).to.deep.equal(renewed)
    const { hash = '' } = run.model.tokens.get(id) ?? {}
    if (renewal?.lineage === lineage && renewal.at <= run.now - msAgo) expectDeleted(answer, { id, hash }, run)
    else expect(answer).to.equal(null)
  },
)

const removeById = command('deleteById', recent, async (one, run, store) => {
  const { id } = pick(run, one)
  const { hash = '' } = run.model.tokens.get(id) ?? {}
  expectDeleted(await store.deleteById(id, run.now, null), { id, hash }, run)
})

const removeOwn = command(
  'deleteById with an owner',
  fc.record({ one: recent, user }),
  async ({ one, user }, run, store) => {
    const { id } = pick(run, one)
    const owner = run.userIds[user % run.userIds.length] as string
    const { hash = '', token } = run.model.tokens.get(id) ?? {}
    const isOwn = token?.userId === owner && token.kind === 'sliding' && token.purpose === null
    const expected = isOwn ? run.model.findLive({ id, hash }, run.now) : null
    expect(await store.deleteById(id, run.now, owner)).to.deep.equal(expected)
    if (expected) run.model.tokens.delete(id)
  },
)

const keep = fc.record({ isAsked: fc.boolean(), back: fc.nat({ max: 5 }) })
const floor = fc.record({ user, version: fc.integer({ min: 1, max: 3 }), keep })
const raiseFloor = command('raiseFloor', floor, async ({ user, version, keep: { isAsked, back } }, run, store) => {
  const userId = run.userIds[user % run.userIds.length] as string
  // Any token, even one of another user: `raiseFloor` must not touch another user's tokens.
  const keep = isAsked ? pick(run, { back, isHashWrong: false }).id : null
  await store.raiseFloor(userId, version, keep)
  run.model.raiseFloor(userId, version, keep)
})

const setAuthority = command(
  'setAuthority',
  fc.record({ user, authority }),
  async ({ user, authority }, run, store) => {
    const userId = run.userIds[user % run.userIds.length] as string
    await store.setAuthority(userId, authority)
    run.model.setAuthority(userId, authority)
  },
)

const changes = fc.record({ scope, paused: fc.boolean(), rate, usesLeft, name }, { requiredKeys: [] })
const change = command('change', fc.record({ one: recent, changes }), async ({ one, changes }, run, store) => {
  const { id } = pick(run, one)
  expect(await store.change(id, changes, run.now)).to.deep.equal(run.model.change(id, changes, run.now))
})

const pause = command('pause', recent, async (one, run, store) => {
  const { id } = pick(run, one)
  const isPaused = run.model.tokens.get(id)?.token.paused === true
  const expected = isPaused ? null : run.model.change(id, { paused: true }, run.now)
  expect(await store.pause(id, run.now)).to.deep.equal(expected)
})

const findByUser = command('findByUser', user, async (user, { model, now, userIds }, store) => {
  const userId = userIds[user % userIds.length] as string
  expect(await store.findByUser(userId, now)).to.deep.equal(model.list(userId, now))
})

const slice = command('deleteExpired', fc.integer({ min: 1, max: 4 }), async (limit, { model, now }, store) => {
  const { removed } = await store.deleteExpired(now, limit)
  model.expectLosses(now)
  expect(removed).to.be.at.most(Math.min(limit, model.tokens.size - model.live(now).length))
})

const sweep = command('sweep', fc.integer({ min: 1, max: 4 }), async (limit, { model, now }, store) => {
  const removed = await sweepAll(store, now, limit)
  expect(removed).to.be.at.most(model.tokens.size - model.live(now).length)
  for (const [id, { token }] of model.tokens) if (!model.isLive(token, now)) model.tokens.delete(id)
})

/** Two rounds: the first may have begun before the last token died. */
async function sweepAll(store: TokenStore, now: number, limit: number): Promise<number> {
  let total = 0
  for (let rounds = 0, slices = 0; rounds < 2; slices++) {
    expect(slices, 'slices of two rounds').to.be.below(100_000)
    const { removed, done } = await store.deleteExpired(now, limit)
    total += removed
    if (done) rounds++
  }
  return total
}

const advance = command('advance', fc.nat({ max: 25 }), (ms, run) => {
  run.now += ms
})

const toAnEnd = fc.record({ which: fc.nat({ max: 20 }), msBefore: fc.nat({ max: 1 }) })
const advanceToAnEnd = command('advance to the end of a token', toAnEnd, ({ which, msBefore }, run) => {
  const ends = run.model.live(run.now).map(({ expiresAt }) => expiresAt - msBefore)
  run.now = Math.max(run.now, ends[which % ends.length] ?? 0)
})

export function tokenStoreModel(getStore: () => TokenStore, users = 2): void {
  describe(`for any sequence of commands about ${users} users`, () => {
    it('does what the model does', async () => {
      const often = [insert, insert, touch, touch, advanceToAnEnd]
      const other = [
        insertTaken,
        look,
        renew,
        remove,
        removeById,
        removeOwn,
        removeRenewed,
        raiseFloor,
        setAuthority,
        change,
        pause,
        findByUser,
        slice,
        sweep,
        advance,
      ]
      const commands = fc.commands([...often, insert, ...other], { maxCommands: 60, size: 'max' })
      await fc.assert(
        fc.asyncProperty(commands, async commands => {
          const store = getStore()
          await sweepAll(store, whenAllAreDead, 1000) // the leftovers of the previous run
          const run = createRun(users)
          await fc.asyncModelRun(() => ({ model: run, real: store }), commands)
          for (const purpose of [null, 'reset', 'confirm']) {
            const expected = run.refs.map(ref => run.model.look(ref, run.now, purpose))
            expect(await store.look(run.refs, run.now, purpose)).to.deep.equal(expected)
          }
        }),
        { numRuns: 500, interruptAfterTimeLimit: 1000 },
      )
    })
  })
}
