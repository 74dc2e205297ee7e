// The memory that clients can occupy is bounded, per client and in total. Real processes with a heap of 400 MB face
// clients that send without end and read nothing.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { expect } from 'chai'
import { adminKey } from '../../support/credentials.ts'
import { endProcesses, residentBytes, type ServiceProcess, startProcess } from '../../support/processes.ts'
import { until } from '../../support/until.ts'

const smallHeap = { NODE_OPTIONS: '--max-old-space-size=400' }
const wide = '1000000000'
const mb = 1e6
const sockets = new Set<Socket>()

async function open(url: string, localAddress = '127.0.0.1'): Promise<Socket> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port), localAddress }).on('error', () => {})
  sockets.add(socket)
  await Promise.race([once(socket, 'connect'), once(socket, 'close')])
  return socket
}

/** Opens connections that send `bytes` and read nothing. */
async function openDeaf(url: string, count: number, bytes: string, localAddress?: string): Promise<Socket[]> {
  const opened: Socket[] = []
  for (let i = 0; i < count; i++) {
    const socket = await open(url, localAddress)
    socket.pause().write(bytes)
    opened.push(socket)
  }
  return opened
}

const request = (target: string, headers = '') => `${target} HTTP/1.1\r\nHost: a\r\n${headers}\r\n`

/** Checks that the process still answers and has not grown by more than `most`. */
async function expectAlive({ child }: ServiceProcess, url: string, before: number, most: number): Promise<void> {
  for (let i = 0; i < 5; i++) {
    const answer = await fetch(`${url}/health`, { headers: { connection: 'close' } })
    expect(answer.status).to.equal(200)
    await answer.text()
  }
  expect(child.exitCode).to.equal(null)
  const grown = residentBytes(child) - before
  expect(grown, `${Math.round(grown / mb)} MB more`).to.be.below(most)
}

describe('memory for clients that do not read', function () {
  this.timeout(120_000)

  before(function () {
    if (process.platform !== 'linux') this.skip() // needs /proc and 127.0.0.2
  })
  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    sockets.clear()
    await endProcesses()
  })

  async function startPair(env: Record<string, string> = {}) {
    const limits = { LOGIN_LIMIT_PER_ADDRESS: wide, INVALID_TOKEN_LIMIT_PER_ADDRESS: wide }
    const authEnv = { ADMIN_KEY: adminKey, TRUSTED_PROXIES: '1', ...limits, ...smallHeap, ...env }
    const auth = await startProcess('auth', { env: authEnv })
    const addresses = {
      AUTH_INTERNAL_URL: auth.addresses['authInternal'] as string,
      AUTH_PUBLIC_URL: auth.addresses['auth'] as string,
    }
    const business = await startProcess('business', { env: { ...addresses, ...smallHeap, ...env } })
    return {
      auth,
      business,
      authUrl: addresses.AUTH_PUBLIC_URL,
      internalUrl: addresses.AUTH_INTERNAL_URL,
      businessUrl: business.addresses['business'] as string,
    }
  }

  const cutFor = ({ lines }: ServiceProcess, reason: string) =>
    lines.filter(({ event, reason: given }) => event === 'connection_cut' && given === reason)

  it('is limited to one request per connection, however many requests for a large file it sends', async () => {
    const { auth, business, authUrl, businessUrl } = await startPair()
    const many = request('GET /docs/swagger-ui-bundle.js').repeat(64)
    for (const [service, url] of [
      [auth, authUrl],
      [business, businessUrl],
    ] as const) {
      const before = residentBytes(service.child)
      const deaf = await openDeaf(url, 20, many)
      await expectAlive(service, url, before, 400 * mb)
      for (const socket of deaf) socket.destroy()
    }
  })

  it('is bounded for waiting requests on all connections', async () => {
    const silent = createServer(socket => void sockets.add(socket.on('error', () => {}).resume())).listen(
      0,
      '127.0.0.1',
    )
    await once(silent, 'listening')
    const nobody = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`
    const business = await startProcess('business', { env: { AUTH_INTERNAL_URL: nobody, ...smallHeap } })
    const url = business.addresses['business'] as string
    const before = residentBytes(business.child)
    // Each request gets its 503 after a second. Until then 300 MB of headers arrive.
    const one = request('GET /data', `Authorization: Bearer a\r\nX-Padding: ${'x'.repeat(15_000)}\r\n`)
    await openDeaf(url, 300, one.repeat(64))
    await until(() => cutFor(business, 'unanswered_requests').length > 0)
    await expectAlive(business, url, before, 300 * mb)
    silent.close()
  })

  it('is bounded for unread answers on all connections', async () => {
    const { auth, business, authUrl, businessUrl } = await startPair()
    // This is more than the buffers of the operating system hold for one connection.
    const file = request('GET /docs/swagger-ui-bundle.js').repeat(8)
    for (const [service, url] of [
      [auth, authUrl],
      [business, businessUrl],
    ] as const) {
      const before = residentBytes(service.child)
      const deaf = await openDeaf(url, 100, file)
      await expectAlive(service, url, before, 400 * mb)
      for (const socket of deaf) socket.destroy()
    }
  })

  it('is bounded for readers of /events that never read', async () => {
    const { auth, internalUrl } = await startPair()
    const before = residentBytes(auth.child)
    const bearer = `Authorization: Bearer ${adminKey}\r\n`
    const deaf = await openDeaf(internalUrl, 40, request('GET /events', bearer))
    // Events are kept for at most 16 readers.
    const headers = { authorization: `Bearer ${adminKey}`, connection: 'close' }
    const one = await fetch(`${internalUrl}/events`, { headers })
    expect(one.status).to.equal(503)
    await one.text()
    for (let i = 0; i < 20; i++) {
      const body = JSON.stringify({ tokens: Array.from({ length: 256 }, (_, n) => `lk_${i}_${n}`) })
      const checked = await fetch(`${internalUrl}/validateToken`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body,
      })
      expect(checked.status).to.equal(200)
      await checked.text()
    }
    await expectAlive(auth, internalUrl, before, 150 * mb)
    expect(deaf).to.have.length(40)
  })

  it('is bounded for log-ins that wait for a hash', async () => {
    const { auth, authUrl } = await startPair()
    const before = residentBytes(auth.child)
    const body = JSON.stringify({ username: 'nobody@example.com', password: 'x'.repeat(250) })
    const type = `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`
    await openDeaf(authUrl, 2000, `${request('POST /login', type)}${body}`)
    await expectAlive(auth, authUrl, before, 150 * mb)
  })
})
