// POST /introspect: RFC 7662, for services that speak it. Looks, and extends nothing.
import { z } from 'zod'
import { tokenKinds } from '../../../packages/client/contract.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import type { Tokens } from '../tokens/tokens.ts'

/** What else is in the request is ignored (RFC 7662 section 2.1), `token_type_hint` too. */
export const introspectSchema = z.object({ token: z.string('expected a token, as a string') })

export const introspectionSchema = z.union([
  z.strictObject({ active: z.literal(false) }),
  z.strictObject({
    active: z.literal(true),
    token_type: z.literal('Bearer'),
    /** Epoch seconds, as are `iat` and `exp`: when the token dies if it is not used before. */
    exp: z.int(),
    iat: z.int(),
    iss: z.string(),
    jti: z.string(),
    sub: z.string().optional(),
    username: z.string().optional(),
    kind: z.enum(tokenKinds),
  }),
])

const readRequest = bodyReader(introspectSchema, { form: true })

export function introspectRoute(tokens: Tokens, issuer: string): Handler {
  return async function introspect(ctx) {
    const { token: secret } = await readRequest(ctx)
    const [token] = await tokens.validate([secret], { purpose: null, touch: false })
    // Nothing about a token that opens nothing: RFC 7662 section 2.2.
    if (!token) {
      ctx.body = { active: false }
      return
    }
    const { id, kind, userId, username, createdAt, expiresAt } = token
    ctx.body = {
      active: true,
      token_type: 'Bearer',
      exp: Math.floor(expiresAt / 1000),
      iat: Math.floor(createdAt / 1000),
      iss: issuer,
      jti: id,
      ...(userId !== null && { sub: userId }),
      ...(username !== null && { username }),
      kind,
    }
  }
}
