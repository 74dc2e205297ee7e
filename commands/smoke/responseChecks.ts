// Checks of every response, of the API descriptions, and of what pages of other origins can read.
import { CheckFailure, type Exchange } from './client.ts'
import { expectNoSecret, expectStatus } from './expectations.ts'
import type { SmokeRun } from './run.ts'

const foreignOrigin = 'https://other-site.example'
const maxRoutesShown = 5

export async function checkDocuments({ check, send, publicOrigins, target }: SmokeRun): Promise<void> {
  for (const origin of publicOrigins) {
    await check(`${origin}/openapi.json contains no secret`, async () => {
      const exchange = await send('GET', `${origin}/openapi.json`)
      if (exchange.status === 404) return 'not served; see API_DOCS'
      expectStatus(exchange, 200, 'the description is missing')
      if (!String(exchange.body['openapi']).startsWith('3.')) throw new CheckFailure('it is not an OpenAPI document')
      expectNoSecret('/openapi.json', exchange.text, target.serviceKey)
      const [address] = /\b(10|192\.168|172\.(1[6-9]|2\d|3[01]))\.\d+\.\d+(:\d+)?/.exec(exchange.text) ?? []
      if (address) throw new CheckFailure(`it contains ${address}, an address of the internal network`)
      return `OpenAPI ${exchange.body['openapi']}`
    })
  }
}

export async function checkCors({ check, send, getData, target: { auth } }: SmokeRun): Promise<void> {
  await check('pages of other origins cannot read responses', async () => {
    const headers = ['Origin', foreignOrigin]
    for (const { path, headers: received } of [
      await getData({ headers }),
      await send('POST', `${auth}/login`, { headers, body: {} }),
    ]) {
      const allowed = received['access-control-allow-origin']
      if (allowed === '*' || allowed === foreignOrigin) {
        throw new CheckFailure(
          `Access-Control-Allow-Origin: ${allowed} on ${path} lets any page act for its visitors; see CORS_ORIGINS`,
        )
      }
    }
    return 'no Access-Control-Allow-Origin for a foreign origin'
  })
}

/** Examines every response that the public addresses have sent so far. */
export async function checkEveryResponse({ check, exchanges, publicOrigins }: SmokeRun): Promise<void> {
  const all = exchanges.filter(({ origin }) => publicOrigins.includes(origin))
  const refusals = all.filter(({ status }) => status >= 400)
  const every = (title: string, isWrong: (exchange: Exchange) => boolean, problem: string, among = all) =>
    check(title, async () => {
      const wrong = among.filter(isWrong)
      if (wrong.length > 0) throw new CheckFailure(`${problem} ${routesOf(wrong)}`)
      return `${among.length} responses`
    })
  await every(
    'no cache may keep a response',
    ({ headers }) => !/\bno-store\b/.test(headers['cache-control'] ?? ''),
    'a proxy or a browser may keep tokens and data: Cache-Control (no-store) is missing on',
  )
  await every(
    'every response can be found in the log',
    ({ headers }) => headers['x-request-id'] === undefined,
    'X-Request-Id is missing on',
  )
  await every(
    'browsers do not guess content types',
    ({ headers }) => headers['x-content-type-options'] !== 'nosniff',
    'X-Content-Type-Options: nosniff is missing on',
  )
  await every(
    'no response reveals the version of a server',
    ({ headers }) => headers['x-powered-by'] !== undefined || /\d/.test(String(headers.server ?? '')),
    'attackers can look up the version in Server or X-Powered-By on',
  )
  await every(
    'no response sets a cookie',
    ({ headers }) => headers['set-cookie'] !== undefined,
    'Latchkey uses no cookies, but a proxy adds Set-Cookie to',
  )
  await every(
    'every refusal is a problem document',
    exchange => !isProblem(exchange),
    'the problem document is missing, or has another status or request id, on',
    refusals,
  )
  await every(
    'every 401 says how to authenticate',
    ({ status, headers, body }) =>
      status === 401 && body['error'] !== 'invalid_credentials' && !/^Bearer\b/.test(headers['www-authenticate'] ?? ''),
    'WWW-Authenticate: Bearer is missing on',
    refusals,
  )
  await every(
    'every 429 and 503 says when to retry',
    ({ status, headers }) => (status === 429 || status === 503) && headers['retry-after'] === undefined,
    'Retry-After is missing on',
    refusals,
  )
  await every(
    'no request failed in the server',
    ({ status }) => status === 500 || status === 502 || status === 504,
    'a service or the proxy in front of it failed; find the X-Request-Id in the log:',
  )
}

function isProblem({ status, headers, body }: Exchange): boolean {
  return (
    (headers['content-type'] ?? '').startsWith('application/problem+json') &&
    body['status'] === status &&
    typeof body['error'] === 'string' &&
    typeof body['detail'] === 'string' &&
    body['requestId'] === headers['x-request-id']
  )
}

function routesOf(exchanges: Exchange[]): string {
  const named = exchanges.map(({ method, path }) => `${method} ${path.replace(/\/sessions\/.*/, '/sessions/:id')}`)
  const routes = [...new Set(named)]
  const shown = routes.slice(0, maxRoutesShown).join(', ')
  return routes.length > maxRoutesShown ? `${shown} and ${routes.length - maxRoutesShown} more` : shown
}
