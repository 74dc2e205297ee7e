// Auth and Business in this process, on ports that the system chooses, with any store and a clock that the test sets.
import type { Writable } from 'node:stream'
import { openAuth } from '../../services/auth/app.ts'
import type { Clock } from '../../services/auth/clock.ts'
import { type AuthConfig, readAuthConfig } from '../../services/auth/config.ts'
import { describeAuth, describeAuthInternal } from '../../services/auth/routes/index.ts'
import { openBusiness } from '../../services/business/app.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { describeBusiness, describeBusinessInternal } from '../../services/business/routes.ts'
import type { Environment } from '../../shared/config/readSettings.ts'
import type { Service } from '../../shared/service.ts'
import { unfollowed } from './clock.ts'
import { checkAnswers, stopChecking } from './conformance.ts'
import { adminKey, serviceKey } from './credentials.ts'
import { hashThreads } from './hashThreads.ts'
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
  // Long enough that no automatic sweep runs during a test.
  SWEEP_INTERVAL_SECONDS: '86400',
  ...wideLimits,
}

const steady = () => performance.now()

/** Composed once, because it takes longer than many tests. */
const documents = {
  auth: describeAuth(),
  authInternal: describeAuthInternal(),
  business: describeBusiness(),
  businessInternal: describeBusinessInternal(),
}

const opened: Service[] = []

/** Closes everything that this file opened. For a suite's `after(closeServers)`. */
export async function closeServers(): Promise<void> {
  await Promise.all(opened.splice(0).map(service => service.close()))
  stopChecking()
}

export interface AuthOptions {
  env?: Environment
  now?: () => number
  /** Instead of `now`. */
  clock?: Clock
  monotonicNow?: () => number
  /** The default limits, for suites that test them; other suites make many wrong guesses. */
  limitsPerAccount?: AuthConfig['limitsPerAccount']
  /** The cost of bcrypt: its minimum, 4, unless PASSWORD_HASH_COST is set. */
  hashCost?: number
  /** The security log is written to this stream too. */
  securityStream?: Writable
}

/** An Auth that does not listen yet. */
export async function openTestAuth({
  env = {},
  now = Date.now,
  clock = unfollowed(now),
  monotonicNow = steady,
  limitsPerAccount = wideAccountLimits,
  hashCost = 4,
  securityStream,
}: AuthOptions = {}) {
  const { log, lines } = collectLog('auth', securityStream)
  const deps = { log, clock, monotonicNow, hashThreads }
  const config = { ...readAuthConfig({ ...base, ...env }), limitsPerAccount }
  // bcrypt's minimum cost, also in production mode, where the settings refuse it; tests about time set another.
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
