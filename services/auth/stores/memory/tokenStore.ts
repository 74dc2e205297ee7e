// The token store in the memory of this process, lost when it exits. Every method is one synchronous step and therefore
// atomic. The tokens themselves are in table.ts, grouped by user in groups.ts.
import {
  guestLimit,
  type InsertOutcome,
  isSession,
  type TokenLimits,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../ports.ts'
import { createGate } from './gate.ts'
import { createGroups, type Group, type Groups, type User } from './groups.ts'
import { createTokenTable, hashLength, none, type TokenTable } from './table.ts'
import { createTokenSlots, type Renewal, type TokenSlots } from './tokenSlots.ts'

export type { Renewal }

export interface MemoryTokenStore extends TokenStore {
  /**
   * All tokens at or above their user's floor, including expired ones, in the order of issue per user. Hashes are
   * truncated to the part that the store keeps.
   */
  entries(): Generator<{ ref: TokenRef; token: TokenRecord; renewal: Renewal | null }>
  /** Inserts a token from a snapshot, unless its id is taken. No limits apply. */
  restore(ref: TokenRef, token: TokenRecord, renewal: Renewal | null): void
}

/** Everything in the store. */
interface Memory {
  table: TokenTable
  groups: Groups
  slots: TokenSlots
}

const rememberedPerSlice = 50 // per sweep step, for `explain`: operators ask about few of the tokens that a sweep deletes

export async function openTokenStore(): Promise<MemoryTokenStore> {
  const table = createTokenTable()
  const groups = createGroups(table)
  const slots = createTokenSlots(table, groups)
  const memory = { table, groups, slots }
  const gate = createGate()
  let sweepAt = 0

  return {
    async insert(ref, token, limits, now) {
      gate.check()
      const outcome = admitNew(memory, token, limits, now)
      if (outcome === 'inserted') slots.add(ref, token)
      return outcome
    },

    async touch(refs, now, purpose) {
      gate.check()
      return refs.map(ref => {
        const slot = slots.admit(ref, now, purpose)
        if (slot === none) return null
        slots.use(slot, now)
        return groups.groupOf(slot).kind === 'single-use' ? slots.end(slot, 'consumed', now) : slots.read(slot)
      })
    },

    async touchSession(ref, now) {
      gate.check()
      const slot = slots.admit(ref, now, null)
      if (slot === none || !isSessionOf(groups.groupOf(slot))) return null
      slots.use(slot, now)
      return slots.read(slot)
    },

    async look(refs, now, purpose) {
      gate.check()
      return refs.map(ref => {
        const slot = slots.admit(ref, now, purpose)
        return slot === none ? null : slots.read(slot)
      })
    },

    async renew(ref, newHash, lineage, now) {
      gate.check()
      const slot = slots.admit(ref, now, null)
      if (slot === none || groups.groupOf(slot).kind !== 'sliding') return null
      slots.use(slot, now)
      slots.renew(slot, newHash, { lineage, renewedAt: now })
      return slots.read(slot)
    },

    async delete(ref, now) {
      gate.check()
      const slot = slots.find(ref)
      return slot === none ? null : slots.end(slot, 'revoked', now)
    },

    async deleteRenewed(id, lineage, renewedUntil, now) {
      gate.check()
      const slot = table.find(id)
      const renewal = slots.renewalOf(slot)
      if (renewal === null || renewal.renewedAt > renewedUntil) return null
      return renewal.lineage === lineage.slice(0, hashLength) ? slots.end(slot, 'revoked', now) : null
    },

    async deleteById(id, now, owner) {
      gate.check()
      const slot = table.find(id)
      if (slot === none || (owner !== null && !isLiveSessionOf(memory, slot, owner, now))) return null
      return slots.end(slot, 'revoked', now)
    },

    async raiseFloor(userId, version, keep) {
      gate.check()
      groups.raiseFloor(userId, version, keep === null ? none : table.find(keep))
    },

    async findByUser(userId, now) {
      gate.check()
      const user = groups.users.get(userId)
      const own = user ? groups.slotsOf(user) : []
      return own.filter(slot => !slots.isDead(slot, now)).map(slots.read)
    },

    async explain(ref, now, purpose) {
      gate.check()
      return slots.explain(ref, now, purpose)
    },

    async deleteExpired(now, limit) {
      gate.check()
      const from = sweepAt
      const stop = Math.min(from + limit, table.used())
      sweepAt = stop >= table.used() ? 0 : stop
      return { removed: sweep(memory, from, stop, now), done: sweepAt === 0 }
    },

    async list(cursor, limit, now) {
      gate.check()
      return listFrom(memory, cursor === null ? 0 : Number(/^\d+$/.test(cursor) ? cursor : Infinity), limit, now)
    },

    async counts() {
      gate.check()
      return { ...groups.counts }
    },

    entries: () => entriesOf(memory),

    restore(ref, token, renewal) {
      if (table.find(ref.id) !== none) return
      slots.add(ref, token)
      if (renewal) slots.renew(table.find(ref.id), ref.hash, renewal)
    },

    close: gate.close,
  }
}

const isSessionOf = ({ user, kind, purpose }: Group): boolean => isSession({ kind, purpose, userId: user.id })

function isLiveSessionOf({ groups, slots }: Memory, slot: number, owner: string, now: number): boolean {
  const group = groups.groupOf(slot)
  return group.user.id === owner && isSessionOf(group) && !slots.isDead(slot, now)
}

/** Makes room for the token, if necessary by evicting a session. Returns `inserted` if the token can now be inserted. */
function admitNew(memory: Memory, token: TokenRecord, { perUser, total }: TokenLimits, now: number): InsertOutcome {
  const { groups, table } = memory
  const known = token.userId === null ? groups.guests : groups.users.get(token.userId)
  if (known && token.credentialVersion < known.floor) return 'ended'
  if (table.find(token.id) !== none) return 'taken'
  if (known === groups.guests && known.tokens >= guestLimit(total)) return 'full'
  if ((known && !makeRoom(memory, known, perUser, now)) || table.count() >= total) return 'full'
  return 'inserted'
}

/** Makes room for one more token of the user, evicting a session if necessary; false if there is none to evict. */
function makeRoom({ groups, slots }: Memory, user: User, perUser: number, now: number): boolean {
  if (user === groups.guests || user.tokens < perUser) return true
  for (const slot of groups.slotsOf(user)) if (slots.isDead(slot, now)) slots.removeDead(slot, true)
  if (user.tokens < perUser) return true
  const oldestSession = groups.slotsOf(user).find(slot => {
    const { kind, purpose } = groups.groupOf(slot)
    return kind === 'sliding' && purpose === null
  })
  if (oldestSession === undefined) return false
  slots.end(oldestSession, 'evicted', now)
  return true
}

/** Removes the dead tokens among the slots from `from` up to but not including `to`. Returns how many there were. */
function sweep({ table, slots }: Memory, from: number, to: number, now: number): number {
  let removed = 0
  for (let slot = from; slot < to; slot++) {
    if (table.isFree(slot) || !slots.isDead(slot, now)) continue
    slots.removeDead(slot, ++removed <= rememberedPerSlice)
  }
  return removed
}

function listFrom({ table, slots }: Memory, from: number, limit: number, now: number) {
  const tokens: TokenRecord[] = []
  let slot = from
  for (; slot < table.used() && tokens.length < limit; slot++) {
    if (!table.isFree(slot) && !slots.isDead(slot, now)) tokens.push(slots.read(slot))
  }
  return { tokens, next: slot < table.used() ? String(slot) : null }
}

function* entriesOf({ table, groups, slots }: Memory): ReturnType<MemoryTokenStore['entries']> {
  for (const user of [groups.guests, ...groups.users.values()]) {
    for (const slot of groups.slotsOf(user)) {
      if (groups.groupOf(slot).ended) continue
      const token = slots.read(slot)
      yield { ref: { id: token.id, hash: table.hashOf(slot) }, token, renewal: slots.renewalOf(slot) }
    }
  }
}
