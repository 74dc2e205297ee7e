// The single-address layout: what Business has no route for goes to Auth's public listener, and never to the
// internal one. Hides which headers pass in either direction.
import type { IncomingMessage } from 'node:http'
import { Pool } from 'undici'
import { readBytes } from '../../shared/http/body.ts'
import { AppError } from '../../shared/http/errors.ts'
import type { Handler, RequestState } from '../../shared/http/types.ts'

export interface ForwardOptions {
  /** Auth's public listener. From configuration, never from a request. */
  url: string
  /** From the end of the request to the first byte of the response. */
  responseTimeoutMs?: number
}

export interface Forward {
  /** Forwards a request to Auth, which answers 404 or 405 if it has no such route. */
  handle: Handler
  /** Waits for the responses in progress. */
  close(): Promise<void>
}

// Not forwarded: headers of this connection only (RFC 9110, section 7.6.1), and those that we set ourselves, such as the
// client's address and the length of the body.
const notPassedOn =
  /^(connection|keep-alive|te|trailer|transfer-encoding|content-length|upgrade|proxy-.*|expect|host|forwarded|x-forwarded-.*|x-real-ip|x-request-id|traceparent)$/
// Business sets Strict-Transport-Security and X-Request-Id itself.
const notPassedBack =
  /^(connection|keep-alive|trailer|transfer-encoding|upgrade|proxy-.*|strict-transport-security|x-request-id)$/
const maxBodyBytes = 16 * 1024 // the limit of Auth's public listener
// Less than half of the time for which a closing Auth still answers, so that Business closes an idle connection before Auth
// could close it just as the next request is sent.
const keepAliveMs = 400

export function openForward({ url, responseTimeoutMs = 29_000 }: ForwardOptions): Forward {
  const pool = new Pool(url, {
    connections: null, // unlimited: otherwise slow readers could occupy all connections and keep other clients out
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: keepAliveMs,
    keepAliveMaxTimeout: keepAliveMs,
  })

  const handle: Handler = async ctx => {
    const { method, req, res } = ctx
    // Read the whole body first, so that a slow sender does not occupy a connection to Auth.
    const body = method === 'GET' || method === 'HEAD' || !hasBody(req) ? null : await readBytes(req, maxBodyBytes)
    const abort = new AbortController()
    res.once('close', () => abort.abort())
    const late = setTimeout(() => abort.abort(new Error(`no answer within ${responseTimeoutMs} ms`)), responseTimeoutMs)
    const path = `${ctx.path}${ctx.search}`
    const headers = headersFor(req, ctx.state)
    const answer = await pool
      .request({ method, path, headers, body, signal: abort.signal })
      .catch(cause => {
        const isGone = res.destroyed // the client has gone: there is no response to send, and nothing has failed
        throw new AppError('unavailable', 'Auth cannot be reached; try again.', isGone ? {} : { cause })
      })
      .finally(() => clearTimeout(late))
    for (const [name, value] of Object.entries(answer.headers)) {
      if (value !== undefined && !notPassedBack.test(name)) res.setHeader(name, value)
    }
    ctx.status = answer.statusCode
    if (method === 'HEAD' || answer.statusCode === 204 || answer.statusCode === 304) await answer.body.dump()
    else ctx.body = answer.body
  }

  return { handle, close: () => pool.close() }
}

/** Each name, followed by its value. Not from `req.headers`, because Auth must see repeated headers to refuse them. */
function headersFor(req: IncomingMessage, { requestId, address, traceparent }: RequestState): string[] {
  // The client's address as Business sees it, and nothing that the client claims. Always `https`, because Business has
  // already refused plain HTTP if it must, and Auth need not check again.
  const headers = ['x-request-id', requestId, 'x-forwarded-for', address, 'x-forwarded-proto', 'https']
  if (traceparent !== undefined) headers.push('traceparent', traceparent)
  const ofConnection = (req.headers.connection ?? '').toLowerCase().split(/[\s,]+/)
  for (let i = 0; i < req.rawHeaders.length; i += 2) {
    const [name, value] = req.rawHeaders.slice(i, i + 2) as [string, string]
    const lower = name.toLowerCase()
    if (!notPassedOn.test(lower) && !ofConnection.includes(lower)) headers.push(name, value)
  }
  return headers
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['content-length'] !== undefined || headers['transfer-encoding'] !== undefined
}
