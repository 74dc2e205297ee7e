// The log-in: limited by the throttles, verified, and answered with a token.
import type { Throttles } from '../defence/throttles.ts'
import type { Credentials } from './credentials.ts'
import type { Client } from './passwords.ts'
import type { UserRecord, Users } from './users.ts'

/**
 * Verifies the password and returns what `issue` returns. Null if the password is wrong or the user cannot log in, and also
 * if `issue` returns null. Throws as `Throttles.attemptLogin` does.
 */
export type LogIn = <Issued>(
  credentials: Credentials,
  client: Client,
  issue: (user: UserRecord) => Promise<Issued | null>,
) => Promise<Issued | null>

export interface LogInOptions {
  users: Pick<Users, 'verify' | 'imitateVerify'>
  throttles: Pick<Throttles, 'attemptLogin'>
}

export function createLogIn({ users, throttles }: LogInOptions): LogIn {
  return async (credentials, client, issue) => {
    const result = await throttles.attemptLogin(
      { account: credentials.username, address: client.address },
      {
        verify: () => users.verify(credentials, client),
        imitate: () => users.imitateVerify(credentials, client),
      },
    )
    return result.outcome === 'verified' ? issue(result.user) : null
  }
}
