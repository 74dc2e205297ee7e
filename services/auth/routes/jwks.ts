// GET /.well-known/jwks.json: the public keys of the tokens, in JWT mode (RFC 7517).
import { z } from 'zod'
import type { AuthRoute } from './route.ts'

export const jwks: AuthRoute<'jwt'> = {
  path: 'GET /.well-known/jwks.json',
  guard: 'none',
  summary: 'The public keys of the tokens (RFC 7517), with TOKEN_FORMAT=jwt',
  tag: 'Standards',
  answers: {
    200: { description: 'A JWK Set', body: z.strictObject({ keys: z.array(z.looseObject({ kid: z.string() })) }) },
  },
  problems: { 404: 'TOKEN_FORMAT is opaque.' },
  handler: ({ jwt }) =>
    jwt &&
    (ctx => {
      ctx.body = { keys: jwt.publicKeys }
    }),
}
