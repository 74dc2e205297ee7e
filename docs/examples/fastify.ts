// A Fastify service behind Latchkey: every request needs a token that Auth admits at that moment.
import fastify from 'fastify'
import { latchkey } from 'latchkey-client/fastify'

const auth = latchkey({ url: process.env.AUTH_INTERNAL_URL, key: process.env.SERVICE_KEY })
const app = fastify()

app.addHook('onRequest', auth.requireToken())
app.get('/data', async request => ({ data: `Hello, ${request.auth.username ?? 'guest'}!` }))

process.once('SIGTERM', () => {
  app.close()
  setInterval(() => app.server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
console.log('listening', await app.listen({ port: Number(process.env.PORT ?? 4000), host: '127.0.0.1' }))
