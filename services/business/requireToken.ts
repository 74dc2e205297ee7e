// The middleware a Business author uses: what stands behind it runs only for a token that Auth has just found good.
import { invalidToken, readBearerToken } from '../../shared/bearer.ts'
import type { Context, Handler } from '../../shared/http.ts'
import type { Admission } from '../../shared/validateToken.ts'
import type { AuthClient } from './authClient.ts'

/** Answers 401 for no, an ill-formed or a dead token, 503 where Auth gave no verdict. */
export function tokenRequirement(auth: AuthClient): Handler {
  return async function requireToken(ctx, next) {
    const verdict = await auth.validate(readBearerToken(ctx.req), ctx.state.requestId)
    if (!verdict.authenticated) throw invalidToken()
    ctx.state['verdict'] = verdict
    await next()
  }
}

/** Whose token it is and until when; only behind `requireToken`. */
export function verdictOf(ctx: Context): Admission {
  return ctx.state['verdict'] as Admission
}
