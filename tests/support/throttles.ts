// Limits for suites that test something else: they are in force, but too high for clients at 127.0.0.1 to reach.
import { createThrottles } from '../../services/auth/defence/throttles.ts'
import { memoryCounters } from '../../shared/counters.ts'
import { limitInvalidTokens } from '../../shared/invalidTokens.ts'

const many = 1_000_000

export const wideAccountLimits = { freeFailures: many, mailsPerHour: many, hashes: many }
const monotonicNow = () => performance.now()

/** The same limits as settings. */
export const wideLimits = {
  LOGIN_LIMIT_PER_ADDRESS: String(many),
  REGISTRATION_LIMIT_PER_ADDRESS: String(many),
  MAIL_LIMIT_PER_ADDRESS: String(many),
  GUEST_TOKEN_LIMIT_PER_ADDRESS: String(many),
  INVALID_TOKEN_LIMIT_PER_ADDRESS: String(many),
}

export function createWideThrottles() {
  const perAddress = { failures: many, registrations: many, mails: many, guestTokens: many }
  return createThrottles({
    perAccount: wideAccountLimits,
    perAddress,
    openCounter: memoryCounters(monotonicNow),
    emit: () => {},
  })
}

export const wideInvalidTokens = () => limitInvalidTokens({ limit: many, monotonicNow, emit: () => {} })
