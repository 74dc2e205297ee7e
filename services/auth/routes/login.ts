// POST /login: a username and its password for a session.
import { bodyReader } from '../../../shared/http/body.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import type { IssuedToken, Tokens } from '../tokens/tokens.ts'
import type { LogIn } from '../users/logIn.ts'
import { clientOf, credentialsSchema, invalidCredentials } from './credentials.ts'

const readCredentials = bodyReader(credentialsSchema, { form: true })

export function loginRoute(logIn: LogIn, tokens: Pick<Tokens, 'issueSession'>): Handler {
  return async function login(ctx) {
    const issued = await logIn(await readCredentials(ctx), clientOf(ctx), tokens.issueSession)
    if (!issued) throw invalidCredentials('The username or the password is wrong.')
    ctx.body = tokenAnswer(issued)
  }
}

/** What a client gets of a session; the secret this once. */
export function tokenAnswer({ secret, token: { expiresAt, absoluteExpiresAt } }: IssuedToken) {
  return { token: secret, tokenType: 'Bearer', expiresAt, absoluteExpiresAt }
}
