// POST /login: a username and its password for a session.
import { z } from 'zod'
import { bodyReader } from '../../../shared/body.ts'
import { AppError } from '../../../shared/errors.ts'
import type { Context, Handler } from '../../../shared/http.ts'
import type { IssuedToken, Tokens } from '../tokens/tokens.ts'
import type { Users } from '../users/users.ts'

const text = (name: string) =>
  z
    .string({ error: `expected a ${name}, as a string` })
    .min(1, `expected a ${name} of 1 to 256 characters`)
    .max(512, `expected a ${name} of 1 to 256 characters`)
    .refine(value => [...value].length <= 256, `expected a ${name} of 1 to 256 characters`)
    .refine(value => value.isWellFormed(), `expected a ${name} in valid Unicode; there is half a surrogate pair`)

const readCredentials = bodyReader(z.strictObject({ username: text('username'), password: text('password') }), {
  form: true,
})

export function loginRoute(users: Users, tokens: Tokens): Handler {
  return async function login(ctx) {
    const user = await users.verify(await readCredentials(ctx), goneSignal(ctx))
    const issued = user && (await tokens.issueSession(user))
    if (!issued) {
      throw new AppError('invalid_credentials', 'The username or the password is wrong.', {
        headers: { 'WWW-Authenticate': 'Bearer realm="latchkey"' },
      })
    }
    ctx.body = tokenAnswer(issued)
  }
}

/** What a client gets of a session; the secret this once. */
export function tokenAnswer({ secret, token: { expiresAt, absoluteExpiresAt } }: IssuedToken) {
  return { token: secret, tokenType: 'Bearer', expiresAt, absoluteExpiresAt }
}

/** Aborts when the client closes before it was answered. */
function goneSignal({ res }: Context): AbortSignal {
  const gone = new AbortController()
  res.once('close', () => res.writableFinished || gone.abort())
  return gone.signal
}
