// Set-up of the suites that send bad input to the real listeners of Auth, and what they all check.
import { expect } from 'chai'
import { createClock } from './clock.ts'
import { demo, serviceKey } from './credentials.ts'
import type { LogLine } from './log.ts'
import { sendRaw } from './raw.ts'
import { closeServers, startAuth } from './servers.ts'

export type Body = NonNullable<RequestInit['body']>

export interface Answer {
  status: number
  headers: Headers
  body: string
}

export interface Question {
  method?: string
  headers?: Record<string, string>
  body?: Body
}

export const credentials = { username: demo.username, password: 'CANARY-PW-3f9c1b' }
export const previousKey = 'previous-service-key-0123456789abcdefghijkl'
export const json = { 'content-type': 'application/json' }
export const form = { 'content-type': 'application/x-www-form-urlencoded' }
export const megabyte = 1024 * 1024
export const quietMs = 5000 // elapses only if the server neither answers nor closes, and then the test fails

const leaks = /\n\s*at |[\w)]:\d+:\d+|node_modules|file:\/\/|node:|\bE(CONN|PIPE|ADDR)|SyntaxError|position \d|koa|zod/i
const houseHeaders = {
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}
const untold = [
  'server',
  'x-powered-by',
  'set-cookie',
  'access-control-allow-origin',
  'access-control-allow-credentials',
]
const errorOf: Record<number, string> = {
  400: 'invalid_request',
  404: 'not_found',
  405: 'method_not_allowed',
  413: 'too_large',
  415: 'unsupported_media_type',
  431: 'invalid_request',
  503: 'unavailable',
}

/** Uses its own connection. */
export async function ask(url: string, { method = 'POST', headers = {}, body }: Question = {}): Promise<Answer> {
  const answer = await fetch(url, {
    method,
    headers: { connection: 'close', ...headers },
    ...(body !== undefined && { body }),
    ...(body instanceof ReadableStream && { duplex: 'half' as const }),
  })
  return { status: answer.status, headers: answer.headers, body: await answer.text() }
}

/** A request in raw bytes with `Connection: close`. */
export function bytesOf(requestLine: string, headers: string[] = [], body = ''): string {
  return [requestLine, 'Host: auth', 'Connection: close', ...headers, '', body].join('\r\n')
}

export function expectHouseHeaders({ headers }: Answer): void {
  expect(headers.get('x-request-id')).to.match(/^[A-Za-z0-9._-]{1,64}$/)
  for (const [name, value] of Object.entries(houseHeaders)) expect(headers.get(name), name).to.equal(value)
  for (const name of untold) expect(headers.has(name), name).to.equal(false)
}

export function expectProblem(answer: Answer, status: number, detail: RegExp, error = errorOf[status]): void {
  expect(answer.status, answer.body).to.equal(status)
  expectHouseHeaders(answer)
  expect(answer.headers.get('content-type')).to.equal('application/problem+json')
  const problem = JSON.parse(answer.body) as Record<string, unknown>
  expect(problem).to.deep.equal({
    type: `/problems/${error}`,
    title: problem['title'],
    status,
    detail: problem['detail'],
    error,
    requestId: answer.headers.get('x-request-id'),
  })
  expect(problem['title']).to.match(/^[A-Z]/)
  expect(problem['detail']).to.match(detail)
  expect(answer.body).not.to.match(leaks)
  expect(answer.body).not.to.include('CANARY')
}

/** Starts Auth before a suite, checks after each test that it had no internal error, and closes it after the last test. */
export function startHttpSuite() {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>

  before(async () => {
    const env = { DEMO_PASSWORD: credentials.password, SERVICE_KEY_PREVIOUS: previousKey }
    auth = await startAuth({ env, now: clock.now })
  })
  afterEach('there was no internal error and no polluted prototype', () => {
    const isFailure = ({ level, event }: LogLine) => (level === 'error' || level === 'warn') && event !== 'key_refused'
    expect(auth.lines.filter(isFailure)).to.deep.equal([])
    expect(Object.keys(Object.prototype)).to.deep.equal([])
  })
  after(closeServers)

  const login = (body: Body, headers: Record<string, string> = json) => ask(`${auth.url}/login`, { headers, body })
  const validate = (body: Body, headers: Record<string, string> = {}) =>
    ask(`${auth.internalUrl}/validateToken`, {
      headers: { ...json, authorization: `Bearer ${serviceKey}`, ...headers },
      body,
    })
  const send = (bytes: string | Buffer) => sendRaw(auth.url, bytes, quietMs)
  async function logIn(): Promise<string> {
    const { body } = await login(JSON.stringify(credentials))
    return (JSON.parse(body) as { token: string }).token
  }

  return {
    /** Set once the tests run. */
    get auth() {
      return auth
    },
    clock,
    login,
    validate,
    send,
    logIn,
  }
}
