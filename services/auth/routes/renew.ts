// POST /renew: a new secret for the same session.
import { readBearerToken } from '../../../packages/client/bearer.ts'
import { invalidTokenError } from '../../../shared/invalidTokens.ts'
import { newSession, newSessionSchema } from './login.ts'
import { type AuthRoute, sessionProblems } from './route.ts'

export const renew: AuthRoute<'tokens' | 'invalidTokens'> = {
  path: 'POST /renew',
  guard: 'bearer',
  summary: 'Renews the session: a new secret replaces the old one in one step',
  tag: 'Sessions',
  answers: { 200: { description: 'The same session', body: newSessionSchema } },
  problems: sessionProblems,
  handler:
    ({ tokens, invalidTokens }) =>
    async ctx => {
      const renewed = await tokens.renew(readBearerToken(ctx.req))
      if (renewed === null) throw invalidTokenError(await invalidTokens.record(ctx.state))
      ctx.body = newSession(renewed)
    },
}
