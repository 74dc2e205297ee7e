// What a user can do with a session: use it, watch it slide, list, renew and revoke it. A revoked token is refused on the
// next request.
import { setTimeout as sleep } from 'node:timers/promises'
import { CheckFailure, type Exchange } from './client.ts'
import { expectStatus } from './expectations.ts'
import { checkVerdicts } from './internalChecks.ts'
import { type Credentials, formHeaders, parallelRequests, type SmokeRun } from './run.ts'

interface Session {
  id: string
  expiresAt: number
  absoluteExpiresAt: number
  refreshCount: number
  current: boolean
}

export async function checkSession(run: SmokeRun, credentials: Credentials, isReady: boolean): Promise<void> {
  const { check, skip, target } = run
  let token = ''
  let absoluteExpiresAt: unknown
  const isLoggedIn = await check('the right password logs in', async () => {
    const exchange = await run.logIn(credentials)
    expectStatus(exchange, 200, 'the given password is wrong, or log-in is broken')
    const seen = describeNewToken(exchange)
    token = String(exchange.body['token'])
    absoluteExpiresAt = exchange.body['absoluteExpiresAt']
    return seen
  })
  if (!isLoggedIn) return skip('everything that needs a token', 'the log-in failed')
  if (!isReady) return skip('/data with a token, sliding and revocation', 'Business is not ready')

  const isAdmitted = await check('/data admits the token in either header', () => checkAdmission(run, token))
  if (!isAdmitted) return
  await check('/data with a live token in the wrong place is refused', () => checkPlaces(run, token))
  await check('a token slides while it is used', () => checkSliding(run, token))
  await check('another session can be listed and ended', () => checkOtherSession(run, token, credentials))
  await check('renewal replaces the secret, and the old one is refused at once', async () => {
    const renewed = await renew(run, token, absoluteExpiresAt)
    await expectRefused(run, token, '/renew')
    token = renewed
    expectStatus(await run.getData({ bearer: token }), 200, 'the new secret must be admitted')
    return '200'
  })
  if (target.internal !== null && target.serviceKey !== null) {
    await checkVerdicts(run, target.internal, target.serviceKey, token)
  }
  await check('a session that logged out is refused on the next request', () => checkLogout(run, token))
  await check('a revoked token (RFC 7009) is refused on the next request', () => checkRevocation(run, credentials))
}

function describeNewToken({ body, headers }: Exchange): string {
  const { token, tokenType, expiresAt, absoluteExpiresAt } = body
  if (typeof token !== 'string' || tokenType !== 'Bearer')
    throw new CheckFailure('the response contains no bearer token')
  if (!(Number(absoluteExpiresAt) >= Number(expiresAt)))
    throw new CheckFailure('expiresAt is later than absoluteExpiresAt')
  const leftMs = Number(expiresAt) - Date.parse(headers.date ?? new Date().toUTCString())
  if (leftMs <= 0) throw new CheckFailure('the token has already expired: the clocks of the machines differ')
  return `200, a token that expires in ${Math.round(leftMs / 1000)} s unless used`
}

async function checkAdmission({ getData }: SmokeRun, token: string): Promise<string> {
  for (const options of [{ bearer: token }, { headers: ['token', token] }]) {
    const exchange = await getData(options)
    if (exchange.status === 401) {
      throw new CheckFailure(
        'a new token is refused: check that AUTH_INTERNAL_URL of Business leads to this Auth, and that several Auths share one TOKEN_STORE_URL',
      )
    }
    expectStatus(exchange, 200, 'a live token must be admitted')
  }
  const lowerCase = await getData({ headers: ['authorization', `bearer ${token}`] })
  expectStatus(lowerCase, 200, 'the word Bearer is not case-sensitive')
  return '200'
}

async function checkPlaces({ send, getData, target: { business } }: SmokeRun, token: string): Promise<string> {
  for (const query of [`?token=${token}`, `?access_token=${token}`]) {
    const exchange = await send('GET', `${business}/data${query}`)
    expectStatus(exchange, 401, 'a token in the URL must be ignored, because logs and browser histories keep it')
  }
  const cookie = await getData({ headers: ['Cookie', `token=${token}; access_token=${token}`] })
  expectStatus(cookie, 401, 'a token in a cookie must be ignored, because other pages make browsers send it')
  const two = await getData({ bearer: token, headers: ['token', token] })
  expectStatus(two, 400, 'two tokens are 400, even if both are live')
  return '401 in the URL and in a cookie, 400 twice'
}

async function checkSliding(run: SmokeRun, token: string): Promise<string> {
  const before = await currentSession(run, token)
  await sleep(100)
  expectStatus(await run.getData({ bearer: token }), 200, 'a live token must be admitted')
  const after = await currentSession(run, token)
  // The request to /data counts as one use, and the request to /sessions as another.
  if (after.refreshCount < before.refreshCount + 2)
    throw new CheckFailure('/data does not extend the session, so active users are logged out')
  if (after.expiresAt <= before.expiresAt && after.expiresAt < after.absoluteExpiresAt)
    throw new CheckFailure('expiresAt does not grow with use, so active users are logged out')
  if (after.absoluteExpiresAt !== before.absoluteExpiresAt)
    throw new CheckFailure('absoluteExpiresAt moves, so the token never dies')
  return `expiresAt grew by ${after.expiresAt - before.expiresAt} ms`
}

async function checkOtherSession(run: SmokeRun, token: string, credentials: Credentials): Promise<string> {
  const { send, getData, target } = run
  const login = await run.logIn(credentials)
  expectStatus(login, 200, 'a user may have a second session')
  const other = String(login.body['token'])
  const { id } = await currentSession(run, other)
  const list = await send('GET', `${target.auth}/sessions`, { bearer: token })
  expectStatus(list, 200, "a session may list the user's sessions")
  if (list.text.includes(token) || list.text.includes(other))
    throw new CheckFailure('/sessions shows the secrets of tokens')
  if (!list.text.includes(id)) throw new CheckFailure('/sessions does not show the other session')
  const end = (id: string) => send('DELETE', `${target.auth}/sessions/${id}`, { bearer: token })
  expectStatus(await end('unknown'), 404, 'an unknown session is 404')
  expectStatus(await getData({ bearer: other }), 200, 'a session stays live until it is ended')
  expectStatus(await end(id), 204, 'a user may end their own sessions')
  await expectRefused(run, other, 'DELETE /sessions/:id')
  return '204, and refused at once'
}

async function renew(run: SmokeRun, token: string, absoluteExpiresAt: unknown): Promise<string> {
  expectStatus(await run.getData({ bearer: token }), 200, 'a live token must be admitted')
  const { auth } = run.target
  const exchange = await run.send('POST', `${auth}/renew`, { bearer: token })
  expectStatus(exchange, 200, 'a live session can be renewed')
  const renewed = String(exchange.body['token'])
  run.revokeAtEnd(renewed)
  if (exchange.body['absoluteExpiresAt'] !== absoluteExpiresAt)
    throw new CheckFailure('absoluteExpiresAt moves, so the token never dies')
  return renewed
}

async function checkLogout(run: SmokeRun, token: string): Promise<string> {
  const { auth } = run.target
  await getDataInParallel(run, token)
  const logOut = () => run.send('POST', `${auth}/logout`, { bearer: token })
  expectStatus(await logOut(), 204, 'a session can log out')
  await expectRefused(run, token, '/logout')
  expectStatus(await logOut(), 204, 'a second log-out is not an error')
  const list = await run.send('GET', `${auth}/sessions`, { bearer: token })
  expectStatus(list, 401, 'a dead session lists nothing')
  return `401 on all ${parallelRequests} requests`
}

async function checkRevocation(run: SmokeRun, credentials: Credentials): Promise<string> {
  const { auth } = run.target
  const { body } = await run.logIn(credentials)
  const token = String(body['token'])
  expectStatus(await run.getData({ bearer: token }), 200, 'a live token must be admitted')
  const exchange = await run.send('POST', `${auth}/revoke`, { headers: formHeaders, body: `token=${token}` })
  expectStatus(exchange, 200, '/revoke accepts a form')
  await expectRefused(run, token, '/revoke')
  return `401 on all ${parallelRequests} requests`
}

async function expectRefused(run: SmokeRun, token: string, after: string): Promise<void> {
  const exchanges = await getDataInParallel(run, token)
  const admitted = exchanges.filter(({ status }) => status < 400).length
  if (admitted > 0) {
    throw new CheckFailure(
      `a revoked token was still admitted by ${admitted} of ${parallelRequests} requests right after ${after}; a cache keeps verdicts or responses, or several Auths do not share a store`,
    )
  }
  for (const exchange of exchanges) expectStatus(exchange, 401, 'a dead token is 401')
}

/** Uses separate connections, so that a load balancer spreads the requests over the processes of Business. */
function getDataInParallel({ getData }: SmokeRun, token: string): Promise<Exchange[]> {
  return Promise.all(Array.from({ length: parallelRequests }, () => getData({ bearer: token, newConnection: true })))
}

async function currentSession({ send, target }: SmokeRun, token: string): Promise<Session> {
  const exchange = await send('GET', `${target.auth}/sessions`, { bearer: token })
  expectStatus(exchange, 200, "a live session may list the user's sessions")
  const sessions = (exchange.body['sessions'] ?? []) as Session[]
  const current = sessions.filter(session => session.current)
  if (current.length !== 1)
    throw new CheckFailure(`/sessions marks ${current.length} sessions as the current one, expected 1`)
  return current[0] as Session
}
