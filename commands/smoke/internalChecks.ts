// The internal listener is closed to the public, and opens only to the right key.
import { randomBytes } from 'node:crypto'
import { CheckFailure } from './client.ts'
import { expectNoSecret, expectStatus } from './expectations.ts'
import { formHeaders, isLoopback, type SmokeRun, unknownToken } from './run.ts'

const internalRoutes = [
  'POST /validateToken',
  'POST /introspect',
  'GET /forwardAuth',
  'POST /forwardAuth/data',
  'GET /metrics',
  'GET /tokens',
  'POST /tokens',
  'DELETE /tokens/expired',
  'GET /admin/users',
  'POST /admin/users',
  'GET /admin/users/nobody',
  'PATCH /admin/users/nobody',
  'DELETE /admin/users/nobody',
  'POST /admin/users/nobody/unlock',
  'POST /admin/users/nobody/reset',
  'GET /events',
]

export async function checkInternalIsClosed(run: SmokeRun): Promise<void> {
  for (const origin of run.publicOrigins) {
    await run.check(`the internal routes are not reachable at ${origin}`, () => checkPublicOrigin(run, origin))
  }
  const hosts = new Set(run.publicOrigins.map(origin => new URL(origin).hostname))
  for (const host of hosts) {
    const title = `the internal ports of ${host} are closed from here`
    if (isLoopback(host)) run.skip(title, 'this machine may reach them; run this from another one')
    else await run.check(title, () => checkInternalPorts(run, host))
  }
}

async function checkPublicOrigin({ send }: SmokeRun, origin: string): Promise<string> {
  const responses = await Promise.all(
    internalRoutes.map(async route => {
      const [method, path] = route.split(' ') as [string, string]
      const { status } = await send(method, `${origin}${path}`, method === 'POST' ? { body: {} } : {})
      return { route, status }
    }),
  )
  const open = responses
    .filter(({ status }) => status !== 404)
    .map(({ route, status }) => `${route} answered ${status}`)
  if (open.length > 0)
    throw new CheckFailure(`the internal listener is reachable from here: ${open.join(', ')}; expected 404 for each`)
  return `404 for each of ${internalRoutes.length}`
}

async function checkInternalPorts({ send, target }: SmokeRun, host: string): Promise<string> {
  const ports = target.internalPorts.filter(port => `http://${host}:${port}` !== target.internal)
  const responses = await Promise.all(
    ports.map(async port => {
      const url = `http://${host}:${port}`
      const exchange = await send('GET', `${url}/metrics`).catch(() => null)
      return exchange === null ? [] : [`${url} answered ${exchange.status}`]
    }),
  )
  if (responses.flat().length > 0) {
    throw new CheckFailure(
      `the internal listener is reachable from here: ${responses.flat().join(', ')}; set INTERNAL_HOST, or close the port`,
    )
  }
  return `no response on ${ports.join(' and ')}`
}

export async function checkInternal(run: SmokeRun, internal: string): Promise<void> {
  const { check, skip, send, publicOrigins } = run
  const { serviceKey } = run.target
  const responds = await check(`the internal listener responds at ${internal}`, async () => {
    if (publicOrigins.includes(internal))
      throw new CheckFailure('this is the address of a public listener; they must be separate')
    const { status } = await send('GET', `${internal}/health`)
    if (status !== 200) throw new CheckFailure(`GET /health answered ${status}`)
    return '200'
  })
  if (!responds) return
  await check('it opens only to a key', async () => {
    const body = { token: unknownToken }
    for (const bearer of [undefined, unknownToken, randomBytes(32).toString('hex')]) {
      const exchange = await send('POST', `${internal}/validateToken`, { body, ...(bearer && { bearer }) })
      expectStatus(exchange, 401, 'verdicts require the service key')
    }
    expectStatus(await send('GET', `${internal}/admin/users`), 401, 'listing users requires the admin key')
    return '401 without a key and with a wrong one'
  })
  await check('its metrics contain no secret', async () => {
    const { status, text } = await send('GET', `${internal}/metrics`)
    if (status !== 200 || !text.includes('latchkey_http_request_duration_seconds')) {
      throw new CheckFailure(`GET /metrics answered ${status}, without the metrics of Latchkey: alerts cannot work`)
    }
    expectNoSecret('/metrics', text, serviceKey)
    return `${text.split('\n').filter(line => line && !line.startsWith('#')).length} samples`
  })
  if (serviceKey === null) skip('verdicts on the internal listener', 'give --service-key to check this')
  else
    await check('the service key opens verdicts but no admin route', () => checkServiceKey(run, internal, serviceKey))
}

async function checkServiceKey({ send }: SmokeRun, internal: string, serviceKey: string): Promise<string> {
  const exchange = await send('POST', `${internal}/validateToken`, {
    bearer: serviceKey,
    body: { token: unknownToken },
  })
  expectStatus(exchange, 200, 'Auth has another SERVICE_KEY, so it refuses Business too')
  if (exchange.text !== '{"authenticated":false}')
    throw new CheckFailure('the verdict on an unknown token is not exactly {"authenticated":false}')
  const users = await send('GET', `${internal}/admin/users`, { bearer: serviceKey })
  if (users.status === 200)
    throw new CheckFailure('the service key opens /admin/users: ADMIN_KEY must differ from SERVICE_KEY')
  return '{"authenticated":false} for an unknown token'
}

/** Needs a live token. */
export async function checkVerdicts(run: SmokeRun, internal: string, key: string, token: string): Promise<void> {
  const { send } = run
  await run.check('the verdict names the holder of a live token, and a batch keeps its order', async () => {
    const validate = (body: unknown, bearer = key) => send('POST', `${internal}/validateToken`, { bearer, body })
    const one = await validate({ token, touch: false })
    expectStatus(one, 200, 'SERVICE_KEY opens verdicts')
    if (one.body['authenticated'] !== true || typeof one.body['tokenId'] !== 'string') {
      throw new CheckFailure('a live token is not authenticated: this may be the internal listener of another Auth')
    }
    const { body } = await validate({ tokens: [unknownToken, token], touch: false })
    const verdicts = (body['verdicts'] ?? []) as { authenticated: boolean }[]
    if (verdicts.map(({ authenticated }) => authenticated).join() !== 'false,true') {
      throw new CheckFailure('the verdicts of a batch are not in the order of its tokens, so users are mixed up')
    }
    const introspected = await send('POST', `${internal}/introspect`, {
      bearer: key,
      headers: formHeaders,
      body: `token=${token}`,
    })
    if (introspected.body['active'] !== true) throw new CheckFailure('/introspect reports a live token as inactive')
    const forwarded = await send('GET', `${internal}/forwardAuth`, { bearer: token })
    expectStatus(forwarded, 204, '/forwardAuth admits a live token')
    expectStatus(await send('GET', `${internal}/forwardAuth`), 401, '/forwardAuth refuses a request without a token')
    expectStatus(await validate({ token }, token), 401, 'the token of a user must not open the internal listener')
    return 'authenticated'
  })
}
