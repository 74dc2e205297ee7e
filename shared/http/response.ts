// How the body of a response is sent. Koa sends it, except large buffers, which are sent in pieces.
import type { ServerResponse } from 'node:http'
import { Stream } from 'node:stream'
import type { PipelineContext } from './types.ts'

const pieceBytes = 64 * 1024

export function sendBody(ctx: PipelineContext): void {
  const { body, res } = ctx
  if (body instanceof Stream) {
    body.on('error', ignore) // Koa adds its own handler only when it starts to send
  } else if (Buffer.isBuffer(body) && body.length > pieceBytes && ctx.method !== 'HEAD') {
    ctx.respond = false
    sendInPieces(res, body)
  }
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
