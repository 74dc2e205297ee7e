// Requests without a valid token and malformed requests are refused as documented.
import { randomBytes, randomUUID } from 'node:crypto'
import { CheckFailure, type Exchange, type RequestOptions } from './client.ts'
import { expectChallenge, expectCode, expectStatus } from './expectations.ts'
import { type SmokeRun, unknownToken } from './run.ts'

const maxTokenLength = 2048

export async function checkRequestsWithoutToken(run: SmokeRun, isReady: boolean): Promise<void> {
  const { check, getData } = run
  await check('/data without a token is refused', async () => {
    const exchange = await getData()
    expectStatus(exchange, 401, 'a request without a token must not pass')
    expectChallenge(exchange)
    return '401 with WWW-Authenticate'
  })
  if (isReady) {
    await check('/data with an unknown token is refused', async () => {
      for (const options of [{ bearer: unknownToken }, { headers: ['token', unknownToken] }]) {
        const exchange = await getData(options)
        expectStatus(exchange, 401, 'a token that was never issued must not pass')
        expectChallenge(exchange, /error="invalid_token"/)
        expectCode(exchange, 'invalid_token')
      }
      return '401 invalid_token in either header'
    })
  }
  await check('/data with a malformed token is refused', async () => {
    const malformed = await getData({ headers: ['token', 'not a token!'] })
    expectStatus(malformed, 401, 'a malformed token is 401')
    const long = await getData({ bearer: 'x'.repeat(maxTokenLength + 1) })
    expectStatus(long, 401, 'a token longer than 2 KB is 401')
    return '401, also if it is too long'
  })
  await check('/data with two tokens is refused', async () => {
    const own = ['token', unknownToken]
    const bearer = ['Authorization', `Bearer ${unknownToken}`]
    expectStatus(await getData({ headers: [...own, ...bearer] }), 400, 'two tokens are ambiguous')
    for (const header of [own, bearer]) {
      const exchange = await getData({ headers: [...header, ...header] })
      // A proxy may fold two headers of the same name into one, which is then malformed.
      if (exchange.status !== 401) expectStatus(exchange, 400, 'two tokens are ambiguous')
    }
    return '400'
  })
}

export async function checkBadRequests(run: SmokeRun): Promise<void> {
  await run.check('an unknown path is 404', () => checkUnknownPaths(run))
  await run.check('a wrong method is 405 with Allow', () => checkMethods(run))
  await run.check('a body of the wrong type or shape is refused', () => checkBodies(run))
  await run.check('a valid X-Request-Id is kept, an invalid one replaced', () => checkRequestIds(run))
}

async function checkUnknownPaths({ send, publicOrigins, target: { business } }: SmokeRun): Promise<string> {
  const paths = ['/nowhere', '/.env', '/.git/config', '/admin']
  const urls = publicOrigins.flatMap(origin => paths.map(path => `${origin}${path}`))
  for (const exchange of await Promise.all(urls.map(url => send('GET', url)))) {
    expectStatus(exchange, 404, `${exchange.path} must not be served`)
  }
  const almost = ['/data/', '/DATA'].map(path => send('GET', `${business}${path}`))
  for (const exchange of await Promise.all(almost)) {
    expectStatus(exchange, 404, 'paths are exact, including case and trailing slashes')
  }
  return '404, and paths are exact'
}

async function checkMethods({ send, target: { auth, business } }: SmokeRun): Promise<string> {
  for (const [method, url, allowed] of [
    ['POST', `${business}/data`, 'GET'],
    ['DELETE', `${business}/data`, 'GET'],
    ['GET', `${auth}/login`, 'POST'],
    ['PUT', `${auth}/sessions`, 'DELETE'],
  ] as const) {
    const exchange = await send(method, url)
    expectStatus(exchange, 405, 'a method that the path does not support is 405')
    const { allow } = exchange.headers
    if (allow === undefined)
      throw new CheckFailure(`405 without Allow on ${method} ${exchange.path}: clients cannot see which methods it has`)
    if (!allow.split(/, */).includes(allowed))
      throw new CheckFailure(`${method} ${exchange.path}: Allow is ${allow}, without ${allowed}`)
  }
  return '405'
}

async function checkBodies({ send, target: { auth } }: SmokeRun): Promise<string> {
  const unknownUser = JSON.stringify({ username: `nobody-${randomUUID()}`, password: 'wrong' })
  const cases: [number, string, RequestOptions][] = [
    [415, 'text', { headers: ['Content-Type', 'text/plain'], body: unknownUser }],
    [415, 'a compressed body', { headers: ['Content-Encoding', 'gzip'], body: unknownUser }],
    [400, 'broken JSON', { body: '{"username": ' }],
    [400, 'an array', { body: '[]' }],
    [400, 'a body without a password', { body: { username: 'nobody' } }],
    [400, 'an unknown member', { body: { username: 'nobody', password: 'wrong', admin: true } }],
    [413, 'a body of 32 KB', { body: { username: 'x'.repeat(32_768), password: 'wrong' } }],
  ]
  const exchanges = await Promise.all(cases.map(([, , options]) => send('POST', `${auth}/login`, options)))
  for (const [i, [status, what]] of cases.entries()) {
    expectStatus(exchanges[i] as Exchange, status, `/login must refuse ${what}`)
  }
  return '400, 413, 415'
}

async function checkRequestIds({ send, target: { business } }: SmokeRun): Promise<string> {
  const id = `smoke-${randomBytes(6).toString('hex')}`
  const valid = await send('GET', `${business}/health`, { headers: ['X-Request-Id', id] })
  const { 'x-request-id': returned } = valid.headers
  if (returned === undefined)
    throw new CheckFailure('the responses have no X-Request-Id, so requests cannot be found in the log')
  if (returned !== id)
    throw new CheckFailure('a proxy replaces X-Request-Id, so the logs of clients and servers cannot be joined')
  const { headers } = await send('GET', `${business}/health`, { headers: ['X-Request-Id', 'a b"c'] })
  if (headers['x-request-id'] === 'a b"c')
    throw new CheckFailure('any X-Request-Id is accepted, so clients can forge log lines')
  return 'as documented'
}
