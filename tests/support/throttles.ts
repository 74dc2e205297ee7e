// Limits for suites that are about something else: they count, and nobody from 127.0.0.1 reaches those of an address.
import { createThrottles } from '../../services/auth/defence/throttles.ts'
import { memoryCounters } from '../../shared/counters.ts'
import { limitInvalidTokens } from '../../shared/invalidTokens.ts'

const many = 1_000_000

export const wideAccountLimits = { freeFailures: many, mailsPerHour: many, hashes: many }
const monotonicNow = () => performance.now()

/** Settings to the same end. */
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
    observe: () => {},
  })
}

export const wideInvalidTokens = () => limitInvalidTokens({ limit: many, monotonicNow, observe: () => {} })
