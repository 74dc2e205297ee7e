// The sweep of the Redis store, slice by slice, through all keys. Hides how many keys make a slice, and that the round starts
// again after a slice that failed.
import type { EndReason } from '../ports.ts'
import type { Redis } from './connection.ts'
import { sweepScript } from './scripts.ts'
import type { CountsByKind, TokenCounts } from './tokenCounts.ts'
import { keyPattern, tagOfKey } from './tokens.ts'

const rememberedPerSlice = 50 // per call, for `explain`: operators ask about few of the tokens that a sweep deletes

type Remember = (id: string, reason: 'expired' | 'ended' | EndReason, at: number) => void

type SweepAnswer = [
  unfinished: number[],
  left: [...CountsByKind, guests: number],
  removed: [key: number, rest: string, expiredAt: number, isGuest: 0 | 1][],
]

/** The returned function examines and removes at most about `limit` tokens; see `TokenStore.deleteExpired`. */
export function createSweep(redis: Redis, counts: TokenCounts, remember: Remember) {
  const { prefix } = redis
  let round = newRound()
  let stride = 1 // keys per slice, adjusted so that these keys hold about as many tokens as a slice may examine

  function newRound() {
    counts.beginRound()
    return {
      scan: redis.scan(keyPattern(prefix)),
      isAtEnd: false,
      /** Keys found but not yet examined. */
      pending: [] as string[],
      left: [0, 0, 0] as CountsByKind,
      leftGuests: 0,
    }
  }

  async function nextKeys(current: typeof round, limit: number): Promise<string[]> {
    if (current.pending.length === 0) {
      const { value } = await current.scan.next()
      if (!value) throw new Error('another slice of this sweep has failed')
      current.pending.push(...value.keys)
      current.isAtEnd = value.isAtEnd
    }
    return current.pending.splice(0, Math.min(stride, limit))
  }

  /** Calls the script with keys on one node. Returns how many tokens it removed, and how many keys it left unfinished. */
  async function sweepKeys(keys: string[], now: number, limit: number, current: typeof round) {
    const [more, left, gone] = (await redis.call(sweepScript, keys, [now, limit])) as SweepAnswer
    current.pending.push(...more.map(i => keys[i - 1] as string))
    for (const kind of [0, 1, 2] as const) current.left[kind] += left[kind]
    current.leftGuests += left[3]
    for (const [i, rest, expiredAt] of gone.slice(0, rememberedPerSlice)) {
      remember(tagOfKey(prefix, keys[i - 1] as string) + rest, expiredAt > 0 ? 'expired' : 'ended', expiredAt)
    }
    counts.swept(gone.length, gone.filter(([, , , isGuest]) => isGuest).length)
    return { removed: gone.length, unfinished: more.length }
  }

  async function slice(now: number, limit: number): Promise<{ removed: number; done: boolean }> {
    const current = round
    const keys = await nextKeys(current, limit)
    const groups = redis.together(keys)
    const results = await Promise.all(
      groups.map(places => {
        const swept = places.map(place => keys[place] as string)
        return sweepKeys(swept, now, Math.floor(limit / groups.length), current)
      }),
    )
    const removed = results.reduce((sum, result) => sum + result.removed, 0)
    const unfinished = results.reduce((sum, result) => sum + result.unfinished, 0)
    stride = unfinished > 0 ? Math.max(keys.length - unfinished, 1) : Math.min(stride * 2, limit)
    const done = current.isAtEnd && current.pending.length === 0
    if (done) counts.endRound(current.left, current.leftGuests)
    return { removed, done }
  }

  return async function deleteExpired(now: number, limit: number): Promise<{ removed: number; done: boolean }> {
    if (round.isAtEnd && round.pending.length === 0) round = newRound()
    try {
      return await redis.run(() => slice(now, limit))
    } catch (error) {
      round = newRound() // part of this round may not have been examined
      throw error
    }
  }
}
