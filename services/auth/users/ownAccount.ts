// What users change about their own account, given their current password.
import type { WrongPassword } from '../defence/failures.ts'
import type { Throttles } from '../defence/throttles.ts'
import type { ChoiceProblem } from './choiceRules.ts'
import { type ChangeOutcome, changedMeanwhile, type RemoveOutcome } from './credentials.ts'
import type { Links } from './links.ts'
import type { Client } from './passwords.ts'
import type { RenameOutcome } from './renaming.ts'
import type { Users } from './users.ts'

/** The session that the user is logged in with. */
export interface OwnSession {
  id: string
  loginId: string | null
  userId: string
  username: string
}

export interface OwnAccount {
  /** Revokes every other token of the user, and notifies the user by mail. */
  changePassword(
    session: OwnSession,
    change: { currentPassword: string; password: string },
    client: Client,
  ): Promise<ChangeOutcome | { outcome: 'rejected'; problem: ChoiceProblem }>

  /**
   * Revokes every token of the user, this session too, and notifies the user by mail at the earlier address. `forbidden` if
   * only an operator changes usernames.
   */
  rename(
    session: OwnSession,
    change: { currentPassword: string; username: string },
    client: Client,
  ): Promise<RenameOutcome | WrongPassword | { outcome: 'forbidden' }>

  /**
   * Like `rename`, for users who gave their password a moment ago, which the caller has checked. Null if the user is gone, or if
   * their credentials have changed since the session was read.
   */
  renameAfterLogIn(
    session: OwnSession & { credentialVersion: number },
    username: string,
    client: Client,
  ): Promise<RenameOutcome | { outcome: 'forbidden' } | null>

  /**
   * Removes the e-mail address, revokes every other token and notifies the user at the earlier address; or sends a link to the
   * new address, which `mailed` says. Nothing changes until the link is opened.
   */
  changeEmail(
    session: OwnSession,
    change: { currentPassword: string; email: string | null },
    client: Client,
  ): Promise<ChangeOutcome | { outcome: 'mailed' }>

  remove(session: OwnSession, currentPassword: string, client: Client): Promise<RemoveOutcome>
}

export interface OwnAccountOptions {
  users: Pick<
    Users,
    | 'problemWithUsername'
    | 'problemWithPassword'
    | 'changePassword'
    | 'renameOwn'
    | 'renameAfterLogIn'
    | 'verifyOwn'
    | 'removeEmail'
    | 'removeOwn'
  >
  links: Pick<Links, 'notifyOfChange' | 'notifyOfRename' | 'notifyOfNewEmail' | 'offerEmail'>
  throttles: Pick<Throttles, 'attemptReauthentication' | 'requireRegistrationAllowed' | 'clearFailures'>
  /** Whether users choose their usernames. Not if these are addresses that have to be confirmed. */
  canRename: boolean
}

export function createOwnAccount({ users, links, throttles, canRename }: OwnAccountOptions): OwnAccount {
  /** A password that was good may be too much like the new username. */
  function newProblem(password: string, current: string, username: string): ChoiceProblem | null {
    if (users.problemWithPassword({ username: current, password }) !== null) return null
    const isBad = users.problemWithPassword({ username, password }) !== null
    return isBad ? { member: 'username', problem: 'like_the_password' } : null
  }

  return {
    async changePassword({ id, userId, username }, change, client) {
      const problem = users.problemWithPassword({ username, password: change.password })
      if (problem !== null) return { outcome: 'rejected', problem }
      const attempt = { account: username, address: client.address }
      const result = await throttles.attemptReauthentication(attempt, () =>
        users.changePassword(userId, change, id, client),
      )
      if (result.outcome === 'changed') links.notifyOfChange(result.user, client)
      return result
    },

    async rename({ userId, username: current }, change, client) {
      if (!canRename) return { outcome: 'forbidden' }
      const { username, currentPassword: password } = change
      const problem = users.problemWithUsername(username) ?? newProblem(password, current, username)
      if (problem !== null) return { outcome: 'rejected', problem }
      await throttles.requireRegistrationAllowed(client.address) // the answer shows whether the username is taken
      const attempt = { account: current, address: client.address }
      const result = await throttles.attemptReauthentication(attempt, () => users.renameOwn(userId, change, client))
      if (result.outcome !== 'changed') return result
      const before = { ...result.user, username: current }
      if (result.user.username !== current) links.notifyOfRename(before, client)
      await throttles.clearFailures({ ...attempt, account: username })
      return result
    },

    async renameAfterLogIn({ userId: id, username: current, credentialVersion }, username, client) {
      if (!canRename) return { outcome: 'forbidden' }
      await throttles.requireRegistrationAllowed(client.address) // the answer shows whether the username is taken
      const result = await users.renameAfterLogIn({ id, credentialVersion }, username)
      if (result?.outcome === 'changed') links.notifyOfRename({ ...result.user, username: current }, client)
      return result
    },

    async changeEmail(session, { currentPassword, email }, client) {
      const { id, userId, username } = session
      const attempt = { account: username, address: client.address }
      const result = await throttles.attemptReauthentication(attempt, () =>
        users.verifyOwn(userId, currentPassword, client),
      )
      if (result.outcome !== 'verified') return result
      if (email === null) {
        const user = await users.removeEmail(result.user, id)
        if (result.user.email !== null) links.notifyOfNewEmail(result.user, client)
        return { outcome: 'changed', user }
      }
      if (!(await links.offerEmail(result.user, email, session, client))) throw changedMeanwhile()
      return { outcome: 'mailed' }
    },

    remove({ userId, username }, currentPassword, client) {
      const attempt = { account: username, address: client.address }
      return throttles.attemptReauthentication(attempt, () => users.removeOwn(userId, currentPassword, client))
    },
  }
}
