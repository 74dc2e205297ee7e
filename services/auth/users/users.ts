// Everything that can be done with a user: find and insert, verify and change the password, confirm, disable and delete.
import type { UserRecord, UserStore } from '../stores/userPort.ts'
import { type ChoiceRules, type ChoiceRulesOptions, createChoiceRules } from './choiceRules.ts'
import {
  type CredentialEvent,
  type Credentials,
  createPasswordOperations,
  type PasswordOperations,
} from './credentials.ts'
import {
  type CredentialVersions,
  createCredentialVersions,
  type DeletionEvent,
  type RevokeTokens,
} from './credentialVersions.ts'
import { createDirectory, type Directory, type DirectoryEvent, noPassword } from './directory.ts'
import { createEmails, type EmailEvent, type Emails } from './emails.ts'
import type { Passwords } from './passwords.ts'
import { createRenaming, type RenameEvent, type Renaming } from './renaming.ts'

export type { Credentials, UserRecord }

export type UserEvent =
  | DirectoryEvent
  | CredentialEvent
  | DeletionEvent
  | RenameEvent
  | EmailEvent
  | { type: 'user_confirmed' | 'user_disabled' | 'user_enabled'; userId: string }

export interface UsersOptions extends ChoiceRulesOptions {
  store: UserStore
  passwords: Passwords
  revokeTokens: RevokeTokens
  /** Epoch milliseconds. */
  now: () => number
  emit: (event: UserEvent) => void
  /** Resolves after `ms` milliseconds. */
  wait?: (ms: number) => Promise<unknown>
}

export interface Users extends Directory, ChoiceRules, PasswordOperations, Renaming, Emails {
  /** False if the credentials have changed since `credentialVersion`, or there is no such user. */
  confirm(id: string, credentialVersion: number): Promise<boolean>

  /**
   * Removes the password of a user who has not confirmed the address, and revokes every link, so that only a link that is sent
   * from now on can set one. Null if the address has been confirmed. A confirmation that arrives during this write is
   * void, because it confirmed the password that is removed.
   */
  withdrawPassword(id: string): Promise<UserRecord | null>

  /** Revokes every token of the user. False if there is no such user. */
  revokeSessions(id: string): Promise<boolean>

  /** Revokes every token of the user, who cannot log in from now on. False if there is no such user. */
  disable(id: string): Promise<boolean>

  /** Lets the user log in again. False if there is no such user. */
  enable(id: string): Promise<boolean>

  /** Revokes every token of the user, then deletes the user. False if there is no such user. */
  remove(id: string): Promise<boolean>

  /** Completes the changes that were interrupted before the tokens ended. See `CredentialVersions.finishAll`. */
  finishAll: CredentialVersions['finishAll']
}

/** Every function rejects with `unavailable` if a store does not answer. */
export function createUsers(options: UsersOptions): Users {
  const { store, now, emit } = options
  const directory = createDirectory(options)
  const versions = createCredentialVersions(options)
  const rules = createChoiceRules(options)

  return {
    ...directory,
    ...rules,
    ...createPasswordOperations({ ...options, directory, versions, rules }),
    ...createRenaming({ ...options, directory, versions, rules }),
    ...createEmails({ ...options, directory, versions }),
    finishAll: versions.finishAll,

    async confirm(id, credentialVersion) {
      const confirmed = await store.update(id, credentialVersion, { confirmedAt: now() })
      if (confirmed) emit({ type: 'user_confirmed', userId: id })
      return confirmed !== null
    },

    withdrawPassword: id =>
      versions.change(id, { passwordHash: noPassword, confirmedAt: null }, user => user.confirmedAt === null),

    revokeSessions: async id => (await versions.change(id, {})) !== null,

    async disable(id) {
      const done = (await versions.change(id, { disabledAt: now() })) !== null
      if (done) emit({ type: 'user_disabled', userId: id })
      return done
    },

    async enable(id) {
      for (;;) {
        const user = await directory.find(id)
        if (user === null) return false
        if (!(await store.update(id, user.credentialVersion, { disabledAt: null }))) continue
        emit({ type: 'user_enabled', userId: id })
        return true
      }
    },

    remove: async id => (await versions.change(id, { deletedAt: now() })) !== null,
  }
}
