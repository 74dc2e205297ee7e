// The single-address layout: what Auth answers in public, passed on from Business's own listener. Its internal listener is
// never reached from here: this asks the public one, and for the routes below only. Hides who may say what to whom.
import type { IncomingMessage } from 'node:http'
import { Pool } from 'undici'
import { AppError } from '../../shared/http/errors.ts'
import type { Handler, Routes } from '../../shared/http/listener.ts'

export interface ForwardOptions {
  /** Auth's public listener. From configuration, never from a request. */
  url: string
  /** From the whole request to the first byte of the answer. */
  answersWithinMs?: number
}

export interface Forward {
  /** Auth's public routes, but for those that Business has itself. */
  routes: Routes
  /** Waits for the answers under way. */
  close(): Promise<void>
}

export const forwardedRoutes = [
  'POST /login',
  'POST /logout',
  'POST /revoke',
  'POST /renew',
  'GET /sessions',
  'DELETE /sessions/:id',
  'DELETE /sessions',
  'POST /users',
  'GET /users/me',
  'PATCH /users/me',
  'DELETE /users/me',
  'POST /users/confirm',
  'POST /users/confirm/resend',
  'POST /password/forgot',
  'POST /password/reset',
  'GET /account',
  'GET /docs',
  'GET /docs/:file',
  'GET /redoc',
  'GET /console',
  'GET /console/:file',
  'GET /.well-known/jwks.json',
]

// RFC 9110 section 7.6.1: of this connection only. What says who is calling is ours to say, and so is the length of what we
// have read.
const notPassedOn =
  /^(connection|keep-alive|te|trailer|transfer-encoding|content-length|upgrade|proxy-.*|expect|host|forwarded|x-forwarded-.*|x-real-ip|x-request-id)$/
// Whether it came over https is Business's to say, too.
const notPassedBack =
  /^(connection|keep-alive|trailer|transfer-encoding|upgrade|proxy-.*|strict-transport-security|x-request-id)$/
const maxBodyBytes = 16 * 1024 // Auth's own limit in public
// Less than half of Auth's lame duck: a connection that is not used meanwhile is closed here, and not by Auth in the moment
// in which the next request is sent.
const keepAliveMs = 400

export function openForward({ url, answersWithinMs = 29_000 }: ForwardOptions): Forward {
  const pool = new Pool(url, {
    connections: null, // of any number: with 64, say, as many who read slowly would keep everybody out
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: keepAliveMs,
    keepAliveMaxTimeout: keepAliveMs,
  })

  const forward: Handler = async ctx => {
    const { method, req, res } = ctx
    // Whole, before Auth hears of it: who sends slowly keeps nobody else waiting for a connection.
    const body = method === 'GET' || method === 'HEAD' ? null : await readBody(req)
    const abort = new AbortController()
    res.once('close', () => abort.abort())
    const late = setTimeout(() => abort.abort(new Error(`no answer within ${answersWithinMs} ms`)), answersWithinMs)
    const path = `${ctx.path}${ctx.search}`
    const headers = headersFor(req, ctx.state)
    const answer = await pool
      .request({ method, path, headers, body, signal: abort.signal })
      .catch(cause => {
        const isGone = res.destroyed // then nobody reads this, and nothing has failed
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

  return {
    routes: Object.fromEntries(forwardedRoutes.map(route => [route, [forward]])),
    close: () => pool.close(),
  }
}

/** Names and values in turn. Not of `req.headers`: what is there twice must be so for Auth, too, which refuses it. */
function headersFor(req: IncomingMessage, { requestId, address }: { requestId: string; address: string }): string[] {
  // Whom Business takes for the client, and nothing that the client says of itself. What came over plain HTTP where that is
  // refused does not come so far: Auth is not to judge it again.
  const headers = ['x-request-id', requestId, 'x-forwarded-for', address, 'x-forwarded-proto', 'https']
  const ofConnection = (req.headers.connection ?? '').toLowerCase().split(/[\s,]+/)
  for (let i = 0; i < req.rawHeaders.length; i += 2) {
    const [name, value] = req.rawHeaders.slice(i, i + 2) as [string, string]
    const lower = name.toLowerCase()
    if (!notPassedOn.test(lower) && !ofConnection.includes(lower)) headers.push(name, value)
  }
  return headers
}

async function readBody(req: IncomingMessage): Promise<Buffer | null> {
  if (req.headers['content-length'] === undefined && req.headers['transfer-encoding'] === undefined) return null
  const chunks: Buffer[] = []
  let size = Number(req.headers['content-length'] ?? 0)
  let read = 0
  if (size <= maxBodyBytes) {
    try {
      for await (const chunk of req.iterator({ destroyOnReturn: false })) {
        read += chunk.length
        size = Math.max(size, read)
        if (size > maxBodyBytes) break
        chunks.push(chunk)
      }
    } catch {
      throw new AppError('invalid_request', 'The body ended too early.')
    }
  }
  if (size > maxBodyBytes) {
    req.resume() // or it would stay in the socket, and block a client that is still sending
    throw new AppError('too_large', `The body may have at most ${maxBodyBytes} bytes.`)
  }
  return Buffer.concat(chunks)
}
