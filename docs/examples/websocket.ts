// A WebSocket server behind Latchkey: a connection opens with a token that Auth admits, and ends with it.
import { createServer, type IncomingMessage, STATUS_CODES } from 'node:http'
import { latchkey, TokenError } from 'latchkey-client'
import { type WebSocket, WebSocketServer } from 'ws'

const auth = latchkey({ url: process.env.AUTH_INTERNAL_URL, key: process.env.SERVICE_KEY })
const sockets = new WebSocketServer({ noServer: true })
const server = createServer((_req, res) => res.writeHead(426, { Upgrade: 'websocket' }).end())

server.on('upgrade', async (req, connection, head) => {
  connection.on('error', () => connection.destroy())
  try {
    const { username } = await auth.authenticate(req)
    sockets.handleUpgrade(req, connection, head, socket => serve(socket, req, username ?? 'guest'))
  } catch (error) {
    const { status, headers } = error instanceof TokenError ? error : { status: 500, headers: {} }
    const lines = Object.entries({ ...headers, Connection: 'close' }).map(([name, value]) => `${name}: ${value}\r\n`)
    connection.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n`)
  }
})

function serve(socket: WebSocket, req: IncomingMessage, name: string) {
  const hold = auth.hold(req, {
    onEnd(reason) {
      socket.off('message', answer) // a client may go on sending instead of closing
      socket.close(4401, reason)
      setTimeout(() => socket.terminate(), 1000).unref()
    },
  })
  const answer = (message: unknown) => socket.send(`${name}: ${message}`)
  socket.on('message', answer)
  socket.on('error', () => socket.terminate())
  socket.on('close', hold.release)
}

server.listen(Number(process.env.PORT ?? 4000), '127.0.0.1', () => console.log('listening', server.address()))
process.once('SIGTERM', () => {
  server.close()
  for (const socket of sockets.clients) socket.close(1001)
})
