// POST /renew: a new secret for the same session.
import { readBearerToken } from '../../../packages/client/bearer.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import { type InvalidTokens, invalidTokenError } from '../../../shared/invalidTokens.ts'
import type { Tokens } from '../tokens/tokens.ts'
import { tokenAnswer } from './login.ts'

export function renewRoute(tokens: Tokens, invalidTokens: InvalidTokens): Handler {
  return async function renew(ctx) {
    const renewed = await tokens.renew(readBearerToken(ctx.req))
    if (renewed === null) throw invalidTokenError(await invalidTokens.record(ctx.state))
    ctx.body = tokenAnswer(renewed)
  }
}
