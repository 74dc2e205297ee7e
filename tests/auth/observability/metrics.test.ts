// /metrics of both services: which metrics each event changes, and that names and types follow Prometheus's rules.
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { post } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo } from '../../support/credentials.ts'
import { logIn, validate } from '../../support/factories.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'
import { until } from '../../support/until.ts'

/** `name{labels}` -> value; labels in the order of their names. */
async function read(url: string): Promise<Map<string, number>> {
  const answer = await fetch(`${url}/metrics`)
  expect(answer.status).to.equal(200)
  expect(answer.headers.get('content-type')).to.match(/^text\/plain; version=0\.0\.4/)
  const samples = new Map<string, number>()
  for (const line of (await answer.text()).split('\n')) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (line.startsWith('#') || line === '') continue
    expect(match, line).to.not.equal(null)
    const [, name, labels = '', value] = match as RegExpExecArray
    const sorted = [...labels.matchAll(/\w+="(?:[^"\\]|\\.)*"/g)].map(([label]) => label).sort()
    samples.set(sorted.length > 0 ? `${name}{${sorted.join(',')}}` : (name as string), Number(value))
  }
  return samples
}

describe('the metrics', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>
  let business: Awaited<ReturnType<typeof startBusiness>>

  before(async () => {
    auth = await startAuth({ now: clock.now })
    business = await startBusiness(auth.internalUrl)
  })
  after(closeServers)

  const grown = async (what: () => Promise<unknown>, url = auth.internalUrl) => {
    const before = await read(url)
    await what()
    await sleep(20) // some metrics are counted after the answer is sent
    const after = await read(url)
    return (name: string) => (after.get(name) ?? 0) - (before.get(name) ?? 0)
  }

  it('count log-ins by outcome, and tokens by kind', async () => {
    const by = await grown(async () => {
      await logIn(auth.url)
      await post(`${auth.url}/login`, { ...demo, password: 'wrong' })
      await post(`${auth.url}/login`, { ...demo, username: 'nobody@example.com' })
      await post(
        `${auth.internalUrl}/tokens`,
        { kind: 'fixed', ttlSeconds: 60 },
        { authorization: `Bearer ${adminKey}` },
      )
    })
    expect(by('latchkey_logins_total{outcome="succeeded"}')).to.equal(1)
    expect(by('latchkey_logins_total{outcome="wrong_password"}')).to.equal(1)
    expect(by('latchkey_logins_total{outcome="unknown_user"}')).to.equal(1)
    expect(by('latchkey_tokens_issued_total{kind="sliding"}')).to.equal(1)
    expect(by('latchkey_tokens_issued_total{kind="fixed"}')).to.equal(1)
  })

  it('count a client that disconnected before the answer as 499, not 503; the access log agrees', async () => {
    const inner = await startAuth({ env: { ACCESS_LOG: 'errors', PASSWORD_HASH_COST: '10', TRUSTED_PROXIES: '1' } })
    const outer = await startBusiness(inner.internalUrl, { ACCESS_LOG: 'errors', AUTH_PUBLIC_URL: inner.url })
    const listeners = [
      { ...inner, route: 'route="/login"' },
      { ...outer, route: 'route="/{*path}"' }, // the route of all requests that Business forwards
    ]
    for (const { url, internalUrl, lines, route } of listeners) {
      const { hostname, port } = new URL(url)
      const body = JSON.stringify({ ...demo, username: 'gone@example.com' })
      const type = `Content-Type: application/json\r\nContent-Length: ${body.length}`
      for (let i = 0; i < 20; i++) {
        const socket = connect({ host: hostname, port: Number(port) }).on('error', () => {})
        // Once it is sent: a busy machine takes longer than this to connect.
        socket.write(`POST /login HTTP/1.1\r\nHost: a\r\n${type}\r\n\r\n${body}`, () => {
          setTimeout(() => socket.destroy(), 20)
        })
      }
      const statuses = async () => {
        const counts = new Map<string, number>()
        for (const [name, count] of await read(internalUrl)) {
          if (!name.startsWith('latchkey_http_request_duration_seconds_count') || !name.includes(route)) continue
          counts.set(/status="(\d+)"/.exec(name)?.[1] ?? '', count)
        }
        return counts
      }
      await until(async () => [...(await statuses()).values()].reduce((sum, count) => sum + count, 0) >= 20)
      const counts = await statuses()
      expect(counts.get('499')).to.be.above(10)
      expect([...counts.keys()].filter(status => status.startsWith('5'))).to.deep.equal([])
      expect(lines.filter(({ event }) => event === 'request' || event === 'request_failed')).to.deep.equal([])
    }
  })

  it('count validations by verdict and reason, and sweeps', async () => {
    const token = await logIn(auth.url)
    const by = await grown(async () => {
      await validate(auth.internalUrl, { tokens: [token, token, 'junk'] })
      clock.advance(30_000)
      await validate(auth.internalUrl, { token })
      await fetch(`${auth.internalUrl}/tokens/expired`, {
        method: 'DELETE',
        headers: { authorization: `Bearer ${adminKey}` },
      })
    })
    expect(by('latchkey_validations_total{reason="",verdict="admitted"}')).to.equal(2)
    expect(by('latchkey_validations_total{reason="malformed",verdict="refused"}')).to.equal(1)
    expect(by('latchkey_validations_total{reason="expired",verdict="refused"}')).to.equal(1)
    expect(by('latchkey_tokens_swept_total')).to.be.at.least(1)
    expect(by('latchkey_sweep_duration_seconds_count')).to.equal(1)
  })

  it('time requests by route and status, and create no series for invented paths', async () => {
    const by = await grown(async () => {
      await fetch(`${auth.url}/sessions`)
      for (let i = 0; i < 20; i++) await fetch(`${auth.url}/invented-${i}?x=${i}`)
    })
    expect(
      by('latchkey_http_request_duration_seconds_count{listener="auth",method="GET",route="/sessions",status="401"}'),
    ).to.equal(1)
    expect(
      by('latchkey_http_request_duration_seconds_count{listener="auth",method="GET",route="none",status="404"}'),
    ).to.equal(20)
    expect([...(await read(auth.internalUrl)).keys()].join()).to.not.include('invented')
  })

  it('time the calls to the stores by outcome', async () => {
    const by = await grown(() => logIn(auth.url))
    expect(
      by('latchkey_store_duration_seconds_count{call="findByUsername",outcome="answered",store="users"}'),
    ).to.equal(1)
    expect(by('latchkey_store_duration_seconds_count{call="insert",outcome="answered",store="tokens"}')).to.equal(1)
  })

  it('show how many requests shared a call, and the calls in flight', async () => {
    const token = await logIn(auth.url)
    const by = await grown(
      () => Promise.all(Array.from({ length: 50 }, () => fetch(`${business.url}/data`, { headers: { token } }))),
      business.internalUrl,
    )
    expect(by('latchkey_batch_size_sum')).to.equal(50)
    expect(by('latchkey_batch_size_count')).to.be.within(1, 49)
    expect(by('latchkey_auth_call_duration_seconds_count{outcome="answered"}')).to.equal(
      by('latchkey_batch_size_count'),
    )
    const after = await read(business.internalUrl)
    expect(after.get('latchkey_auth_calls_in_flight')).to.equal(0)
    expect(after.get('latchkey_auths{state="healthy"}')).to.equal(1)
    expect(after.get('latchkey_auths{state="ejected"}')).to.equal(0)
  })

  it('name the service, its version and that of Node.js', async () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
    for (const [service, { internalUrl }] of Object.entries({ auth, business })) {
      const labels = `node="${process.versions.node}",service="${service}",version="${version}"`
      expect((await read(internalUrl)).get(`latchkey_build_info{${labels}}`)).to.equal(1)
    }
  })

  it('include the memory and the event-loop delay of the process', async () => {
    const samples = await read(business.internalUrl)
    expect(samples.get('process_resident_memory_bytes')).to.be.above(10e6)
    expect([...samples.keys()].join()).to.include('nodejs_eventloop_lag')
  })

  it('are on the internal listeners only', async () => {
    for (const url of [auth.url, business.url]) expect((await fetch(`${url}/metrics`)).status).to.equal(404)
  })
})
