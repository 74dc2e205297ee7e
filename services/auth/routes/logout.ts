// POST /logout: ends the session it is called with.
import { invalidToken, readBearerToken } from '../../../packages/client/bearer.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import type { Tokens } from '../tokens/tokens.ts'

/** 204 also where the session was dead already: the client is where it wants to be. */
export function logoutRoute(tokens: Tokens): Handler {
  return async function logout(ctx) {
    if (!(await tokens.endSession(readBearerToken(ctx.req)))) throw invalidToken()
    ctx.status = 204
  }
}
