// Counters in the Redis of the tokens, for all processes of Auth: rate-limiter-flexible over a connection of their own.
import { type RateLimiterAbstract, RateLimiterRedis } from 'rate-limiter-flexible'
import type { Counter, SharedCounters } from '../../../shared/limits.ts'
import { openRedis } from './redisServer.ts'

/** Of the URL of a token store that has been opened before: what is wrong with it was told then. */
export async function openSharedCounters(url: string): Promise<SharedCounters> {
  const { client, prefix, close } = await openRedis(url, () => {})
  return {
    open(name, durationMs) {
      const keyPrefix = `${prefix}limit:${name}`
      const duration = durationMs / 1000
      return counterOf(
        new RateLimiterRedis({ storeClient: client, useRedisPackage: true, keyPrefix, points: 1, duration }),
      )
    },
    close,
  }
}

/** Points are never used up, only counted. */
function counterOf(limiter: RateLimiterAbstract): Counter {
  return {
    async read(key) {
      const found = await limiter.get(key)
      return found ? { count: found.consumedPoints, ms: found.msBeforeNext } : { count: 0, ms: 0 }
    },
    async add(key, forMs) {
      const options = forMs === undefined ? {} : { customDuration: forMs / 1000 }
      const { consumedPoints: count, msBeforeNext: ms } = await limiter.penalty(key, 1, options)
      return { count, ms }
    },
    async put(key, count) {
      await limiter.set(key, count, limiter.duration)
    },
    async forget(key) {
      await limiter.delete(key)
    },
  }
}
