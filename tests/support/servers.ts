// Auth and Business in this process, on ports the system chooses, over any store, with a clock that the test sets.
import { Writable } from 'node:stream'
import { openAuth } from '../../services/auth/app.ts'
import { type AuthConfig, readAuthConfig } from '../../services/auth/config.ts'
import { describeAuth, describeAuthInternal } from '../../services/auth/openapi.ts'
import { openBusiness } from '../../services/business/app.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { describeBusiness, describeBusinessInternal } from '../../services/business/openapi.ts'
import type { Environment } from '../../shared/config/config.ts'
import { createLog } from '../../shared/log/log.ts'
import type { Service } from '../../shared/service.ts'
import { searchLog } from './canaries.ts'
import { checkAnswers } from './conformance.ts'
import { wideAccountLimits, wideLimits } from './throttles.ts'

export const serviceKey = 'CANARY-service-key-0123456789abcdefghijklmnop'
export const adminKey = 'CANARY-admin-key-9876543210zyxwvutsrqponmlkjihg'
export const demo = { username: 'demo@example.com', password: 'postman' }

const base: Environment = {
  NODE_ENV: 'test',
  SERVICE_KEY: serviceKey,
  ADMIN_KEY: adminKey,
  AUTH_PORT: '0',
  AUTH_INTERNAL_PORT: '0',
  BUSINESS_PORT: '0',
  BUSINESS_INTERNAL_PORT: '0',
  LOG_LEVEL: 'debug',
  // No sweep that nobody asked for comes between two steps of a test.
  SWEEP_INTERVAL_SECONDS: '86400',
  ...wideLimits,
}

const steady = () => performance.now()

const opened: Service[] = []

/** Closes what this file opened: a suite's `after(closeServers)`. */
export async function closeServers(): Promise<void> {
  await Promise.all(opened.splice(0).map(service => service.close()))
}

export interface LogLine {
  level: string
  event: string
  [field: string]: unknown
}

export function collectLog(service: string, securityStream: Writable | null = null) {
  const lines: LogLine[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      searchLog([String(chunk)], `the log of ${service}`)
      for (const line of String(chunk).trimEnd().split('\n')) lines.push(JSON.parse(line))
      done()
    },
  })
  return { log: createLog({ service, level: 'debug', stream, securityStream }), lines }
}

/** A clock that stands still until it is told otherwise. */
export function createClock() {
  let at = 1_800_000_000_000
  return {
    now: () => at,
    advance(ms: number): void {
      at += ms
    },
  }
}

export interface AuthOptions {
  env?: Environment
  now?: () => number
  monotonicNow?: () => number
  /** The usual ones for suites that are about them: others guess often. */
  limitsPerAccount?: AuthConfig['limitsPerAccount']
  /** Gets the security log, too. */
  securityStream?: Writable
}

/** An Auth that does not listen yet. */
export async function openTestAuth({
  env = {},
  now = Date.now,
  monotonicNow = steady,
  limitsPerAccount = wideAccountLimits,
  securityStream,
}: AuthOptions = {}) {
  const { log, lines } = collectLog('auth', securityStream)
  const surroundings = { log, now, monotonicNow, hashWorkers: 1 }
  const config = { ...readAuthConfig({ ...base, ...env }), limitsPerAccount }
  // The least of bcrypt, below what the settings allow, unless a test is about time: that is fifty times as fast.
  const passwordHashCost = env['PASSWORD_HASH_COST'] === undefined ? 4 : config.passwordHashCost
  const service = await openAuth({ ...config, passwordHashCost }, surroundings)
  opened.push(service)
  return { lines, service }
}

export async function startAuth(options: AuthOptions = {}) {
  const { lines, service } = await openTestAuth(options)
  const { auth, authInternal } = await service.listen()
  checkAnswers(auth as string, describeAuth())
  checkAnswers(authInternal as string, describeAuthInternal())
  return { url: auth as string, internalUrl: authInternal as string, lines, service }
}

export async function startBusiness(authUrl: string, env: Environment = {}, monotonicNow = steady) {
  const { log, lines } = collectLog('business')
  const config = readBusinessConfig({ ...base, AUTH_INTERNAL_URL: authUrl, ...env })
  const service = await openBusiness(config, { log, monotonicNow })
  opened.push(service)
  const { business, businessInternal } = await service.listen()
  checkAnswers(business as string, describeBusiness())
  checkAnswers(businessInternal as string, describeBusinessInternal())
  return { url: business as string, internalUrl: businessInternal as string, lines, service }
}

export function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
}

export interface Answer<T = Record<string, unknown>> {
  status: number
  headers: Headers
  text: string
  /** Of an answer that has one. */
  body: T
}

/** Asks on a connection of its own, so that servers close at once. `body` goes as it is where it is a string. */
export async function ask<T = Record<string, unknown>>(
  method: string,
  url: string,
  bearer: string | null = null,
  body?: unknown,
): Promise<Answer<T>> {
  const headers = new Headers({ connection: 'close' })
  if (bearer !== null) headers.set('authorization', `Bearer ${bearer}`)
  if (body !== undefined) headers.set('content-type', 'application/json')
  const content = typeof body === 'string' ? body : JSON.stringify(body)
  const answer = await fetch(url, { method, headers, ...(content !== undefined && { body: content }) })
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, text, body: (text === '' ? {} : JSON.parse(text)) as T }
}

/** Logs in and returns the token. */
export async function logIn(authUrl: string, credentials = demo): Promise<string> {
  const answer = await post(`${authUrl}/login`, credentials)
  if (answer.status !== 200) throw new Error(`log in answered ${answer.status}: ${await answer.text()}`)
  return ((await answer.json()) as { token: string }).token
}

/** What Auth's internal listener says of tokens. */
export function validate(internalUrl: string, body: unknown, key = serviceKey): Promise<Response> {
  return post(`${internalUrl}/validateToken`, body, { authorization: `Bearer ${key}` })
}
