// Sends what the handlers left in `ctx.body`. Koa's own function is not used, because it cannot send large buffers in pieces,
// and because listening for the end of each response, as it does, costs 3 of 40 µs per request.
import type { ServerResponse } from 'node:http'
import { pipeline, type Readable, Stream } from 'node:stream'
import { writeHeaders } from './headers.ts'
import type { PipelineContext } from './types.ts'

const pieceBytes = 64 * 1024
const statusesWithoutContent = new Set([204, 205, 304])

/** `onAborted` is called with the error that broke off a streamed response; mostly the client has gone. */
export function sendResponse(ctx: PipelineContext, onAborted: (error: NodeJS.ErrnoException) => void): void {
  const { body, req, res } = ctx
  const isHead = req.method === 'HEAD'
  if (body instanceof Stream) {
    body.on('error', ignore) // Koa destroys the stream when the response ends
    writeHeaders(ctx, null)
    if (isHead || res.destroyed) res.end()
    else pipeline(body as Readable, res, error => error && onAborted(error))
    return
  }
  const content = contentOf(ctx)
  writeHeaders(ctx, content === null ? 'no content' : Buffer.byteLength(content))
  if (isHead || content === null || res.destroyed) res.end()
  else if (content.length > pieceBytes && Buffer.isBuffer(content)) sendInPieces(res, content)
  else res.end(content)
}

function contentOf({ body, res }: PipelineContext): string | Buffer | null {
  if (body === undefined || body === null || statusesWithoutContent.has(res.statusCode)) return null
  return typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body)
}

function ignore(): void {}

/**
 * Writes each piece once the client has read the one before, so that a client that does not read takes up the memory of one
 * piece, and not of a copy of the whole body in the TLS layer.
 */
function sendInPieces(res: ServerResponse, body: Buffer): void {
  let sent = 0
  function send(): void {
    while (sent < body.length && !res.destroyed) {
      const piece = body.subarray(sent, sent + pieceBytes)
      sent += piece.length
      if (!res.write(piece) && sent < body.length) {
        res.once('drain', send)
        return
      }
    }
    if (!res.destroyed) res.end()
  }
  send()
}
