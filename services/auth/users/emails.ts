// The e-mail address that a user may have besides the username. What is stored as `email` can be trusted: the user opened a link
// that was sent there, or an operator set it. A change ends every other token, and so every link that went to the earlier address.
import type { WrongPassword } from '../defence/failures.ts'
import type { TokenRecord } from '../stores/tokenPort.ts'
import type { UserRecord, UserStore } from '../stores/userPort.ts'
import { changedMeanwhile, ownerOf } from './credentials.ts'
import { type CredentialVersions, isUnfinished } from './credentialVersions.ts'
import type { Directory } from './directory.ts'
import type { Client, Passwords } from './passwords.ts'
import { isAddress } from './usernames.ts'

export type EmailEvent = { type: 'email_changed'; userId: string; proof: 'link' | 'password' | 'operator' }

export interface Emails {
  /**
   * Sets or removes the address at an operator's request, and revokes every token of the user. Null if there is no such user. If
   * this rejects with `unavailable`, repeating the call completes the change.
   */
  setEmail(id: string, email: string | null): Promise<UserRecord | null>

  /** Verifies the password of a user who changes their address. */
  verifyOwn(
    id: string,
    currentPassword: string,
    client: Client,
  ): Promise<{ outcome: 'verified'; user: UserRecord } | WrongPassword>

  /** Removes the address, and revokes every token of the user except the one with the id `keep`. */
  removeEmail(user: UserRecord, keep: string): Promise<UserRecord>

  /** Remembers which address the link with this token id confirms. False if the user's credentials have changed. */
  expectEmail(user: UserRecord, expected: { email: string; tokenId: string }): Promise<boolean>

  /**
   * Sets the address that the link was sent to, and revokes every token of the user except the log-in that asked for the link.
   * Returns the user before and after; null if a newer link was sent or the user's credentials have changed.
   */
  confirmEmail(user: UserRecord, link: TokenRecord): Promise<{ before: UserRecord; after: UserRecord } | null>
}

export interface EmailsOptions {
  store: UserStore
  directory: Directory
  versions: CredentialVersions
  passwords: Passwords
  emit: (event: EmailEvent | { type: 'password_refused'; userId: string }) => void
}

export function createEmails({ store, directory, versions, passwords, emit }: EmailsOptions): Emails {
  const none = { pendingEmail: null, emailTokenId: null }

  return {
    async setEmail(id, email) {
      for (;;) {
        const user = await directory.find(id)
        if (user === null) return null
        if (user.email === email && user.pendingEmail === null) {
          if (isUnfinished(user)) await versions.finish(user, null)
          return user
        }
        const changed = await versions.raise(user, { email, ...none })
        if (changed === null) continue // another request was first
        emit({ type: 'email_changed', userId: id, proof: 'operator' })
        await versions.finish(changed, null)
        return changed
      }
    },

    async verifyOwn(id, currentPassword, client) {
      const user = await directory.find(id)
      if (user !== null && (await passwords.verify(currentPassword, user.passwordHash, ownerOf(user, client)))) {
        return { outcome: 'verified', user }
      }
      if (user !== null) emit({ type: 'password_refused', userId: id })
      return { outcome: 'wrong_password', userId: user?.id ?? null }
    },

    async removeEmail(user, keep) {
      if (user.email === null && user.pendingEmail === null) {
        if (isUnfinished(user)) await versions.finish(user, null)
        return user
      }
      const changed = await versions.raise(user, { email: null, ...none })
      if (changed === null) throw changedMeanwhile()
      emit({ type: 'email_changed', userId: user.id, proof: 'password' })
      await versions.finish(changed, keep)
      return changed
    },

    expectEmail: async (user, { email: pendingEmail, tokenId: emailTokenId }) =>
      (await store.update(user.id, user.credentialVersion, { pendingEmail, emailTokenId })) !== null,

    async confirmEmail(user, { id: tokenId, credentialVersion, loginId }) {
      if (user.emailTokenId !== tokenId) return null
      if (user.pendingEmail === null) {
        // This call may repeat a change that was written, but has not revoked the other tokens yet.
        if (!isUnfinished(user)) return null
        await versions.finish(user, null)
        return { before: user, after: user }
      }
      // The token's id stays, so that a repeated call finds it.
      const change = { email: user.pendingEmail, pendingEmail: null }
      const changed = await versions.raise({ ...user, credentialVersion }, change)
      if (changed === null) return null
      emit({ type: 'email_changed', userId: user.id, proof: 'link' })
      await versions.finish(changed, loginId)
      return { before: user, after: changed }
    },
  }
}

/** Where mails to the user go; null if nowhere. */
export function mailboxOf({ username, email }: Pick<UserRecord, 'username' | 'email'>): string | null {
  return email ?? (isAddress(username) ? username : null)
}
