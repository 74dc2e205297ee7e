// The port of the user store: what Auth requires of it. Instants are epoch milliseconds. `null` and `false` are answers; a rejected
// promise means the store is unavailable.
import type { Authority } from './tokenPort.ts'

export interface UserRecord {
  /** Unique, never reused. */
  id: string
  /** Unique and compared exactly; the caller normalises it. */
  username: string
  /** The result of `passwords.hash`, an imported bare bcrypt hash, or a mark that no password matches. */
  passwordHash: string
  /** Starts at 1 and only rises; tokens with a smaller version are dead. */
  credentialVersion: number
  /**
   * The floor that the token store is known to have set; 1 if it was never raised. Smaller than `credentialVersion`
   * while the tokens below that version have yet to be revoked.
   */
  endedVersion: number
  createdAt: number
  /** When the user confirmed their address; null until then. */
  confirmedAt: number | null
  /** When the user was barred from logging in; null if they may log in. */
  disabledAt: number | null
  /** When deletion of the user began: their tokens are deleted first, then this record. Null otherwise. */
  deletedAt: number | null
  authority: Authority
  /** The version of `authority` that the token store is known to have. */
  mirroredAuthority: number
  /** Where mails go, confirmed by the user or set by an operator. Null: to the username, if it is an address. */
  email: string | null
  /** The address that a link was last sent to, until the user opens it. */
  pendingEmail: string | null
  /** The id of the token in the last such link. */
  emailTokenId: string | null
  /** A JSON object as text; `{}` if nothing is known. */
  attributes: string
}

/** The fields of a user that `updateAuthority` changes. */
export type AuthorityChanges = Partial<Pick<UserRecord, 'authority' | 'mirroredAuthority'>>

export type Renaming = Pick<UserRecord, 'username' | 'credentialVersion'>

/** The other fields of a user that can change. */
export type UserChanges = Partial<
  Omit<UserRecord, 'id' | 'username' | 'createdAt' | 'attributes' | keyof AuthorityChanges>
>

export interface UserStore {
  /** Checks and inserts in one atomic step. False if the username or the id is taken. */
  insert(user: UserRecord): Promise<boolean>

  findByUsername(username: string): Promise<UserRecord | null>

  findById(id: string): Promise<UserRecord | null>

  /**
   * If the user's `credentialVersion` still is `ifVersion`, writes `changes` and returns the updated user, in one
   * atomic step. Null if the version has changed or there is no such user, so if two concurrent calls raise the version,
   * only one succeeds.
   */
  update(id: string, ifVersion: number, changes: UserChanges): Promise<UserRecord | null>

  /** Like `update`, but `ifVersion` is the version of the user's authority. */
  updateAuthority(id: string, ifVersion: number, changes: AuthorityChanges): Promise<UserRecord | null>

  /** Like `update`, but the condition is that the user's attributes still are the text `ifAttributes`. */
  updateAttributes(id: string, ifAttributes: string, attributes: string): Promise<UserRecord | null>

  /**
   * Like `update`, but also changes the username, in the same atomic step. `taken` if another user has it; then nothing is
   * changed. Once resolved to the user, the earlier username is free.
   */
  rename(id: string, ifVersion: number, changes: Renaming): Promise<UserRecord | 'taken' | null>

  /** False if there is no such user. Once resolved, the username is free again. */
  delete(id: string): Promise<boolean>

  /** At most `limit` users with an id after `afterId`, ordered by id; null starts at the first. */
  list(afterId: string | null, limit: number): Promise<UserRecord[]>

  /** Like `list`, restricted to usernames that begin with `prefix`, which must already be normalised. */
  search(prefix: string, afterId: string | null, limit: number): Promise<UserRecord[]>

  /** At most `limit` users whose `endedVersion` is below their `credentialVersion`. */
  findUnfinished(limit: number): Promise<UserRecord[]>

  /** At most `limit` users whose `mirroredAuthority` is below the version of their authority. */
  findUnmirrored(limit: number): Promise<UserRecord[]>

  /** Idempotent. Every other call rejects afterwards. */
  close(): Promise<void>
}
