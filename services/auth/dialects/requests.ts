// What the dialects have in common: where a token and the members of a body stand, answers in shapes that are not ours, and
// guests. Their clients send more than they need; that is ignored, as it was.
import { z } from 'zod'
import { isBearerToken } from '../../../packages/client/bearer.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import type { Context } from '../../../shared/http/listener.ts'
import type { InvalidTokens } from '../../../shared/limits.ts'
import type { Throttles } from '../defence/throttles.ts'
import { clientOf, text } from '../routes/credentials.ts'
import type { IssuedToken, Tokens } from '../tokens/tokens.ts'
import type { Credentials } from '../users/users.ts'
import type { DialectParts } from './dialect.ts'

/** Of `Authorization: Bearer <token>`; null where there is none or an ill-formed one. Throws where there are two headers. */
export function bearerOf({ req }: Context): string | null {
  const [credentials = '', ...more] = req.headersDistinct['authorization'] ?? []
  if (more.length > 0) throw new AppError('invalid_request', 'Send the header Authorization once.')
  const [, token = ''] = /^Bearer (.+)$/i.exec(credentials) ?? []
  return isBearerToken(token) ? token : null
}

/** Whether anything follows the headers, whatever they call it. */
export function hasBody({ req }: Context): boolean {
  return req.headers['transfer-encoding'] !== undefined || Number(req.headers['content-length'] ?? 0) > 0
}

/** Reads these members of a JSON object or a form; null for one that is missing or blank. */
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

/** In the shape of the older service. */
export function answer(ctx: Context, status: number, body: Record<string, unknown>): void {
  if (status === 401) ctx.set('WWW-Authenticate', 'Bearer realm="latchkey"') // RFC 9110 section 15.5.2
  ctx.status = status
  ctx.body = body
}

/** Before a token is refused in words that are not ours: throws 429 where this address has sent too many invalid ones. */
export async function countInvalid(ctx: Context, invalidTokens: InvalidTokens): Promise<void> {
  const refusal = await invalidTokens.refusal(ctx.state)
  if (refusal.code === 'too_many_requests') throw refusal
}

/** The secret of a token that nobody logged in for: it opens nothing but its purpose. */
export async function issueToGuest(
  ctx: Context,
  { tokens, throttles, purpose, ttlMs }: { tokens: Tokens; throttles: Throttles; purpose: string; ttlMs: number },
): Promise<string> {
  await throttles.mayIssueToGuest(ctx.state.address)
  const life = { ttlMs, absoluteTtlMs: ttlMs }
  const issued = await tokens.issue({ kind: 'fixed', purpose, owner: null, login: null, ...life })
  return (issued as IssuedToken).secret // null is for owners whose credentials have changed
}

export function requireOpenRegistration(registration: DialectParts['registration']): void {
  if (registration === 'closed') throw new AppError('forbidden', 'Nobody can register here; ask the operator.')
}

/**
 * False where the username is taken; true always where e-mail confirmation is on: then the mail says which. Throws what is
 * wrong with what was chosen, as `invalid_request`.
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

/** Of an error of users.ts: which member was chosen badly, and what is expected. Throws every other error again. */
export function badChoice(error: unknown): { member: string; problem: string } {
  const [, member, problem] = /^(username|password): (.+)$/s.exec(error instanceof AppError ? error.message : '') ?? []
  if (member === undefined || problem === undefined) throw error
  return { member, problem }
}
