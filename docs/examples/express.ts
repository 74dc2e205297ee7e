// An Express service behind Latchkey: every request needs a token that Auth admits at that moment.
import express from 'express'
import { latchkey } from 'latchkey-client/express'

const auth = latchkey({ url: process.env.AUTH_INTERNAL_URL, key: process.env.SERVICE_KEY })
const app = express()

app.disable('x-powered-by')
app.use(auth.requireToken())
app.get('/data', (req, res) => {
  res.json({ data: `Hello, ${req.auth.username ?? 'guest'}!` })
})

const server = app.listen(Number(process.env.PORT ?? 4000), '127.0.0.1', error => {
  if (error) throw error
  console.log('listening', server.address())
})
process.once('SIGTERM', () => {
  server.close()
  setInterval(() => server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
