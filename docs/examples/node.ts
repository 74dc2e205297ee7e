// A service of node:http behind Latchkey: every request needs a token that Auth admits at that moment.
import { createServer } from 'node:http'
import { latchkey } from 'latchkey-client/node'

const auth = latchkey({ url: process.env.AUTH_INTERNAL_URL, key: process.env.SERVICE_KEY })

const server = createServer(
  auth.requireToken((req, res) => {
    res.setHeader('Content-Type', 'application/json')
    res.end(JSON.stringify({ data: `Hello, ${req.auth.username ?? 'guest'}!` }))
  }),
)
server.listen(Number(process.env.PORT ?? 4000), '127.0.0.1', () => console.log('listening', server.address()))
process.once('SIGTERM', () => {
  server.close()
  setInterval(() => server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
