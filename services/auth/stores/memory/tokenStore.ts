// The token store in the memory of this process, lost when it exits. Every method is one synchronous step and therefore
// atomic. The tokens themselves are in table.ts, their users in users.ts.
import {
  guestLimit,
  type InsertOutcome,
  isHeldByProgram,
  programLimit,
  type TokenLimits,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../tokenPort.ts'
import { createAuthorities } from './authorities.ts'
import { createGate } from './gate.ts'
import { createParents } from './parents.ts'
import { changeLimits, createRareParts, isHeldByProgramAt, setName } from './rareParts.ts'
import { createTokenTable, hashLength, none } from './table.ts'
import { createTermsTable } from './terms.ts'
import { createTokenSlots, type TokenParts, type TokenSlots } from './tokenSlots.ts'
import { createUsers, guests, raiseAuthority } from './users.ts'

/** Everything in the store. */
export interface Memory extends TokenParts {
  slots: TokenSlots
}

const rememberedPerSlice = 50 // per sweep step, for `explain`: operators ask about few of the tokens that a sweep deletes

export async function openTokenStore(): Promise<TokenStore> {
  return createTokenStore(createMemory())
}

export function createMemory(): Memory {
  const table = createTokenTable()
  const authorities = createAuthorities()
  const users = createUsers(table, authorities)
  const [terms, rare] = [createTermsTable(), createRareParts()]
  const parts = { table, users, authorities, terms, rare, parents: createParents(table, terms, rare) }
  return { ...parts, slots: createTokenSlots(parts) }
}

export function createTokenStore(memory: Memory): TokenStore {
  const { table, users, terms, rare, parents, slots } = memory
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
        const slot = admit(memory, ref, now, purpose)
        if (slot === none) return null
        const retryAfterMs = slots.take(slot, now)
        if (retryAfterMs > 0) return { limited: true, retryAfterMs }
        slots.use(slot, now)
        const parent = parents.of(slot)
        const token = slots.isUsedUp(slot) ? slots.end(slot, 'consumed', now) : slots.read(slot)
        if (parent !== none && slots.isUsedUp(parent)) slots.end(parent, 'consumed', now)
        return token
      })
    },

    async touchSession(ref, now) {
      gate.check()
      const slot = admit(memory, ref, now, null)
      if (slot === none || !isSessionAt(memory, slot)) return null
      slots.use(slot, now)
      return slots.read(slot)
    },

    async look(refs, now, purpose) {
      gate.check()
      return refs.map(ref => {
        const slot = admit(memory, ref, now, purpose)
        return slot === none ? null : slots.read(slot)
      })
    },

    async renew(ref, newHash, lineage, now) {
      gate.check()
      const slot = admit(memory, ref, now, null)
      if (slot === none || slots.termsOf(slot).kind !== 'sliding') return null
      slots.use(slot, now)
      slots.renew(slot, newHash, { lineage, renewedAt: now })
      return slots.read(slot)
    },

    async delete(ref, now) {
      gate.check()
      const slot = slots.find(ref)
      return slot === none ? null : slots.end(slot, 'revoked', now)
    },

    async findRenewed(id, lineage, renewedUntil) {
      gate.check()
      const slot = table.find(id)
      const renewal = rare.renewals.get(slot)
      if (renewal === undefined || renewal.renewedAt > renewedUntil) return null
      return renewal.lineage === lineage.slice(0, hashLength) ? slots.read(slot) : null
    },

    async deleteById(id, now, owner) {
      gate.check()
      const slot = table.find(id)
      if (slot === none || (owner !== null && !isLiveSessionOf(memory, slot, owner, now))) return null
      return slots.end(slot, 'revoked', now)
    },

    async raiseFloor(userId, version, keep) {
      gate.check()
      raiseFloor(memory, userId, version, keep === null ? none : table.find(keep))
    },

    async setAuthority(userId, authority) {
      gate.check()
      raiseAuthority(memory, knownUser(memory, userId), authority)
    },

    async change(id, { scope, paused, name, ...limits }, now) {
      gate.check()
      const slot = table.find(id)
      if (slot === none || slots.isDead(slot, now) || parents.isDead(slot, now)) return null
      if (scope !== undefined) slots.change(slot, { scope })
      if (paused !== undefined) slots.change(slot, { paused })
      if (name !== undefined) setName(rare, slot, name)
      changeLimits(rare, slot, limits)
      return slots.read(slot)
    },

    async pause(id, now) {
      gate.check()
      const slot = table.find(id)
      if (slot === none || slots.isDead(slot, now) || parents.isDead(slot, now) || slots.termsOf(slot).paused)
        return null
      slots.change(slot, { paused: true })
      return slots.read(slot)
    },

    async findByUser(userId, now) {
      gate.check()
      const user = users.find(userId)
      const own = user === none ? [] : users.slotsOf(user)
      const live = own.filter(slot => !isFoundDead(memory, slot, now))
      return live.filter(slot => !parents.isDead(slot, now)).map(slots.read)
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
      const removed = sweep(memory, from, stop, now)
      return { removed, done: users.forgetFloors(now, limit) && sweepAt === 0 }
    },

    async list(cursor, limit, now) {
      gate.check()
      return listFrom(memory, cursor === null ? 0 : Number(/^\d+$/.test(cursor) ? cursor : Infinity), limit, now)
    },

    async counts() {
      gate.check()
      return { ...terms.counts }
    },

    readClock: async () => null,

    close: gate.close,
  }
}

/** Whether the token is dead. If so, it is dead for every `now` from then on. */
function isFoundDead({ slots }: Memory, slot: number, now: number): boolean {
  const isDead = slots.isDead(slot, now)
  if (isDead) slots.markDead(slot)
  return isDead
}

/** The slot of the token if it is live and has this purpose, otherwise `none`. */
function admit(memory: Memory, ref: TokenRef, now: number, purpose: string | null): number {
  const { slots, parents } = memory
  const slot = slots.find(ref)
  if (slot === none || isFoundDead(memory, slot, now) || slots.termsOf(slot).purpose !== purpose) return none
  if (slots.isPaused(slot)) return none
  const parent = parents.of(slot)
  const isRefused =
    parent === none ? parents.isDead(slot, now) : isFoundDead(memory, parent, now) || slots.isPaused(parent)
  return isRefused ? none : slot
}

/** Like `isSession`, but does not read the names of the user. */
function isSessionAt({ slots }: Memory, slot: number): boolean {
  const { kind, purpose } = slots.termsOf(slot)
  return slots.userOf(slot) !== guests && kind === 'sliding' && purpose === null
}

function isLiveSessionOf(memory: Memory, slot: number, owner: string, now: number): boolean {
  const { slots, users } = memory
  return slots.userOf(slot) === users.find(owner) && isSessionAt(memory, slot) && !isFoundDead(memory, slot, now)
}

/** Makes room for the token, if necessary by evicting a session. Returns `inserted` if the token can now be inserted. */
function admitNew(memory: Memory, token: TokenRecord, { perUser, total }: TokenLimits, now: number): InsertOutcome {
  const { users, table, slots } = memory
  const user = users.find(token.userId)
  if (user !== none && token.credentialVersion < users.floorOf(user)) return 'ended'
  const parent = token.parent === null ? null : table.find(token.parent.id)
  if (parent === none || (parent !== null && slots.isDead(parent, now))) return 'ended'
  if (table.find(token.id) !== none) return 'taken'
  if (user === guests && users.tokensOf(guests) >= guestLimit(total)) return 'full'
  if ((user !== none && !makeRoom(memory, user, token, perUser, now)) || table.count() >= total) return 'full'
  return 'inserted'
}

/** Makes room for this token of the user, evicting another one if necessary; false if there is none to evict. */
function makeRoom(memory: Memory, user: number, token: TokenRecord, perUser: number, now: number): boolean {
  const { users, table, slots } = memory
  if (user === guests) return true
  if (isHeldByProgram(token) && !makeRoomForProgram(memory, user, perUser, now)) return false
  if (users.tokensOf(user) < perUser) return true
  for (const slot of users.slotsOf(user)) if (slots.isDead(slot, now)) slots.removeDead(slot, true)
  if (users.tokensOf(user) < perUser) return true
  const isOther = (slot: number) => token.parent?.id !== table.idOf(slot) // evicting the parent would end this token too
  const oldestSession = users.slotsOf(user).find(slot => isSessionAt(memory, slot) && isOther(slot))
  if (oldestSession === undefined) return false
  slots.end(oldestSession, 'evicted', now)
  return true
}

function makeRoomForProgram({ users, slots, rare }: Memory, user: number, perUser: number, now: number): boolean {
  const held = users.slotsOf(user).filter(slot => isHeldByProgramAt(rare, slot) && !slots.isDead(slot, now))
  if (held.length < programLimit(perUser)) return true
  const oldest = held.find(slot => rare.parents.has(slot))
  if (oldest === undefined) return false
  slots.end(oldest, 'evicted', now)
  return true
}

/** The number of the user, who is added without a name if necessary. */
function knownUser({ users }: Memory, userId: string): number {
  const known = users.find(userId)
  return known === none ? users.findOrAdd({ userId, username: null }) : known
}

/** `kept` is the slot of a token whose version is raised too, or `none`. */
function raiseFloor(memory: Memory, userId: string, version: number, kept: number): void {
  const { users, slots } = memory
  const user = knownUser(memory, userId)
  const isKept = kept !== none && slots.userOf(kept) === user && !slots.isEnded(kept)
  if (isKept && slots.termsOf(kept).credentialVersion < version) slots.change(kept, { credentialVersion: version })
  users.setFloor(user, Math.max(version, users.floorOf(user)))
  for (const slot of users.slotsOf(user)) if (slots.isEnded(slot)) slots.markDead(slot)
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

function listFrom({ table, slots, parents }: Memory, from: number, limit: number, now: number) {
  const tokens: TokenRecord[] = []
  let slot = from
  for (; slot < table.used() && tokens.length < limit; slot++) {
    if (table.isFree(slot) || slots.isDead(slot, now) || parents.isDead(slot, now)) continue
    tokens.push(slots.read(slot))
  }
  return { tokens, next: slot < table.used() ? String(slot) : null }
}
