// The port of the token store: what Auth requires of it. Instants are epoch milliseconds, passed in by the caller. `null` and
// `false` are answers; a rejected promise means the store is unavailable. Stores see hashes, never secrets.

import { hash } from 'node:crypto'
import type { TokenKind } from '../../../packages/client/contract.ts'
import { writeBase62 } from '../../../shared/base62.ts'
import { AppError, tooManyRequests } from '../../../shared/http/errors.ts'

/**
 * Identifies a token to a store. The first four characters of `id` are the routing tag, which all tokens of a user
 * share, so that in a cluster these tokens and the user's floor are in the same slot. `hash` is the SHA-256 of the
 * secret in base64url. A store finds a token by its id and accepts it only if the hash matches too.
 */
export interface TokenRef {
  id: string
  hash: string
}

export const tagLength = 4

/** The routing tag of a user's tokens. */
export function tagOf(userId: string): string {
  const bits = Number.parseInt(hash('sha256', `tag:${userId}`, 'hex').slice(0, 12), 16)
  return writeBase62(bits % 62 ** tagLength, tagLength)
}

export type { TokenKind }

/** No time span has more touches than `burst` and what `perMinute` adds in it; see rates.ts. */
export interface Rate {
  perMinute: number
  /** How many may come at once. */
  burst: number
}

/** What a user may do at present. A token store keeps it beside the user's floor and returns it with each of their tokens. */
export interface Authority {
  /** Rises with each change. 0 if there was none, and then everything else is as in `noAuthority`. */
  version: number
  roles: string[]
  /** While true, the user's tokens are refused. None of them ends. */
  paused: boolean
  /** All tokens of the user without a purpose share it. Null: no limit. */
  rate: Rate | null
}

export const noAuthority: Authority = Object.freeze({ version: 0, roles: [], paused: false, rate: null })

/** The token that another one was delegated from, as it is at present. */
export interface Parent {
  id: string
  /** Narrows the scope of the delegated token. Empty if the parent is gone. */
  scope: string | null
  name: string | null
}

export interface TokenRecord {
  /** Public name of the token; unique, not secret. Stays the same when the token is renewed. */
  id: string
  /** `sliding`: a touch extends the token. `fixed`: nothing extends it. `single-use`: a touch consumes it. */
  kind: TokenKind
  /** What the token is for; it opens nothing else. Null for a session, and for other tokens that services accept. */
  purpose: string | null
  /** Null for a guest, and so is `username`. */
  userId: string | null
  username: string | null
  /** The user's `credentialVersion` when the token was issued; 0 for a guest. */
  credentialVersion: number
  createdAt: number
  /**
   * Identifies the log-in behind this token by the id of the first token that the log-in issued, which may be this
   * token. Null if there was no log-in.
   */
  loginId: string | null
  /** The last touch; equals `createdAt` until the first one. */
  lastUsedAt: number
  /** A token is live while `now < expiresAt`. Never later than `absoluteExpiresAt`. */
  expiresAt: number
  absoluteExpiresAt: number
  /** A touch extends a sliding token to `now + ttlMs`, but not beyond `absoluteExpiresAt`. */
  ttlMs: number
  /** The number of touches. */
  refreshCount: number
  /** What the token may be used for (RFC 6749, section 3.3). Null: whatever the user may do. */
  scope: string | null
  /** While true, the token is refused. */
  paused: boolean
  /** Null: no limit of its own. */
  rate: Rate | null
  /** How many touches the token still allows; the last one consumes it. Null: any number. */
  usesLeft: number | null
  /** What its owner calls the token, 1 to `maxNameLength` characters. API keys have a name, and delegated tokens may. */
  name: string | null
  /** Null unless the token was delegated. Such a token is fixed and belongs to the user of its parent, which is not single-use. */
  parent: Parent | null
  /** The user's; `noAuthority` for a guest. */
  authority: Authority
}

export const maxNameLength = 64

/** A token that a program holds for a user: an API key, or a token that was delegated from a session or a key. */
export function isHeldByProgram({ name, parent }: Pick<TokenRecord, 'name' | 'parent'>): boolean {
  return name !== null || parent !== null
}

/** A named token that was not delegated. */
export function isApiKey({ name, parent }: Pick<TokenRecord, 'name' | 'parent'>): boolean {
  return name !== null && parent === null
}

/** How many of a user's tokens may be held by programs, so that these cannot displace the user's sessions. */
export function programLimit(perUser: number): number {
  return Math.floor(perUser / 2)
}

/** What can be changed about a token. A rate that differs from the one before begins with a full bucket. */
export type TokenChanges = {
  [Name in 'scope' | 'paused' | 'rate' | 'usesLeft' | 'name']?: TokenRecord[Name] | undefined
}

/** A sliding token that a user got by logging in. */
export function isSession({ kind, purpose, userId }: Pick<TokenRecord, 'kind' | 'purpose' | 'userId'>): boolean {
  return kind === 'sliding' && purpose === null && userId !== null
}

/**
 * The `loginId` of most tokens: a user's session has its own id, any other token null. Stores need not save this value.
 */
export function usualLogin(token: Pick<TokenRecord, 'id' | 'kind' | 'purpose' | 'userId'>): string | null {
  return isSession(token) ? token.id : null
}

export interface TokenLimits {
  /**
   * Live tokens per user. At the limit, inserting a token evicts the user's oldest session. Programs may hold `programLimit` of
   * them; at that limit, inserting another such token evicts the user's oldest delegated token.
   */
  perUser: number
  /** Tokens in the store, including dead ones not yet swept. Guests may use up to `guestLimit` of them. */
  total: number
}

/** How many of all tokens guests may hold. Guests need no password, so they must not be able to lock out users. */
export function guestLimit(total: number): number {
  return Math.ceil(total / 2)
}

/**
 * `ended`: the user's floor has risen above the token's version, or the parent has ended. `taken`: the id is in use. `full`: a
 * limit is reached.
 */
export type InsertOutcome = 'inserted' | 'ended' | 'taken' | 'full'

/**
 * How long a floor is kept at least after it was raised, far longer than a log-in takes: it refuses the token of a log-in that
 * was verified before. After that, a floor is needed only as long as there is a token below it.
 */
export const floorKeptMs = 24 * 3_600_000

/** Why a token was deleted, as reported by `explain`. */
export type EndReason = 'revoked' | 'renewed' | 'consumed' | 'evicted'

/**
 * What a store knows about a token that a touch refused. `at` is when it happened. A store forgets dead tokens after a
 * while; from then on they are `unknown`. `live`: a touch would accept the token now.
 */
export type Explanation =
  | { reason: 'unknown' | 'other_purpose' | 'paused' | 'live' | 'ended' | 'parent_ended' }
  | { reason: 'expired' | EndReason; at: number }

/** A token that would be accepted, were it not for its rate or that of its user. */
export interface Limited {
  limited: true
  /** How long until they allow a touch, unless another one comes first. */
  retryAfterMs: number
}

/**
 * What a store has found for one ref of a batch: the token, null if it is not admitted, `Limited`, or `unavailable` if the part
 * of the store that holds it did not answer, while other parts did.
 */
export type Found = TokenRecord | Limited | null | 'unavailable'

/** Whether it is the token. */
export function isAdmitted(found: Found): found is TokenRecord {
  return found !== null && found !== 'unavailable' && !('limited' in found)
}

/** The only result of a batch of one. Throws `unavailable` or `too_many_requests` instead of returning such a result. */
export function onlyOne(found: Found[]): TokenRecord | null {
  const [token = null] = found
  if (token === null || isAdmitted(token)) return token
  if (token === 'unavailable') throw new AppError('unavailable', 'The token store is unavailable.')
  throw tooManyRequests(token.retryAfterMs)
}

/**
 * A call may arrive late, with an earlier `now` than a call before it. Nevertheless, what has expired stays so: a token that
 * `touch`, `touchSession`, `look`, `renew`, `deleteById` with an owner or `findByUser` has found to be expired is refused from
 * then on, whatever `now` is.
 */
export interface TokenStore {
  /**
   * Checks and inserts a token in one atomic step, and with it the user's authority, unless a later version of that is known.
   * Returns `ended` if the user's floor is above the token's `credentialVersion`, so that a log-in racing `raiseFloor` loses, and
   * if the token has a parent that is not live; `taken` if another token has the id; `full` if a limit would be exceeded. In these
   * cases nothing is inserted.
   */
  insert(ref: TokenRef, token: TokenRecord, limits: TokenLimits, now: number): Promise<InsertOutcome>

  /**
   * Accepts each token that is live, has this `purpose`, is not below its user's floor and is not paused, nor its user, and
   * returns it in its new state, with the user's authority of that moment; returns null for every other token. A delegated token
   * is accepted only while its parent is live and not paused. Its touch takes from the limits of the parent too, but changes
   * nothing else about the parent, unless it takes the parent's last use. An accepted
   * sliding token is extended to `min(now + ttlMs, absoluteExpiresAt)`, but never shortened by a call that arrives late; an
   * accepted token is deleted if it is single-use or has no further use. A token that would be accepted is `Limited`, and stays
   * as it was, while its own bucket is empty or, without a purpose, that of its user. Results are in the order of `refs`; a ref
   * that occurs twice is touched twice. Each token is touched in one atomic step: a dead token is never revived, and a use is
   * never made twice. What cannot be asked about some tokens is `unavailable` for these alone; it rejects if it is so for all.
   */
  touch(refs: TokenRef[], now: number, purpose: string | null): Promise<Found[]>

  /** Extends one token as `touch` does, but accepts only a session: a sliding token of a user, without a purpose. No limit applies. */
  touchSession(ref: TokenRef, now: number): Promise<TokenRecord | null>

  /** Returns what `touch` would return, but changes no live token, and no limit applies. */
  look(refs: TokenRef[], now: number, purpose: string | null): Promise<Found[]>

  /**
   * Replaces the secret of a live sliding token in one atomic step, after which the old secret is refused, and extends the
   * token as a touch does. `lineage` is a hash that all secrets of the token share; it is kept for `findRenewed`. Returns
   * null if `touch` would return null, or if the token is not sliding.
   */
  renew(ref: TokenRef, newHash: string, lineage: string, now: number): Promise<TokenRecord | null>

  /**
   * Returns the deleted token, whatever its purpose, or null if there is none. Once resolved, no touch finds the token.
   */
  delete(ref: TokenRef, now: number): Promise<TokenRecord | null>

  /**
   * The token with this id if it was renewed under this lineage, and last renewed no later than `renewedUntil`; null if there is
   * none. It may be dead, or paused. Changes nothing.
   */
  findRenewed(id: string, lineage: string, renewedUntil: number): Promise<TokenRecord | null>

  /**
   * Like `delete`, but by id alone, for callers that may revoke tokens whose secret they do not have. With an `owner`,
   * deletes only a live session of this user, in the same atomic step; null deletes any token.
   */
  deleteById(id: string, now: number, owner: string | null): Promise<TokenRecord | null>

  /**
   * Raises the user's floor to `version`; never lowers it. From then on, tokens of the user with a smaller
   * `credentialVersion` are refused, and `insert` rejects new ones, for `floorKeptMs` at least. `keep` is the id of a token of
   * the user to keep alive: it is raised to `version` in the same step, unless it was below the old floor. Null keeps none.
   */
  raiseFloor(userId: string, version: number, keep: string | null): Promise<void>

  /**
   * Replaces the user's authority if this one has a higher version. Once resolved, no call returns a token of the user with an
   * earlier one.
   */
  setAuthority(userId: string, authority: Authority): Promise<void>

  /**
   * Changes a live token, whatever its purpose, and returns it; null if there is none. A delegated token whose parent has ended is
   * not live. Once resolved, no call finds the token unchanged.
   */
  change(id: string, changes: TokenChanges, now: number): Promise<TokenRecord | null>

  /**
   * Pauses a live token that is not paused, and returns it; null if there is none. Of several concurrent calls one returns the token.
   * Once resolved, no touch accepts the token.
   */
  pause(id: string, now: number): Promise<TokenRecord | null>

  /** The user's live tokens, oldest first. A delegated token whose parent has ended is not live. */
  findByUser(userId: string, now: number): Promise<TokenRecord[]>

  /** Why `touch` would refuse the token, for the operator. */
  explain(ref: TokenRef, now: number, purpose: string | null): Promise<Explanation>

  /**
   * One bounded step of a sweep: examines at most `limit` tokens and deletes those that are dead at `now`, and forgets at most as
   * many floors below which no token can be. Delegated tokens whose parent has ended count as dead only at their own expiry. The
   * next call continues where this one stopped. `done` is true at the end of a round: every token that was dead when the round
   * began is gone, or another process is sweeping this store.
   */
  deleteExpired(now: number, limit: number): Promise<{ removed: number; done: boolean }>

  /**
   * A page of about `limit` live tokens, in an order of the store's choosing. `cursor` is null for the first page and
   * then the `next` of the previous one; `next` is null after the last page. A token that lives throughout the listing
   * is on at least one page, possibly on two. Delegated tokens whose parent has ended are left out. An invented cursor yields an arbitrary page or none.
   */
  list(cursor: string | null, limit: number, now: number): Promise<{ tokens: TokenRecord[]; next: string | null }>

  /**
   * The number of tokens of each kind, never older than the end of the last sweep of any process. Dead tokens count until they are
   * swept. In a large database it is an estimate.
   */
  counts(): Promise<Record<TokenKind, number>>

  /** Epoch milliseconds by the clock of the store's server; null if the store runs on this machine and has no other clock. */
  readClock(): Promise<number | null>

  /** Idempotent. Every other call rejects afterwards. */
  close(): Promise<void>
}
