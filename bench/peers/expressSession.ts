// express-session with Redis, configured as https://github.com/tj/connect-redis shows, and rolling: each request extends the
// session.
import { RedisStore } from 'connect-redis'
import express from 'express'
import session from 'express-session'
import { createClient } from 'redis'
import { greeting, serve } from './serve.ts'

const client = createClient({ url: process.env['REDIS_URL'] })
client.on('error', () => {}) // the bench stops Redis at the end
await client.connect()

const app = express()
app.use(
  session({
    store: new RedisStore({ client }),
    resave: false,
    saveUninitialized: false,
    rolling: true,
    cookie: { maxAge: 7_200_000 },
    secret: 'bench-secret-0123456789abcdefghijklmnopqrstuv',
  }),
)
app.post('/login', (req, res) => {
  req.session.username = 'demo@example.com'
  res.json({})
})
app.post('/logout', (req, res, next) => req.session.destroy(error => (error ? next(error) : res.json({}))))
app.get('/data', (req, res) => {
  if (!req.session.username) return void res.status(401).end()
  res.json(greeting)
})
serve(app)
