// POST /logout: ends the session it is called with.
import { invalidToken, readBearerToken } from '../../../packages/client/bearer.ts'
import type { AuthRoute } from './route.ts'

export const logout: AuthRoute<'tokens'> = {
  path: 'POST /logout',
  guard: 'bearer',
  summary: 'Revokes the session that it is called with',
  tag: 'Sessions',
  answers: { 204: { description: 'The session is revoked, or was dead already' } },
  problems: { 400: 'Two tokens were sent.', 401: 'The token is missing, or is not that of a session.' },
  handler:
    ({ tokens }) =>
    async ctx => {
      // True for a session that was dead already: the client has what it wants.
      if (!(await tokens.revokeSession(readBearerToken(ctx.req)))) throw invalidToken()
      ctx.status = 204
    },
}
