// A Koa service behind Latchkey: every request needs a token that Auth admits at that moment.
import Koa from 'koa'
import { type AuthState, latchkey } from 'latchkey-client/koa'

const auth = latchkey({ url: process.env.AUTH_INTERNAL_URL, key: process.env.SERVICE_KEY })
const app = new Koa<AuthState>()

app.use(auth.requireToken())
app.use(ctx => {
  ctx.body = { data: `Hello, ${ctx.state.auth.username ?? 'guest'}!` }
})

const server = app.listen(Number(process.env.PORT ?? 4000), '127.0.0.1', () => {
  console.log('listening', server.address())
})
process.once('SIGTERM', () => {
  server.close()
  setInterval(() => server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
