// The client package of Latchkey in Express, so that the framework is that of the peers.
import { randomUUID } from 'node:crypto'
import express, { type ErrorRequestHandler } from 'express'
import { openAuthClient } from '../../packages/client/authClient.ts'
import { invalidToken, readBearerToken } from '../../packages/client/bearer.ts'
import { greeting, serve } from './serve.ts'

const { AUTH_INTERNAL_URL = '', SERVICE_KEY = '' } = process.env
const monotonicNow = () => performance.now()
const auth = openAuthClient({ url: AUTH_INTERNAL_URL, key: SERVICE_KEY, log: console, monotonicNow })

const app = express()
app.use(async (req, _res, next) => {
  const { verdict } = await auth.validate(readBearerToken(req), { requestId: randomUUID() })
  if (!verdict.authenticated) throw invalidToken()
  next()
})
app.get('/data', (_req, res) => void res.json(greeting))
const answerProblem: ErrorRequestHandler = (error, _req, res, _next) => void res.status(error.status ?? 500).end()
app.use(answerProblem)
serve(app)
