// POST /oauth/token: access tokens for the holder of an API key (RFC 6749, section 4.4), and weaker tokens in exchange for a session
// or a key (RFC 8693). An access token is a delegated token. Errors have the form of RFC 6749, section 5.2.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { isKnownError, statusOf } from '../../../shared/http/errors.ts'
import type { Context } from '../../../shared/http/types.ts'
import { invalidTokenError } from '../../../shared/invalidTokens.ts'
import { type ClientCredentials, readBasicCredentials } from '../guards/basicCredentials.ts'
import { maxNameLength } from '../tokens/keys.ts'
import { keyNameOf } from '../tokens/rights.ts'
import type { TokenRecord } from '../tokens/tokens.ts'
import { scopeSchema } from './authority.ts'
import { type AuthRoute, type RouteDeps, tooManyTokens } from './route.ts'

const tokenExchange = 'urn:ietf:params:oauth:grant-type:token-exchange'
export const grantTypes = ['client_credentials', tokenExchange] as const
const accessTokenType = 'urn:ietf:params:oauth:token-type:access_token'

const param = z.string('expected once').optional()
const requestSchema = z.object({
  grant_type: param.meta({ description: grantTypes.join(' or ') }),
  client_id: param.meta({ description: 'the id of an API key, unless it is in HTTP Basic' }),
  client_secret: param.meta({ description: 'the secret of that key' }),
  scope: param.meta({ description: 'names separated by spaces; by default, all that the key or the token has' }),
  subject_token: param.meta({ description: 'a session or an API key, to exchange' }),
  subject_token_type: param.meta({ description: accessTokenType }),
  actor_token: param.meta({ description: 'a live token of the one who will act for the user' }),
  actor_token_type: param.meta({ description: accessTokenType }),
  requested_token_type: param.meta({ description: accessTokenType }),
  resource: param,
  audience: param,
})
type TokenRequest = z.infer<typeof requestSchema>

// Other parameters are ignored (RFC 6749, section 3.2).
const readRequest = bodyReader(requestSchema, { form: true })

const answerSchema = z
  .strictObject({
    access_token: z.string(),
    token_type: z.literal('Bearer'),
    expires_in: z.int().meta({ description: 'seconds; it may end earlier, with the key or the session behind it' }),
    scope: z.string().meta({ description: 'missing: whatever the user may do' }).optional(),
    issued_token_type: z.literal(accessTokenType).optional(),
  })
  .meta({ id: 'AccessToken' })

type OauthError =
  | 'invalid_request'
  | 'invalid_client'
  | 'invalid_scope'
  | 'invalid_target'
  | 'invalid_grant'
  | 'unsupported_grant_type'

const refusalSchema = z
  .strictObject({ error: z.string(), error_description: z.string() })
  .meta({ id: 'OAuthError', description: 'RFC 6749, section 5.2' })

/** Thrown by the grants, and caught by the route. */
class Refusal extends Error {
  readonly error: OauthError

  constructor(error: OauthError, description: string) {
    super(description)
    this.error = error
  }
}

type Needs = 'keys' | 'tokens' | 'format' | 'invalidTokens'
type Deps = Pick<RouteDeps, Needs>

export const oauthToken: AuthRoute<Needs> = {
  path: 'POST /oauth/token',
  guard: 'none',
  summary: 'Issues an access token to the holder of an API key, or a weaker one in exchange for a session or a key',
  tag: 'Standards',
  body: readRequest,
  answers: { 200: { description: 'An access token', body: answerSchema } },
  problems: { 401: 'The id or the secret of the client is wrong.', 429: tooManyTokens },
  refusal: refusalSchema,
  handler: deps => async ctx => {
    try {
      ctx.body = await grant(deps, ctx, await readRequest(ctx))
      ctx.set('Pragma', 'no-cache') // section 5.1
    } catch (error) {
      const refusal = refusalOf(error)
      if (refusal === null) throw error
      ctx.status = refusal.status
      ctx.body = { error: refusal.error, error_description: refusal.message }
      if (refusal.status === 401) ctx.set('WWW-Authenticate', 'Basic realm="latchkey", charset="UTF-8"')
    }
  },
}

function grant(deps: Deps, ctx: Context, request: TokenRequest) {
  switch (request.grant_type) {
    case 'client_credentials':
      return grantToClient(deps, ctx, request)
    case tokenExchange:
      return exchange(deps, ctx, request)
    case undefined:
      throw new Refusal('invalid_request', `grant_type: expected ${grantTypes.join(' or ')}`)
    default:
      throw new Refusal('unsupported_grant_type', `grant_type: expected ${grantTypes.join(' or ')}`)
  }
}

async function grantToClient(deps: Deps, ctx: Context, request: TokenRequest) {
  const key = await findClient(deps, ctx, request)
  if (key === null) throw new Refusal('invalid_client', 'Send the id of an API key as client_id, and its secret.')
  return issue(deps, key, request, key.name)
}

async function exchange(deps: Deps, ctx: Context, request: TokenRequest) {
  const { keys, tokens } = deps
  requireType(request, 'subject_token_type')
  if (request.requested_token_type !== undefined) requireType(request, 'requested_token_type')
  if (request.resource !== undefined || request.audience !== undefined) {
    throw new Refusal('invalid_target', 'Tokens are valid for every service here: send neither resource nor audience.')
  }
  const client = await findClient(deps, ctx, request)
  let name = client?.name ?? null
  if (request.actor_token !== undefined || request.actor_token_type !== undefined) {
    requireType(request, 'actor_token_type')
    const actor = await tokens.validate(request.actor_token ?? '', { purpose: null, touch: false })
    if (actor === null) throw await invalid(deps, ctx, 'actor_token: expected a live token')
    name = (keyNameOf(actor) ?? actor.username ?? actor.id).slice(0, maxNameLength)
  }
  const parent = await keys.useParent(request.subject_token ?? '')
  if (parent === null) throw await invalid(deps, ctx, 'subject_token: expected a live session or API key')
  return { ...(await issue(deps, parent, request, name)), issued_token_type: accessTokenType }
}

function requireType(request: TokenRequest, member: keyof TokenRequest): void {
  if (request[member] !== accessTokenType)
    throw new Refusal('invalid_request', `${member}: expected ${accessTokenType}`)
}

/** Counts an invalid token of this address. Returns what to throw. */
async function invalid({ invalidTokens }: Deps, ctx: Context, description: string): Promise<Error> {
  const limitedForMs = await invalidTokens.record(ctx.state)
  return limitedForMs === null ? new Refusal('invalid_request', description) : invalidTokenError(limitedForMs)
}

/** The API key whose id and secret were sent, which is a use of it. Null if none were sent; throws if they are wrong. */
async function findClient(deps: Deps, ctx: Context, { client_id: id, client_secret: secret }: TokenRequest) {
  const inBody = id !== undefined && secret !== undefined ? [{ id, secret }] : null
  const inHeader = readBasicCredentials(ctx.req)
  if (inHeader !== null && secret !== undefined) {
    throw new Refusal('invalid_request', 'Send the secret once: in HTTP Basic or as client_secret.')
  }
  const sent = inHeader ?? inBody
  if (sent === null) {
    if (id === undefined && secret === undefined) return null
    throw new Refusal('invalid_client', 'Send client_id and client_secret together.')
  }
  const key = await useKey(deps, sent)
  if (key !== null) return key
  const limitedForMs = await deps.invalidTokens.record(ctx.state)
  if (limitedForMs !== null) throw invalidTokenError(limitedForMs)
  throw new Refusal('invalid_client', 'There is no live API key with this id and secret.')
}

async function useKey({ keys, format }: Deps, sent: ClientCredentials[]): Promise<TokenRecord | null> {
  const own = sent.find(({ id, secret }) => format.parse(secret)?.id === id)
  const key = own === undefined ? null : await keys.useParent(own.secret)
  return key !== null && keyNameOf(key) !== null ? key : null
}

async function issue({ keys }: Deps, parent: TokenRecord, request: TokenRequest, name: string | null) {
  const issued = await keys.delegate(parent, { scope: scopeOf(request), name })
  if (issued === null) throw new Refusal('invalid_grant', 'The key or the session has just ended.')
  if ('exceeds' in issued) throw new Refusal('invalid_scope', `scope: expected names among ${parent.scope}`)
  const { scope, createdAt, expiresAt } = issued.token
  return {
    access_token: issued.secret,
    token_type: 'Bearer',
    expires_in: Math.floor((expiresAt - createdAt) / 1000),
    ...(scope !== null && { scope }),
  }
}

function scopeOf({ scope }: TokenRequest): string | undefined {
  if (scope === undefined || scope === '') return undefined
  const { data, error } = scopeSchema.safeParse(scope)
  if (error) throw new Refusal('invalid_scope', `scope: ${error.issues[0]?.message}`)
  return data ?? undefined
}

/** Null for errors that are sent as problem documents. */
function refusalOf(error: unknown): { status: number; error: OauthError; message: string } | null {
  if (error instanceof Refusal) {
    return { status: error.error === 'invalid_client' ? 401 : 400, error: error.error, message: error.message }
  }
  if (!isKnownError(error) || statusOf[error.code] > statusOf.unsupported_media_type) return null
  return { status: statusOf[error.code], error: 'invalid_request', message: error.message }
}
