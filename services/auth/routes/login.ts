// POST /login: exchanges a username and its password for a session.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import type { IssuedToken } from '../tokens/tokens.ts'
import { clientOf, credentialsSchema, invalidCredentials } from './credentials.ts'
import { type AuthRoute, at, tooManyAttempts } from './route.ts'

/** A new session as its client sees it. The secret is shown only this once. */
export const newSessionSchema = z
  .strictObject({
    token: z.string().meta({ description: 'the secret, shown only once' }),
    tokenType: z.literal('Bearer'),
    expiresAt: at,
    expires_in: z.int().meta({ description: 'seconds until `expiresAt`, under the name of RFC 6749, section 5.1' }),
    absoluteExpiresAt: at,
  })
  .meta({ id: 'NewSession' })

const readCredentials = bodyReader(credentialsSchema, { form: true })

export const login: AuthRoute<'logIn' | 'tokens'> = {
  path: 'POST /login',
  guard: 'none',
  summary: 'Logs in: a username and its password for a session',
  tag: 'Sessions',
  body: readCredentials,
  answers: { 200: { description: 'A session', body: newSessionSchema } },
  problems: { 401: 'The username or the password is wrong; the answer does not say which.', 429: tooManyAttempts },
  handler:
    ({ logIn, tokens }) =>
    async ctx => {
      const credentials = await readCredentials(ctx)
      const issued = await logIn(credentials, clientOf(ctx), tokens.issueSession)
      if (!issued) throw invalidCredentials('The username or the password is wrong.')
      ctx.state.user = credentials.username
      ctx.body = newSession(issued)
    },
}

export function newSession({ secret, token: { lastUsedAt, expiresAt, absoluteExpiresAt } }: IssuedToken) {
  const expiresIn = Math.floor((expiresAt - lastUsedAt) / 1000)
  return { token: secret, tokenType: 'Bearer', expiresAt, expires_in: expiresIn, absoluteExpiresAt }
}
