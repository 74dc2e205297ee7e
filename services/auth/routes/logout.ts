// POST /logout: ends the token it is called with.
import { readBearerToken } from '../../../shared/bearer.ts'
import type { Handler } from '../../../shared/http.ts'
import type { Tokens } from '../tokens/tokens.ts'

/** 204 also where the token was dead already: the client is where it wants to be. */
export function logoutRoute(tokens: Tokens): Handler {
  return async function logout(ctx) {
    await tokens.revoke(readBearerToken(ctx.req))
    ctx.status = 204
  }
}
