// The dialect of simple-flask-auth-app: accounts by e-mail address, short-lived access tokens and one long-lived
// refresh token per user. Access tokens are sessions here.

import { requestValue } from '../../../shared/http/requestValue.ts'
import type { Handler, Routes } from '../../../shared/http/types.ts'
import { describeChoice } from '../routes/choiceProblems.ts'
import { clientOf, requireOpenRegistration } from '../routes/credentials.ts'
import { issuedAtOf } from '../tokens/format.ts'
import type { TokenOwner, TokenRecord } from '../tokens/tokens.ts'
import { isAddress } from '../users/usernames.ts'
import type { DialectParts } from './dialect.ts'
import { answer, bearerOf, countInvalid, memberReader } from './requests.ts'

const refreshPurpose = 'flask-auth.refresh'
const refreshTtlMs = 30 * 86_400_000 // the default of Flask-JWT-Extended, which the service never changed
const usersPerPage = 200
const readCredentials = memberReader('email', 'password')
const presented = requestValue<{ token: TokenRecord; secret: string }>('presented')

export function flaskAuth({
  users,
  links,
  logIn,
  registration,
  invalidTokens,
  tokens,
  format,
  requireAdminKey,
  ttlMs,
  now,
}: DialectParts): Routes {
  /**
   * Issues a session that ends after `ttlMs` even if it is used, and no later than the refresh token of the same log-in.
   */
  const issueAccess = (owner: TokenOwner, refresh: TokenRecord) => {
    const lifeMs = Math.max(1, Math.min(ttlMs, refresh.expiresAt - now()))
    return tokens.issue({
      kind: 'sliding',
      purpose: null,
      owner,
      login: refresh,
      ttlMs: lifeMs,
      absoluteTtlMs: lifeMs,
    })
  }

  /**
   * One refresh token per user. With one per log-in, a user who never logs out would reach the token limit, because
   * only sessions are evicted to make room.
   */
  const issueRefresh = (owner: TokenOwner) =>
    tokens.issueOnly({
      kind: 'fixed',
      purpose: refreshPurpose,
      owner,
      login: 'now',
      ttlMs: refreshTtlMs,
      absoluteTtlMs: refreshTtlMs,
    })

  const hello: Handler = ctx => {
    ctx.body = { hello: 'World!' }
  }

  const createAccount: Handler = async ctx => {
    requireOpenRegistration(registration)
    const { email, password } = await readCredentials(ctx)
    if (email === null || password === null) return answer(ctx, 400, blank(email === null ? 'email' : 'password'))
    if (!isAddress(email)) return answer(ctx, 400, { message: { email: 'expected an e-mail address' } })
    const result = await registration.register({ username: email, password }, clientOf(ctx))
    if (result.outcome === 'rejected') {
      const member = result.problem.member === 'username' ? 'email' : 'password'
      return answer(ctx, 400, { message: { [member]: describeChoice(result.problem) } })
    }
    if (result.outcome === 'taken') return answer(ctx, 409, { message: `Email ${email} already exists` })
    ctx.body = { message: `User ${email} was created, please verify your email` }
  }

  const confirm: Handler = async ctx => {
    const { token = '' } = ctx.params
    if (await links.confirm(token)) {
      ctx.body = { message: 'Email successfully confirmed! You can now login.' }
      return
    }
    await countInvalid(ctx, invalidTokens)
    answer(ctx, 404, { message: 'Unknown email confirmation token' })
  }

  const createTokens: Handler = async ctx => {
    const { email, password } = await readCredentials(ctx)
    if (email === null || password === null) return answer(ctx, 400, blank(email === null ? 'email' : 'password'))
    const issued = await logIn({ username: email, password }, clientOf(ctx), async user => {
      const refresh = await issueRefresh(user)
      const access = refresh && (await issueAccess(user, refresh.token))
      return access && { user, access, refresh }
    })
    // The response is the same for an unknown user, an unconfirmed address and a wrong password.
    if (!issued) return answer(ctx, 401, { message: 'Wrong credentials' })
    const message = `Logged in as ${issued.user.username}`
    ctx.body = { message, access_token: issued.access.secret, refresh_token: issued.refresh.secret }
  }

  const guardParts = { tokens, format, invalidTokens, now }
  const requireAccess = requireToken(guardParts, {
    use: secret => tokens.useSession(secret),
    otherPurpose: refreshPurpose,
    wrongType: 'Only access tokens are allowed',
    lifeMs: ttlMs,
  })
  const requireRefresh = requireToken(guardParts, {
    use: secret => tokens.validate(secret, { purpose: refreshPurpose, touch: true }),
    otherPurpose: null,
    wrongType: 'Only refresh tokens are allowed',
    lifeMs: refreshTtlMs,
  })

  const secretAnswer: Handler = ctx => {
    ctx.body = { answer: 42 }
  }

  const refresh: Handler = async ctx => {
    const { token, secret } = presented.of(ctx)
    const { userId: id, username, credentialVersion, authority } = token as TokenRecord & TokenOwner
    const issued = await issueAccess({ id: id as string, username, credentialVersion, authority }, token)
    const stillLive = await tokens.validate(secret, { purpose: refreshPurpose, touch: false })
    if (issued && stillLive) {
      ctx.body = { access_token: issued.secret }
      return
    }
    // A concurrent logout that revoked the refresh token may have missed this session.
    if (issued) await tokens.revokeToken(issued.token)
    answer(ctx, 401, { msg: 'Token has been revoked' })
  }

  const logOut =
    (kind: string): Handler =>
    async ctx => {
      await tokens.revokeToken(presented.of(ctx).token)
      ctx.body = { message: `${kind} token has been revoked` }
    }

  const listUsers: Handler = async ctx => {
    const all = []
    for await (const { username, confirmedAt, disabledAt, deletedAt } of everyUser(users)) {
      if (deletedAt === null) all.push({ email: username, active: confirmedAt !== null && disabledAt === null })
    }
    ctx.body = { users: all }
  }

  const removeUsers: Handler = async ctx => {
    let removed = 0
    for await (const { id } of everyUser(users)) if (await users.remove(id)) removed++
    ctx.body = { message: `${removed} row(s) deleted` }
  }

  return {
    'GET /': [hello],
    'POST /registration': [createAccount],
    'GET /confirm/:token': [confirm],
    'POST /login': [createTokens],
    'GET /secret': [requireAccess, secretAnswer],
    'POST /token/refresh': [requireRefresh, refresh],
    'POST /logout/access': [requireAccess, logOut('Access')],
    'POST /logout/refresh': [requireRefresh, logOut('Refresh')],
    'GET /users': [requireAdminKey, listUsers],
    'DELETE /users': [requireAdminKey, removeUsers],
  }
}

function blank(member: 'email' | 'password') {
  return { message: { [member]: 'This field cannot be blank' } }
}

interface TokenType {
  use(secret: string): Promise<TokenRecord | null>
  /** The purpose of the other type, null for sessions. */
  otherPurpose: string | null
  /** The message for a token of the other type. */
  wrongType: string
  lifeMs: number
}

/** Calls the next handler if the token is live; otherwise responds with the messages of Flask-JWT-Extended. */
function requireToken(
  { tokens, format, invalidTokens, now }: Pick<DialectParts, 'tokens' | 'format' | 'invalidTokens' | 'now'>,
  { use, otherPurpose, wrongType, lifeMs }: TokenType,
): Handler {
  return async (ctx, next) => {
    if (ctx.get('Authorization') === '') return answer(ctx, 401, { msg: 'Missing Authorization Header' })
    const secret = bearerOf(ctx)
    if (secret === null) return answer(ctx, 422, { msg: 'Not a token of this service' })
    const token = await use(secret)
    if (token) {
      presented.set(ctx, { token, secret })
      return next()
    }
    await countInvalid(ctx, invalidTokens)
    const ref = format.parse(secret)
    if (!ref) return answer(ctx, 422, { msg: 'Not a token of this service' })
    const other = await tokens.validate(secret, { purpose: otherPurpose, touch: false })
    if (other) return answer(ctx, 422, { msg: wrongType })
    // The id reveals when the token was issued, which is no secret from its holder. A dead token that has not expired has
    // been revoked.
    const hasExpired = now() >= issuedAtOf(ref.id) + lifeMs
    answer(ctx, 401, { msg: hasExpired ? 'Token has expired' : 'Token has been revoked' })
  }
}

async function* everyUser(users: DialectParts['users']) {
  for (let after: string | null = null; ; ) {
    const page = await users.list(after, usersPerPage)
    yield* page
    if (page.length < usersPerPage) return
    after = page.at(-1)?.id ?? null
  }
}
