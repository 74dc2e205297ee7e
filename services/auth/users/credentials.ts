// Verifies, changes and resets passwords. Callers need not know that it hashes for an unknown user too, or
// that a change that was interrupted is completed when the client repeats the request.
import { AppError } from '../../../shared/http/errors.ts'
import type { WrongPassword } from '../defence/failures.ts'
import type { UserRecord, UserStore } from '../stores/userPort.ts'
import type { ChoiceProblem, ChoiceRules } from './choiceRules.ts'
import { type CredentialVersions, isUnfinished } from './credentialVersions.ts'
import { type Directory, isServiceAccount } from './directory.ts'
import type { Client, HashOwner, Passwords } from './passwords.ts'
import { normalise } from './usernames.ts'

/** Carries user ids, never what was typed: people type their password into the wrong field. */
export type CredentialEvent =
  | { type: 'login_succeeded'; userId: string }
  | { type: 'login_failed'; userId: string | null; reason: LoginFailure }
  | { type: 'password_changed'; userId: string; proof: PasswordProof }
  | { type: 'password_refused'; userId: string }

/** What allowed the change: `operator` if an operator chose the password. */
type PasswordProof = 'password' | 'reset_token' | 'operator'

type LoginFailure = 'unknown_user' | 'wrong_password' | 'unconfirmed' | 'disabled' | 'paused'

export interface Credentials {
  username: string
  password: string
}

export type VerifyOutcome = { outcome: 'verified'; user: UserRecord } | WrongPassword
export type ChangeOutcome = { outcome: 'changed'; user: UserRecord } | WrongPassword
export type RemoveOutcome = { outcome: 'removed' } | WrongPassword
type NewPasswordOutcome = { outcome: 'changed'; user: UserRecord } | { outcome: 'rejected'; problem: ChoiceProblem }
export type SetOutcome =
  | NewPasswordOutcome
  /** The user is a service account, which never has a password. */
  | { outcome: 'service_account' }
export type ResetOutcome =
  | NewPasswordOutcome
  /** The credentials have changed since the token was issued, or the user is a service account. */
  | { outcome: 'stale' }

export interface PasswordOperationsOptions {
  store: UserStore
  directory: Directory
  versions: CredentialVersions
  passwords: Passwords
  rules: ChoiceRules
  /** Epoch milliseconds. */
  now: () => number
  emit: (event: CredentialEvent) => void
}

export interface PasswordOperations {
  /** The hash to pass to `insert`. */
  hash(credentials: Credentials, client: Client): Promise<string>

  /** Also resolves to `wrong_password`, after the same work, for an unknown user and for a user who cannot log in. */
  verify(credentials: Credentials, client: Client): Promise<VerifyOutcome>

  /** Does the work of `verify` without its result, for an attempt that is refused whatever the password is. */
  imitateVerify(credentials: Credentials, client: Client): Promise<void>

  /**
   * Revokes every token of the user except the one with the id `keep`. The caller has checked the new password against the
   * rules. If this rejects with `unavailable`, the password may have been changed already; repeating the call completes the
   * change, and then revokes `keep` too.
   */
  changePassword(
    id: string,
    change: { currentPassword: string; password: string },
    keep: string,
    client: Client,
  ): Promise<ChangeOutcome>

  /** `credentialVersion` is that of the token which permits the reset. Rejects like `changePassword`. */
  resetPassword(
    user: { id: string; credentialVersion: number },
    password: string,
    client: Client,
  ): Promise<ResetOutcome>

  /**
   * Sets a password that an operator chose, and revokes every token of the user. Null if there is no such user. Rejects like
   * `changePassword`.
   */
  setPassword(id: string, password: string, client: Client): Promise<SetOutcome | null>

  /**
   * Revokes every token of the user, then deletes the user. If this rejects with `unavailable`, repeating the call completes
   * the deletion.
   */
  removeOwn(id: string, currentPassword: string, client: Client): Promise<RemoveOutcome>
}

export function createPasswordOperations({
  store,
  directory,
  versions,
  passwords,
  rules,
  now,
  emit,
}: PasswordOperationsOptions): PasswordOperations {
  /** Null if the credentials have changed since `user` was read. */
  async function replacePassword(
    user: UserRecord,
    password: string,
    { proof, keep }: { proof: PasswordProof; keep: string | null },
    client: Client,
  ): Promise<UserRecord | null> {
    const passwordHash = await passwords.hash(password, ownerOf(user, client))
    // The user has proved that the account is theirs, with the old password or with a link that was sent to the address, or
    // the operator vouches for them.
    const confirmedAt = user.confirmedAt ?? now()
    const changed = await versions.raise(user, { passwordHash, confirmedAt })
    if (changed === null) return null
    emit({ type: 'password_changed', userId: user.id, proof })
    await versions.finish(changed, keep)
    return changed
  }

  /** Whether this request repeats a change that was written, but has not revoked the older tokens yet. */
  async function isSameChange(user: UserRecord, password: string, client: Client): Promise<boolean> {
    return isUnfinished(user) && (await passwords.verify(password, user.passwordHash, ownerOf(user, client)))
  }

  /** If this fails, the next log-in tries again. A client that disconnects does not stop the rehash. */
  async function rehash(user: UserRecord, password: string, { address }: Client): Promise<void> {
    try {
      const passwordHash = await passwords.hash(password, ownerOf(user, { address }))
      await store.update(user.id, user.credentialVersion, { passwordHash })
    } catch {
      // The queue is full or the store is unavailable. The old hash remains valid.
    }
  }

  function refusePassword(id: string): WrongPassword {
    emit({ type: 'password_refused', userId: id })
    return { outcome: 'wrong_password', userId: id }
  }

  return {
    hash: ({ username, password }, client) => passwords.hash(password, ownerOf({ username }, client)),

    async verify({ username, password }, client) {
      const user = await directory.findByUsername(username)
      const matches = await passwords.verify(password, user?.passwordHash ?? null, ownerOf({ username }, client))
      const failure = loginFailure(user, matches)
      if (user === null || failure !== null) {
        const userId = user?.id ?? null
        emit({ type: 'login_failed', userId, reason: failure ?? 'unknown_user' })
        return { outcome: 'wrong_password', userId }
      }
      emit({ type: 'login_succeeded', userId: user.id })
      if (passwords.isOutdated(user.passwordHash)) void rehash(user, password, client)
      return { outcome: 'verified', user }
    },

    async imitateVerify({ username, password }, client) {
      await directory.findByUsername(username)
      await passwords.verify(password, null, ownerOf({ username }, client))
    },

    async changePassword(id, { currentPassword, password }, keep, client) {
      const user = await directory.find(id)
      if (user === null) return { outcome: 'wrong_password', userId: null }
      if (!(await passwords.verify(currentPassword, user.passwordHash, ownerOf(user, client)))) {
        if (!(await isSameChange(user, password, client))) return refusePassword(id)
        await versions.finish(user, null) // null, because the interrupted change may have had to end all sessions
        return { outcome: 'changed', user }
      }
      const changed = await replacePassword(user, password, { proof: 'password', keep }, client)
      if (changed === null) throw changedMeanwhile()
      return { outcome: 'changed', user: changed }
    },

    async resetPassword({ id, credentialVersion }, password, client) {
      const user = await directory.find(id)
      if (user === null || isServiceAccount(user)) return { outcome: 'stale' }
      const problem = rules.problemWithPassword({ username: user.username, password })
      if (problem !== null) return { outcome: 'rejected', problem }
      if (user.credentialVersion === credentialVersion) {
        const changed = await replacePassword(user, password, { proof: 'reset_token', keep: null }, client)
        return changed ? { outcome: 'changed', user: changed } : { outcome: 'stale' }
      }
      if (!(await isSameChange(user, password, client))) return { outcome: 'stale' }
      await versions.finish(user, null)
      return { outcome: 'changed', user }
    },

    async setPassword(id, password, client) {
      const user = await directory.find(id)
      if (user === null) return null
      if (isServiceAccount(user)) return { outcome: 'service_account' }
      const problem = rules.problemWithPassword({ username: user.username, password })
      if (problem !== null) return { outcome: 'rejected', problem }
      const changed = await replacePassword(user, password, { proof: 'operator', keep: null }, client)
      if (changed === null) throw changedMeanwhile()
      return { outcome: 'changed', user: changed }
    },

    async removeOwn(id, currentPassword, client) {
      const user = await store.findById(id) // also finds a user whose deletion was interrupted
      const owner = ownerOf({ username: user?.username ?? id }, client)
      const matches = await passwords.verify(currentPassword, user?.passwordHash ?? null, owner)
      if (user === null || !matches) return refusePassword(id)
      const removed = await versions.raise(user, { deletedAt: now() })
      if (removed === null) throw changedMeanwhile()
      await versions.finish(removed, null)
      return { outcome: 'removed' }
    },
  }
}

/** Hashing for this username counts for its account, whether the account exists or not. */
export function ownerOf({ username }: Pick<UserRecord, 'username'>, client: Client): HashOwner {
  return { ...client, account: normalise(username) }
}

function loginFailure(user: UserRecord | null, matches: boolean): LoginFailure | null {
  if (user === null) return 'unknown_user'
  if (!matches) return 'wrong_password'
  if (user.disabledAt !== null) return 'disabled'
  if (user.authority.paused) return 'paused'
  return user.confirmedAt === null ? 'unconfirmed' : null
}

export function changedMeanwhile(): AppError {
  return new AppError('conflict', 'Another request has just changed this account. Try again.')
}
