// A long poll behind Latchkey: GET waits for the next message, and is 401 as soon as its token ends. POST sends a message.
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import { type AuthenticatedRequest, latchkey } from 'latchkey-client/node'

const auth = latchkey({ url: process.env.AUTH_INTERNAL_URL, key: process.env.SERVICE_KEY })
const waiting = new Set<(status: number, message?: string) => void>()
const waitMs = 25_000 // shorter than the time after which a proxy takes a connection for dead

const server = createServer(
  auth.requireToken(async (req, res) => {
    const { status, message } = req.method === 'POST' ? await publish(req) : await nextMessage(req)
    if (status === 401) res.setHeader('WWW-Authenticate', 'Bearer realm="latchkey", error="invalid_token"')
    res.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8' }).end(message)
  }),
)

async function publish(req: AuthenticatedRequest) {
  const message = `${req.auth.username ?? 'guest'}: ${await text(req)}`
  for (const answer of waiting) answer(200, message)
  return { status: 202, message: undefined }
}

function nextMessage(req: AuthenticatedRequest) {
  return new Promise<{ status: number; message?: string | undefined }>(resolve => {
    const answer = (status: number, message?: string) => {
      clearTimeout(timer)
      hold.release()
      waiting.delete(answer)
      resolve({ status, message })
    }
    const timer = setTimeout(answer, waitMs, 204)
    const hold = auth.hold(req, { onEnd: reason => answer(reason === 'ended' ? 401 : 503) })
    waiting.add(answer)
    req.socket.once('close', () => answer(499)) // the client has gone
  })
}

server.listen(Number(process.env.PORT ?? 4000), '127.0.0.1', () => console.log('listening', server.address()))
process.once('SIGTERM', () => {
  server.close()
  for (const answer of waiting) answer(503)
  setInterval(() => server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
