// /forwardAuth, with any method: for proxies that ask before they pass a request on (nginx auth_request, Traefik ForwardAuth,
// Caddy forward_auth, Envoy ext_authz). Validates the bearer token of that request, as /data would, and looks at neither its
// method nor its path nor its body. The proxy's configuration may require roles and a scope.
import { z } from 'zod'
import { beyondLimit, invalidToken, readBearerToken } from '../../../packages/client/bearer.ts'
import { insufficientScope, isMet, type Rule, type RuleKind, ruleOf } from '../../../packages/client/rules.ts'
import { AppError, isKnownError } from '../../../shared/http/errors.ts'
import type { Context, Handler } from '../../../shared/http/types.ts'
import { type Rights, rightsOf } from '../tokens/rights.ts'
import { isAdmitted, type TokenRecord, type Tokens } from '../tokens/tokens.ts'
import { type AuthRoute, noToken } from './route.ts'

/**
 * The value of each header for which there is nothing to say. It is not empty, because Caddy 2.10.0 to 2.11.1 lets a client's own header pass if the response has none or an
 * empty one (GHSA-7r4p-vjf4-gxv4). `headerText` makes sure that no user's header has this value.
 */
const nothing = '-'

const mayPass =
  'The request may pass; X-Auth-User-Id and X-Auth-User name the user, X-Auth-Roles the roles, separated by commas, and X-Auth-Scope the scope; each is "-" if there is none. A scope of %20 names nothing'
const beyondLimits = 'The token is live, but is used more often than it or its user may be.'
const description = { guard: 'bearer', tag: 'For services', problems: { 401: noToken, 429: beyondLimits } } as const

const needsSchema = z.object({
  role: z.string().meta({ description: 'a role that the user needs; repeat it for several' }),
  scope: z.string().meta({ description: 'the scope that the token needs, names separated by spaces' }),
})

export const forwardAuth: AuthRoute<'tokens'> = {
  ...description,
  path: 'ANY /forwardAuth',
  summary: 'For proxies: validates the bearer token of the request that they forward',
  query: needsSchema,
  answers: { 204: { description: mayPass } },
  problems: { ...description.problems, 403: 'The token is live, but lacks a role or a scope that the query names.' },
  handler: ({ tokens }) => admit(tokens, 204, rulesOf),
}

export const forwardAuthForEnvoy: AuthRoute<'tokens'> = {
  ...description,
  path: 'ANY /forwardAuth/{*path}',
  summary:
    'The same for Envoy, which appends the path and the query of the original request; requires no roles and no scope',
  answers: { 200: { description: mayPass, body: z.strictObject({}) } },
  handler: ({ tokens }) => admit(tokens, 200, () => []),
}

/** `passStatus` is the status for a request that may pass: Envoy accepts 200 only, the other proxies any 2xx. */
function admit(tokens: Tokens, passStatus: 200 | 204, rulesOf: (ctx: Context) => Rule[]): Handler {
  return async ctx => {
    const rules = rulesOf(ctx)
    const token = await validate(tokens, readForwardedToken(ctx))
    const granted = rightsOf(token)
    const missing = rules.find(rule => !isMet(rule, granted))
    if (missing) throw insufficientScope(missing)
    ctx.body = {}
    ctx.status = passStatus // with 204, Koa removes the body
    for (const [name, value] of Object.entries(headersOf(token, granted))) ctx.set(name, value)
  }
}

async function validate(tokens: Tokens, secret: string): Promise<TokenRecord> {
  const [found = null] = await tokens.validateAll([secret], { purpose: null, touch: true })
  if (found === null) throw invalidToken()
  if (isAdmitted(found)) return found
  throw found === 'unavailable' ? new AppError('unavailable', 'The token store is unavailable.') : beyondLimit(found)
}

/** The rules in the query, which the proxy's configuration sets. Other parameters may be those of the original request. */
function rulesOf(ctx: Context): Rule[] {
  if (ctx.search === '') return []
  const query = new URLSearchParams(ctx.search)
  const rules: [RuleKind, string[]][] = [
    ['role', query.getAll('role')],
    ['scope', query.getAll('scope').flatMap(scope => scope.split(' '))],
  ]
  try {
    return rules.filter(([, names]) => names.length > 0).map(([kind, names]) => ruleOf(kind, names))
  } catch (error) {
    throw new AppError('invalid_request', `The query is wrong: ${(error as TypeError).message}`)
  }
}

function headersOf({ userId, username }: TokenRecord, { roles, scope }: Rights): Record<string, string> {
  return {
    'X-Auth-User-Id': userId ?? nothing,
    'X-Auth-User': headerText(username),
    'X-Auth-Roles': roles.join(',') || nothing, // no role can have this name
    'X-Auth-Scope': headerText(scope),
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
 * ASCII. A text that equals `nothing` is encoded too, and an empty one, which is a scope without any name, becomes a space.
 */
function headerText(text: string | null): string {
  if (text === null) return nothing
  if (text === nothing) return '%2D'
  if (text === '') return '%20'
  return text.replace(/[^\x20-\x24\x26-\x7e]+|%/gu, encodeURIComponent)
}
