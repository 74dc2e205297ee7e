// Auth and Business in this process, on ports the system chooses, over any store, with a clock that the test sets.
import type { Writable } from 'node:stream'
import { openAuth } from '../../services/auth/app.ts'
import { type AuthConfig, readAuthConfig } from '../../services/auth/config.ts'
import { describeAuth, describeAuthInternal } from '../../services/auth/routes/index.ts'
import { openBusiness } from '../../services/business/app.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { describeBusiness, describeBusinessInternal } from '../../services/business/routes.ts'
import type { Environment } from '../../shared/config/readSettings.ts'
import type { Service } from '../../shared/service.ts'
import { checkAnswers } from './conformance.ts'
import { adminKey, serviceKey } from './credentials.ts'
import { collectLog } from './log.ts'
import { wideAccountLimits, wideLimits } from './throttles.ts'

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

/** Composed once: it takes longer than many a test. */
const documents = {
  auth: describeAuth(),
  authInternal: describeAuthInternal(),
  business: describeBusiness(),
  businessInternal: describeBusinessInternal(),
}

const opened: Service[] = []

/** Closes what this file opened: a suite's `after(closeServers)`. */
export async function closeServers(): Promise<void> {
  await Promise.all(opened.splice(0).map(service => service.close()))
}

export interface AuthOptions {
  env?: Environment
  now?: () => number
  monotonicNow?: () => number
  /** The usual ones for suites that are about them: others guess often. */
  limitsPerAccount?: AuthConfig['limitsPerAccount']
  /** The cost of bcrypt: its minimum, 4, unless PASSWORD_HASH_COST is set. */
  hashCost?: number
  /** Gets the security log, too. */
  securityStream?: Writable
}

/** An Auth that does not listen yet. */
export async function openTestAuth({
  env = {},
  now = Date.now,
  monotonicNow = steady,
  limitsPerAccount = wideAccountLimits,
  hashCost = 4,
  securityStream,
}: AuthOptions = {}) {
  const { log, lines } = collectLog('auth', securityStream)
  const deps = { log, now, monotonicNow, hashWorkers: 1 }
  const config = { ...readAuthConfig({ ...base, ...env }), limitsPerAccount }
  // The least of bcrypt, below what the settings allow, unless a test is about time: that is fifty times as fast.
  const passwordHashCost = env['PASSWORD_HASH_COST'] === undefined ? hashCost : config.passwordHashCost
  const service = await openAuth({ ...config, passwordHashCost }, deps)
  opened.push(service)
  return { lines, service }
}

export async function startAuth(options: AuthOptions = {}) {
  const { lines, service } = await openTestAuth(options)
  const { auth, authInternal } = await service.listen()
  checkAnswers(auth as string, documents.auth)
  checkAnswers(authInternal as string, documents.authInternal)
  return { url: auth as string, internalUrl: authInternal as string, lines, service }
}

export async function startBusiness(authUrl: string, env: Environment = {}, monotonicNow = steady) {
  const { log, lines } = collectLog('business')
  const config = readBusinessConfig({ ...base, AUTH_INTERNAL_URL: authUrl, ...env })
  const service = await openBusiness(config, { log, monotonicNow })
  opened.push(service)
  const { business, businessInternal } = await service.listen()
  checkAnswers(business as string, documents.business)
  checkAnswers(businessInternal as string, documents.businessInternal)
  return { url: business as string, internalUrl: businessInternal as string, lines, service }
}

export { type Answer, ask, post } from './client.ts'
export { createClock } from './clock.ts'
export { adminKey, demo, serviceKey } from './credentials.ts'
export { logIn, validate } from './factories.ts'
export { collectLog, type LogLine } from './log.ts'
