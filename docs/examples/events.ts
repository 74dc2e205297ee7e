// Server-sent events behind Latchkey: a stream opens with a token that Auth admits, and ends with it.
import { createServer } from 'node:http'
import { latchkey } from 'latchkey-client/node'

const auth = latchkey({ url: process.env.AUTH_INTERNAL_URL, key: process.env.SERVICE_KEY })

const server = createServer(
  auth.requireToken((req, res) => {
    const write = (event: string, data: object) => res.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
    const tick = () => {
      if (!res.writableNeedDrain) write('time', { now: new Date(), name: req.auth.username ?? 'guest' })
    }
    const end = (reason: string) => {
      clearInterval(timer)
      write('end', { reason }) // so that the client can tell this from a broken connection, and does not reconnect
      res.end()
    }
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'X-Accel-Buffering': 'no' })
    tick()
    const timer = setInterval(tick, 1000)
    const hold = auth.hold(req, { onEnd: end })
    const stop = () => end('closed')
    process.once('SIGTERM', stop)
    res.on('close', () => {
      clearInterval(timer)
      hold.release()
      process.off('SIGTERM', stop)
    })
  }),
)
server.listen(Number(process.env.PORT ?? 4000), '127.0.0.1', () => console.log('listening', server.address()))
process.setMaxListeners(0)
process.once('SIGTERM', () => {
  server.close()
  setInterval(() => server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
