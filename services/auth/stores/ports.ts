// What Auth needs from storage, in words. Instants are epoch milliseconds and come from the caller; `null` and `false`
// are answers, a rejected promise means "could not ask". Stores see hashes, never secrets.

import type { TokenKind } from '../../../packages/client/contract.ts'

/**
 * Names a token to a store. `id` begins with four characters that are the same for all tokens of one user, the routing
 * tag: in a cluster they, and the user's floor, share a slot. `hash` is the SHA-256 of the secret, base64url; a token is
 * found by its id and is the one that was meant only where the hash is equal too.
 */
export interface TokenRef {
  id: string
  hash: string
}

export type { TokenKind }

export interface TokenRecord {
  /** Public name of the token; unique, not secret. Stays the same when the token is renewed. */
  id: string
  /** `sliding`: a touch extends it. `fixed`: nothing does. `single-use`: a touch consumes it. */
  kind: TokenKind
  /** What it is for; it opens nothing else. Null: a session, or whatever its issuer takes it for. */
  purpose: string | null
  /** Null for a guest, as is `username`. */
  userId: string | null
  username: string | null
  /** The user's `credentialVersion` when the token was issued; 0 for a guest. */
  credentialVersion: number
  createdAt: number
  /**
   * Names the log-in that led to this token: the id of the token that it issued first. A session's own id if a log-in
   * opened it, another token's id if this one came with that or was exchanged for it, null if no log-in led to it.
   */
  loginId: string | null
  /** Of the last touch; `createdAt` before the first. */
  lastUsedAt: number
  /** Dead from this instant on: live is `now < expiresAt`, everywhere. Never after `absoluteExpiresAt`. */
  expiresAt: number
  absoluteExpiresAt: number
  /** What a touch extends a sliding token by, at most to `absoluteExpiresAt`. */
  ttlMs: number
  /** How often it was touched. */
  refreshCount: number
}

/** The `loginId` that most tokens have. A store need not keep it: a log-in opened the session, or there was none. */
export function usualLogin({
  id,
  kind,
  purpose,
  userId,
}: Pick<TokenRecord, 'id' | 'kind' | 'purpose' | 'userId'>): string | null {
  return kind === 'sliding' && purpose === null && userId !== null ? id : null
}

export interface TokenLimits {
  /** Live tokens of one user: to make room for one more, the user's oldest session ends. */
  perUser: number
  /** Tokens in the store, the dead that are not swept yet included; guests have `guestLimit` of them. */
  total: number
}

/** How many of all tokens may be without a user: clients that need no password must not keep users from logging in. */
export function guestLimit(total: number): number {
  return Math.ceil(total / 2)
}

/** `ended`: the user's credentials have changed since. `taken`: the id is. `full`: a limit stands in the way. */
export type InsertOutcome = 'inserted' | 'ended' | 'taken' | 'full'

/** Why a token is deleted, told to whoever asks `explain`. */
export type EndReason = 'revoked' | 'renewed' | 'consumed' | 'evicted'

/** `at` is when it happened. A store remembers for a while, not for ever: then it is `unknown`. */
export type Refusal =
  | { reason: 'unknown' | 'other_purpose' }
  | { reason: 'expired' | EndReason; at: number }
  | { reason: 'ended' }

export interface TokenStore {
  /**
   * Puts a token in, in one step with the checks: `ended` where the user's floor is above its `credentialVersion`, so
   * that a login that races `endUser` loses, `taken` where another token has its id, and `full` where it would go over a
   * limit. Then it was never there.
   */
  insert(ref: TokenRef, token: TokenRecord, limits: TokenLimits, now: number): Promise<InsertOutcome>

  /**
   * Admits each token that is live, has this `purpose` and is not below its user's floor, and answers with it as it is
   * then; null for every other. An admitted sliding token is extended to `min(now + ttlMs, absoluteExpiresAt)`, a
   * single-use one is gone. Answers come in the order of `refs`; a ref that is there twice is touched twice. One round
   * trip for all; one atomic step for each: nothing is revived, nothing consumed twice.
   */
  touch(refs: TokenRef[], now: number, purpose: string | null): Promise<(TokenRecord | null)[]>

  /** Answers as `touch` does and changes nothing. */
  look(refs: TokenRef[], now: number, purpose: string | null): Promise<(TokenRecord | null)[]>

  /**
   * Gives a live sliding token a new secret in one step: the old hash opens nothing from then on. It is extended as by a
   * touch. `lineage` is a hash that all its secrets have in common, and is kept for `deleteRenewed`. Null if `touch` would
   * answer null, and for other kinds.
   */
  renew(ref: TokenRef, newHash: string, lineage: string, now: number): Promise<TokenRecord | null>

  /** The token that was removed, whatever its purpose; null where there is none. Holds once resolved: no touch finds it. */
  delete(ref: TokenRef, now: number): Promise<TokenRecord | null>

  /**
   * The same by an earlier secret: removes the token of this id if it was renewed under this lineage, the last time no
   * later than `renewedUntil`.
   */
  deleteRenewed(id: string, lineage: string, renewedUntil: number, now: number): Promise<TokenRecord | null>

  /** The same by the public name alone: for those who may end what they do not hold. */
  deleteById(id: string, now: number): Promise<TokenRecord | null>

  /**
   * Raises the user's floor to `version`; never lowers it. From then on the user's tokens with a smaller
   * `credentialVersion` are refused, and `insert` takes no more of them. `keep` is the id of a token of the user that is
   * lifted to `version` in the same step and goes on, where it was not below an earlier floor; null keeps none.
   */
  endUser(tag: string, userId: string, version: number, keep: string | null): Promise<void>

  /** The live tokens of a user, the oldest first. */
  findByUser(tag: string, userId: string, now: number): Promise<TokenRecord[]>

  /** Why `touch` would refuse, for the operator. */
  explain(ref: TokenRef, now: number, purpose: string | null): Promise<Refusal>

  /**
   * One bounded slice of a sweep: looks at no more than `limit` tokens, removes those that are dead at `now`, and goes
   * on from there the next time. `done` at the end of the tokens: then all that were dead when the round began are gone.
   */
  deleteExpired(now: number, limit: number): Promise<{ removed: number; done: boolean }>

  /**
   * Live tokens, about `limit` of them, in an order of the store's own. `cursor` is null for the first page, then the `next`
   * of the page before; `next` is null at the end. A token that is there all the while is on a page, perhaps on two. A
   * cursor that no page gave finds some page or none.
   */
  list(cursor: string | null, limit: number, now: number): Promise<{ tokens: TokenRecord[]; next: string | null }>

  /** How many tokens there are of each kind, at the end of the last sweep or later; the dead count until they are swept. */
  census(): Promise<Record<TokenKind, number>>

  /** Idempotent. Every other call rejects afterwards. */
  close(): Promise<void>
}

export interface UserRecord {
  /** Unique, never reused. */
  id: string
  /** Unique, compared exactly: normalised by whoever calls. */
  username: string
  /** As `passwords.hash` made it, or a bare bcrypt hash that was imported. */
  passwordHash: string
  /** Starts at 1 and only rises; the tokens of a smaller version are dead. */
  credentialVersion: number
  /**
   * The floor that the token store is known to have; 1 where it was never asked for one. Smaller than
   * `credentialVersion` while the tokens below that are still to be ended.
   */
  endedVersion: number
  createdAt: number
  /** When the address was confirmed; null while that is waited for. */
  confirmedAt: number | null
  /** Since when the user may not log in; null where he may. */
  disabledAt: number | null
  /** Since when the user is being deleted: his tokens first, then this record. Null for all others. */
  deletedAt: number | null
}

/** What may become of a user; id, username and `createdAt` stay. */
export type UserChanges = Partial<Omit<UserRecord, 'id' | 'username' | 'createdAt'>>

export interface UserStore {
  /** False if the username or the id is taken: decided by the store in one step. */
  insert(user: UserRecord): Promise<boolean>

  findByUsername(username: string): Promise<UserRecord | null>

  findById(id: string): Promise<UserRecord | null>

  /**
   * Writes `changes` and answers with the user as it is then, in one step, where its `credentialVersion` still is
   * `ifVersion`; null where it is another by now, or there is no such user. Of two that would raise it one wins.
   */
  update(id: string, ifVersion: number, changes: UserChanges): Promise<UserRecord | null>

  /** False where there is no such user. The username is free again once resolved. */
  delete(id: string): Promise<boolean>

  /** At most `limit` users in the order of their ids, those after `afterId`; null begins with the first. */
  list(afterId: string | null, limit: number): Promise<UserRecord[]>

  /** As `list`, of the users whose username begins with `prefix`, which is normalised. */
  search(prefix: string, afterId: string | null, limit: number): Promise<UserRecord[]>

  /** At most `limit` users whose `endedVersion` is below their `credentialVersion`. */
  findUnfinished(limit: number): Promise<UserRecord[]>

  /** Idempotent. Every other call rejects afterwards. */
  close(): Promise<void>
}
