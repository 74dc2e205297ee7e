// POST /revoke: RFC 7009. Whoever holds a token may end it, whatever it is for.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import type { Tokens } from '../tokens/tokens.ts'

/** What else is in the request is ignored (RFC 7009 section 2.1), `token_type_hint` too: one look-up finds any of ours. */
export const revokeSchema = z.object({ token: z.string('expected a token, as a string') })

const readRequest = bodyReader(revokeSchema, { form: true })

export function revokeRoute(tokens: Tokens): Handler {
  return async function revoke(ctx) {
    const { token } = await readRequest(ctx)
    await tokens.revoke(token)
    // 200 for a token that does not exist, too: the client is where it wants to be (section 2.2).
    ctx.body = {}
  }
}
