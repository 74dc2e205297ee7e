// POST /login: a username and its password for a session.
import { bodyReader } from '../../../shared/http/body.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import type { Throttles } from '../defence/throttles.ts'
import type { IssuedToken, Tokens } from '../tokens/tokens.ts'
import type { Users } from '../users/users.ts'
import { credentialsSchema, invalidCredentials, verifyLogin } from './credentials.ts'

const readCredentials = bodyReader(credentialsSchema, { form: true })

export function loginRoute(users: Users, tokens: Tokens, throttles: Throttles): Handler {
  return async function login(ctx) {
    const user = await verifyLogin(ctx, { users, throttles }, await readCredentials(ctx))
    const issued = user && (await tokens.issueSession(user))
    if (!issued) {
      throw invalidCredentials('The username or the password is wrong.')
    }
    ctx.body = tokenAnswer(issued)
  }
}

/** What a client gets of a session; the secret this once. */
export function tokenAnswer({ secret, token: { expiresAt, absoluteExpiresAt } }: IssuedToken) {
  return { token: secret, tokenType: 'Bearer', expiresAt, absoluteExpiresAt }
}
