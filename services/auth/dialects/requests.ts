// What the dialects share: reading tokens and bodies, responses in the older formats, and tokens for guests. Unknown members
// of a body are ignored, as in the older services.
import { z } from 'zod'
import { isBearerToken } from '../../../packages/client/bearer.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError, tooManyRequests } from '../../../shared/http/errors.ts'
import type { Context } from '../../../shared/http/types.ts'
import type { InvalidTokens } from '../../../shared/invalidTokens.ts'
import type { Throttles } from '../defence/throttles.ts'
import { text } from '../routes/credentials.ts'
import type { IssuedToken, Tokens } from '../tokens/tokens.ts'

/**
 * The token of `Authorization: Bearer <token>`; null if it is missing or malformed. Throws if there are two headers.
 */
export function bearerOf({ req }: Context): string | null {
  const [credentials = '', ...more] = req.headersDistinct['authorization'] ?? []
  if (more.length > 0) throw new AppError('invalid_request', 'Send the header Authorization once.')
  const [, token = ''] = /^Bearer (.+)$/i.exec(credentials) ?? []
  return isBearerToken(token) ? token : null
}

/** Whether the request has a body, of any content type. */
export function hasBody({ req }: Context): boolean {
  return req.headers['transfer-encoding'] !== undefined || Number(req.headers['content-length'] ?? 0) > 0
}

/** Reads these members from a JSON object or a form. A member that is missing or empty is null. */
export function memberReader<Name extends string>(...names: Name[]) {
  const members = names.map(name => [
    name,
    z
      .preprocess(value => (value === '' ? null : value), text(name).nullish())
      .optional()
      .transform(value => value ?? null),
  ])
  return bodyReader(z.object(Object.fromEntries(members)) as unknown as z.ZodType<Record<Name, string | null>>, {
    form: true,
  })
}

/** Responds with a body in the format of the older service. */
export function answer(ctx: Context, status: number, body: Record<string, unknown>): void {
  if (status === 401) ctx.set('WWW-Authenticate', 'Bearer realm="latchkey"') // RFC 9110 section 15.5.2
  ctx.status = status
  ctx.body = body
}

/** Call before refusing a token in the older format. Throws 429 if the address has sent too many invalid tokens. */
export async function countInvalid(ctx: Context, invalidTokens: InvalidTokens): Promise<void> {
  const limitedForMs = await invalidTokens.record(ctx.state)
  if (limitedForMs !== null) throw tooManyRequests(limitedForMs)
}

/** Issues a token without a log-in and returns its secret. The token is valid only for `purpose`. */
export async function issueToGuest(
  ctx: Context,
  { tokens, throttles, purpose, ttlMs }: { tokens: Tokens; throttles: Throttles; purpose: string; ttlMs: number },
): Promise<string> {
  await throttles.requireGuestTokenAllowed(ctx.state.address)
  const life = { ttlMs, absoluteTtlMs: ttlMs }
  const issued = await tokens.issue({ kind: 'fixed', purpose, owner: null, login: null, ...life })
  return (issued as IssuedToken).secret // null only if an owner's credentials have changed; a guest has none
}
