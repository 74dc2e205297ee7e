// What Auth needs from storage, in words. Instants are epoch milliseconds and come from the caller; `null` and `false`
// are answers, a rejected promise means "could not ask". Stores see hashes, never secrets.

/** Where a token lives and what it is known by. `hash` is the SHA-256 of the secret, base64url. */
export interface TokenRef {
  /** Same for all tokens of one user: in a cluster their keys, and the user's floor, share a slot. */
  tag: string
  hash: string
}

export interface TokenRecord {
  /** Public name of the token; unique, not secret. */
  id: string
  kind: 'sliding'
  /** Null for a guest, as is `username`. */
  userId: string | null
  username: string | null
  /** The user's `credentialVersion` when the token was issued; 0 for a guest. */
  credentialVersion: number
  createdAt: number
  /** Dead from this instant on: live is `now < expiresAt`, everywhere. Never after `absoluteExpiresAt`. */
  expiresAt: number
  absoluteExpiresAt: number
  /** What a touch extends it by, at most to `absoluteExpiresAt`. */
  ttlMs: number
  /** How often it was touched. */
  refreshCount: number
}

export interface TokenStore {
  /**
   * False where the user's floor is above the token's `credentialVersion`: the token was never there. Checked and
   * written in one step, so that a login that races `endUser` loses.
   */
  insert(ref: TokenRef, token: TokenRecord): Promise<boolean>

  /**
   * Extends each live token to `min(now + ttlMs, absoluteExpiresAt)`, counts a refresh, and answers with the token as
   * it is then; null for one that is unknown, dead or below its user's floor. Answers come in the order of `refs`; a
   * ref that is there twice is touched twice. One round trip for all; one atomic step for each: nothing is revived.
   */
  touch(refs: TokenRef[], now: number): Promise<(TokenRecord | null)[]>

  /** The token that was removed, live or not; null where there was none. Holds once resolved: no later touch finds it. */
  delete(ref: TokenRef): Promise<TokenRecord | null>

  /**
   * Raises the user's floor to `version`; never lowers it. From then on `touch` and `insert` refuse the user's tokens
   * with a smaller `credentialVersion`. Costs the same however many there are.
   */
  endUser(tag: string, userId: string, version: number): Promise<void>

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

  /** Idempotent. Every other call rejects afterwards. */
  close(): Promise<void>
}
