// An Express service behind Latchkey: every request needs a token that Auth admits at that moment.
import { randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import express, { type ErrorRequestHandler, type RequestHandler } from 'express'
import { openAuthClient } from '../../packages/client/authClient.ts'
import { invalidToken, readBearerToken } from '../../packages/client/bearer.ts'
import type { Admission } from '../../packages/client/contract.ts'
import { TokenError } from '../../packages/client/errors.ts'

const { AUTH_INTERNAL_URL = 'http://127.0.0.1:3101', SERVICE_KEY, PORT = '4000' } = process.env
if (!SERVICE_KEY) throw new Error('SERVICE_KEY is missing. Set it to the key that Auth was started with.')

const monotonicNow = () => performance.now()
const auth = openAuthClient({ url: AUTH_INTERNAL_URL, key: SERVICE_KEY, log: console, monotonicNow })

declare global {
  namespace Express {
    interface Locals {
      requestId: string
      admission: Admission
    }
  }
}

const requireToken: RequestHandler = async (req, res, next) => {
  res.locals.requestId = randomUUID()
  res.set({ 'Cache-Control': 'no-store', 'X-Request-Id': res.locals.requestId })
  const { verdict } = await auth.validate(readBearerToken(req), res.locals)
  if (!verdict.authenticated) throw invalidToken()
  res.locals.admission = verdict
  next()
}

const answerProblem: ErrorRequestHandler = (error, _req, res, next) => {
  if (!(error instanceof TokenError)) return next(error)
  const { code, status, message: detail, headers } = error
  const { requestId } = res.locals
  res.status(status).set(headers) // WWW-Authenticate of a 401, Retry-After of a 503
  res.type('application/problem+json')
  res.json({ type: 'about:blank', title: STATUS_CODES[status], status, detail, error: code, requestId })
}

const app = express()
app.disable('x-powered-by')
app.use(requireToken)
app.get('/data', (_req, res) => void res.json({ data: `Hello, ${res.locals.admission.username ?? 'guest'}!` }))
app.use(answerProblem)

const server = app.listen(Number(PORT), '127.0.0.1', error => {
  if (error) throw error
  console.log('listening', server.address())
})
process.once('SIGTERM', () => {
  server.close(() => auth.close())
  setInterval(() => server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
