// The middleware a Business author uses: what stands behind it runs only for a token that Auth has just found good.

import type { AuthClient } from '../../packages/client/authClient.ts'
import { readBearerToken } from '../../packages/client/bearer.ts'
import type { Admission } from '../../packages/client/contract.ts'
import type { Context, Handler } from '../../shared/http/listener.ts'
import type { InvalidTokens } from '../../shared/limits.ts'

/**
 * Answers 401 for no, an ill-formed or a dead token, 429 for a dead one from where too many came, 503 where Auth gave no
 * verdict.
 */
export function tokenRequirement(auth: AuthClient, invalidTokens: InvalidTokens): Handler {
  return async function requireToken(ctx, next) {
    const { verdict, serverTiming } = await auth.judge(readBearerToken(ctx.req), ctx.state)
    if (!verdict.authenticated) throw await invalidTokens.refusal(ctx.state)
    // Only for those who are admitted: how busy Auth is, is nothing for strangers.
    ctx.res.setHeader('Server-Timing', serverTiming)
    ctx.state['verdict'] = verdict
    await next()
  }
}

/** Whose token it is and until when; only behind `requireToken`. */
export function verdictOf(ctx: Context): Admission {
  return ctx.state['verdict'] as Admission
}
