// The tokens of the memory store by slot: reads, uses, ends and explains them. Hides which parts of a token are in the
// table, which belong to its user or its terms, and which are in maps because few tokens have them.

import { takeFrom } from '../rates.ts'
import { type EndReason, type Explanation, type TokenRecord, type TokenRef, usualLogin } from '../tokenPort.ts'
import type { Authorities } from './authorities.ts'
import type { Parents } from './parents.ts'
import { addRareParts, limitsOf, type OwnLimits, type RareParts, type Renewal } from './rareParts.ts'
import { column, hashLength, none, packedLength, packRef, type TokenTable } from './table.ts'
import type { Terms, TermsTable } from './terms.ts'
import { raiseAuthority, type Users } from './users.ts'

export interface TokenState extends Pick<TokenRecord, 'createdAt' | 'lastUsedAt' | 'expiresAt' | 'refreshCount'> {
  user: number
  terms: number
  /** The `loginId` of the token; undefined if it is the usual one. */
  login: string | null | undefined
  limits: OwnLimits | undefined
}

export interface TokenParts {
  table: TokenTable
  users: Users
  authorities: Authorities
  terms: TermsTable
  rare: RareParts
  parents: Parents
}

export interface TokenSlots {
  /** The slot of the token with this id and hash, whether live or dead; `none` if there is no such token. */
  find(ref: TokenRef): number
  isDead(slot: number, now: number): boolean
  /** Whether the token's version is below the floor of its user. */
  isEnded(slot: number): boolean
  /** Whether the token or its user is paused. */
  isPaused(slot: number): boolean
  userOf(slot: number): number
  termsOf(slot: number): Terms
  read(slot: number): TokenRecord
  add(ref: TokenRef, token: TokenRecord): void
  /** Adds a token whose packed id and hash begin at `start`, and returns its slot. */
  addPacked(packed: Int32Array, start: number, state: TokenState): number
  /**
   * Takes a validation from what the limits of the token, its parent and its user allow. Returns 0, or the milliseconds until they
   * allow one.
   */
  take(slot: number, now: number): number
  /** Counts a use, and extends a sliding token. */
  use(slot: number, now: number): void
  /** Whether the use that was just taken from the token was its last one. */
  isUsedUp(slot: number): boolean
  change(slot: number, changes: Partial<Terms>): void
  /** Makes a token dead for every `now`. */
  markDead(slot: number): void
  renew(slot: number, newHash: string, renewal: Renewal): void
  /** Removes a token and remembers why. */
  end(slot: number, reason: EndReason, now: number): TokenRecord
  /** Removes a token that is dead already. */
  removeDead(slot: number, shouldRemember: boolean): void
  explain(ref: TokenRef, now: number, purpose: string | null): Explanation
}

const packed = new Int32Array(packedLength) // for the token that is being added
const maxRemembered = 10_000 // ended tokens, for `explain`; the oldest are dropped first

export function createTokenSlots(parts: TokenParts): TokenSlots {
  const { table, users, authorities, terms, rare, parents } = parts
  const { logins, renewals, limits } = rare
  const rareParts = Object.values(rare)
  const read = createReader(parts)
  const ends = createEnds()

  const userOf = (slot: number): number => table.get(slot, column.user)
  const termsOf = (slot: number): Terms => terms.at(table.get(slot, column.terms))
  // The expiry of a token that is dead for good is negative, so that one number says whether a token is dead.
  const isDead = (slot: number, now: number): boolean => table.expiresAt(slot) <= now
  const markDead = (slot: number): void => table.setExpiresAt(slot, -Math.abs(table.expiresAt(slot)))
  const isEnded = (slot: number): boolean => termsOf(slot).credentialVersion < users.floorOf(userOf(slot))

  function find({ id, hash }: TokenRef): number {
    const slot = table.find(id)
    return slot !== none && table.hasHash(slot, hash) ? slot : none
  }

  function addPacked(packed: Int32Array, start: number, state: TokenState): number {
    const slot = table.take(packed, start)
    table.setCreatedAt(slot, state.createdAt)
    table.setLastUsedAt(slot, state.lastUsedAt)
    table.setExpiresAt(slot, state.expiresAt)
    table.set(slot, column.refreshCount, state.refreshCount)
    table.set(slot, column.terms, state.terms)
    if (state.login !== undefined) logins.set(slot, state.login)
    if (state.limits !== undefined) limits.set(slot, state.limits)
    users.link(slot, state.user)
    return slot
  }

  function take(slot: number, now: number): number {
    const own = limits.size === 0 ? undefined : limits.get(slot)
    const ofUser = authorities.bucketOf(userOf(slot))
    const ofParent = limits.size === 0 ? undefined : limits.get(parents.of(slot))
    if (own === undefined && ofParent === undefined && ofUser === null) return 0
    const isServiceUse = termsOf(slot).purpose === null
    const buckets = [own?.bucket, ofParent?.bucket, isServiceUse ? ofUser : null].filter(bucket => bucket != null)
    const retryAfterMs = takeFrom(buckets, now)
    if (retryAfterMs > 0) return retryAfterMs
    if (own?.usesLeft != null) own.usesLeft--
    if (ofParent?.usesLeft != null) ofParent.usesLeft--
    return 0
  }

  function use(slot: number, now: number): void {
    const { kind, ttlMs, lifetimeMs } = termsOf(slot)
    if (kind === 'sliding') {
      const extendedTo = Math.min(now + ttlMs, table.createdAt(slot) + lifetimeMs)
      table.setExpiresAt(slot, Math.max(extendedTo, table.expiresAt(slot)))
    }
    table.setLastUsedAt(slot, now)
    table.set(slot, column.refreshCount, table.get(slot, column.refreshCount) + 1)
  }

  function change(slot: number, changes: Partial<Terms>): void {
    const number = terms.add({ ...termsOf(slot), ...changes })
    terms.remove(table.get(slot, column.terms))
    table.set(slot, column.terms, number)
  }

  const isPaused = (slot: number): boolean => termsOf(slot).paused || authorities.of(userOf(slot)).paused

  function end(slot: number, reason: EndReason, now: number): TokenRecord {
    const token = read(slot)
    ends.remember(token.id, { reason, at: now })
    remove(slot)
    return token
  }

  function remove(slot: number): void {
    users.unlink(slot)
    terms.remove(table.get(slot, column.terms))
    for (const part of rareParts) part.delete(slot)
    table.free(slot)
  }

  /** The cause of death of a token that has not been swept yet. */
  function causeOf(slot: number): Explanation {
    return isEnded(slot) ? { reason: 'ended' } : { reason: 'expired', at: Math.abs(table.expiresAt(slot)) }
  }

  return {
    find,
    isDead,
    isEnded,
    userOf,
    termsOf,
    read,
    take,
    use,

    isUsedUp: slot => termsOf(slot).kind === 'single-use' || limits.get(slot)?.usesLeft === 0,

    addPacked,
    change,
    isPaused,
    markDead,
    end,

    add(ref, token) {
      const user = users.findOrAdd(token)
      raiseAuthority(parts, user, token.authority)
      const lifetimeMs = token.absoluteExpiresAt - token.createdAt
      const login = token.loginId === usualLogin(token) ? undefined : token.loginId
      packRef(ref, packed, 0)
      const own = { ...token, user, terms: terms.add({ ...token, lifetimeMs }), login, limits: undefined }
      addRareParts(rare, addPacked(packed, 0, own), token)
    },

    renew(slot, newHash, { lineage, renewedAt }) {
      table.setHash(slot, newHash)
      renewals.set(slot, { lineage: lineage.slice(0, hashLength), renewedAt })
    },

    removeDead(slot, shouldRemember) {
      if (shouldRemember) ends.remember(table.idOf(slot), causeOf(slot))
      remove(slot)
    },

    explain(ref, now, purpose) {
      const slot = find(ref)
      if (slot === none) {
        const renewal = renewals.get(table.find(ref.id))
        return renewal ? { reason: 'renewed', at: renewal.renewedAt } : ends.explain(ref.id)
      }
      if (isDead(slot, now)) return causeOf(slot)
      if (parents.isDead(slot, now)) return { reason: 'parent_ended' }
      if (termsOf(slot).purpose !== purpose) return { reason: 'other_purpose' }
      const parent = parents.of(slot)
      return { reason: isPaused(slot) || (parent !== none && isPaused(parent)) ? 'paused' : 'live' }
    },
  }
}

/** Reads the token in a slot. */
function createReader({ table, users, authorities, terms, rare, parents }: TokenParts) {
  return (slot: number): TokenRecord => {
    const { kind, purpose, credentialVersion, ttlMs, lifetimeMs, scope, paused } = terms.at(
      table.get(slot, column.terms),
    )
    const user = table.get(slot, column.user)
    const { userId, username } = users.namesOf(user)
    const id = table.idOf(slot)
    const ownLogin = rare.logins.get(slot)
    const createdAt = table.createdAt(slot)
    return {
      id,
      kind,
      purpose,
      userId,
      username,
      credentialVersion,
      createdAt,
      loginId: ownLogin === undefined ? usualLogin({ id, kind, purpose, userId }) : ownLogin,
      lastUsedAt: table.lastUsedAt(slot),
      expiresAt: Math.abs(table.expiresAt(slot)),
      absoluteExpiresAt: createdAt + lifetimeMs,
      ttlMs,
      refreshCount: table.get(slot, column.refreshCount) >>> 0,
      scope,
      paused,
      ...limitsOf(rare, slot),
      name: rare.names.size === 0 ? null : (rare.names.get(slot) ?? null),
      parent: parents.read(slot),
      authority: authorities.of(user),
    }
  }
}

/** Why the last tokens ended. */
function createEnds() {
  const ends = new Map<string, Explanation>()
  return {
    remember(id: string, why: Explanation): void {
      ends.delete(id)
      ends.set(id, why)
      if (ends.size > maxRemembered) ends.delete(ends.keys().next().value as string)
    },

    explain: (id: string): Explanation => ends.get(id) ?? { reason: 'unknown' },
  }
}
