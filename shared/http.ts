// The Koa chassis both services stand on: request ids, security headers, the one exit for errors, health,
// listening, and closing without losing a request. Hides Koa's own error handler, which strips headers.
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, METHODS, STATUS_CODES } from 'node:http'
import { type AddressInfo, Server as NetServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Router, { type RouterMiddleware } from '@koa/router'
import Koa from 'koa'
import { AppError, type ErrorCode, statusOf } from './errors.ts'
import { describeError, type Log } from './log.ts'

interface RequestState {
  requestId: string
  [key: string]: unknown
}

export type Handler = RouterMiddleware<RequestState>
export type Context = Parameters<Handler>[0]

/** `METHOD /path` -> what runs for it, in order. The list is the surface of a listener: nothing else answers. */
export type Routes = Record<string, Handler[]>

export const accessLogModes = ['all', 'errors', 'off'] as const

export interface ListenerOptions {
  /** What the log calls it. */
  name: string
  /** The environment variable that sets its port: named where the port cannot be had. */
  portSetting: string
  log: Log
  /** `errors`: one line per answer of 500 and above. */
  accessLog: (typeof accessLogModes)[number]
  /** Milliseconds from an origin of its own that never jumps; only for durations in the access log. */
  monotonicNow: () => number
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

const emptyForMs = 200 // without a connection: then nobody is there to be told of the end

const requestIdFormat = /^[A-Za-z0-9._-]{1,64}$/

export function createListener(
  routes: Routes,
  { name, portSetting, log, accessLog, monotonicNow }: ListenerOptions,
): Listener {
  const app = new Koa<RequestState>()
  // METHODS: one that the router does not know would be 501 on every path, also where there is nothing.
  const router = new Router<RequestState>({ sensitive: true, strict: true, methods: METHODS })
  for (const [route, handlers] of Object.entries(routes)) {
    const [method, path] = route.split(' ') as [string, string]
    router.register(path, [method], handlers)
  }
  let closed: Promise<void> | null = null
  let lastAnswers = false
  const sockets = new Set<Socket>()

  app.use(answerEveryRequest)
  app.use(router.routes())
  app.use(router.allowedMethods())

  async function answerEveryRequest(ctx: Koa.ParameterizedContext<RequestState>, next: Koa.Next): Promise<void> {
    const { req, res } = ctx
    const startedAt = accessLog === 'all' ? monotonicNow() : 0
    const given = req.headers['x-request-id']
    const requestId = typeof given === 'string' && requestIdFormat.test(given) ? given : randomUUID()
    ctx.state.requestId = requestId
    res.setHeader('X-Request-Id', requestId)
    res.setHeaders(defaultHeaders)
    try {
      refuseOddRequests(req)
      await next()
      if (ctx.body === undefined) refuseUnanswered(ctx.status)
    } catch (error) {
      answerWithProblem(ctx, error)
    }
    if (lastAnswers) res.setHeader('Connection', 'close')
    if (accessLog === 'all' || (accessLog === 'errors' && ctx.status >= 500)) {
      const durationMs = accessLog === 'all' ? { durationMs: Math.round((monotonicNow() - startedAt) * 100) / 100 } : {}
      // Without the query and without what looks like a secret: neither belongs there, but people put them there.
      log.info('request', {
        listener: name,
        requestId,
        method: ctx.method,
        path: ctx.path.replace(/[\w-]{20,}/g, '…'),
        status: ctx.status,
        ...durationMs,
      })
    }
  }

  function answerWithProblem(ctx: Koa.ParameterizedContext<RequestState>, error: unknown): void {
    const known =
      error instanceof AppError ? error : new AppError('internal', 'Something went wrong here.', { cause: error })
    if (known.cause !== undefined) {
      const stack = known.code === 'internal' && error instanceof Error ? { stack: error.stack } : {}
      // Described here, since what was thrown need not be an Error.
      const cause = describeError(known.cause)
      const details = { listener: name, requestId: ctx.state.requestId, code: known.code, cause, ...stack }
      log[known.code === 'internal' ? 'error' : 'warn']('request failed', details)
    }
    const status = statusOf[known.code]
    for (const [header, value] of Object.entries(known.headers)) ctx.set(header, value)
    if (status === 429 || status === 503) ctx.set('Retry-After', known.headers['Retry-After'] ?? '1')
    ctx.status = status
    ctx.body = JSON.stringify(problem(status, known.code, known.message, ctx.state.requestId))
    ctx.type = 'application/problem+json'
  }

  const answer = app.callback()
  const server = createServer(
    {
      // Slow clients hold a socket, not more: OWASP DoS cheat sheet. keepAlive is longer than the proxies' 90 s.
      headersTimeout: 10_000,
      requestTimeout: 30_000,
      keepAliveTimeout: 95_000,
      connectionsCheckingInterval: 2000,
      noDelay: true,
      requireHostHeader: false, // refuseOddRequests does, with an answer like every other
    },
    answer,
  )
  server.on('checkExpectation', answer) // not Node's own 417, which is bare; RFC 9110 section 10.1.1 leaves it to us
  server.on('connection', socket => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.on('clientError', answerMalformedHttp)

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
          server.on('error', error => log.error('listener failed', { listener: name, error }))
          resolve(`http://${host.includes(':') ? `[${host}]` : host}:${(server.address() as AddressInfo).port}`)
        })
      }),
    closing: () => closed !== null,
    close: options => (closed ??= closeWithoutLosses(options)),
  }

  async function closeWithoutLosses({ lameDuckMs, drainMs }: CloseOptions): Promise<void> {
    if (!server.listening) return
    await emptied(lameDuckMs / 2)
    lastAnswers = true
    // Not the server's own close: that cuts idle connections at once, and with them requests that are on their way.
    const stopped = new Promise<void>(resolve => NetServer.prototype.close.call(server, () => resolve()))
    await emptied(lameDuckMs / 2)
    server.closeIdleConnections()
    const cut = setTimeout(() => server.closeAllConnections(), drainMs)
    await stopped
    clearTimeout(cut)
  }

  async function emptied(atMostMs: number): Promise<void> {
    const stepMs = 20
    let emptyMs = 0
    for (let waitedMs = 0; waitedMs < atMostMs && emptyMs < emptyForMs; waitedMs += stepMs) {
      await sleep(stepMs)
      // Between two connections of a client that makes one per request there is none: only a while without any counts.
      emptyMs = sockets.size === 0 ? emptyMs + stepMs : 0
    }
  }
}

/** `GET /health`: the process answers. Asks nobody. */
export const health: Handler = ctx => {
  ctx.body = { status: 'ok' }
}

/** `GET /ready`: 503 with the reason that `whyNot` resolves to, 200 where it is null. */
export function readiness(whyNot: (requestId: string) => Promise<string | null>): Handler {
  return async function ready(ctx) {
    const reason = await whyNot(ctx.state.requestId)
    if (reason !== null) throw new AppError('unavailable', reason)
    ctx.body = { status: 'ready' }
  }
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

/** The answer to bytes that are not HTTP, which no middleware ever sees. The error itself is not logged: it holds them. */
function answerMalformedHttp(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === 'ECONNRESET') return void socket.destroy()
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
}
