// POST /logout: ends the session it is called with.
import { invalidToken, readBearerToken } from '../../../packages/client/bearer.ts'
import type { AuthRoute } from './route.ts'

export const logout: AuthRoute<'tokens'> = {
  path: 'POST /logout',
  guard: 'bearer',
  summary: 'Ends the session it is called with',
  tag: 'Sessions',
  answers: { 204: { description: 'The session has ended, now or earlier' } },
  problems: { 400: 'Two tokens were sent.', 401: 'No token, or no session.' },
  handler:
    ({ tokens }) =>
    async ctx => {
      // True for a session that was dead already: the client has what it wants.
      if (!(await tokens.revokeSession(readBearerToken(ctx.req)))) throw invalidToken()
      ctx.status = 204
    },
}
