// The dialect of python-secure-flask-api-jwt-demo: accounts, and sessions that get a new secret with every use.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import type { Context, Handler, Routes } from '../../../shared/http/types.ts'
import { describeChoice } from '../routes/choiceProblems.ts'
import { clientOf, requireOpenRegistration } from '../routes/credentials.ts'
import { provedAt, type Session, type TokenOwner, type TokenRecord } from '../tokens/tokens.ts'
import type { ChoiceProblem } from '../users/choiceRules.ts'
import { normalise } from '../users/usernames.ts'
import type { DialectParts } from './dialect.ts'
import { answer, bearerOf, countInvalid, hasBody, memberReader } from './requests.ts'

const minUsernameLength = 4 // characters
// The older service lets a user change the password or delete the account without giving the password. We require a
// recent log-in, so that a stolen session, or one got in exchange for a stolen token, cannot take over an account.
const freshForMs = 5 * 60_000

const missingToken = { message: 'Token is missing' }
const deadToken = { message: 'Invalid or expired token' }
const readCredentials = memberReader('username', 'password')
const readToken = bodyReader(z.object({ token: z.string('expected a token, as a string').optional() }), { form: true })

export function flaskJwt({
  users,
  links,
  logIn,
  registration,
  ownAccount,
  invalidTokens,
  tokens,
  passwordRules: { minLength },
  ttlMs,
  absoluteTtlMs,
  now,
}: DialectParts): Routes {
  const life = { ttlMs, absoluteTtlMs: Math.max(ttlMs, absoluteTtlMs) }
  const issueSession = (owner: TokenOwner, login: 'now' | TokenRecord) =>
    tokens.issue({ kind: 'sliding', purpose: null, owner, login, ...life })

  const create: Handler = async ctx => {
    requireOpenRegistration(registration)
    const { username, password } = await readCredentials(ctx)
    if (username === null || password === null) return answer(ctx, 400, { error: 'Missing username or password' })
    if (isTooShort(password)) return answer(ctx, 400, tooShort)
    if (isShortName(username)) return answer(ctx, 400, shortName)
    const result = await registration.register({ username, password }, clientOf(ctx))
    if (result.outcome === 'rejected') return answer(ctx, 400, rejected(result.problem))
    if (result.outcome === 'taken') return answer(ctx, 400, { error: 'Username already exists' })
    answer(ctx, 201, { message: 'User created successfully' })
  }

  const authenticate: Handler = async ctx => {
    const { username, password } = await readCredentials(ctx)
    if (username === null || password === null) return answer(ctx, 400, { error: 'Missing username or password' })
    const issued = await logIn({ username, password }, clientOf(ctx), user => issueSession(user, 'now'))
    if (issued) ctx.body = { token: issued.secret, access_token: issued.secret }
    else answer(ctx, 401, { error: 'Invalid credentials' })
  }

  const show: Handler = async ctx => {
    const secret = bearerOf(ctx)
    if (secret === null) return refuse(ctx)
    const renewed = await tokens.renew(secret)
    const user = renewed && (await users.find(renewed.token.userId as string))
    if (!renewed || !user) return refuse(ctx)
    ctx.body = { user: { id: user.id, username: user.username }, token: renewed.secret }
  }

  const change: Handler = async ctx => {
    const secret = bearerOf(ctx)
    const session = secret && (await tokens.lookAtSession(secret))
    if (!session) return refuse(ctx)
    const { username, password } = await readCredentials(ctx)
    const isRenamed = username !== null && normalise(username) !== normalise(session.username)
    const changes = { username: isRenamed ? username : null, password }
    const issued =
      isRenamed || password !== null ? await changeAccount(ctx, session, changes) : await tokens.renew(secret)
    if (issued) ctx.body = { message: 'User updated successfully', token: issued.secret }
    else if (ctx.body === undefined) await refuse(ctx)
  }

  /**
   * Changes the username, the password or both, which ends all sessions, and issues a new session. Null if the change is refused;
   * the caller responds if there is no response yet.
   */
  async function changeAccount(ctx: Context, session: Session, { username, password }: Changes) {
    if (!isFresh(session)) return null
    const problem = problemWith(session, { username, password })
    if (problem !== null) {
      answer(ctx, 400, problem)
      return null
    }
    const client = clientOf(ctx)
    const { userId: id, credentialVersion } = session
    const renamed = username === null ? null : await rename(ctx, session, username)
    if (username !== null && renamed === null) return null
    if (password === null) return renamed && issueSession(renamed, session)
    const version = renamed?.credentialVersion ?? credentialVersion
    const result = await users.resetPassword({ id, credentialVersion: version }, password, client)
    if (result.outcome === 'rejected') answer(ctx, 400, rejected(result.problem))
    if (result.outcome !== 'changed') return null
    links.notifyOfChange(result.user, client)
    return issueSession(result.user, session)
  }

  /** The user under the new name. Null if it is refused, with a response unless the session has ended meanwhile. */
  async function rename(ctx: Context, session: Session, username: string) {
    const result = await ownAccount.renameAfterLogIn(session, username, clientOf(ctx))
    if (result?.outcome === 'changed') return result.user
    if (result?.outcome === 'forbidden') answer(ctx, 400, { error: 'The username cannot be changed' })
    if (result?.outcome === 'taken') answer(ctx, 400, { error: 'Username already exists' })
    if (result?.outcome === 'rejected') answer(ctx, 400, rejected(result.problem))
    return null
  }

  function problemWith(session: Session, { username, password }: Changes): { error: string } | null {
    if (username !== null && isShortName(username)) return shortName
    if (password === null) return null
    if (isTooShort(password)) return tooShort
    const problem = users.problemWithPassword({ username: username ?? session.username, password })
    return problem && rejected(problem)
  }

  const remove: Handler = async ctx => {
    const secret = bearerOf(ctx)
    const session = secret && (await tokens.lookAtSession(secret))
    if (!session || !isFresh(session) || !(await users.remove(session.userId))) return refuse(ctx)
    ctx.body = { message: 'User deleted successfully' }
  }

  const validateToken: Handler = async ctx => {
    const secret = await readEitherToken(ctx)
    if (secret === null) return answer(ctx, 401, { error: 'Authorization header missing or invalid' })
    const renewed = await tokens.renew(secret)
    if (renewed) ctx.body = { message: 'Token is valid', token: renewed.secret }
    else await refuseEither(ctx)
  }

  const logOut: Handler = async ctx => {
    const secret = await readEitherToken(ctx)
    if (secret === null) return answer(ctx, 401, { error: 'Authorization header missing or invalid' })
    const isLive = await tokens.lookAtSession(secret)
    // End the session even if this secret was replaced already, so that a client with the new secret is logged out too.
    await tokens.revokeSession(secret)
    if (!isLive) return refuseEither(ctx)
    ctx.body = { message: 'Logged out successfully' }
  }

  async function refuse(ctx: Context): Promise<void> {
    if (bearerOf(ctx) === null) return answer(ctx, 401, missingToken)
    await countInvalid(ctx, invalidTokens)
    answer(ctx, 401, deadToken)
  }

  async function refuseEither(ctx: Context): Promise<void> {
    await countInvalid(ctx, invalidTokens)
    answer(ctx, 401, { error: 'Token is invalid or has expired' })
  }

  const isFresh = (session: Session) => now() < (provedAt(session) ?? -Infinity) + freshForMs
  const tooShort = { error: `Password must be at least ${minLength} characters long` }
  const isTooShort = (password: string) => [...password.normalize('NFKC')].length < minLength

  return {
    'POST /user': [create],
    'GET /user': [show],
    'PUT /user': [change],
    'DELETE /user': [remove],
    'POST /authenticate_user': [authenticate],
    'POST /validate_token': [validateToken],
    'POST /logout': [logOut],
  }
}

interface Changes {
  /** Null leaves it as it is, and so for the password. */
  username: string | null
  password: string | null
}

const shortName = { error: `Username must be at least ${minUsernameLength} characters long` }

function isShortName(username: string): boolean {
  return [...username].length < minUsernameLength
}

function rejected(problem: ChoiceProblem) {
  return { error: `${problem.member}: ${describeChoice(problem)}` }
}

/** Reads the token from the header, or else from the body: the older service documented one place and read the other. */
async function readEitherToken(ctx: Context): Promise<string | null> {
  const token = bearerOf(ctx)
  if (token !== null || !hasBody(ctx)) return token
  return (await readToken(ctx)).token ?? null
}
