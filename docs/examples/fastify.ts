// A Fastify service behind Latchkey: every request needs a token that Auth admits at that moment.
import { randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import fastify from 'fastify'
import { openAuthClient } from '../../packages/client/authClient.ts'
import { invalidToken, readBearerToken } from '../../packages/client/bearer.ts'
import type { Admission } from '../../packages/client/contract.ts'
import { TokenError } from '../../packages/client/errors.ts'

const { AUTH_INTERNAL_URL = 'http://127.0.0.1:3101', SERVICE_KEY, PORT = '4000' } = process.env
if (!SERVICE_KEY) throw new Error('SERVICE_KEY is missing. Set it to the key that Auth was started with.')

const monotonicNow = () => performance.now()
const auth = openAuthClient({ url: AUTH_INTERNAL_URL, key: SERVICE_KEY, log: console, monotonicNow })

declare module 'fastify' {
  interface FastifyRequest {
    admission: Admission
  }
}

const app = fastify({ genReqId: () => randomUUID() })
app.decorateRequest('admission')

app.addHook('onRequest', async function requireToken(request, reply) {
  reply.headers({ 'Cache-Control': 'no-store', 'X-Request-Id': request.id })
  const { verdict } = await auth.validate(readBearerToken(request.raw), { requestId: request.id })
  if (!verdict.authenticated) throw invalidToken()
  request.admission = verdict
})

app.setErrorHandler(function answerProblem(error, request, reply) {
  if (!(error instanceof TokenError)) return reply.send(error)
  const { code, status, message: detail, headers } = error
  reply.status(status).headers(headers) // WWW-Authenticate of a 401, Retry-After of a 503
  reply.type('application/problem+json')
  return { type: 'about:blank', title: STATUS_CODES[status], status, detail, error: code, requestId: request.id }
})

app.get('/data', async ({ admission }) => ({ data: `Hello, ${admission.username ?? 'guest'}!` }))

app.addHook('onClose', () => auth.close())
process.once('SIGTERM', () => {
  app.close()
  setInterval(() => app.server.closeIdleConnections(), 100).unref() // connections that have become idle since
})
console.log('listening', await app.listen({ port: Number(PORT), host: '127.0.0.1' }))
