// What Auth needs from storage, in words. Instants are epoch milliseconds and come from the caller; `null` and `false`
// are answers, a rejected promise means "could not ask". Stores see hashes, never secrets.

import type { TokenKind } from '../../../shared/validateToken.ts'

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

export interface TokenLimits {
  /** Live tokens of one user: to make room for one more, the user's oldest session ends. */
  perUser: number
  /** Tokens in the store, the dead that are not swept yet included. */
  total: number
}

/** `ended`: the user's credentials have changed since. `taken`: the id is. `full`: a limit stands in the way. */
export type InsertOutcome = 'inserted' | 'ended' | 'taken' | 'full'

/** Why a token is deleted, told to whoever asks `explain`. */
export type EndReason = 'revoked' | 'renewed' | 'consumed' | 'evicted'

/** `at` is when it happened. A store remembers for a while, not for ever: then it is `unknown`. */
export type Refusal =
  | { reason: 'unknown' | 'other purpose' }
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
   * touch. Null where `touch` would answer null, and for other kinds.
   */
  renew(ref: TokenRef, newHash: string, now: number): Promise<TokenRecord | null>

  /** The token that was removed, whatever its purpose; null where there is none. Holds once resolved: no touch finds it. */
  delete(ref: TokenRef, now: number): Promise<TokenRecord | null>

  /** The same by the public name alone: for those who may end what they do not hold. */
  deleteById(id: string, now: number): Promise<TokenRecord | null>

  /**
   * Raises the user's floor to `version`; never lowers it. From then on the user's tokens with a smaller
   * `credentialVersion` are refused, and `insert` takes no more of them. Costs the same however many there are.
   */
  endUser(tag: string, userId: string, version: number): Promise<void>

  /** The live tokens of a user, the oldest first. */
  findByUser(tag: string, userId: string, now: number): Promise<TokenRecord[]>

  /** Why `touch` would refuse, for the operator. */
  explain(ref: TokenRef, now: number, purpose: string | null): Promise<Refusal>

  /**
   * One bounded slice of a sweep: looks at no more than `limit` tokens, removes those that are dead at `now`, and goes
   * on from there the next time. `done` at the end of the tokens: then all that were dead when the round began are gone.
   */
  deleteExpired(now: number, limit: number): Promise<{ removed: number; done: boolean }>

  /** Idempotent. Every other call rejects afterwards. */
  close(): Promise<void>
}

export interface UserRecord {
  /** Unique, never reused. */
  id: string
  /** Unique, compared exactly: normalised by whoever calls. */
  username: string
  /** As `passwords.hash` made it. */
  passwordHash: string
  /** Starts at 1 and only rises; the tokens of a smaller version are dead. */
  credentialVersion: number
  createdAt: number
}

export interface UserStore {
  /** False if the username is taken: decided by the store in one step. */
  insert(user: UserRecord): Promise<boolean>

  findByUsername(username: string): Promise<UserRecord | null>

  findById(id: string): Promise<UserRecord | null>

  /**
   * The version after this one, and from then on the user's: one step, so that of two at the same time each gets its
   * own. Null where there is no such user.
   */
  raiseCredentialVersion(id: string): Promise<number | null>

  /** Idempotent. Every other call rejects afterwards. */
  close(): Promise<void>
}
