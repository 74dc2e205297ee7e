// Each address reaches the right service over a safe connection, and both services are ready.
import { CheckFailure, type Exchange } from './client.ts'
import { expectStatus } from './expectations.ts'
import { isLoopback, type SmokeRun, unknownToken } from './run.ts'

const minCertificateDays = 14

/** Returns false if the remaining checks would make no sense. */
export async function checkAddresses(run: SmokeRun): Promise<boolean> {
  const { auth, business } = run.target
  const names: [string, string][] =
    auth === business
      ? [['Latchkey', auth]]
      : [
          ['Auth', auth],
          ['Business', business],
        ]
  for (const [name, origin] of names) {
    const isThere = await run.check(`${name} responds at ${origin}`, async () => {
      const { status, body, durationMs } = await run.send('GET', `${origin}/health`)
      if (status !== 200 || body['status'] !== 'ok') {
        throw new CheckFailure(`GET /health answered ${status}, but not as Latchkey does: this is another server`)
      }
      return `200 in ${Math.round(durationMs)} ms`
    })
    if (isThere) continue
    run.skip('everything else', 'both services are needed')
    return false
  }
  const isRightWayRound = await run.check('each address is that of its service', async () => {
    if ((await run.send('GET', `${auth}/login`)).status === 404) {
      throw new CheckFailure(`${auth} has no /login: it may be the address of Business, which does not forward to Auth`)
    }
    if ((await run.getData()).status === 404) {
      throw new CheckFailure(`${business} has no /data: it may be the address of Auth`)
    }
    return auth === business ? 'one address for both' : 'two addresses'
  })
  for (const origin of run.publicOrigins) {
    await run.check(`the connection to ${origin} is safe`, () => checkTransport(run, new URL(origin)))
  }
  return isRightWayRound
}

async function checkTransport(run: SmokeRun, { hostname, protocol, port, origin }: URL): Promise<string> {
  if (protocol === 'http:') {
    if (isLoopback(hostname)) return 'http, but only on this machine'
    if (run.target.allowsHttp) return 'http, as --allow-http permits'
    throw new CheckFailure(
      'plain HTTP lets others read tokens and passwords; put a TLS proxy in front, or set TLS_CERT_FILE',
    )
  }
  const { tls, headers } = await run.send('GET', `${origin}/health`, { newConnection: true })
  const { protocol: version, certificateDays } = tls as NonNullable<Exchange['tls']>
  if (!/^TLSv1\.[23]$/.test(version)) throw new CheckFailure(`${version} is broken; require at least TLS 1.2`)
  if (certificateDays < minCertificateDays) {
    throw new CheckFailure(`the certificate expires in ${certificateDays} days: renew it now`)
  }
  if (headers['strict-transport-security'] === undefined) {
    throw new CheckFailure(
      'Strict-Transport-Security is missing, so browsers can be led to http; behind a proxy, set TRUSTED_PROXIES and have it send X-Forwarded-Proto',
    )
  }
  const overHttp = port === '' ? await run.send('GET', `http://${hostname}/sessions`).catch(() => null) : null
  // A 401 from Auth means that the proxy passed the request on, so Auth would accept the token of a careless client.
  if (overHttp !== null && /^(200|401)$/.test(String(overHttp.status))) {
    throw new CheckFailure('requests over http:// are served too: set TRUSTED_PROXIES, or have the proxy refuse them')
  }
  return `${version}, certificate valid for ${certificateDays} days`
}

/** Returns whether Business is ready. */
export async function checkReadiness(run: SmokeRun): Promise<boolean> {
  const { auth, business } = run.target
  const requireReady = async (origin: string) => {
    const { status, body } = await run.send('GET', `${origin}/ready`)
    if (status === 200 && body['status'] === 'ready') return '200'
    throw new CheckFailure(`GET /ready answered ${status}: ${String(body['detail'] ?? 'no detail')}`)
  }
  if (auth !== business) await run.check('Auth is ready', () => requireReady(auth))
  const isReady = await run.check('Business is ready: Auth gives it verdicts', () => requireReady(business))
  const title = '/data is 503, not 401, while Auth gives no verdict'
  if (isReady) {
    run.skip(title, 'Auth gives verdicts; to check this, stop Auth and run this again')
    return true
  }
  await run.check(title, async () => {
    const exchange = await run.getData({ bearer: unknownToken })
    if (exchange.status === 401) {
      throw new CheckFailure('/data answered 401 while Auth gives no verdict, so an outage logs users out')
    }
    expectStatus(exchange, 503, 'clients recognise an outage by the 503')
    return '503'
  })
  return false
}
