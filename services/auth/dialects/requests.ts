// What the dialects share: reading tokens and bodies, responses in the older formats, tokens for guests, and
// registration. Unknown body members are ignored, as the older services did.
import { z } from 'zod'
import { isBearerToken } from '../../../packages/client/bearer.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError, tooManyRequests } from '../../../shared/http/errors.ts'
import type { Context } from '../../../shared/http/listener.ts'
import type { InvalidTokens } from '../../../shared/invalidTokens.ts'
import type { Throttles } from '../defence/throttles.ts'
import { clientOf, text } from '../routes/credentials.ts'
import type { IssuedToken, Tokens } from '../tokens/tokens.ts'
import type { Credentials } from '../users/users.ts'
import type { DialectParts } from './dialect.ts'

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

/** Issues a token without a login and returns its secret. The token is valid only for `purpose`. */
export async function issueToGuest(
  ctx: Context,
  { tokens, throttles, purpose, ttlMs }: { tokens: Tokens; throttles: Throttles; purpose: string; ttlMs: number },
): Promise<string> {
  await throttles.mayIssueToGuest(ctx.state.address)
  const life = { ttlMs, absoluteTtlMs: ttlMs }
  const issued = await tokens.issue({ kind: 'fixed', purpose, owner: null, login: null, ...life })
  return (issued as IssuedToken).secret // null only if an owner's credentials have changed; a guest has none
}

export function requireOpenRegistration(registration: DialectParts['registration']): void {
  if (registration === 'closed') throw new AppError('forbidden', 'Nobody can register here; ask the operator.')
}

/**
 * False if the username is taken, but always true if e-mail confirmation is required: then only the mail reveals it.
 * Throws `invalid_request` if the username or the password is unacceptable.
 */
export async function register(
  ctx: Context,
  {
    users,
    links,
    throttles,
    emailConfirmation,
  }: Pick<DialectParts, 'users' | 'links' | 'throttles' | 'emailConfirmation'>,
  credentials: Credentials,
): Promise<boolean> {
  const { address } = ctx.state
  const client = clientOf(ctx)
  users.requireGoodCredentials(credentials)
  await throttles.mayRegister(address)
  if (emailConfirmation === 'required') {
    await throttles.mayMail(credentials.username, address)
    await links.register(credentials, client)
    return true
  }
  const passwordHash = await users.hash(credentials, client)
  return (await users.insert({ username: credentials.username, passwordHash })) !== null
}

/** Reads the rejected member and the problem from an error of users.ts. Rethrows every other error. */
export function badChoice(error: unknown): { member: string; problem: string } {
  const [, member, problem] = /^(username|password): (.+)$/s.exec(error instanceof AppError ? error.message : '') ?? []
  if (member === undefined || problem === undefined) throw error
  return { member, problem }
}
