// The Koa chassis both services stand on: request ids, security headers, the one exit for errors, health,
// listening, and closing without losing a request. Hides Koa's own error handler, which strips headers.
import cluster from 'node:cluster'
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, METHODS, type ServerResponse, STATUS_CODES } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { type AddressInfo, Server as NetServer, type Socket } from 'node:net'
import { Stream } from 'node:stream'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'
import cors from '@koa/cors'
import Router, { type RouterMiddleware } from '@koa/router'
import Koa from 'koa'
import { describeError, type Log, rateLimited } from '../log/log.ts'
import { addressGate, clientAddress, proxyTest, type TrustedProxies } from './address.ts'
import { createConnections } from './connections.ts'
import { AppError, type ErrorCode, isKnownError, statusOf } from './errors.ts'

interface RequestState {
  requestId: string
  /** Who is calling, as address.ts writes it; '' where that is not known any more. */
  address: string
  /** W3C Trace Context, where the request has a well-formed one. */
  traceparent?: string | undefined
  [key: string]: unknown
}

export type Handler = RouterMiddleware<RequestState>
export type Context = Parameters<Handler>[0]

/**
 * `METHOD /path` -> what runs for it, in order; `ANY` is every method, `{*name}` the rest of a path. The list is the surface
 * of a listener: nothing else answers.
 */
export type Routes = Record<string, Handler[]>

export const accessLogModes = ['all', 'errors', 'off'] as const

/** What a listener asks of those who come from outside. */
export interface AccessPolicy {
  /** Whose X-Forwarded-For and X-Forwarded-Proto are believed. X-Forwarded-Host never is. */
  trustedProxies: TrustedProxies
  /** Addresses and networks; where there are none, all that are not denied are allowed. */
  allowedAddresses: readonly string[]
  /** Wins. */
  deniedAddresses: readonly string[]
  /** Refuse what a trusted proxy passes on, unless it says that it got it over https or passes it on over TLS. */
  httpsOnly: boolean
  /** Of pages that may call; exact. */
  corsOrigins: readonly string[]
}

/** What slow clients have. */
export interface Timeouts {
  /** From the connection, or the first byte of a later request, to the last header; also for the TLS handshake. */
  headersTimeoutMs: number
  /** To the last byte of the body. */
  requestTimeoutMs: number
  /** How late either may be noticed. */
  checkIntervalMs: number
  /** Of a connection on which a request or an answer stands still: so long, and a client that does not read is cut. */
  stalledTimeoutMs: number
}

export interface RequestMetrics {
  /** Counts a request. `route` is the pattern from the list of routes, or null if none matched. */
  observeRequest(listener: string, method: string, route: string | null, status: number, durationMs: number): void
}

export interface ListenerOptions {
  /** What the log calls it. */
  name: string
  /** The environment variable that sets its port: named where the port cannot be had. */
  portSetting: string
  log: Log
  /** `errors`: one line per answer of 500 and above. */
  accessLog: (typeof accessLogModes)[number]
  /** Milliseconds from an origin of its own that never jumps; only for durations. */
  monotonicNow: () => number
  /** Counts every request; without it nothing does. */
  metrics?: RequestMetrics
  /** Runs `handle`; for what shall be known of the request while it is handled. */
  runInContext?: (request: RequestState, handle: () => Promise<void>) => Promise<void>
  /** Of a public listener. Without it everybody is admitted, and the address is that of the socket. */
  accessPolicy?: AccessPolicy
  /** Handles the requests for paths that no route has; without it they are 404. */
  fallback?: Handler
  /** With it the listener speaks TLS and nothing else. PEM. */
  tls?: { cert: string; key: string } | null
  /** One more costs the network with the most connections its longest idle one. */
  maxConnections?: number
  /** Of memory for answers that clients have not read; beyond it the network that it holds the most for loses one. */
  maxUnreadBytes?: number
  timeouts?: Timeouts
}

export interface CloseOptions {
  /**
   * Half of it for new clients: `/ready` is 503 and tells balancers, all else goes on. Half of it for those connected:
   * nobody can connect any more, and each answer carries `Connection: close`, so that they learn of the end from an
   * answer and not from a reset. Either half ends early once no connection has been open for a while.
   */
  lameDuckMs: number
  /** From there, how long requests under way may take before their connections are cut. */
  drainMs: number
}

export interface Listener {
  /** Resolves to its URL; the system chooses where `port` is 0. Rejects with a sentence for the operator. */
  listen(port: number, host: string): Promise<string>
  /** True from the first call of `close`. */
  closing(): boolean
  /** Idempotent: every call waits for the same end. */
  close(options: CloseOptions): Promise<void>
}

/** On every answer. JSON is what nearly all of them are; a page says otherwise. */
const defaultHeaders = new Map([
  ['Content-Type', 'application/json; charset=utf-8'],
  ['Cache-Control', 'no-store'],
  ['Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'"],
  ['Referrer-Policy', 'no-referrer'],
  ['X-Content-Type-Options', 'nosniff'],
])

// OWASP DoS cheat sheet: slow clients hold a socket for a while, and nothing more.
const defaultTimeouts: Timeouts = {
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  checkIntervalMs: 2000,
  stalledTimeoutMs: 60_000,
}
const hsts = `max-age=${365 * 86400}`
// Balancers and probes ask these, whose addresses are in nobody's list; they tell nothing.
const openToAll = ['/health', '/ready']
const corsOptions = {
  allowMethods: 'GET, HEAD, POST, PATCH, DELETE',
  allowHeaders: 'Authorization, token, Content-Type, X-Request-Id',
  exposeHeaders: 'X-Request-Id, Retry-After, WWW-Authenticate, Server-Timing',
  maxAge: 600,
  keepHeadersOnError: false, // answerWithProblem keeps them
}

const pieceBytes = 64 * 1024 // of an answer: the next piece follows once the client has read this one

/** What logs and metrics say in place of a status if the client went away before it was answered, as nginx does. */
const clientGone = 499

const lingerMs = 1000 // after an answer that ends a connection

const stopAcceptingMs = 50
const acceptWithinMs = 1000 // those who have connected already
const quietTurnMs = 0.5 // in a longer turn of the event loop somebody may have connected since it looked
const emptyForMs = 200 // without a connection: then nobody is there to be told of the end

// https://www.w3.org/TR/trace-context/#traceparent-header, of version 00
const traceparentFormat = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

const requestIdFormat = /^[A-Za-z0-9._-]{1,64}$/

export function createListener(
  routes: Routes,
  {
    name,
    portSetting,
    log,
    accessLog,
    monotonicNow,
    runInContext,
    metrics,
    accessPolicy,
    fallback,
    tls,
    maxConnections = Infinity,
    maxUnreadBytes = 64 * 1024 * 1024,
    timeouts = defaultTimeouts,
  }: ListenerOptions,
): Listener {
  const app = new Koa<RequestState>()
  // METHODS: one that the router does not know would be 501 on every path, also where there is nothing.
  const router = new Router<RequestState>({ sensitive: true, strict: true, methods: METHODS })
  for (const [route, handlers] of Object.entries(routes)) {
    const [method, path] = route.split(' ') as [string, string]
    router.register(path, method === 'ANY' ? METHODS : [method], handlers)
  }
  const isTrustedProxy = proxyTest(accessPolicy?.trustedProxies ?? 0)
  const isAdmitted = addressGate(accessPolicy?.allowedAddresses ?? [], accessPolicy?.deniedAddresses ?? [])
  const logRefusal = rateLimited(
    fields => log.warn('address_refused', { channel: 'security', listener: name, ...fields }),
    monotonicNow,
  )
  const logFull = rateLimited(
    fields => log.warn('too_many_connections', { channel: 'security', listener: name, ...fields }),
    monotonicNow,
  )
  const logCut = rateLimited(
    fields => log.warn('connection_cut', { channel: 'security', listener: name, ...fields }),
    monotonicNow,
  )
  const logFailure = rateLimited(fields => log.error('listener_failed', { listener: name, ...fields }), monotonicNow)
  let closed: Promise<void> | null = null
  let lastAnswers = false

  // What answerEveryRequest cannot see: an answer that breaks off. The client of most has gone away.
  app.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ERR_STREAM_PREMATURE_CLOSE' || error.name === 'AbortError') return
    log.warn('response_aborted', { listener: name, error })
  })
  app.use(answerEveryRequest)
  if (accessPolicy && accessPolicy.corsOrigins.length > 0)
    app.use(cors({ ...corsOptions, origin: allowedOrigin(accessPolicy.corsOrigins) }))
  app.use(router.routes())
  if (fallback) app.use(unmatched(fallback))
  app.use(router.allowedMethods())

  async function answerEveryRequest(ctx: Koa.ParameterizedContext<RequestState>, next: Koa.Next): Promise<void> {
    const { req, res } = ctx
    const startedAt = monotonicNow()
    const given = req.headers['x-request-id']
    const requestId = typeof given === 'string' && requestIdFormat.test(given) ? given : randomUUID()
    ctx.state.requestId = requestId
    const peer = connections.peerOf(req.socket)
    ctx.state.address = clientAddress(peer, req.headers['x-forwarded-for'] as string | undefined, isTrustedProxy)
    const isProxied = isTrustedProxy(peer, 0)
    const forwardedProto = isProxied ? lastOf(req.headers['x-forwarded-proto']) : null
    const traceparent = req.headers['traceparent']
    if (typeof traceparent === 'string' && traceparentFormat.test(traceparent)) ctx.state.traceparent = traceparent
    res.setHeader('X-Request-Id', requestId)
    res.setHeaders(defaultHeaders)
    const isSecure = forwardedProto === null ? Boolean(tls) : forwardedProto === 'https'
    if (isSecure) res.setHeader('Strict-Transport-Security', hsts)
    try {
      if (!openToAll.includes(ctx.path)) {
        refuseOutsiders(ctx.state)
        if (accessPolicy?.httpsOnly && isProxied && !isSecure) refusePlain(forwardedProto)
      }
      refuseOddRequests(req)
      await (runInContext ? runInContext(ctx.state, next) : next())
      if (ctx.body === undefined) refuseUnanswered(ctx.status)
    } catch (error) {
      answerWithProblem(ctx, error)
    }
    if (ctx.body instanceof Stream) ctx.body.on('error', ignore) // Koa listens only once it sends it
    if (lastAnswers) res.setHeader('Connection', 'close')
    const durationMs = monotonicNow() - startedAt
    // A fault of ours stays one, with or without a client.
    const status = res.destroyed && ctx.status !== 500 ? clientGone : ctx.status
    metrics?.observeRequest(name, ctx.method, routeOf(ctx), status, durationMs)
    if (Buffer.isBuffer(ctx.body) && ctx.body.length > pieceBytes && ctx.method !== 'HEAD') {
      ctx.respond = false
      sendInPieces(res, ctx.body)
    }
    if (accessLog === 'all' || (accessLog === 'errors' && status >= 500)) {
      // Without the query and without what looks like a secret: neither belongs there, but people put them there.
      log.batched('request', {
        listener: name,
        requestId,
        method: ctx.method,
        path: ctx.path.replace(/[\w%:-]{20,}/g, '…'),
        status,
        address: ctx.state.address,
        durationMs: Math.round(durationMs * 100) / 100,
        ...(ctx.state.traceparent && { traceId: ctx.state.traceparent.slice(3, 35) }),
      })
    }
  }

  function refuseOutsiders({ requestId, address }: RequestState): void {
    if (!isAdmitted(address)) {
      logRefusal({ requestId, address })
      throw new AppError('forbidden', 'Requests from this address are not admitted.')
    }
  }

  function answerWithProblem(ctx: Koa.ParameterizedContext<RequestState>, error: unknown): void {
    const known = isKnownError(error) ? error : new AppError('internal', 'Something went wrong here.', { cause: error })
    if (known.cause !== undefined) {
      const stack = known.code === 'internal' && error instanceof Error ? { stack: error.stack } : {}
      // Described here, since what was thrown need not be an Error.
      const cause = describeError(known.cause)
      const details = { listener: name, requestId: ctx.state.requestId, code: known.code, cause, ...stack }
      log[known.code === 'internal' ? 'error' : 'warn']('request_failed', details)
    }
    const status = statusOf[known.code]
    for (const [header, value] of Object.entries(known.headers)) ctx.set(header, value)
    if (status === 429 || status === 503) ctx.set('Retry-After', known.headers['Retry-After'] ?? '1')
    ctx.status = status
    ctx.body = JSON.stringify(problem(status, known.code, known.message, ctx.state.requestId))
    ctx.type = 'application/problem+json'
  }

  const connections = createConnections({
    handle: app.callback(),
    maxConnections,
    maxUnreadBytes,
    onFull: logFull,
    onCut: logCut,
  })

  const options = {
    headersTimeout: timeouts.headersTimeoutMs,
    requestTimeout: timeouts.requestTimeoutMs,
    connectionsCheckingInterval: timeouts.checkIntervalMs,
    keepAliveTimeout: 95_000, // longer than the proxies' 90 s
    noDelay: true,
    requireHostHeader: false, // refuseOddRequests does, with an answer like every other
  }
  const server = tls
    ? createTlsServer({ ...options, ...tls, minVersion: 'TLSv1.2', handshakeTimeout: timeouts.headersTimeoutMs })
    : createServer(options)
  server.timeout = timeouts.stalledTimeoutMs
  server.on('request', connections.receive)
  // In place of Node's own 417, which has no body; RFC 9110 section 10.1.1 leaves it to us.
  server.on('checkExpectation', connections.receive)
  server.on('connection', connections.accept)
  server.on('secureConnection', connections.secure)
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) =>
    answerMalformedHttp(error, socket, connections.abandon(socket)),
  )

  return {
    listen: (port, host) =>
      new Promise((resolve, reject) => {
        const failed = (cause: NodeJS.ErrnoException) => {
          const why = cause.code === 'EADDRINUSE' ? 'it is in use' : cause.code
          reject(new Error(`Port ${port} on ${host} cannot be had (${why}). Set ${portSetting} to another.`, { cause }))
        }
        server.once('error', failed)
        server.listen({ port, host, backlog: 4096 }, () => {
          server.off('error', failed)
          // A connection that cannot be accepted (EMFILE) is not the end.
          server.on('error', error => logFailure({ error }))
          const { port: chosen } = server.address() as AddressInfo
          resolve(`${tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${chosen}`)
        })
      }),
    closing: () => closed !== null,
    close: options => (closed ??= closeWithoutLosses(options)),
  }

  async function closeWithoutLosses({ lameDuckMs, drainMs }: CloseOptions): Promise<void> {
    if (!server.listening) return
    await emptied(lameDuckMs / 2)
    await acceptThoseWhoWait()
    // Not the server's own close: that cuts idle connections at once, and with them requests that are on their way.
    const stopped = new Promise<void>(resolve => NetServer.prototype.close.call(server, () => resolve()))
    // A process that shares its port has to tell the one that accepts for it; who is sent away before that comes back.
    await sleep(stopAcceptingMs)
    lastAnswers = true
    await emptied(lameDuckMs / 2)
    server.closeIdleConnections()
    const cut = setTimeout(() => server.closeAllConnections(), drainMs)
    await stopped
    clearTimeout(cut)
  }

  /** Whoever waits to be accepted when the socket closes is reset. */
  async function acceptThoseWhoWait(): Promise<void> {
    if (cluster.isWorker) return // another process accepts, and goes on
    // Node knows no other way: from now on the system has those who come try again, by when somebody else may listen.
    const { _handle: handle } = server as { _handle?: { listen?: (backlog: number) => void } }
    handle?.listen?.(0)
    let accepted = 0
    const count = () => void accepted++
    server.on('connection', count)
    const giveUpAt = monotonicNow() + acceptWithinMs
    // Node accepts one for each turn of the event loop. The rest of this turn is none: it does not look any more.
    await turn()
    for (let isDone = false; !isDone && monotonicNow() < giveUpAt; ) {
      const [before, from] = [accepted, monotonicNow()]
      await turn()
      isDone = accepted === before && monotonicNow() - from < quietTurnMs
    }
    server.off('connection', count)
  }

  async function emptied(atMostMs: number): Promise<void> {
    const stepMs = 20
    let emptyMs = 0
    for (let waitedMs = 0; waitedMs < atMostMs && emptyMs < emptyForMs; waitedMs += stepMs) {
      await sleep(stepMs)
      // Between two connections of a client that makes one per request there is none: only a while without any counts.
      emptyMs = connections.size() === 0 ? emptyMs + stepMs : 0
    }
  }
}

/** `GET /health`: the process answers. Asks nobody. */
export const health: Handler = ctx => {
  ctx.body = { status: 'ok' }
}

/** `GET /ready`: 503 with the reason that `whyNot` resolves to, 200 where it is null. */
export function readiness(whyNot: (request: RequestState) => Promise<string | null>): Handler {
  return async function ready(ctx) {
    const reason = await whyNot(ctx.state)
    if (reason !== null) throw new AppError('unavailable', reason)
    ctx.body = { status: 'ready' }
  }
}

/** No redirect: what was to be kept secret has been sent already, and a client that is led on never learns of it. */
function refusePlain(forwardedProto: string | null): never {
  const silence = ', and the proxy in front does not say that this one was (X-Forwarded-Proto)'
  throw new AppError('forbidden', `Requests are to be sent over https${forwardedProto === null ? silence : ''}.`)
}

/** The nearest proxy's word, where several have added theirs. */
function lastOf(header: string | string[] | undefined): string | null {
  return header === undefined ? null : (String(header).split(',').at(-1) as string).trim().toLowerCase()
}

function allowedOrigin(origins: readonly string[]): (ctx: Koa.Context) => string {
  return ctx => (origins.includes(ctx.get('Origin')) ? ctx.get('Origin') : '')
}

/** Runs `handler` if no route has this path; a path that is known for other methods is 405 all the same. */
function unmatched(handler: Handler): Koa.Middleware<RequestState> {
  const router = new Router<RequestState>({ methods: METHODS })
  router.register('/{*path}', METHODS, [handler])
  const handle = router.routes()
  return (ctx, next) => {
    const { matched } = ctx as { matched?: unknown[] }
    return matched !== undefined && matched.length > 0 ? next() : handle(ctx as Context, next)
  }
}

/** As in the list of routes; null where the path is in none. */
function routeOf(ctx: Koa.ParameterizedContext<RequestState>): string | null {
  const route = (ctx as { _matchedRoute?: unknown })._matchedRoute
  return typeof route === 'string' ? route : null
}

/** RFC 9457, plus `error` (the code) and `requestId`. */
function problem(status: number, code: ErrorCode, detail: string, requestId: string): Record<string, unknown> {
  return { type: 'about:blank', title: STATUS_CODES[status], status, detail, error: code, requestId }
}

/** What the router left: 404, or 405 where it knows the path and has set `Allow`. */
function refuseUnanswered(status: number): void {
  if (status === 404) throw new AppError('not_found', 'There is nothing at this path.')
  if (status === 405) {
    throw new AppError('method_not_allowed', 'This path does not take this method; Allow lists those it takes.')
  }
}

/** What Node lets through and RFC 9112 does not: other versions, fragments, and no or two Host headers (sections 2.3, 3.2). */
function refuseOddRequests(req: IncomingMessage): void {
  if (req.httpVersionMajor !== 1) throw new AppError('invalid_request', 'HTTP/1.1 is expected.')
  if (req.url?.includes('#')) throw new AppError('invalid_request', 'A # has no place in the target of a request.')
  let hosts = 0
  const raw = req.rawHeaders
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++
  }
  if (hosts > 1) throw new AppError('invalid_request', 'There are two Host headers; send one.')
  if (hosts === 0 && req.httpVersionMinor > 0) throw new AppError('invalid_request', 'A Host header is expected.')
}

/**
 * The answer to bytes that are not HTTP, which no middleware ever sees; `underWay` is that to the request before them on
 * the same connection. The error itself is not logged: it holds the bytes.
 */
function answerMalformedHttp(error: NodeJS.ErrnoException, socket: Socket, underWay: ServerResponse | null): void {
  // Other errors are those of the socket and of TLS: no client would read an answer. In the middle of another answer it
  // would be taken for a part of that.
  const isReadable = socket.writable && /^(HPE|ERR_HTTP)_/.test(error.code ?? '') && !underWay?.headersSent
  if (!isReadable) return void socket.destroy()
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
  const requestId = randomUUID()
  const detail = 'The request is not well-formed HTTP/1.1, is too slow, or its headers are too large.'
  const body = JSON.stringify(problem(status, 'invalid_request', detail, requestId))
  const headers = new Map(defaultHeaders).set('Content-Type', 'application/problem+json')
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    `X-Request-Id: ${requestId}`,
    ...Array.from(headers, ([name, value]) => `${name}: ${value}`),
    'Connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
  // Not at once, or a client that is still sending is reset before it has read this (RFC 9112 section 9.6). Then what is
  // done for the request before learns that no client waits for it.
  setTimeout(() => socket.destroy(), lingerMs).unref()
}

function ignore(): void {}

/** So that a client that does not read holds one piece, and not a copy of all of it in the TLS layer. */
function sendInPieces(res: ServerResponse, body: Buffer): void {
  let sent = 0
  function send(): void {
    while (sent < body.length && !res.destroyed) {
      const piece = body.subarray(sent, sent + pieceBytes)
      sent += piece.length
      if (!res.write(piece) && sent < body.length) return void res.once('drain', send)
    }
    if (!res.destroyed) res.end()
  }
  send()
}
