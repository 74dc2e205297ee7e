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

/**
 * Returns a function that issues a token without a log-in and resolves to its secret. The token is valid only for `purpose`. The
 * body may ask for a shorter life than `ttlMs`, and for a token that can be used once: `{ttl_seconds?, single_use?}`.
 */
export function guestIssuer({
  tokens,
  throttles,
  purpose,
  ttlMs: longestMs,
}: {
  tokens: Tokens
  throttles: Throttles
  purpose: string
  ttlMs: number
}): (ctx: Context) => Promise<string> {
  const longest = longestMs / 1000
  const secondsExpected = `expected a whole number of seconds, 1 to ${longest}`
  const readTerms = bodyReader(
    z.object({
      ttl_seconds: z.int(secondsExpected).min(1, secondsExpected).max(longest, secondsExpected).default(longest),
      single_use: z.boolean('expected true or false').default(false),
    }),
  )

  return async ctx => {
    // The older services ignore a body, so what is not JSON is ignored here too.
    const terms = hasBody(ctx) && ctx.is('json') ? await readTerms(ctx) : { ttl_seconds: longest, single_use: false }
    await throttles.requireGuestTokenAllowed(ctx.state.address)
    const kind = terms.single_use ? 'single-use' : 'fixed'
    const ttlMs = terms.ttl_seconds * 1000
    const issued = await tokens.issue({ kind, purpose, owner: null, login: null, ttlMs, absoluteTtlMs: ttlMs })
    return (issued as IssuedToken).secret // null only if an owner's credentials have changed; a guest has none
  }
}
