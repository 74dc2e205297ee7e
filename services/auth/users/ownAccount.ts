// What users change about their own account, given their current password.
import type { Throttles } from '../defence/throttles.ts'
import type { ChoiceProblem } from './choiceRules.ts'
import type { ChangeOutcome, RemoveOutcome } from './credentials.ts'
import type { Links } from './links.ts'
import type { Client } from './passwords.ts'
import type { Users } from './users.ts'

/** The session that the user is logged in with. */
export interface OwnSession {
  id: string
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

  remove(session: OwnSession, currentPassword: string, client: Client): Promise<RemoveOutcome>
}

export interface OwnAccountOptions {
  users: Pick<Users, 'problemWithPassword' | 'changePassword' | 'removeOwn'>
  links: Pick<Links, 'notifyOfChange'>
  throttles: Pick<Throttles, 'attemptReauthentication'>
}

export function createOwnAccount({ users, links, throttles }: OwnAccountOptions): OwnAccount {
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

    remove({ userId, username }, currentPassword, client) {
      const attempt = { account: username, address: client.address }
      return throttles.attemptReauthentication(attempt, () => users.removeOwn(userId, currentPassword, client))
    },
  }
}
