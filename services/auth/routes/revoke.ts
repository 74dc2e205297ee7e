// POST /revoke: RFC 7009. A client can revoke any token that it holds, whatever its purpose.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import type { AuthRoute } from './route.ts'

// Other parameters are ignored (RFC 7009 section 2.1). `token_type_hint` is not needed: one look-up finds any token.
const readRequest = bodyReader(z.object({ token: z.string('expected a token, as a string') }), { form: true })

export const revoke: AuthRoute<'tokens'> = {
  path: 'POST /revoke',
  guard: 'none',
  summary: 'RFC 7009: revokes a token at the request of its holder',
  tag: 'Standards',
  body: readRequest,
  answers: { 200: { description: 'The token is dead, or never existed', body: z.strictObject({}) } },
  handler:
    ({ tokens }) =>
    async ctx => {
      const { token } = await readRequest(ctx)
      await tokens.revoke(token)
      // Answer 200 even for a token that does not exist: the client has what it wants (section 2.2).
      ctx.body = {}
    },
}
