// Groups the tokens of the memory store by user, and a user's tokens by the terms they share, so that a token needs no
// strings of its own. Hides how groups are numbered and the linked list of a user's tokens.
import type { TokenKind, TokenRecord } from '../ports.ts'
import { none, placeOf, type TokenTable } from './table.ts'

export interface User {
  /** Null for the one entry that all guests share. */
  id: string | null
  username: string | null
  /** Tokens with a smaller `credentialVersion` are dead. */
  floor: number
  tokens: number
  /** Slots of the first and last token in the user's list, which is in the order of issue. */
  oldest: number
  newest: number
  /** The numbers of the user's groups. */
  groups: number[]
}

/** The values that many tokens of a user share. */
type Terms = Pick<TokenRecord, 'credentialVersion' | 'kind' | 'purpose' | 'ttlMs'>

export interface Group extends Terms {
  user: User
  tokens: number
  /** True if the version is below the user's floor. */
  ended: boolean
}

export interface Groups {
  guests: User
  /** The users that have a token or a floor, by id. */
  users: ReadonlyMap<string, User>
  /** The number of tokens of each kind. */
  counts: Readonly<Record<TokenKind, number>>
  groupOf(slot: number): Group
  /** The slots of the user's tokens, oldest first. */
  slotsOf(user: User): number[]
  /** Assigns a new slot to the token's user, as the newest, and to the group with the token's terms. */
  add(slot: number, token: TokenRecord): void
  /** The reverse of `add`. Forgets a user that has neither tokens nor a floor. */
  remove(slot: number): void
  /** Raises the user's floor; never lowers it. `kept` is the slot of a token whose version is raised too, or `none`. */
  raiseFloor(userId: string, version: number, kept: number): void
}

const guestGroupsKept = 16 // searching every group that guests ever had would slow down each insert

export function createGroups({ pageOf }: TokenTable): Groups {
  const users = new Map<string, User>()
  const guests = createUser(null)
  const groups: (Group | null)[] = []
  const freeNumbers: number[] = []
  const counts: Record<TokenKind, number> = { sliding: 0, fixed: 0, 'single-use': 0 }

  const groupOf = (slot: number): Group => groups[pageOf(slot).group[placeOf(slot)] as number] as Group

  function userOf(userId: string | null): User {
    if (userId === null) return guests
    const known = users.get(userId)
    if (known) return known
    const user = createUser(userId)
    users.set(userId, user)
    return user
  }

  /** Adds a slot to the group with these terms, creating the group if necessary. */
  function attach(slot: number, user: User, { credentialVersion, kind, purpose, ttlMs }: Terms): void {
    let number = user.groups.find(number => {
      const known = groups[number] as Group
      const isSame = known.credentialVersion === credentialVersion && known.kind === kind && known.purpose === purpose
      return isSame && known.ttlMs === ttlMs
    })
    if (number === undefined) {
      number = freeNumbers.pop() ?? groups.length
      groups[number] = { user, credentialVersion, kind, purpose, ttlMs, tokens: 0, ended: false }
      // `user.groups` is used to raise floors, which guests do not have, and to find groups to reuse, for which the most
      // recent suffice.
      const others = user === guests ? user.groups.slice(-guestGroupsKept) : user.groups
      user.groups = [...others, number] // `push` would reserve room for sixteen more numbers
    }
    ;(groups[number] as Group).tokens++
    counts[kind]++
    pageOf(slot).group[placeOf(slot)] = number
  }

  /** Removes a slot from its group, and frees the group if this was its last token. */
  function detach(slot: number): void {
    const number = pageOf(slot).group[placeOf(slot)] as number
    const group = groups[number] as Group
    counts[group.kind]--
    if (--group.tokens > 0) return
    groups[number] = null
    freeNumbers.push(number)
    group.user.groups = group.user.groups.filter(other => other !== number)
  }

  /** Appends a slot to the user's list. */
  function link(slot: number, user: User): void {
    const { older, newer } = pageOf(slot)
    older[placeOf(slot)] = user.newest
    newer[placeOf(slot)] = none
    if (user.newest === none) user.oldest = slot
    else pageOf(user.newest).newer[placeOf(user.newest)] = slot
    user.newest = slot
    user.tokens++
  }

  function unlink(slot: number, user: User): void {
    const page = pageOf(slot)
    const older = page.older[placeOf(slot)] as number
    const newer = page.newer[placeOf(slot)] as number
    if (older === none) user.oldest = newer
    else pageOf(older).newer[placeOf(older)] = newer
    if (newer === none) user.newest = older
    else pageOf(newer).older[placeOf(newer)] = older
    user.tokens--
  }

  /** Raises the `credentialVersion` of a token; never lowers it. */
  function raiseVersion(slot: number, version: number): void {
    const { user, ...terms } = groupOf(slot)
    if (terms.credentialVersion >= version) return
    detach(slot)
    attach(slot, user, { ...terms, credentialVersion: version })
  }

  return {
    guests,
    users,
    counts,
    groupOf,

    slotsOf(user) {
      const slots: number[] = []
      for (let slot = user.oldest; slot !== none; slot = pageOf(slot).newer[placeOf(slot)] as number) slots.push(slot)
      return slots
    },

    add(slot, token) {
      const user = userOf(token.userId)
      user.username = token.username
      attach(slot, user, token)
      link(slot, user)
    },

    remove(slot) {
      const { user } = groupOf(slot)
      unlink(slot, user)
      detach(slot)
      // A floor outlives the tokens, because a log-in that was verified before the floor was raised may still insert its
      // token.
      if (user.id !== null && user.tokens === 0 && user.floor === 0) users.delete(user.id)
    },

    raiseFloor(userId, version, kept) {
      const user = userOf(userId)
      if (kept !== none && groupOf(kept).user === user && !groupOf(kept).ended) raiseVersion(kept, version)
      user.floor = Math.max(user.floor, version)
      for (const number of user.groups) {
        const group = groups[number] as Group
        group.ended = group.credentialVersion < user.floor
      }
    },
  }
}

function createUser(id: string | null): User {
  return { id, username: null, floor: 0, tokens: 0, oldest: none, newest: none, groups: [] }
}
