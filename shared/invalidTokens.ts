// The limit on invalid tokens per address, which both services have.
import { invalidToken } from '../packages/client/bearer.ts'
import { memoryCounters } from './counters.ts'
import { networkOf } from './http/address.ts'
import { type KnownError, tooManyRequests } from './http/errors.ts'

/** The request that carried an invalid token. */
interface InvalidCaller {
  requestId: string
  address: string
}

export interface InvalidTokens {
  /**
   * Counts an invalid token. Resolves to null, or if the address is above its limit, to the milliseconds until it may try again.
   * Call this only for tokens that were validated and refused, so that a valid token is accepted from any address.
   */
  record(caller: InvalidCaller): Promise<number | null>
}

export interface InvalidTokensOptions {
  /** Maximum number of invalid tokens from one address in a minute. */
  limit: number
  /** Monotonic milliseconds. */
  monotonicNow: () => number
  emit: (event: InvalidCaller & { type: 'rate_limited'; what: 'invalid_tokens'; userId: null }) => void
}

export function limitInvalidTokens({ limit, monotonicNow, emit }: InvalidTokensOptions): InvalidTokens {
  const counter = memoryCounters(monotonicNow)('invalidTokens', 60_000)
  return {
    async record({ requestId, address }) {
      const { count, remainingMs } = await counter.add(networkOf(address))
      if (count <= limit) return null
      emit({ type: 'rate_limited', what: 'invalid_tokens', requestId, address, userId: null })
      return remainingMs
    },
  }
}

/** The error for an invalid token, given the result of `record`: 401, or 429 if the address has sent too many. */
export function invalidTokenError(limitedForMs: number | null): KnownError {
  return limitedForMs === null ? invalidToken() : tooManyRequests(limitedForMs)
}
