// A Koa service behind Latchkey: every request needs a token that Auth admits at that moment.
import { randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import Koa from 'koa'
import { openAuthClient } from '../../packages/client/authClient.ts'
import { invalidToken, readBearerToken } from '../../packages/client/bearer.ts'
import type { Admission } from '../../packages/client/contract.ts'
import { TokenError } from '../../packages/client/errors.ts'

const { AUTH_INTERNAL_URL = 'http://127.0.0.1:3101', SERVICE_KEY, PORT = '4000' } = process.env
if (!SERVICE_KEY) throw new Error('SERVICE_KEY is missing. Set it to the key that Auth was started with.')

const monotonicNow = () => performance.now()
const auth = openAuthClient({ url: AUTH_INTERNAL_URL, key: SERVICE_KEY, log: console, monotonicNow })
const app = new Koa<{ requestId: string; admission: Admission }>()

app.use(async function answerProblem(ctx, next) {
  ctx.state.requestId = randomUUID()
  ctx.set({ 'Cache-Control': 'no-store', 'X-Request-Id': ctx.state.requestId })
  try {
    await next()
  } catch (error) {
    if (!(error instanceof TokenError)) throw error
    const { code, status, message: detail, headers } = error
    ctx.status = status
    ctx.set(headers) // WWW-Authenticate of a 401, Retry-After of a 503
    const { requestId } = ctx.state
    const problem = { type: 'about:blank', title: STATUS_CODES[status], status, detail, error: code, requestId }
    ctx.body = JSON.stringify(problem)
    ctx.type = 'application/problem+json'
  }
})

app.use(async function requireToken(ctx, next) {
  const { verdict } = await auth.validate(readBearerToken(ctx.req), ctx.state)
  if (!verdict.authenticated) throw invalidToken()
  ctx.state.admission = verdict
  await next()
})

app.use(function data(ctx) {
  ctx.body = { data: `Hello, ${ctx.state.admission.username ?? 'guest'}!` }
})

const server = app.listen(Number(PORT), '127.0.0.1', () => console.log('listening', server.address()))
process.once('SIGTERM', () => {
  server.close(() => auth.close())
  setInterval(() => server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
