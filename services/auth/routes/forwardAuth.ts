// /forwardAuth, with any method: for proxies that ask before they pass a request on (nginx auth_request, Traefik ForwardAuth,
// Caddy forward_auth, Envoy ext_authz). Judges the bearer token of the request that is passed on, as /data would; neither its
// method nor its path nor its body.
import { invalidToken, readBearerToken } from '../../../shared/bearer.ts'
import { AppError } from '../../../shared/errors.ts'
import type { Context, Handler } from '../../../shared/http.ts'
import type { Tokens } from '../tokens/tokens.ts'

/** `passStatus`: of a request that may pass; Envoy takes 200 alone, the others all of 2xx. */
export function forwardAuthRoute(tokens: Tokens, passStatus: 200 | 204): Handler {
  return async function forwardAuth(ctx) {
    const [token] = await tokens.validate([readForwardedToken(ctx)], { purpose: null, touch: true })
    if (!token) throw invalidToken()
    ctx.body = {}
    ctx.status = passStatus // 204 takes the body away
    // Empty for a guest, not missing: that overwrites what a client has sent under these names.
    ctx.set('X-Auth-User-Id', token.userId ?? '')
    ctx.set('X-Auth-User', headerText(token.username ?? ''))
  }
}

/** 401 where it is 400 elsewhere: proxies make a 500 of every status that they do not expect. */
function readForwardedToken(ctx: Context): string {
  try {
    return readBearerToken(ctx.req)
  } catch (error) {
    throw error instanceof AppError && error.code === 'invalid_request' ? invalidToken() : error
  }
}

/** Printable ASCII as it is, all else and the percent sign as percent-encoded UTF-8: a header can carry no more. */
function headerText(text: string): string {
  return text.replace(/[^\x20-\x24\x26-\x7e]+|%/gu, encodeURIComponent)
}
