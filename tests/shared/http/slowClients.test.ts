// Clients that are slow or silent, do not read, or are too many: they hold a socket for a while without affecting
// other clients.
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { expect } from 'chai'
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { health } from '../../../shared/http/health.ts'
import { createListener, type Listener, type ListenerOptions } from '../../../shared/http/listener.ts'
import { makeCertificate } from '../../support/certificate.ts'
import { collectLog } from '../../support/log.ts'
import { cpuMs, endProcesses, residentBytes, type ServiceProcess, startProcess } from '../../support/processes.ts'
import { parseAnswer } from '../../support/raw.ts'
import { cleanUp, runStartServer } from '../../support/startServer.ts'
import { until } from '../../support/until.ts'

const timeouts = { headersTimeoutMs: 300, requestTimeoutMs: 500, checkIntervalMs: 50, stalledTimeoutMs: 400 }
const idleConnections = 10_000
const nowhere = 'http://127.0.0.1:1'
const getHealth = 'GET /health HTTP/1.1\r\nHost: a\r\n\r\n'
const readBody = bodyReader(z.looseObject({}))
// The heap that Node chooses on a machine with 512 MB; in a larger heap Node would keep more garbage.
const asWith512MB = { NODE_OPTIONS: '--max-semi-space-size=2 --max-old-space-size=256' }
// How much later than the time limit a busy machine may cut a connection. With no limit, or if each byte postponed the cut,
// the connection would stay open for more than 60 s.
const busyMachineMs = 10_000
const never = new Promise<never>(() => {})

const sockets = new Set<Socket>()

async function open(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port), noDelay: true }).on('error', () => {})
  sockets.add(socket)
  socket.once('close', () => sockets.delete(socket))
  await Promise.race([once(socket, 'connect'), once(socket, 'close')])
  return socket
}

interface Drip {
  /** Sent one byte at a time. */
  drip?: string
  everyMs?: number
  /** A time before the server could see the connection or the request. */
  startedAt?: number
}

/** Milliseconds from `startedAt` until the server closes, and what it sent. */
async function endOf(
  socket: Socket,
  { drip = '', everyMs = 20, startedAt = performance.now() }: Drip = {},
): Promise<{ ms: number; text: string }> {
  let text = ''
  let sent = 0
  socket.on('data', chunk => {
    text += chunk
  })
  const timer = setInterval(
    () => sent < drip.length && socket.writable && socket.write(drip[sent++] as string),
    everyMs,
  )
  await once(socket, 'close')
  clearInterval(timer)
  return { ms: performance.now() - startedAt, text }
}

/** How many milliseconds a request takes on its own connection. */
async function timeOf(url: string): Promise<number> {
  const startedAt = performance.now()
  const answer = await fetch(`${url}/health`, { headers: { connection: 'close' } })
  await answer.text()
  expect(answer.status).to.equal(200)
  return performance.now() - startedAt
}

async function medianTime(url: string): Promise<number> {
  const times: number[] = []
  for (let i = 0; i < 11; i++) times.push(await timeOf(url))
  return times.sort((a, b) => a - b)[5] as number
}

function destroyAll(): void {
  for (const socket of sockets) socket.destroy()
}

describe('a slow client', () => {
  const listeners: Listener[] = []
  const { log, lines } = collectLog('test')
  const much = Buffer.alloc(64 * 1024 * 1024) // once, because a busy machine needs a second for each gigabyte
  const muchClosed = Promise.withResolvers<void>()
  let url: string

  async function listen(options: Partial<ListenerOptions> = {}): Promise<string> {
    const listener = createListener(
      {
        'GET /health': [health],
        'GET /much': [
          ctx => {
            ctx.body = much
            ctx.res.once('close', muchClosed.resolve)
          },
        ],
        'GET /slow': [() => never],
        'POST /echo': [
          async ctx => {
            ctx.body = await readBody(ctx)
          },
        ],
      },
      {
        name: 'test',
        portSetting: 'PORT',
        log,
        accessLog: 'off',
        monotonicNow: () => performance.now(),
        timeouts,
        ...options,
      },
    )
    listeners.push(listener)
    return listener.listen(0, '127.0.0.1')
  }

  before(async () => {
    url = await listen()
  })
  afterEach(() => {
    destroyAll()
    expect(lines.filter(({ level }) => level === 'error')).to.deep.equal([])
  })
  after(() => Promise.all(listeners.map(listener => listener.close({ lameDuckMs: 0, drainMs: 0 }))))

  const cutAfter = (least: number, ms: number) =>
    expect(ms).to.be.within(least - 60, least + timeouts.checkIntervalMs + busyMachineMs)

  it('that drips its headers is answered 408 and cut, while others are served', async () => {
    const drip = `GET /health HTTP/1.1\r\nHost: a\r\n${'X-A: b\r\n'.repeat(1000)}`
    const ends = Array.from({ length: 100 }, async () => {
      const startedAt = performance.now()
      return endOf(await open(url), { drip, startedAt })
    })
    await sleep(100)
    expect(await medianTime(url)).to.be.below(500)
    for (const { ms, text } of await Promise.all(ends)) {
      cutAfter(timeouts.headersTimeoutMs, ms)
      expect(parseAnswer(text).status).to.equal(408)
      expect(JSON.parse(parseAnswer(text).body)).to.include({ error: 'invalid_request' })
    }
  })

  it('that sends nothing is cut', async () => {
    const startedAt = performance.now()
    cutAfter(timeouts.headersTimeoutMs, (await endOf(await open(url), { startedAt })).ms)
  })

  it('that drips the headers of a second request is cut as at its first', async () => {
    const socket = await open(url)
    socket.write(getHealth)
    await once(socket, 'data')
    await sleep(200)
    const { ms, text } = await endOf(socket, { drip: getHealth.repeat(2).slice(0, -4), everyMs: 60 })
    cutAfter(timeouts.headersTimeoutMs, ms)
    expect(parseAnswer(text).status).to.equal(408)
  })

  for (const [what, headers, drip] of [
    ['body', 'Content-Length: 5000', '{"a":1,'.repeat(500)],
    ['body in chunks', 'Transfer-Encoding: chunked', '1\r\n{\r\n1\r\n"\r\n'.repeat(500)],
  ] as const) {
    it(`that drips its ${what} is cut, while others are served`, async () => {
      const head = `POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n${headers}\r\n\r\n`
      const ends = Array.from({ length: 100 }, async () => {
        const startedAt = performance.now()
        const socket = await open(url)
        socket.write(head)
        return endOf(socket, { drip, startedAt })
      })
      await sleep(100)
      expect(await medianTime(url)).to.be.below(500)
      for (const { ms } of await Promise.all(ends)) cutAfter(timeouts.requestTimeoutMs, ms)
    })
  }

  it('that announces a body and sends none of it is cut', async () => {
    const startedAt = performance.now()
    const socket = await open(url)
    socket.write('POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n')
    cutAfter(timeouts.stalledTimeoutMs, (await endOf(socket, { startedAt })).ms)
  })

  it('that does not read its answer is cut', async () => {
    const socket = await open(url)
    socket.pause()
    const startedAt = performance.now()
    socket.write('GET /much HTTP/1.1\r\nHost: a\r\n\r\n')
    await muchClosed.promise
    // The cut comes later than `stalledTimeoutMs`: the kernel's buffers fill first, in steps on a busy machine, and each
    // step counts as progress.
    cutAfter(timeouts.stalledTimeoutMs, performance.now() - startedAt)
  })

  it('that does not read is cut before clients of other networks when too much memory is held for answers', async () => {
    const strict = await listen({
      maxUnreadBytes: 4 * 1024 * 1024,
      timeouts: { ...timeouts, stalledTimeoutMs: 60_000 },
    })
    const { hostname, port } = new URL(strict)
    async function openDeaf(localAddress: string): Promise<Socket> {
      const socket = connect({ host: hostname, port: Number(port), localAddress }).on('error', () => {})
      sockets.add(socket)
      await once(socket, 'connect')
      socket.pause().write('GET /much HTTP/1.1\r\nHost: a\r\n\r\n')
      return socket
    }
    const slow = await openDeaf('127.0.0.2') // the oldest connection
    for (let i = 0; i < 40; i++) await openDeaf('127.0.0.1')
    await until(() => lines.some(({ event }) => event === 'connection_cut'))
    const cut = lines.find(({ event }) => event === 'connection_cut')
    expect(cut).to.include({ level: 'warn', listener: 'test', reason: 'unread_answers', network: '127.0.0.1' })
    let read = 0
    slow.on('data', chunk => {
      read += chunk.length
    })
    slow.resume()
    await until(() => read > 64 * 1024 * 1024)
    expect(await medianTime(strict)).to.be.below(500)
  })

  it('that sends many requests without waiting gets at most 64 answers and is then cut', async () => {
    const most = await open(url)
    most.write(getHealth.repeat(64))
    let text = ''
    most.on('data', chunk => {
      text += chunk
    })
    while (text.split('HTTP/1.1 200').length <= 64) await sleep(10)
    const more = await open(url)
    more.write(getHealth.repeat(65))
    const { text: answers } = await endOf(more)
    expect(answers.split('HTTP/1.1 200').length - 1).to.be.at.most(64)
  })

  it('that does not finish its TLS handshake is cut', async () => {
    const { certFile, keyFile, remove } = makeCertificate()
    const tls = { cert: readFileSync(certFile, 'utf8'), key: readFileSync(keyFile, 'utf8') }
    remove()
    const tlsUrl = await listen({ tls })
    for (const bytes of ['', '\x16\x03\x01\x02\x00\x01']) {
      const startedAt = performance.now()
      const socket = await open(tlsUrl)
      socket.write(bytes)
      cutAfter(timeouts.headersTimeoutMs, (await endOf(socket, { startedAt })).ms)
    }
  })
})

describe('many clients', () => {
  const silent: Server[] = []

  afterEach(async () => {
    destroyAll()
    await endProcesses()
    for (const server of silent.splice(0)) server.close()
  })

  /** Accepts connections and answers nothing. */
  async function startSilentServer(): Promise<string> {
    const server = createServer(socket => void sockets.add(socket.on('error', () => {}).resume())).listen(
      0,
      '127.0.0.1',
    )
    silent.push(server)
    await once(server, 'listening')
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  const isLinux = process.platform === 'linux'
  const start = (env: Record<string, string> = {}, descriptors?: number): Promise<ServiceProcess> =>
    startProcess('business', { env: { AUTH_INTERNAL_URL: nowhere, ...env }, ...(descriptors && { descriptors }) })

  /** Opens connections that stay open and have received one answer each. */
  async function openIdle(url: string, count: number): Promise<Socket[]> {
    const opened: Socket[] = []
    while (opened.length < count) {
      const batch = Array.from({ length: Math.min(250, count - opened.length) }, async () => {
        const socket = await open(url)
        socket.write(getHealth)
        await once(socket, 'data')
        return socket
      })
      opened.push(...(await Promise.all(batch)))
    }
    return opened
  }

  it('that are idle need less than 250 MB, 10,000 of them, and a request takes less than 100 ms', async function () {
    const limit = execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }).trim()
    // Node uses the hard limit of file descriptors. If it is too low, 10,000 connections cannot be tested.
    if (!isLinux || (limit !== 'unlimited' && Number(limit) < idleConnections + 500)) return this.skip()
    const measure = async (): Promise<number> => {
      const { child, addresses } = await start({ MAX_CONNECTIONS: String(idleConnections + 50), ...asWith512MB })
      const url = addresses['business'] as string
      const before = residentBytes(child)
      const idle = await openIdle(url, idleConnections)
      const medianMs = await medianTime(url)
      const bytes = residentBytes(child)
      const mb = (bytes: number) => Math.round(bytes / 1e6)
      console.log(`      ${mb(before)} MB before, ${mb(bytes)} MB with them; a request takes ${medianMs.toFixed(1)} ms`)
      expect(idle.filter(socket => !socket.destroyed)).to.have.length(idleConnections)
      expect(medianMs).to.be.below(500)
      destroyAll()
      await endProcesses()
      return bytes
    }
    // Measure at most three times: on a busy machine more garbage becomes old, and V8 leaves old garbage in memory.
    let bytes = await measure()
    for (let again = 0; again < 2 && bytes >= 250e6; again++) bytes = await measure()
    expect(bytes).to.be.below(250e6)
  })

  /** Connects from one of this machine's addresses. */
  async function openFrom(address: string, url: string): Promise<Socket> {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port), localAddress: address }).on('error', () => {})
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    await Promise.race([once(socket, 'connect'), once(socket, 'close')])
    return socket
  }

  async function statusOf(socket: Socket): Promise<number> {
    socket.write(getHealth)
    const [answer] = await Promise.race([once(socket, 'data'), once(socket, 'close').then(() => [''])])
    return parseAnswer(String(answer)).status
  }

  const closed = (socket: Socket) => (socket.destroyed ? Promise.resolve() : once(socket, 'close').then(() => {}))

  for (const isTls of [false, true]) {
    it(`beyond MAX_CONNECTIONS close the longest idle connection of their own network and no other: ${isTls ? 'TLS' : 'plain'}`, async () => {
      const certificate = makeCertificate()
      const tls = { TLS_CERT_FILE: certificate.certFile, TLS_KEY_FILE: certificate.keyFile }
      const { addresses, lines } = await start({ MAX_CONNECTIONS: '20', ...(isTls && tls) })
      certificate.remove()
      const { hostname, port } = new URL(addresses['business'] as string)
      const openOne = async (address: string): Promise<Socket> => {
        const options = { host: hostname, port: Number(port), localAddress: address, rejectUnauthorized: false }
        const socket = isTls ? connectTls(options) : connect(options)
        sockets.add(socket.on('error', () => {}))
        await Promise.race([once(socket, isTls ? 'secureConnect' : 'connect'), closed(socket)])
        return socket
      }
      const others = await Promise.all(['127.0.0.2', '127.0.0.3'].map(openOne))
      for (const other of others) expect(await statusOf(other)).to.equal(200)
      const many: Socket[] = []
      while (many.length < 18) many.push(await openOne('127.0.0.1'))
      for (const socket of many) expect(await statusOf(socket)).to.equal(200)
      expect(await statusOf(many[0] as Socket)).to.equal(200) // now the second connection has been idle longest
      // Newcomers from the same network and from another.
      for (const [i, address] of ['127.0.0.1', '127.0.0.4', '127.0.0.1'].entries()) {
        const newcomer = await openOne(address)
        await closed(many[1 + i] as Socket)
        expect(await statusOf(newcomer)).to.equal(200)
      }
      for (const socket of [...others, many[0] as Socket, ...many.slice(4)])
        expect(await statusOf(socket)).to.equal(200)
      const told = lines.filter(({ event }) => event === 'too_many_connections')
      expect(told[0]).to.include({ level: 'warn', listener: 'business', maxConnections: 20, network: '127.0.0.1' })
      expect(told.length).to.be.at.most(3)
    })
  }

  it('that hold all connections with slow bodies make room for another network', async () => {
    const { addresses } = await start({ MAX_CONNECTIONS: '20', AUTH_PUBLIC_URL: nowhere })
    const url = addresses['business'] as string
    const slow = 'POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{'
    const hog = await Promise.all(Array.from({ length: 20 }, () => openFrom('127.0.0.1', url)))
    for (const socket of hog) socket.resume().write(slow)
    await sleep(100)
    const newcomer = await openFrom('127.0.0.2', url)
    expect(await statusOf(newcomer)).to.equal(200)
    // The newcomer's answer can arrive before the end of the connection that made room for it.
    await Promise.race(hog.map(closed))
    expect(hog.filter(socket => socket.destroyed)).to.have.length(1)
  })

  it('beyond MAX_CONNECTIONS of each worker leave room for another network', async () => {
    const run = runStartServer({ env: { MAX_CONNECTIONS: '10', WEB_CONCURRENCY: '2' } })
    const { business } = await run.ready
    for (let i = 0; i < 60; i++) await openFrom('127.0.0.1', business)
    await until(() => [...sockets].filter(socket => !socket.destroyed).length <= 20)
    for (let i = 0; i < 4; i++) expect(await statusOf(await openFrom('127.0.0.2', business))).to.equal(200)
    await cleanUp()
  })

  it('that wait for answers keep their connections: the newcomer is refused', async () => {
    const { addresses, lines } = await start({ MAX_CONNECTIONS: '10', AUTH_INTERNAL_URL: await startSilentServer() })
    const url = addresses['business'] as string
    const waiting = await Promise.all(Array.from({ length: 10 }, () => openFrom('127.0.0.1', url)))
    // After an answer a connection has been accepted, which a busy machine delays.
    for (const socket of waiting) expect(await statusOf(socket)).to.equal(200)
    const answers = waiting.map(socket => once(socket, 'data'))
    for (const socket of waiting) socket.write('GET /data HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\n\r\n')
    await fetch(`${addresses['businessInternal']}/health`) // answered after the ten requests have been read
    await closed(await openFrom('127.0.0.2', url))
    for (const [answer] of await Promise.all(answers)) expect(parseAnswer(String(answer)).status).to.equal(503)
    const told = lines.filter(({ event }) => event === 'too_many_connections')
    expect(told[0]).to.include({ isNewcomerRefused: true, network: '127.0.0.1', connections: 10 })
  })

  it('beyond the file descriptors of the process neither end it nor make it spin', async function () {
    if (!isLinux) return this.skip()
    const { child, addresses, lines } = await start({}, 64)
    const url = addresses['business'] as string
    const inside = await openIdle(url, 10)
    const more = await Promise.all(Array.from({ length: 200 }, () => open(url)))
    await sleep(200)
    const before = cpuMs(child)
    await sleep(500)
    expect(cpuMs(child) - before).to.be.below(100)
    for (const socket of inside) {
      socket.write(getHealth)
      const [answer] = await once(socket, 'data')
      expect(parseAnswer(String(answer)).status).to.equal(200)
    }
    expect(lines.filter(({ level }) => level === 'error').length).to.be.below(5)
    for (const socket of more) socket.destroy()
    await sleep(100)
    expect(await timeOf(url)).to.be.below(1000)
    expect(child.exitCode).to.equal(null)
  })

  it('that keep sending and never read do not fill the memory', async function () {
    if (!isLinux) return this.skip()
    const { child, addresses } = await start(asWith512MB)
    const url = addresses['business'] as string
    const before = residentBytes(child)
    const mb: number[] = []
    const deafs = 30
    const request = 'GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n'
    // First send so many pipelined requests that the connections are cut; then send as many as are accepted, on more and
    // more connections.
    for (const count of [1000, 64, 64, 64]) {
      const deaf = await Promise.all(Array.from({ length: deafs }, () => open(url)))
      for (const socket of deaf) socket.pause().write(request.repeat(count))
      await sleep(250)
      mb.push(Math.round((residentBytes(child) - before) / 1e6))
    }
    expect(mb[3], `${mb} MB more`).to.be.below(160)
    // The clients of the last three rounds occupy at most one megabyte each.
    expect((mb[3] as number) - (mb[0] as number), `${mb} MB more`).to.be.below(3 * deafs)
    expect(await medianTime(url)).to.be.below(500)
  })
})
