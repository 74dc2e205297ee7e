// How often API keys are used, in buckets of a minute and of an hour. Hides that a use is counted before its verdict is returned, so
// the sum of the buckets is exact. Only KEY_USAGE_DAYS needs this file.
import { within } from '../../../shared/deadline.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { type Found, isAdmitted, isApiKey, type TokenStore } from '../stores/tokenPort.ts'
import type { KeyUse, UsageBucket, UsageSpan, UsageStore } from '../stores/usagePort.ts'
import type { Keys } from './keys.ts'
import { canaryPurpose } from './refusals.ts'

export interface KeyUsage {
  /**
   * The buckets that have uses, oldest first. Null if this user has no such key; with a `userId` of null, if no user has it.
   * Delegated tokens have no buckets of their own.
   */
  read(keyId: string, userId: string | null, span: UsageSpan): Promise<UsageBucket[] | null>
}

export interface KeyUsageOptions {
  keys: Pick<Keys, 'find'>
  usage: UsageStore
  /** Epoch milliseconds. */
  now: () => number
}

export function createKeyUsage({ keys, usage, now }: KeyUsageOptions): KeyUsage {
  return {
    async read(keyId, userId, span) {
      const key = await keys.find(keyId, userId)
      return key !== null && isApiKey(key) ? usage.read(key.id, span, now()) : null
    },
  }
}

// Tokens that are not counted wait for the count too, if they share a call with a key. Business makes two calls at a time, each within a
// second, so a request that waited for a free call must still have its answer in time.
const countTimeoutMs = 400

/**
 * The store, but a touch resolves only when its uses of keys are counted. If they cannot be counted within `timeoutMs`, the keys and
 * what was delegated from them are `unavailable`, and every other token has its answer, as a canary has; they may be counted later.
 * The sweep of the tokens also removes old buckets.
 */
export function countingUsage(store: TokenStore, usage: UsageStore, timeoutMs = countTimeoutMs): TokenStore {
  const late = () => new AppError('unavailable', `The usage store did not answer within ${timeoutMs} ms.`)

  return {
    ...store,

    async touch(refs, now, purpose) {
      const found = await store.touch(refs, now, purpose)
      const uses = found.map(useOf)
      const counted = uses.filter(use => use !== null)
      if (counted.length === 0) return found
      try {
        await within(timeoutMs, usage.add(counted, now), late)
        return found
      } catch (error) {
        if (purpose === canaryPurpose) return found // no client waits for this verdict, and the alarm must not be lost
        const answers = found.map((answer, i) => (uses[i] === null ? answer : 'unavailable'))
        if (answers.every(answer => answer === 'unavailable')) throw error
        return answers
      }
    },

    async deleteExpired(now, limit) {
      const isClean = await usage.deleteExpired(now, limit).catch(() => true) // tries again in the next sweep
      const { removed, done } = await store.deleteExpired(now, limit)
      return { removed, done: done && isClean }
    },
  }
}

/** Null if no key was used. */
function useOf(found: Found): KeyUse | null {
  if (!isAdmitted(found)) return null
  if (isApiKey(found)) return { keyId: found.id, isDelegated: false }
  const { parent } = found
  return parent !== null && parent.name !== null ? { keyId: parent.id, isDelegated: true } : null // not of a session
}
