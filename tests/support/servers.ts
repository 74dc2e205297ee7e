// Auth and Business in this process, on ports the system chooses, over any store, with a clock that the test sets.
import { Writable } from 'node:stream'
import { openAuth } from '../../services/auth/app.ts'
import { readAuthConfig } from '../../services/auth/config.ts'
import { openBusiness } from '../../services/business/app.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import type { Environment } from '../../shared/config.ts'
import { openLog } from '../../shared/log.ts'
import type { Service } from '../../shared/service.ts'

export const serviceKey = 'test-service-key-0123456789abcdefghijklmnop'
export const adminKey = 'test-admin-key-9876543210zyxwvutsrqponmlkjihg'
export const demo = { username: 'demo@example.com', password: 'postman' }

const base: Environment = {
  NODE_ENV: 'test',
  SERVICE_KEY: serviceKey,
  ADMIN_KEY: adminKey,
  AUTH_PORT: '0',
  AUTH_INTERNAL_PORT: '0',
  BUSINESS_PORT: '0',
  LOG_LEVEL: 'debug',
}

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

export function collectLog(service: string) {
  const lines: LogLine[] = []
  const stream = new Writable({
    write(chunk, _encoding, done) {
      lines.push(JSON.parse(String(chunk)))
      done()
    },
  })
  return { log: openLog({ service, level: 'debug', stream }), lines }
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

export async function startAuth({ env = {}, now = Date.now }: { env?: Environment; now?: () => number } = {}) {
  const { log, lines } = collectLog('auth')
  const surroundings = { log, now, monotonicNow: () => performance.now(), hashWorkers: 1 }
  const service = await openAuth(readAuthConfig({ ...base, ...env }), surroundings)
  opened.push(service)
  const { auth, authInternal } = await service.listen()
  return { url: auth as string, internalUrl: authInternal as string, lines, service }
}

export async function startBusiness(authUrl: string, env: Environment = {}) {
  const { log, lines } = collectLog('business')
  const config = readBusinessConfig({ ...base, AUTH_INTERNAL_URL: authUrl, ...env })
  const service = await openBusiness(config, { log, monotonicNow: () => performance.now() })
  opened.push(service)
  const { business } = await service.listen()
  return { url: business as string, lines, service }
}

export function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
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
