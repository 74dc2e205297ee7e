// /forwardAuth, with any method: for proxies that ask before they pass a request on (nginx auth_request, Traefik ForwardAuth,
// Caddy forward_auth, Envoy ext_authz). Validates the bearer token of that request, as /data would, and looks at neither its
// method nor its path nor its body.
import { z } from 'zod'
import { invalidToken, readBearerToken } from '../../../packages/client/bearer.ts'
import { isKnownError } from '../../../shared/http/errors.ts'
import type { Context, Handler } from '../../../shared/http/types.ts'
import type { Tokens } from '../tokens/tokens.ts'
import { type AuthRoute, noToken } from './route.ts'

/**
 * The value of both headers for a guest. It is not empty, because Caddy 2.10.0 to 2.11.1 lets a client's own header pass if the response has none or an
 * empty one (GHSA-7r4p-vjf4-gxv4). `headerText` makes sure that no user's header has this value.
 */
const guest = '-'

const mayPass = 'The request may pass; X-Auth-User-Id and X-Auth-User name the user, or are "-" for a guest'
const description = { guard: 'bearer', tag: 'For services', problems: { 401: noToken } } as const

export const forwardAuth: AuthRoute<'tokens'> = {
  ...description,
  path: 'ANY /forwardAuth',
  summary: 'For proxies: validates the bearer token of the request that they forward',
  answers: { 204: { description: mayPass } },
  handler: ({ tokens }) => admit(tokens, 204),
}

export const forwardAuthForEnvoy: AuthRoute<'tokens'> = {
  ...description,
  path: 'ANY /forwardAuth/{*path}',
  summary: 'The same for Envoy, which appends the path of the original request',
  answers: { 200: { description: mayPass, body: z.strictObject({}) } },
  handler: ({ tokens }) => admit(tokens, 200),
}

/** `passStatus` is the status for a request that may pass: Envoy accepts 200 only, the other proxies any 2xx. */
function admit(tokens: Tokens, passStatus: 200 | 204): Handler {
  return async ctx => {
    const token = await tokens.validate(readForwardedToken(ctx), { purpose: null, touch: true })
    if (!token) throw invalidToken()
    ctx.body = {}
    ctx.status = passStatus // with 204, Koa removes the body
    ctx.set('X-Auth-User-Id', token.userId ?? guest)
    ctx.set('X-Auth-User', token.username === null ? guest : headerText(token.username))
  }
}

/** 401 instead of the 400 of other routes: proxies turn every status that they do not expect into a 500. */
function readForwardedToken(ctx: Context): string {
  try {
    return readBearerToken(ctx.req)
  } catch (error) {
    throw isKnownError(error) && error.code === 'invalid_request' ? invalidToken() : error
  }
}

/**
 * Printable ASCII stays as it is. The percent sign and everything else become percent-encoded UTF-8, because headers are
 * ASCII. A username that equals `guest` is encoded too.
 */
function headerText(text: string): string {
  if (text === guest) return '%2D'
  return text.replace(/[^\x20-\x24\x26-\x7e]+|%/gu, encodeURIComponent)
}
