// Better Auth in Express: https://better-auth.com/docs/integrations/express, with Node's own SQLite as in
// https://better-auth.com/docs/adapters/sqlite. COOKIE_CACHE=on is "Cookie Cache" of
// https://better-auth.com/docs/concepts/session-management, with the five minutes of its example.
import { DatabaseSync } from 'node:sqlite'
import { betterAuth } from 'better-auth'
import { getMigrations } from 'better-auth/db/migration'
import { fromNodeHeaders, toNodeHandler } from 'better-auth/node'
import express from 'express'
import { greeting, serve } from './serve.ts'

const { COOKIE_CACHE, DATABASE_FILE = '' } = process.env
const auth = betterAuth({
  baseURL: 'http://127.0.0.1',
  secret: 'bench-secret-0123456789abcdefghijklmnopqrstuv',
  database: new DatabaseSync(DATABASE_FILE),
  emailAndPassword: { enabled: true },
  rateLimit: { enabled: false }, // only its own routes have limits; the bench logs in too often for them
  ...(COOKIE_CACHE === 'on' && { session: { cookieCache: { enabled: true, maxAge: 5 * 60 } } }),
})
await (await getMigrations(auth.options)).runMigrations()

const app = express()
app.all('/api/auth/*splat', toNodeHandler(auth))
app.get('/data', async (req, res) => {
  const session = await auth.api.getSession({ headers: fromNodeHeaders(req.headers) })
  if (!session) return void res.status(401).end()
  res.json(greeting)
})
serve(app)
