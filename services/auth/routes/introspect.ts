// POST /introspect: RFC 7662, for services that use it. Looks at the token, and extends nothing.
import { z } from 'zod'
import { tokenKinds } from '../../../packages/client/contract.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import { actorOf, rightsOf } from '../tokens/rights.ts'
import { type AuthRoute, noKey } from './route.ts'

// Other parameters, such as `token_type_hint`, are ignored (RFC 7662 section 2.1).
const readRequest = bodyReader(z.object({ token: z.string('expected a token, as a string') }), { form: true })

const introspectionSchema = z.union([
  z.strictObject({ active: z.literal(false) }),
  z.strictObject({
    active: z.literal(true),
    token_type: z.literal('Bearer'),
    /** Epoch seconds, like `iat`: when the token dies unless it is used before then. */
    exp: z.int(),
    iat: z.int(),
    iss: z.string(),
    jti: z.string(),
    sub: z.string().optional(),
    username: z.string().optional(),
    kind: z.enum(tokenKinds),
    roles: z.array(z.string()).meta({ description: 'the roles of the user (RFC 9068, section 2.2.3.1)' }),
    scope: z.string().meta({ description: 'missing: whatever the user may do' }).optional(),
    act: z
      .strictObject({ sub: z.string() })
      .meta({ description: 'who acts for the user (RFC 8693, section 4.1); missing unless the token was delegated' })
      .optional(),
  }),
])

export const introspect: AuthRoute<'tokens' | 'config'> = {
  path: 'POST /introspect',
  guard: 'client',
  summary: 'RFC 7662: describes a token without extending it',
  tag: 'For services',
  body: readRequest,
  answers: {
    200: { description: 'Whether the token is active and, if so, what is known about it', body: introspectionSchema },
  },
  problems: { 401: noKey },
  handler:
    ({ tokens, config }) =>
    async ctx => {
      const { token: secret } = await readRequest(ctx)
      const token = await tokens.validate(secret, { purpose: null, touch: false })
      // RFC 7662 section 2.2: reveal nothing else about a token that is not active.
      if (!token) {
        ctx.body = { active: false }
        return
      }
      const { id, kind, userId, username, createdAt, expiresAt } = token
      const { roles, scope } = rightsOf(token)
      const act = actorOf(token)
      ctx.body = {
        active: true,
        token_type: 'Bearer',
        exp: Math.floor(expiresAt / 1000),
        iat: Math.floor(createdAt / 1000),
        iss: config.publicUrl,
        jti: id,
        ...(userId !== null && { sub: userId }),
        ...(username !== null && { username }),
        kind,
        roles,
        ...(scope !== null && { scope }),
        ...(act !== null && { act }),
      }
    },
}
