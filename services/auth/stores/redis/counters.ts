// Counters that all Auth processes share, in the Redis of the token store, over a connection of their own.
import type { SharedCounters } from '../../../../shared/counters.ts'
import { openRedis, scriptOf } from './connection.ts'

// Each script is one atomic step: with a separate read and write, one of two concurrent changes could be lost.
const readScript = scriptOf(`return {redis.call('get', KEYS[1]), redis.call('pttl', KEYS[1])}`)

/** args: the expiry in milliseconds if the key is new. */
const addScript = scriptOf(`
local count = redis.call('incr', KEYS[1])
if count == 1 then redis.call('pexpire', KEYS[1], ARGV[1]) end
return {count, redis.call('pttl', KEYS[1])}
`)

/** args: milliseconds. */
const extendScript = scriptOf(`
local left = redis.call('pttl', KEYS[1])
if left > 0 then redis.call('pexpire', KEYS[1], left + tonumber(ARGV[1])) end
`)

/** Requires the URL of a token store that is already open: opening it has reported any warnings about the server. */
export async function openSharedCounters(url: string): Promise<SharedCounters> {
  const redis = await openRedis(url, { warn: () => {}, onReplaced: async () => {} })
  const { prefix, call, close } = redis
  return {
    open(name, durationMs) {
      const keyOf = (key: string) => `${prefix}limit:${name}:${key}`
      return {
        async read(key) {
          const [count, remainingMs] = (await call(readScript, [keyOf(key)], [])) as [string | null, number]
          return count === null ? { count: 0, remainingMs: 0 } : { count: Number(count), remainingMs }
        },

        async add(key, forMs = durationMs) {
          const [count, remainingMs] = (await call(addScript, [keyOf(key)], [forMs])) as [number, number]
          return { count, remainingMs }
        },

        async extend(key, byMs) {
          await call(extendScript, [keyOf(key)], [byMs])
        },

        async set(key, count, forMs = durationMs) {
          await redis.client.set(keyOf(key), String(count), { expiration: { type: 'PX', value: forMs } })
        },

        async forget(key) {
          await redis.client.del(keyOf(key))
        },
      }
    },
    close,
  }
}
