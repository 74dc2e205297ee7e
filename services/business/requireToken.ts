// Middleware: a request passes only with a token that Auth has just validated.
import type { AuthClient } from '../../packages/client/authClient.ts'
import { beyondLimit, readBearerToken } from '../../packages/client/bearer.ts'
import type { Admission } from '../../packages/client/contract.ts'
import { requestValue } from '../../shared/http/requestValue.ts'
import type { Context, Handler } from '../../shared/http/types.ts'
import { type InvalidTokens, invalidTokenError } from '../../shared/invalidTokens.ts'

const verdicts = requestValue<Admission>('verdict')

/**
 * Responds with 400 if two tokens were sent, 401 if the token is missing, malformed or dead, 429 if the token is
 * used more often than it may be or the client's address has sent too many dead tokens, and 503 if Auth gave no verdict.
 */
export function requireToken(auth: AuthClient, invalidTokens: InvalidTokens): Handler {
  return async (ctx, next) => {
    const { verdict, serverTiming } = await auth.validate(readBearerToken(ctx.req), ctx.state)
    if (!verdict.authenticated) {
      throw verdict.limited === true ? beyondLimit(verdict) : invalidTokenError(await invalidTokens.record(ctx.state))
    }
    // Only for admitted requests: how busy Auth is must not be visible to strangers.
    ctx.state.serverTiming = serverTiming
    ctx.state.user = verdict.username ?? undefined
    verdicts.set(ctx, verdict)
    await next()
  }
}

/** Whom the token belongs to and when it expires. Only behind `requireToken`. */
export function verdictOf(ctx: Context): Admission {
  return verdicts.of(ctx)
}
