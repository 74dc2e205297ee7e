// What Node accepts as HTTP but should not, and the response to bytes that are not HTTP at all.
import { randomUUID } from 'node:crypto'
import { type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { AppError } from './errors.ts'
import { defaultHeaders } from './headers.ts'
import { problemDocument } from './problemTypes.ts'
import type { PipelineContext } from './types.ts'

const lingerMs = 1000 // between the response and the end of its connection

/**
 * Throws 400 for what RFC 9112 (sections 2.3, 3.2) forbids and Node lets through: other versions, fragments, and a missing
 * or repeated Host header.
 */
export function requireStrictHttp({ req }: PipelineContext): void {
  if (req.httpVersionMajor !== 1) throw new AppError('invalid_request', 'Use HTTP/1.1.')
  if (req.url?.includes('#')) throw new AppError('invalid_request', 'The target of a request must not contain a #.')
  let hosts = 0
  const raw = req.rawHeaders
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++
  }
  if (hosts > 1) throw new AppError('invalid_request', 'There are two Host headers; send one.')
  if (hosts === 0 && req.httpVersionMinor > 0) throw new AppError('invalid_request', 'The Host header is missing.')
}

/**
 * Responds to bytes that are not HTTP, which never reach the pipeline. `pending` is the response in progress on the same
 * connection, if any. The error is not logged, because it holds the bytes.
 */
export function answerMalformedHttp(
  error: NodeJS.ErrnoException,
  socket: Socket,
  pending: ServerResponse | null,
): void {
  // After an error of the socket or of TLS no client would read a response. In the middle of another response, the client
  // would take this response for a part of that response.
  const isReadable = socket.writable && /^(HPE|ERR_HTTP)_/.test(error.code ?? '') && !pending?.headersSent
  if (!isReadable) {
    socket.destroy()
    return
  }
  const requestId = randomUUID()
  const detail = 'The request is not well-formed HTTP/1.1, is too slow, or its headers are too large.'
  const status = malformedStatus(error)
  const body = JSON.stringify(problemDocument(status, 'invalid_request', detail, requestId))
  const headers = new Map(defaultHeaders).set('Content-Type', 'application/problem+json')
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    `X-Request-Id: ${requestId}`,
    ...Array.from(headers, ([name, value]) => `${name}: ${value}`),
    'Connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
  // Not at once: a client that is still sending would be reset before it has read the response (RFC 9112 section 9.6). When
  // the socket closes, the handler of a pending request learns that its client has gone.
  setTimeout(() => socket.destroy(), lingerMs).unref()
}

function malformedStatus({ code }: NodeJS.ErrnoException): number {
  if (code === 'HPE_HEADER_OVERFLOW') return 431
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return 408
  return 400
}
