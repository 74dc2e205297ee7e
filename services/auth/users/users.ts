// Register users, verify and change their passwords, end and delete them. Hides how usernames are compared, that unknown
// users cost a hash too, and how a change reaches the tokens: the user is written first, then the tokens below end.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { AppError, orUnavailable } from '../../../shared/http/errors.ts'
import type { UserChanges, UserRecord, UserStore } from '../stores/ports.ts'
import { type PasswordRules, whyNotPassword } from './passwordRules.ts'
import type { Client, HashOwner, Passwords } from './passwords.ts'
import { namesToLookUp, normalise, whyNotUsername } from './usernames.ts'

export type { UserRecord }

/** Carries user ids, never what was typed: people type their password into the wrong field. */
export type UserEvent =
  | {
      type: 'login_succeeded' | 'user_registered' | 'user_confirmed' | 'user_disabled' | 'user_enabled' | 'user_deleted'
      userId: string
    }
  | { type: 'login_failed'; userId: string | null; reason: LoginFailure }
  | { type: 'password_changed'; userId: string; proof: 'password' | 'reset_token' }
  | { type: 'password_refused'; userId: string }

type LoginFailure = 'unknown_user' | 'wrong_password' | 'unconfirmed' | 'disabled'

export interface Credentials {
  username: string
  password: string
}

export interface UsersOptions {
  store: UserStore
  passwords: Passwords
  rules: PasswordRules
  /** Usernames are e-mail addresses: one mailbox each. */
  addressesOnly: boolean
  /** Ends the user's tokens of a smaller version, but for the one of the id `keep`. */
  endTokens: (userId: string, credentialVersion: number, keep: string | null) => Promise<void>
  /** Epoch milliseconds. */
  now: () => number
  observe: (event: UserEvent) => void
  /** Resolves after so many milliseconds. */
  wait?: (ms: number) => Promise<unknown>
}

export type Users = ReturnType<typeof createUsers>

const unfinishedPerRound = 1000
/** In place of a hash: no password matches it, and verifying one takes as long as for any other user. */
export const noPassword = ''
/** How long a change may be between its halves: more than the deadlines of two stores. */
export const underWayMs = 2000

export function createUsers({
  store,
  passwords,
  rules,
  addressesOnly,
  endTokens,
  now,
  observe,
  wait = sleep,
}: UsersOptions) {
  /** Throws what is wrong as `invalid_request`. */
  function requireGoodUsername(username: string): void {
    const problem = whyNotUsername(username, { addressesOnly })
    if (problem !== null) throw new AppError('invalid_request', `username: ${problem}`)
  }

  /** Throws what is wrong as `invalid_request`. */
  function requireGoodPassword(password: string, username: string): void {
    const problem = whyNotPassword(password, username, rules)
    if (problem !== null) throw new AppError('invalid_request', `password: ${problem}`)
  }

  /** Null for a user who is being deleted, too. */
  async function find(id: string): Promise<UserRecord | null> {
    const user = await ask(store.findById(id))
    return user?.deletedAt === null ? user : null
  }

  /** Also a user who is being deleted. */
  async function stored(username: string): Promise<UserRecord | null> {
    for (const name of namesToLookUp(username)) {
      const user = await ask(store.findByUsername(name))
      if (user !== null) return user
    }
    return null
  }

  async function findByUsername(username: string): Promise<UserRecord | null> {
    const user = await stored(username)
    return user?.deletedAt === null ? user : null
  }

  /**
   * The second half of every change: the tokens of the versions below end, then the user is known to be done. Where it
   * rejects, or the process ends before it, `finishAll` takes it up again.
   */
  async function finish(user: UserRecord, keep: string | null): Promise<void> {
    const { id, credentialVersion } = user
    // Where an earlier change is to be finished with this one, `keep` may be what was to end.
    const isOnly = user.endedVersion === credentialVersion - 1 && user.disabledAt === null
    await endTokens(id, credentialVersion, isOnly ? keep : null)
    if (user.deletedAt === null) await ask(store.update(id, credentialVersion, { endedVersion: credentialVersion }))
    else if (await ask(store.delete(id))) observe({ type: 'user_deleted', userId: id })
  }

  /**
   * Raises the version with `changes`, whatever it is at that moment, and finishes. Null where there is no such user, or
   * none who `may` be changed.
   */
  async function raise(
    id: string,
    changes: UserChanges = {},
    may: (user: UserRecord) => boolean = () => true,
  ): Promise<UserRecord | null> {
    for (;;) {
      const user = await ask(store.findById(id))
      if (user === null || !may(user)) return null
      const { credentialVersion: version } = user
      const raised = await ask(store.update(id, version, { ...changes, credentialVersion: version + 1 }))
      if (raised === null) continue // somebody else raised it
      await finish(raised, null)
      return raised
    }
  }

  /**
   * Gives the user, as it was found, a new password, and ends the tokens below but for `keep`. Null where the credentials
   * have changed meanwhile.
   */
  async function replacePassword(
    user: UserRecord,
    password: string,
    { proof, keep }: { proof: 'password' | 'reset_token'; keep: string | null },
    client: Client,
  ) {
    const { id, credentialVersion: version } = user
    const passwordHash = await passwords.hash(password, ownerOf(user, client))
    // Whoever may set it has proved himself: by the old password, or at the address.
    const confirmedAt = user.confirmedAt ?? now()
    const changes = { passwordHash, confirmedAt, credentialVersion: version + 1 }
    const changed = await ask(store.update(id, version, changes))
    if (changed === null) return null
    observe({ type: 'password_changed', userId: id, proof })
    await finish(changed, keep)
    return changed
  }

  /** Where a change was written and its tokens were not ended yet: that this is the same change, asked for again. */
  async function isSameChange(user: UserRecord, password: string, client: Client): Promise<boolean> {
    return isUnfinished(user) && (await passwords.verify(password, user.passwordHash, ownerOf(user, client)))
  }

  /** If this fails, the next log-in tries again. It goes on when the client has gone away. */
  async function rehash(user: UserRecord, password: string, { address }: Client): Promise<void> {
    try {
      const passwordHash = await passwords.hash(password, ownerOf(user, { address }))
      await store.update(user.id, user.credentialVersion, { passwordHash })
    } catch {
      // The queue is full or the store is away: the old hash does.
    }
  }

  /**
   * With a hash that was made before. Null if the username is taken. `confirmed`: it may log in at once. `id`: where it
   * must be the same after a restart, with a `credentialVersion` above that of whoever had it before. Asks for no rules:
   * who may choose has been asked before.
   */
  async function insert(
    { username, passwordHash }: { username: string; passwordHash: string },
    {
      confirmed = true,
      id = randomUUID(),
      credentialVersion = 1,
    }: { confirmed?: boolean; id?: string; credentialVersion?: number } = {},
  ): Promise<UserRecord | null> {
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
    }
    // An earlier version may have stored this name in another form, which the store does not take for the same.
    const isTaken = namesToLookUp(username).length > 1 && (await stored(username)) !== null
    if (isTaken || !(await ask(store.insert(user)))) return null
    observe({ type: 'user_registered', userId: id })
    return user
  }

  return {
    find,
    findByUsername,
    insert,

    /** To be stored; for `insert`. */
    hash: ({ username, password }: Credentials, client: Client) =>
      passwords.hash(password, ownerOf({ username }, client)),

    requireGoodUsername,

    /** Throws what is wrong with a username or a password that is being chosen, as `invalid_request`. */
    requireGoodCredentials({ username, password }: Credentials): void {
      requireGoodUsername(username)
      requireGoodPassword(password, normalise(username))
    },

    /** Null for every user who may not log in and for a wrong password, after the same work. */
    async verify({ username, password }: Credentials, client: Client): Promise<UserRecord | null> {
      const user = await findByUsername(username)
      const matches = await passwords.verify(password, user?.passwordHash ?? null, ownerOf({ username }, client))
      const reason = whyNotLogIn(user, matches)
      if (user === null || reason !== null) {
        observe({ type: 'login_failed', userId: user?.id ?? null, reason: reason ?? 'unknown_user' })
        return null
      }
      observe({ type: 'login_succeeded', userId: user.id })
      if (passwords.isOutdated(user.passwordHash)) void rehash(user, password, client)
      return user
    },

    /** The work of `verify` without its answer, for a caller that is refused whatever the password is. */
    async spend({ username, password }: Credentials, client: Client): Promise<void> {
      await findByUsername(username)
      await passwords.verify(password, null, ownerOf({ username }, client))
    },

    /**
     * Ends every token of the user but the one of the id `keep`. Null where `currentPassword` is wrong. Where it rejects
     * with `unavailable` the password may be the new one already; the same call completes it, and ends that one too.
     */
    async changePassword(
      id: string,
      { currentPassword, password }: { currentPassword: string; password: string },
      keep: string,
      client: Client,
    ): Promise<UserRecord | null> {
      const user = await find(id)
      if (user === null) return null
      requireGoodPassword(password, user.username)
      if (!(await passwords.verify(currentPassword, user.passwordHash, ownerOf(user, client)))) {
        if (await isSameChange(user, password, client)) {
          await finish(user, null) // it may be an end of all sessions that is unfinished, and not this change
          return user
        }
        observe({ type: 'password_refused', userId: id })
        return null
      }
      const changed = await replacePassword(user, password, { proof: 'password', keep }, client)
      if (changed === null) throw changedMeanwhile()
      return changed
    },

    /**
     * For who holds a token that was issued for this under `credentialVersion`. False where the credentials have changed
     * since. Rejects as `changePassword`.
     */
    async resetPassword(
      { id, credentialVersion }: { id: string; credentialVersion: number },
      password: string,
      client: Client,
    ): Promise<boolean> {
      const user = await find(id)
      if (user === null) return false
      requireGoodPassword(password, user.username)
      if (user.credentialVersion === credentialVersion) {
        return (await replacePassword(user, password, { proof: 'reset_token', keep: null }, client)) !== null
      }
      if (!(await isSameChange(user, password, client))) return false
      await finish(user, null)
      return true
    },

    /** False where the credentials have changed since `credentialVersion`, or there is no such user. */
    async confirm(id: string, credentialVersion: number): Promise<boolean> {
      const confirmed = await ask(store.update(id, credentialVersion, { confirmedAt: now() }))
      if (confirmed) observe({ type: 'user_confirmed', userId: id })
      return confirmed !== null
    },

    /** Ends every token of the user. False where there is no such user. */
    async endSessions(id: string): Promise<boolean> {
      return (await raise(id)) !== null
    },

    /** The user may not log in from now on, and every token ends. False where there is no such user. */
    async disable(id: string): Promise<boolean> {
      const done = (await raise(id, { disabledAt: now() })) !== null
      if (done) observe({ type: 'user_disabled', userId: id })
      return done
    },

    /** He may log in again. False where there is no such user. */
    async enable(id: string): Promise<boolean> {
      for (;;) {
        const user = await find(id)
        if (user === null) return false
        if (!(await ask(store.update(id, user.credentialVersion, { disabledAt: null })))) continue
        observe({ type: 'user_enabled', userId: id })
        return true
      }
    },

    /**
     * For a user who has not confirmed the address: takes the password away and ends every link, so that only a link that
     * is sent from now on can set one. Null if the address is confirmed by now. A confirmation that arrives during this
     * write is void, because it was of the password that is gone.
     */
    withdrawPassword: (id: string) =>
      raise(id, { passwordHash: noPassword, confirmedAt: null }, user => user.confirmedAt === null),

    /** Ends every token of the user, then forgets him. False where there is no such user. */
    async remove(id: string): Promise<boolean> {
      return (await raise(id, { deletedAt: now() })) !== null
    },

    /** False where `currentPassword` is wrong. Where it rejects with `unavailable`, the same call completes it. */
    async removeOwn(id: string, currentPassword: string, client: Client): Promise<boolean> {
      const user = await ask(store.findById(id))
      const owner = ownerOf({ username: user?.username ?? id }, client)
      const matches = await passwords.verify(currentPassword, user?.passwordHash ?? null, owner)
      if (user === null || !matches) {
        observe({ type: 'password_refused', userId: id })
        return false
      }
      const { credentialVersion: version } = user
      const removed = await ask(store.update(id, version, { deletedAt: now(), credentialVersion: version + 1 }))
      if (removed === null) throw changedMeanwhile()
      await finish(removed, null)
      return true
    },

    /** At most `limit` users, by their ids, after `afterId`; null begins with the first. */
    list(afterId: string | null, limit: number): Promise<UserRecord[]> {
      return ask(store.list(afterId, limit))
    },

    /** As `list`, of the users whose username begins with `prefix`. */
    search(prefix: string, afterId: string | null, limit: number): Promise<UserRecord[]> {
      return ask(store.search(normalise(prefix), afterId, limit))
    },

    /**
     * Takes up every change whose tokens are still to be ended: the process or the token store was gone in between. Not
     * one that may be under way, here or in another process: that knows of a token to keep, and this does not.
     */
    async finishAll(): Promise<void> {
      for (let found = unfinishedPerRound; found === unfinishedPerRound; ) {
        const before = await ask(store.findUnfinished(unfinishedPerRound))
        if (before.length === 0) return
        await wait(underWayMs)
        const versions = new Map(before.map(({ id, credentialVersion }) => [id, credentialVersion]))
        const unfinished = await ask(store.findUnfinished(unfinishedPerRound))
        for (const user of unfinished) if (versions.get(user.id) === user.credentialVersion) await finish(user, null)
        found = unfinished.length
      }
    },
  }
}

/** Work on the password of this username belongs to its account, whether there is one or not. */
function ownerOf({ username }: Pick<UserRecord, 'username'>, client: Client): HashOwner {
  return { ...client, account: normalise(username) }
}

/** Whether anyone can log in with a password; if not, a link has to set one first. */
export function hasPassword({ passwordHash }: UserRecord): boolean {
  return passwordHash.length > 0
}

function whyNotLogIn(user: UserRecord | null, matches: boolean): LoginFailure | null {
  if (user === null) return 'unknown_user'
  if (!matches) return 'wrong_password'
  if (user.disabledAt !== null) return 'disabled'
  return user.confirmedAt === null ? 'unconfirmed' : null
}

function isUnfinished({ endedVersion, credentialVersion }: UserRecord): boolean {
  return endedVersion < credentialVersion
}

function changedMeanwhile(): AppError {
  return new AppError('conflict', 'The account was changed at this moment by another request.')
}

function ask<T>(answer: Promise<T>): Promise<T> {
  return orUnavailable(answer, 'The user store could not be asked.')
}
