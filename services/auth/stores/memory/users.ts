// The users of the memory store that have a token or a floor, by number, and the list of each user's tokens. Hides how a
// user is laid out in typed arrays.
import type { Authority, TokenRecord } from '../tokenPort.ts'
import type { Authorities } from './authorities.ts'
import { createFloors } from './floors.ts'
import { createNames, type UserNames } from './names.ts'
import { createSlotIndex } from './slotIndex.ts'
import { column, none, type TokenTable } from './table.ts'

// A user takes a row of five words of 32 bits and one element of the column of floors, 28 bytes in all, another 5 to 10
// bytes in the index, and the record of their names:
//
//   tokens | oldest token | newest token | names | hash of the id
//
// The list of a user's tokens is in the order of issue; its links are in the rows of the tokens.
const pageBits = 12
const pageLength = 1 << pageBits
const rowLength = 5
const tokens = 0
const oldest = 1
const newest = 2
const names = 3
const hash = 4 // kept because the index needs it often, and reading the names takes longer

/** The number of the one user who stands for all guests. */
export const guests = 0

/** Both are null for guests. */
type TokenNames = Pick<TokenRecord, 'userId' | 'username'>

export interface Users {
  /** Prepares for so many users, while there are none. */
  reserve(users: number): void
  /** The number of the user with this id, or `none`. Null finds `guests`. */
  find(userId: string | null): number
  /** The number of the user with this id, who is added if necessary. From now on, this is their username. */
  findOrAdd(names: TokenNames): number
  namesOf(user: number): TokenNames
  /** Tokens with a smaller `credentialVersion` are dead. */
  floorOf(user: number): number
  setFloor(user: number, version: number): void
  /**
   * Forgets at most `limit` floors that were set longer than `floorKeptMs` ago, because every token below them is marked as
   * ended. False if there may be more.
   */
  forgetFloors(now: number, limit: number): boolean
  /** The number of the user's tokens. */
  tokensOf(user: number): number
  /** The slot of the user's oldest token, or `none`. The column `newer` leads to the others. */
  oldestOf(user: number): number
  /** The slots of the user's tokens, oldest first. */
  slotsOf(user: number): number[]
  /** Gives a new token to the user, as the newest. */
  link(slot: number, user: number): void
  /** The reverse of `link`. Forgets a user that has neither tokens nor a floor; a rate is kept as long as a floor. */
  unlink(slot: number): void
  /** One more than the highest number ever used. A number that is free has no tokens. */
  used(): number
}

export function createUsers(table: TokenTable, authorities: Authorities): Users {
  const rows: Int32Array[] = []
  const records = createNames()
  const floors = createFloors()
  let used = 0
  let freed = none // the first free number; `newest` links to the next one

  const get = (user: number, word: number): number =>
    (rows[user >>> pageBits] as Int32Array)[startOf(user) + word] as number
  function set(user: number, word: number, value: number): void {
    ;(rows[user >>> pageBits] as Int32Array)[startOf(user) + word] = value
  }

  const index = createSlotIndex(user => get(user, hash) >>> 0)

  // What `find` looks for. A shared variable avoids allocating a closure on each call.
  const wanted = { userId: '', hash: 0 }
  const isWanted = (user: number): boolean =>
    get(user, hash) === wanted.hash && records.hasId(get(user, names), wanted.userId)

  /** Allocates a number for a user without tokens and floor. */
  function take(record: number): number {
    const user = freed === none ? used++ : freed
    if (user === freed) freed = get(user, newest)
    else if (user === rows.length * pageLength) rows.push(new Int32Array(rowLength * pageLength))
    set(user, tokens, 0)
    set(user, oldest, none)
    set(user, newest, none)
    set(user, names, record)
    floors.clear(user)
    return user
  }

  function find(userId: string | null): number {
    if (userId === null) return guests
    wanted.userId = userId
    wanted.hash = hashOfId(userId)
    return index.find(wanted.hash >>> 0, isWanted)
  }

  function add(own: UserNames): number {
    const user = take(records.put(own))
    set(user, hash, hashOfId(own.userId))
    index.add(get(user, hash) >>> 0, user)
    return user
  }

  function rename(user: number, own: UserNames): void {
    const record = get(user, names)
    if (records.read(record).username === own.username) return
    set(user, names, records.put(own))
    records.free(record)
  }

  function forget(user: number): void {
    index.remove(get(user, hash) >>> 0, user)
    records.free(get(user, names))
    authorities.delete(user)
    set(user, newest, freed)
    freed = user
  }

  take(none) // guests

  return {
    floorOf: floors.of,
    setFloor: floors.set,

    forgetFloors(now, limit) {
      const old = floors.takeOld(now, limit)
      for (const user of old) if (get(user, tokens) === 0) forget(user)
      return old.length < limit
    },

    reserve: index.reserve,

    find,

    findOrAdd({ userId, username }) {
      if (userId === null) return guests
      const known = find(userId)
      if (known === none) return add({ userId, username })
      rename(known, { userId, username })
      return known
    },

    namesOf: user => (user === guests ? { userId: null, username: null } : records.read(get(user, names))),

    oldestOf: user => get(user, oldest),

    tokensOf: user => get(user, tokens),

    slotsOf(user) {
      const slots: number[] = []
      for (let slot = get(user, oldest); slot !== none; slot = table.get(slot, column.newer)) slots.push(slot)
      return slots
    },

    link(slot, user) {
      const last = get(user, newest)
      table.set(slot, column.user, user)
      table.set(slot, column.older, last)
      table.set(slot, column.newer, none)
      if (last === none) set(user, oldest, slot)
      else table.set(last, column.newer, slot)
      set(user, newest, slot)
      set(user, tokens, get(user, tokens) + 1)
    },

    unlink(slot) {
      const user = table.get(slot, column.user)
      const older = table.get(slot, column.older)
      const newer = table.get(slot, column.newer)
      if (older === none) set(user, oldest, newer)
      else table.set(older, column.newer, newer)
      if (newer === none) set(user, newest, older)
      else table.set(newer, column.older, older)
      set(user, tokens, get(user, tokens) - 1)
      if (user === guests || get(user, tokens) > 0) return
      // An emptied bucket must not be full again after the next log-in, so its user is kept as if the floor had just been set.
      if (authorities.bucketOf(user)) floors.set(user, Math.max(floors.of(user), 1))
      // A floor outlives the tokens, because a log-in that was verified before the floor was raised may still insert its
      // token.
      else if (floors.of(user) === 0) forget(user)
    },

    used: () => used,
  }
}

/** Where the user's row begins in its page. */
const startOf = (user: number): number => (user & (pageLength - 1)) * rowLength

/** A signed hash of 32 bits (FNV-1a, finally mixed). It need not resist chosen ids, because Auth or the operator chooses them. */
function hashOfId(userId: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < userId.length; i++) value = Math.imul(value ^ userId.charCodeAt(i), 0x01000193)
  value = Math.imul(value ^ (value >>> 16), 0x7feb352d)
  return Math.imul(value ^ (value >>> 15), 0x846ca68b)
}

/** Does nothing unless the version is higher. */
export function raiseAuthority(
  { users, authorities }: { users: Users; authorities: Authorities },
  user: number,
  authority: Authority,
): void {
  if (authority.version <= authorities.of(user).version) return
  authorities.set(user, authority)
  users.setFloor(user, Math.max(users.floorOf(user), 1)) // refuses nothing, and keeps the user as long as any floor
}
