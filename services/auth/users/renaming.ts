// Changes usernames. Hides that a change ends every token of the user: tokens carry the username, and the old one is free for
// another user at once.
import type { WrongPassword } from '../defence/failures.ts'
import type { UserRecord, UserStore } from '../stores/userPort.ts'
import type { ChoiceProblem, ChoiceRules } from './choiceRules.ts'
import { changedMeanwhile, ownerOf } from './credentials.ts'
import { type CredentialVersions, isUnfinished } from './credentialVersions.ts'
import { type Directory, isServiceAccount } from './directory.ts'
import type { Client, Passwords } from './passwords.ts'
import { normalise } from './usernames.ts'

export type RenameEvent = { type: 'username_changed'; userId: string; proof: RenameProof }

/** What allowed the change. */
type RenameProof = 'password' | 'recent_login' | 'operator'

export type RenameOutcome =
  | { outcome: 'changed'; user: UserRecord }
  | { outcome: 'rejected'; problem: ChoiceProblem }
  /** Another user has this username. */
  | { outcome: 'taken' }

export interface Renaming {
  /**
   * Changes a username at an operator's request, and revokes every token of the user. Null if there is no such user. If this
   * rejects with `unavailable`, the username may have been changed already; repeating the call completes the change.
   */
  rename(id: string, username: string): Promise<RenameOutcome | null>

  /**
   * Changes the username of a user who logged in a moment ago, which the caller has checked. Null if there is no such user, or if
   * the credentials have changed since `credentialVersion`: then that log-in proves nothing any more.
   */
  renameAfterLogIn(user: { id: string; credentialVersion: number }, username: string): Promise<RenameOutcome | null>

  /** Like `rename`, for users who give their current password. The caller has checked the username against the rules. */
  renameOwn(
    id: string,
    change: { currentPassword: string; username: string },
    client: Client,
  ): Promise<RenameOutcome | WrongPassword>
}

export interface RenamingOptions {
  store: UserStore
  directory: Directory
  versions: CredentialVersions
  passwords: Passwords
  rules: ChoiceRules
  emit: (event: RenameEvent | { type: 'password_refused'; userId: string }) => void
}

export function createRenaming({ store, directory, versions, passwords, rules, emit }: RenamingOptions): Renaming {
  /** Null if the credentials have changed since `user` was read. */
  async function change(user: UserRecord, typed: string, proof: RenameProof): Promise<RenameOutcome | null> {
    const username = normalise(typed)
    if (user.username === username) {
      // This request may repeat a change that was written, but has not revoked the tokens yet.
      if (isUnfinished(user)) await versions.finish(user, null)
      return { outcome: 'changed', user }
    }
    const holder = await directory.findHolder(typed)
    if (holder !== null && holder.id !== user.id) return { outcome: 'taken' }
    const credentialVersion = user.credentialVersion + 1
    const changed = await store.rename(user.id, user.credentialVersion, { username, credentialVersion })
    if (changed === null) return null
    if (changed === 'taken') return { outcome: 'taken' }
    emit({ type: 'username_changed', userId: user.id, proof })
    await versions.finish(changed, null)
    return { outcome: 'changed', user: changed }
  }

  return {
    async rename(id, username) {
      for (;;) {
        const user = await directory.find(id)
        if (user === null) return null
        const problem = problemWithNewName(rules, user, username)
        if (problem !== null) return { outcome: 'rejected', problem }
        const outcome = await change(user, username, 'operator')
        if (outcome !== null) return outcome // otherwise another request was first
      }
    },

    async renameAfterLogIn({ id, credentialVersion }, username) {
      const user = await directory.find(id)
      if (user === null || user.credentialVersion !== credentialVersion) return null
      const problem = problemWithNewName(rules, user, username)
      return problem === null ? change(user, username, 'recent_login') : { outcome: 'rejected', problem }
    },

    async renameOwn(id, { currentPassword, username }, client) {
      const user = await directory.find(id)
      if (user === null || !(await passwords.verify(currentPassword, user.passwordHash, ownerOf(user, client)))) {
        if (user !== null) emit({ type: 'password_refused', userId: id })
        return { outcome: 'wrong_password', userId: user?.id ?? null }
      }
      const outcome = await change(user, username, 'password')
      if (outcome === null) throw changedMeanwhile()
      return outcome
    },
  }
}

/** Null if an operator can give the user this name. */
export function problemWithNewName(rules: ChoiceRules, user: UserRecord, username: string): ChoiceProblem | null {
  return isServiceAccount(user) ? rules.problemWithServiceName(username) : rules.problemWithUsername(username)
}
