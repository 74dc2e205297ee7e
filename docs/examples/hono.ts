// A Hono service behind Latchkey: every request needs a token that Auth admits at that moment.
import type { Server } from 'node:http'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { type AuthEnv, latchkey } from 'latchkey-client/hono'

const auth = latchkey({ url: process.env.AUTH_INTERNAL_URL, key: process.env.SERVICE_KEY })
const app = new Hono<AuthEnv>()

app.use(auth.requireToken())
app.get('/data', c => c.json({ data: `Hello, ${c.var.auth.username ?? 'guest'}!` }))

const port = Number(process.env.PORT ?? 4000)
const server = serve({ fetch: app.fetch, port, hostname: '127.0.0.1' }, address => {
  console.log('listening', address)
}) as Server
process.once('SIGTERM', () => {
  server.close()
  setInterval(() => server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
