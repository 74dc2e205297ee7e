// Token and user stores in the memory of this process, lost when it exits. Every method is one synchronous step and
// therefore atomic. Hides how tokens are grouped by user; table.ts holds the tokens themselves.

import {
  type EndReason,
  guestLimit,
  type Refusal,
  type TokenKind,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
  type UserRecord,
  type UserStore,
  usualLogin,
} from '../ports.ts'
import { createTokenTable, hashLength, none, placeOf } from './table.ts'

interface User {
  /** Null for the one entry that all guests share. */
  id: string | null
  username: string | null
  /** Tokens with a smaller `credentialVersion` are dead. */
  floor: number
  tokens: number
  /** Slots of the first and last token in the user's list, which is in the order of issue. */
  oldest: number
  newest: number
  holders: number[]
}

/** The values that many tokens of a user share. */
type Terms = Pick<TokenRecord, 'credentialVersion' | 'kind' | 'purpose' | 'ttlMs'>

/**
 * A group of tokens with the same user and terms. Each token refers to it by number, so its strings are stored once.
 */
interface Holder extends Terms {
  user: User
  tokens: number
  /** True if the version is below the user's floor. */
  ended: boolean
}

/** The hash that all secrets of a token share, truncated like other hashes, and when the token was last renewed. */
export interface Renewal {
  lineage: string
  renewedAt: number
}

const guestHoldersKept = 16 // searching every holder that guests ever had would slow down each insert
const rememberedEnds = 10_000 // for `explain`; the oldest are dropped first
const rememberedPerSlice = 50 // of the tokens that one sweep step deletes: an operator asks about a few, not a million

export interface MemoryTokenStore extends TokenStore {
  /**
   * All tokens at or above their user's floor, including expired ones, in the order of issue per user. Hashes are
   * truncated to the part that the store keeps.
   */
  entries(): Generator<{ ref: TokenRef; token: TokenRecord; renewal: Renewal | null }>
  /** Restores the renewal of a token that was just inserted. */
  markRenewed(id: string, renewal: Renewal): void
}

export async function openTokenStore(): Promise<MemoryTokenStore> {
  const table = createTokenTable()
  const { pageOf } = table
  const users = new Map<string, User>()
  const guests = createUser(null)
  const holders: (Holder | null)[] = []
  const freeHolders: number[] = []
  const ends = new Map<string, Refusal>()
  /** By slot: the `loginId` of the few tokens whose value differs from `usualLogin`. */
  const logins = new Map<number, string | null>()
  /** By slot, for renewed tokens only. */
  const renewals = new Map<number, Renewal>()
  let sweepAt = 0
  const counts: Record<TokenKind, number> = { sliding: 0, fixed: 0, 'single-use': 0 }
  const gate = createGate()

  const holderOf = (slot: number): Holder => holders[pageOf(slot).holder[placeOf(slot)] as number] as Holder
  const expiryOf = (slot: number): number => pageOf(slot).expiresAt[placeOf(slot)] as number
  const isDead = (slot: number, now: number): boolean => expiryOf(slot) <= now || holderOf(slot).ended

  /** The slot of the token with this id and hash, live or dead; `none` if there is none. */
  function find({ id, hash }: TokenRef): number {
    const slot = table.find(id)
    return slot !== none && table.hasHash(slot, hash) ? slot : none
  }

  /** The slot of the token if it is live and has this purpose, otherwise `none`. */
  function admit(ref: TokenRef, now: number, purpose: string | null): number {
    const slot = find(ref)
    return slot !== none && !isDead(slot, now) && holderOf(slot).purpose === purpose ? slot : none
  }

  function use(slot: number, now: number): void {
    const { expiresAt, absoluteExpiresAt, lastUsedAt, refreshCount } = pageOf(slot)
    const i = placeOf(slot)
    const { kind, ttlMs } = holderOf(slot)
    if (kind === 'sliding') expiresAt[i] = Math.min(now + ttlMs, absoluteExpiresAt[i] as number)
    lastUsedAt[i] = now
    refreshCount[i] = (refreshCount[i] as number) + 1
  }

  function read(slot: number): TokenRecord {
    const page = pageOf(slot)
    const i = placeOf(slot)
    const { user, kind, purpose, credentialVersion, ttlMs } = holderOf(slot)
    const id = table.idOf(slot)
    const ownLogin = logins.get(slot)
    return {
      id,
      kind,
      purpose,
      userId: user.id,
      username: user.username,
      credentialVersion,
      createdAt: page.createdAt[i] as number,
      loginId: ownLogin === undefined ? usualLogin({ id, kind, purpose, userId: user.id }) : ownLogin,
      lastUsedAt: page.lastUsedAt[i] as number,
      expiresAt: page.expiresAt[i] as number,
      absoluteExpiresAt: page.absoluteExpiresAt[i] as number,
      ttlMs,
      refreshCount: page.refreshCount[i] as number,
    }
  }

  function write(slot: number, token: TokenRecord): void {
    const page = pageOf(slot)
    const i = placeOf(slot)
    page.createdAt[i] = token.createdAt
    page.lastUsedAt[i] = token.lastUsedAt
    page.expiresAt[i] = token.expiresAt
    page.absoluteExpiresAt[i] = token.absoluteExpiresAt
    page.refreshCount[i] = token.refreshCount
    if (token.loginId !== usualLogin(token)) logins.set(slot, token.loginId)
  }

  function userOf(userId: string | null): User {
    if (userId === null) return guests
    const known = users.get(userId)
    if (known) return known
    const user = createUser(userId)
    users.set(userId, user)
    return user
  }

  /** Assigns a slot to a user: adds it to a holder and appends it to the user's list. */
  function join(slot: number, user: User, token: TokenRecord): void {
    user.username = token.username
    hold(slot, user, token)
    user.tokens++
    const { older, newer } = pageOf(slot)
    older[placeOf(slot)] = user.newest
    newer[placeOf(slot)] = none
    if (user.newest === none) user.oldest = slot
    else pageOf(user.newest).newer[placeOf(user.newest)] = slot
    user.newest = slot
  }

  /** Adds a slot to the holder with these terms, creating the holder if necessary. */
  function hold(slot: number, user: User, { credentialVersion, kind, purpose, ttlMs }: Terms): void {
    let number = user.holders.find(number => {
      const known = holders[number] as Holder
      const isSame = known.credentialVersion === credentialVersion && known.kind === kind && known.purpose === purpose
      return isSame && known.ttlMs === ttlMs
    })
    if (number === undefined) {
      number = freeHolders.pop() ?? holders.length
      holders[number] = { user, credentialVersion, kind, purpose, ttlMs, tokens: 0, ended: false }
      // Guests have no floor, so nothing needs all of their holders; the most recent ones suffice for reuse.
      const others = user === guests ? user.holders.slice(-guestHoldersKept) : user.holders
      user.holders = [...others, number] // a push would reserve room for sixteen more
    }
    ;(holders[number] as Holder).tokens++
    counts[kind]++
    pageOf(slot).holder[placeOf(slot)] = number
  }

  /** Removes a slot from its holder, and frees the holder if this was its last token. */
  function letGo(slot: number): void {
    const number = pageOf(slot).holder[placeOf(slot)] as number
    const holder = holders[number] as Holder
    counts[holder.kind]--
    if (--holder.tokens > 0) return
    holders[number] = null
    freeHolders.push(number)
    holder.user.holders = holder.user.holders.filter(other => other !== number)
  }

  /** Raises the `credentialVersion` of a token to `version`; never lowers it. */
  function lift(slot: number, version: number): void {
    const { user, ...terms } = holderOf(slot)
    if (terms.credentialVersion >= version) return
    letGo(slot)
    hold(slot, user, { ...terms, credentialVersion: version })
  }

  /** Removes a slot from its user, the reverse of `join`. */
  function leave(slot: number): void {
    const page = pageOf(slot)
    const { user } = holderOf(slot)
    const older = page.older[placeOf(slot)] as number
    const newer = page.newer[placeOf(slot)] as number
    if (older === none) user.oldest = newer
    else pageOf(older).newer[placeOf(older)] = newer
    if (newer === none) user.newest = older
    else pageOf(newer).older[placeOf(newer)] = older
    user.tokens--
    letGo(slot)
    // A floor outlives the tokens, because a login that was verified before it was set may yet insert its token.
    if (user.id !== null && user.tokens === 0 && user.floor === 0) users.delete(user.id)
  }

  function remove(slot: number): void {
    leave(slot)
    logins.delete(slot)
    renewals.delete(slot)
    table.free(slot)
  }

  function remember(id: string, why: Refusal): void {
    ends.delete(id)
    ends.set(id, why)
    if (ends.size > rememberedEnds) ends.delete(ends.keys().next().value as string)
  }

  function end(slot: number, reason: EndReason, now: number): TokenRecord {
    const token = read(slot)
    remember(token.id, { reason, at: now })
    remove(slot)
    return token
  }

  /** Why a dead token that is not yet swept died. */
  function causeOf(slot: number): Refusal {
    return holderOf(slot).ended ? { reason: 'ended' } : { reason: 'expired', at: expiryOf(slot) }
  }

  function slotsOf(user: User): number[] {
    const slots: number[] = []
    for (let slot = user.oldest; slot !== none; slot = pageOf(slot).newer[placeOf(slot)] as number) slots.push(slot)
    return slots
  }

  /** Makes room for one more token of the user, evicting a session if necessary; false if there is none to evict. */
  function makeRoom(user: User, perUser: number, now: number): boolean {
    if (user === guests || user.tokens < perUser) return true
    for (const slot of slotsOf(user)) {
      if (!isDead(slot, now)) continue
      remember(table.idOf(slot), causeOf(slot))
      remove(slot)
    }
    if (user.tokens < perUser) return true
    const oldestSession = slotsOf(user).find(slot => isSession(holderOf(slot)))
    if (oldestSession === undefined) return false
    end(oldestSession, 'evicted', now)
    return true
  }

  return {
    async insert(ref, token, { perUser, total }, now) {
      gate.check()
      const known = token.userId === null ? guests : users.get(token.userId)
      if (known && token.credentialVersion < known.floor) return 'ended'
      if (table.find(ref.id) !== none) return 'taken'
      if (known === guests && guests.tokens >= guestLimit(total)) return 'full'
      if ((known && !makeRoom(known, perUser, now)) || table.count() >= total) return 'full'
      const slot = table.take(ref)
      write(slot, token)
      join(slot, userOf(token.userId), token)
      return 'inserted'
    },

    async touch(refs, now, purpose) {
      gate.check()
      return refs.map(ref => {
        const slot = admit(ref, now, purpose)
        if (slot === none) return null
        use(slot, now)
        return holderOf(slot).kind === 'single-use' ? end(slot, 'consumed', now) : read(slot)
      })
    },

    async look(refs, now, purpose) {
      gate.check()
      return refs.map(ref => {
        const slot = admit(ref, now, purpose)
        return slot === none ? null : read(slot)
      })
    },

    async renew(ref, newHash, lineage, now) {
      gate.check()
      const slot = admit(ref, now, null)
      if (slot === none || !isSession(holderOf(slot))) return null
      table.setHash(slot, newHash)
      use(slot, now)
      renewals.set(slot, { lineage: lineage.slice(0, hashLength), renewedAt: now })
      return read(slot)
    },

    async delete(ref, now) {
      gate.check()
      const slot = find(ref)
      return slot === none ? null : end(slot, 'revoked', now)
    },

    async deleteRenewed(id, lineage, renewedUntil, now) {
      gate.check()
      const slot = table.find(id)
      const renewal = renewals.get(slot)
      if (renewal === undefined || renewal.renewedAt > renewedUntil) return null
      return renewal.lineage === lineage.slice(0, hashLength) ? end(slot, 'revoked', now) : null
    },

    async deleteById(id, now) {
      gate.check()
      const slot = table.find(id)
      return slot === none ? null : end(slot, 'revoked', now)
    },

    async endUser(_tag, userId, version, keep) {
      gate.check()
      const user = userOf(userId)
      const kept = keep === null ? none : table.find(keep)
      if (kept !== none && holderOf(kept).user === user && !holderOf(kept).ended) lift(kept, version)
      user.floor = Math.max(user.floor, version)
      for (const number of user.holders) {
        const holder = holders[number] as Holder
        holder.ended = holder.credentialVersion < user.floor
      }
    },

    async findByUser(_tag, userId, now) {
      gate.check()
      const user = users.get(userId)
      return user
        ? slotsOf(user)
            .filter(slot => !isDead(slot, now))
            .map(read)
        : []
    },

    async explain(ref, now, purpose): Promise<Refusal> {
      gate.check()
      const slot = find(ref)
      const renewal = slot === none && renewals.get(table.find(ref.id))
      if (renewal) return { reason: 'renewed', at: renewal.renewedAt }
      if (slot === none) return ends.get(ref.id) ?? { reason: 'unknown' }
      if (isDead(slot, now)) return causeOf(slot)
      return { reason: holderOf(slot).purpose === purpose ? 'unknown' : 'other_purpose' }
    },

    async deleteExpired(now, limit) {
      gate.check()
      let removed = 0
      const stop = Math.min(sweepAt + limit, table.used())
      for (; sweepAt < stop; sweepAt++) {
        const expiresAt = expiryOf(sweepAt)
        if (expiresAt === Infinity || !isDead(sweepAt, now)) continue
        if (++removed <= rememberedPerSlice) remember(table.idOf(sweepAt), causeOf(sweepAt))
        remove(sweepAt)
      }
      const done = sweepAt >= table.used()
      if (done) sweepAt = 0
      return { removed, done }
    },

    async list(cursor, limit, now) {
      gate.check()
      const tokens: TokenRecord[] = []
      let slot = cursor === null ? 0 : Number(/^\d+$/.test(cursor) ? cursor : Infinity)
      for (; slot < table.used() && tokens.length < limit; slot++) {
        if (expiryOf(slot) !== Infinity && !isDead(slot, now)) tokens.push(read(slot))
      }
      return { tokens, next: slot < table.used() ? String(slot) : null }
    },

    async census() {
      gate.check()
      return { ...counts }
    },

    *entries() {
      for (const user of [guests, ...users.values()]) {
        for (let slot = user.oldest; slot !== none; slot = pageOf(slot).newer[placeOf(slot)] as number) {
          if (holderOf(slot).ended) continue
          const token = read(slot)
          const renewal = renewals.get(slot) ?? null
          yield { ref: { id: token.id, hash: table.hashOf(slot) }, token, renewal }
        }
      }
    },

    markRenewed(id, renewal) {
      renewals.set(table.find(id), renewal)
    },

    close: gate.close,
  }
}

function createUser(id: string | null): User {
  return { id, username: null, floor: 0, tokens: 0, oldest: none, newest: none, holders: [] }
}

function isSession({ kind, purpose }: Holder): boolean {
  return kind === 'sliding' && purpose === null
}

export async function openUserStore(): Promise<UserStore> {
  const byUsername = new Map<string, UserRecord>()
  const byId = new Map<string, UserRecord>()
  const gate = createGate()

  return {
    async insert(user) {
      gate.check()
      if (byUsername.has(user.username) || byId.has(user.id)) return false
      const own = { ...user }
      byUsername.set(user.username, own)
      byId.set(user.id, own)
      return true
    },

    async findByUsername(username) {
      gate.check()
      const user = byUsername.get(username)
      return user ? { ...user } : null
    },

    async findById(id) {
      gate.check()
      const user = byId.get(id)
      return user ? { ...user } : null
    },

    async update(id, ifVersion, changes) {
      gate.check()
      const user = byId.get(id)
      return user?.credentialVersion === ifVersion ? { ...Object.assign(user, changes) } : null
    },

    async delete(id) {
      gate.check()
      const user = byId.get(id)
      if (user) byUsername.delete(user.username)
      return byId.delete(id)
    },

    async list(afterId, limit) {
      gate.check()
      const ids = [...byId.keys()].filter(id => afterId === null || id > afterId).sort()
      return ids.slice(0, limit).map(id => ({ ...(byId.get(id) as UserRecord) }))
    },

    async search(prefix, afterId, limit) {
      gate.check()
      const found = [...byId.values()].filter(({ id, username }) => {
        return username.startsWith(prefix) && (afterId === null || id > afterId)
      })
      found.sort((a, b) => (a.id < b.id ? -1 : 1))
      return found.slice(0, limit).map(user => ({ ...user }))
    },

    async findUnfinished(limit) {
      gate.check()
      const unfinished = [...byId.values()].filter(user => user.endedVersion < user.credentialVersion)
      return unfinished.slice(0, limit).map(user => ({ ...user }))
    },

    close: gate.close,
  }
}

function createGate() {
  let closed = false
  return {
    check(): void {
      if (closed) throw new Error('the store is closed')
    },
    async close(): Promise<void> {
      closed = true
    },
  }
}
