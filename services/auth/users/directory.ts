// Finds, lists and inserts users. Hides how usernames are compared, and that a user who is being deleted cannot be found.
import { randomUUID } from 'node:crypto'
import { noAuthority } from '../stores/tokenPort.ts'
import type { UserRecord, UserStore } from '../stores/userPort.ts'
import { type Attributes, noAttributes } from './attributes.ts'
import { namesToLookUp, normalise } from './usernames.ts'

export type { UserRecord }

export type DirectoryEvent = { type: 'user_registered'; userId: string }

export interface NewUser {
  username: string
  /** The result of `Passwords.hash`, `noPassword`, `serviceAccountMark`, or a bare bcrypt hash. */
  passwordHash: string
  /** None by default. */
  attributes?: Attributes | undefined
  /** None by default. An operator vouches for it. */
  email?: string | undefined
}

export interface InsertOptions {
  /** Whether the address counts as confirmed, so that the user can log in at once. */
  confirmed?: boolean
  /** Random by default. Set it for a user who must have the same id after a restart. */
  id?: string
  /** 1 by default. If `id` is set, use a version above every one that an earlier user of this id had. */
  credentialVersion?: number
}

export interface Directory {
  /** Null if there is no such user, or if the user is being deleted. */
  find(id: string): Promise<UserRecord | null>

  /** Like `find`, by a username as it was typed. */
  findByUsername(username: string): Promise<UserRecord | null>

  /** The user who has this username or an earlier form of it, even one being deleted; null if it is free. */
  findHolder(username: string): Promise<UserRecord | null>

  /**
   * At most `limit` users with an id after `afterId`, ordered by id; null starts at the first. Includes users being deleted.
   */
  list(afterId: string | null, limit: number): Promise<UserRecord[]>

  /** Like `list`, restricted to usernames that begin with `prefix`. */
  search(prefix: string, afterId: string | null, limit: number): Promise<UserRecord[]>

  /** Null if the username is taken. The caller has checked the username and the password against the rules. */
  insert(user: NewUser, options?: InsertOptions): Promise<UserRecord | null>
}

export interface DirectoryOptions {
  store: UserStore
  /** Epoch milliseconds. */
  now: () => number
  emit: (event: DirectoryEvent) => void
}

/** Stored instead of a hash. No password matches it, and verifying a password takes as long as for any other user. */
export const noPassword = ''

/** Like `noPassword`, but for ever: it marks a service account, a user without a password, for a program. */
export const serviceAccountMark = 'none'

/** Every function rejects with `unavailable` if the store does not answer. */
export function createDirectory({ store, now, emit }: DirectoryOptions): Directory {
  async function findHolder(username: string): Promise<UserRecord | null> {
    for (const name of namesToLookUp(username)) {
      const user = await store.findByUsername(name)
      if (user !== null) return user
    }
    return null
  }

  return {
    find: async id => unlessDeleted(await store.findById(id)),
    findByUsername: async username => unlessDeleted(await findHolder(username)),
    findHolder,
    list: (afterId, limit) => store.list(afterId, limit),
    search: (prefix, afterId, limit) => store.search(normalise(prefix), afterId, limit),

    async insert(newUser, { confirmed = true, id = randomUUID(), credentialVersion = 1 } = {}) {
      const { username, passwordHash, attributes, email = null } = newUser
      const createdAt = now()
      const user: UserRecord = {
        id,
        username: normalise(username),
        passwordHash,
        credentialVersion,
        endedVersion: credentialVersion,
        createdAt,
        confirmedAt: confirmed ? createdAt : null,
        disabledAt: null,
        deletedAt: null,
        authority: noAuthority,
        mirroredAuthority: 0,
        email,
        pendingEmail: null,
        emailTokenId: null,
        attributes: attributes === undefined ? noAttributes : JSON.stringify(attributes),
      }
      // An earlier version of Latchkey may have stored this name in another form, which the store does not recognise.
      const isTaken = namesToLookUp(username).length > 1 && (await findHolder(username)) !== null
      if (isTaken || !(await store.insert(user))) return null
      emit({ type: 'user_registered', userId: id })
      return user
    },
  }
}

/** Whether the user has a password at all; if not, a link has to set one first. */
export function hasPassword(user: UserRecord): boolean {
  return user.passwordHash.length > 0 && !isServiceAccount(user)
}

/** Whether the user never has a password: no link, no operator and no client may set one. */
export function isServiceAccount({ passwordHash }: UserRecord): boolean {
  return passwordHash === serviceAccountMark
}

function unlessDeleted(user: UserRecord | null): UserRecord | null {
  return user?.deletedAt === null ? user : null
}
