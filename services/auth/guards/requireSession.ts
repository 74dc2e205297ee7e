// Middleware of the routes that users call for themselves: a request passes only with a live session.
import { readBearerToken } from '../../../packages/client/bearer.ts'
import { requestValue } from '../../../shared/http/requestValue.ts'
import type { Context, Handler } from '../../../shared/http/types.ts'
import { type InvalidTokens, invalidTokenError } from '../../../shared/invalidTokens.ts'
import type { Session, Tokens } from '../tokens/tokens.ts'

const sessions = requestValue<Session>('session')

/** Extends the session. Tokens of other kinds or purposes get 401 and are neither extended nor consumed. */
export function requireSession(tokens: Tokens, invalidTokens: InvalidTokens): Handler {
  return async (ctx, next) => {
    const session = await tokens.useSession(readBearerToken(ctx.req))
    if (session === null) throw invalidTokenError(await invalidTokens.record(ctx.state))
    ctx.state.user = session.username
    sessions.set(ctx, session)
    await next()
  }
}

/** The session of a request behind `requireSession`. */
export function sessionOf(ctx: Context): Session {
  return sessions.of(ctx)
}
