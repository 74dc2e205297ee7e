// One port: its HTTP server, the pipeline that handles its requests, and a close that loses none.
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { type Log, rateLimited } from '../log/log.ts'
import type { AccessPolicy } from './accessPolicy.ts'
import { createConnections } from './connections.ts'
import { type CloseOptions, closeGracefully } from './gracefulClose.ts'
import { createPipeline, type RunInContext } from './pipeline.ts'
import type { accessLogModes, RequestMetrics } from './requestRecord.ts'
import { answerMalformedHttp } from './strictHttp.ts'
import type { Handler, Routes } from './types.ts'

/** How long slow clients may take. */
export interface Timeouts {
  /** From the connection, or the first byte of a later request, to the last header. A TLS handshake may take as long. */
  headersTimeoutMs: number
  /** From the same moment to the last byte of the body. */
  requestTimeoutMs: number
  /** How often both timeouts are checked, and so how late they may be noticed. */
  checkIntervalMs: number
  /** A connection is closed after this long without progress. */
  stalledTimeoutMs: number
}

export interface ListenerOptions {
  /** Its name in logs and metrics. */
  name: string
  /** The setting of its port, for the message that the port is not available. */
  portSetting: string
  log: Log
  /** `errors`: one line per response of 500 and above. */
  accessLog: (typeof accessLogModes)[number]
  /** Monotonic milliseconds, for durations. */
  monotonicNow: () => number
  /** Counts every request. */
  metrics?: RequestMetrics | null
  runInContext?: RunInContext | null
  /** Set on public listeners. Without it every client is allowed, and no proxy is trusted. */
  accessPolicy?: AccessPolicy | null
  /** Handles requests for paths that no route has; without it they are answered 404. */
  fallback?: Handler | null
  /** PEM. With it the listener speaks TLS only. */
  tls?: { cert: string; key: string } | null
  /** Above this, the network with the most connections loses the connection that has been idle longest. */
  maxConnections?: number
  /** Limit for responses that clients have not read. Above it, the network with the most unread bytes loses a connection. */
  maxUnreadBytes?: number
  timeouts?: Timeouts
}

export interface Listener {
  /** Resolves to its URL. If `port` is 0 the system chooses one. Rejects with a message for the operator. */
  listen(port: number, host: string): Promise<string>
  /** True from the first call of `close`. */
  closing(): boolean
  /** Every call after the first waits for the first to finish. */
  close(options: CloseOptions): Promise<void>
}

// OWASP DoS cheat sheet: a slow client must not hold a connection for long.
const defaultTimeouts: Timeouts = {
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  checkIntervalMs: 2000,
  stalledTimeoutMs: 60_000,
}
const keepAliveTimeoutMs = 95_000 // longer than the 90 s for which proxies keep an idle connection

export function createListener(
  routes: Routes,
  {
    name,
    portSetting,
    log,
    accessLog,
    monotonicNow,
    runInContext = null,
    metrics = null,
    accessPolicy = null,
    fallback = null,
    tls = null,
    maxConnections = Infinity,
    maxUnreadBytes = 64 * 1024 * 1024,
    timeouts = defaultTimeouts,
  }: ListenerOptions,
): Listener {
  let closed: Promise<void> | null = null
  let isLastResponse = false

  const limitedWarning = (event: string) =>
    rateLimited(fields => log.warn(event, { channel: 'security', listener: name, ...fields }), monotonicNow)
  const pipeline = createPipeline(routes, {
    listener: name,
    log,
    accessLog,
    metrics,
    monotonicNow,
    runInContext,
    accessPolicy,
    fallback,
    hasTls: tls !== null,
    isLastResponse: () => isLastResponse,
  })
  const connections = createConnections({
    handle: pipeline,
    maxConnections,
    maxUnreadBytes,
    onFull: limitedWarning('too_many_connections'),
    onCut: limitedWarning('connection_cut'),
  })
  const server = openServer(timeouts, tls)
  server.on('request', connections.receive)
  // Node's own response, 417, has no body; RFC 9110 section 10.1.1 allows us to ignore the header.
  server.on('checkExpectation', connections.receive)
  server.on('connection', connections.accept)
  server.on('secureConnection', connections.secure)
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) =>
    answerMalformedHttp(error, socket, connections.abandon(socket)),
  )
  const logFailure = rateLimited(fields => log.error('listener_failed', { listener: name, ...fields }), monotonicNow)

  return {
    async listen(port, host) {
      const chosenPort = await bind(server, { port, host, portSetting })
      // A connection that cannot be accepted, for example because of EMFILE, does not end the listener.
      server.on('error', error => logFailure({ error }))
      return `${tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${chosenPort}`
    },
    closing: () => closed !== null,
    close(options) {
      closed ??= server.listening
        ? closeGracefully(server, options, {
            monotonicNow,
            openConnections: connections.size,
            onLastResponses: () => {
              isLastResponse = true
            },
          })
        : Promise.resolve()
      return closed
    },
  }
}

function openServer(timeouts: Timeouts, tls: { cert: string; key: string } | null): Server {
  const options = {
    headersTimeout: timeouts.headersTimeoutMs,
    requestTimeout: timeouts.requestTimeoutMs,
    connectionsCheckingInterval: timeouts.checkIntervalMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    noDelay: true,
    requireHostHeader: false, // requireStrictHttp checks the header, and answers a bad one as it does any other error
  }
  const server = tls
    ? createTlsServer({ ...options, ...tls, minVersion: 'TLSv1.2', handshakeTimeout: timeouts.headersTimeoutMs })
    : createServer(options)
  server.timeout = timeouts.stalledTimeoutMs
  return server
}

/** Resolves to the port. */
function bind(server: Server, { port, host, portSetting }: { port: number; host: string; portSetting: string }) {
  return new Promise<number>((resolve, reject) => {
    const fail = (cause: NodeJS.ErrnoException) => {
      const problem =
        cause.code === 'EADDRINUSE'
          ? `is already in use. Set ${portSetting} to a free port.`
          : `is not available (${cause.code}). Set ${portSetting} to another port.`
      reject(new Error(`Port ${port} on ${host} ${problem}`, { cause }))
    }
    server.once('error', fail)
    server.listen({ port, host, backlog: 4096 }, () => {
      server.off('error', fail)
      resolve((server.address() as AddressInfo).port)
    })
  })
}
