// Counters that all Auth processes share, in the Redis of the token store. Hides rate-limiter-flexible and its own
// connection.
import { hash } from 'node:crypto'
import { type RateLimiterAbstract, RateLimiterRedis } from 'rate-limiter-flexible'
import type { Counter, SharedCounters } from '../../../../shared/counters.ts'
import { openRedis } from './connection.ts'
import type { Script } from './scripts.ts'

// Atomic, because with a separate read and write one of two concurrent calls would be lost.
const extendText = `
local left = redis.call('pttl', KEYS[1])
if left > 0 then redis.call('pexpire', KEYS[1], left + tonumber(ARGV[1])) end
`
const extendScript: Script = { text: extendText, sha1: hash('sha1', extendText, 'hex') }

/** Requires the URL of a token store that is already open; warnings about it were reported then. */
export async function openSharedCounters(url: string): Promise<SharedCounters> {
  const { client, prefix, call, close } = await openRedis(url, () => {})
  return {
    open(name, durationMs) {
      const keyPrefix = `${prefix}limit:${name}`
      const duration = durationMs / 1000
      const limiter = new RateLimiterRedis({
        storeClient: client,
        useRedisPackage: true,
        keyPrefix,
        points: 1,
        duration,
      })
      return {
        ...counterOf(limiter),
        async extend(key, byMs) {
          await call(extendScript, [limiter.getKey(key)], [byMs])
        },
      }
    },
    close,
  }
}

/** Uses the limiter only to count; it never refuses. */
function counterOf(limiter: RateLimiterAbstract): Omit<Counter, 'extend'> {
  return {
    async read(key) {
      const found = await limiter.get(key)
      return found ? { count: found.consumedPoints, remainingMs: found.msBeforeNext } : { count: 0, remainingMs: 0 }
    },
    async add(key, forMs) {
      const options = forMs === undefined ? {} : { customDuration: forMs / 1000 }
      const { consumedPoints: count, msBeforeNext: remainingMs } = await limiter.penalty(key, 1, options)
      return { count, remainingMs }
    },
    async set(key, count, forMs) {
      await limiter.set(key, count, forMs === undefined ? limiter.duration : forMs / 1000)
    },
    async forget(key) {
      await limiter.delete(key)
    },
  }
}
