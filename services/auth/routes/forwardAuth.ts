// /forwardAuth, with any method: for proxies that ask before they pass a request on (nginx auth_request, Traefik ForwardAuth,
// Caddy forward_auth, Envoy ext_authz). Validates the bearer token of that request, as /data would, and looks at neither its
// method nor its path nor its body.
import { invalidToken, readBearerToken } from '../../../packages/client/bearer.ts'
import { isKnownError } from '../../../shared/http/errors.ts'
import type { Context, Handler } from '../../../shared/http/listener.ts'
import type { Tokens } from '../tokens/tokens.ts'

/**
 * What both headers say of a guest. Not empty: Caddy 2.10.0 to 2.11.1 lets a client's own header pass if the answer has none
 * or an empty one (GHSA-7r4p-vjf4-gxv4). No user is called this in a header: see `headerText`.
 */
const guest = '-'

/** `passStatus` is the status for a request that may pass: Envoy accepts 200 only, the others any 2xx. */
export function forwardAuthRoute(tokens: Tokens, passStatus: 200 | 204): Handler {
  return async function forwardAuth(ctx) {
    const [token] = await tokens.validate([readForwardedToken(ctx)], { purpose: null, touch: true })
    if (!token) throw invalidToken()
    ctx.body = {}
    ctx.status = passStatus // 204 takes the body away
    ctx.set('X-Auth-User-Id', token.userId ?? guest)
    ctx.set('X-Auth-User', token.username === null ? guest : headerText(token.username))
  }
}

/** 401 where it is 400 elsewhere: proxies make a 500 of every status that they do not expect. */
function readForwardedToken(ctx: Context): string {
  try {
    return readBearerToken(ctx.req)
  } catch (error) {
    throw isKnownError(error) && error.code === 'invalid_request' ? invalidToken() : error
  }
}

/**
 * Printable ASCII stays as it is; the percent sign and all else become percent-encoded UTF-8, since a header can carry no
 * more. The name of a guest is encoded as well, so that no user has it.
 */
function headerText(text: string): string {
  if (text === guest) return '%2D'
  return text.replace(/[^\x20-\x24\x26-\x7e]+|%/gu, encodeURIComponent)
}
