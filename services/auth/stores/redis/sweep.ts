// The sweep of the Redis store, slice by slice, through all keys, by one process at a time. Redis expires keys by itself; the sweep
// removes dead tokens from keys that others keep alive, and counts. Hides how many keys make a slice, that the round starts again
// after a slice that failed, and how the other processes learn the counts.
import { randomUUID } from 'node:crypto'
import type { EndReason } from '../tokenPort.ts'
import type { Redis } from './connection.ts'
import { sweepEndScript, sweepScript, sweepTurnScript } from './sweepScripts.ts'
import type { CountsByKind, TokenCounts } from './tokenCounts.ts'
import { keyPattern, tagOfKey } from './tokens.ts'

const rememberedPerSlice = 50 // per call, for `explain`: operators ask about few of the tokens that a sweep deletes

type Remember = (id: string, reason: 'expired' | 'ended' | EndReason, at: number) => void

type SweepAnswer = [
  unfinished: number[],
  left: [...CountsByKind, guests: number],
  removed: [key: number, rest: string, expiredAt: number, isGuest: 0 | 1][],
]

/** What the last complete round of any process has left. */
type Published = [round: string, ...CountsByKind, guests: number]

const turnMs = 10_000 // far longer than a slice and the pause after it
const publishedMs = 24 * 3_600_000

/** The returned function examines and removes at most about `limit` tokens; see `TokenStore.deleteExpired`. */
export function createSweep(redis: Redis, counts: TokenCounts, remember: Remember) {
  const { prefix } = redis
  const keys = [`${prefix}sweep{0000}`, `${prefix}counts{0000}`]
  const owner = randomUUID()
  let round: Round | null = null
  let lastPublished = '' // the round whose counts this process has
  let stride = 1 // keys per slice, adjusted so that these keys hold about as many tokens as a slice may examine

  function newRound() {
    counts.beginRound()
    return {
      id: randomUUID(),
      scan: redis.scan(keyPattern(prefix)),
      isAtEnd: false,
      /** Keys found but not yet examined. */
      pending: [] as string[],
      left: [0, 0, 0] as CountsByKind,
      leftGuests: 0,
    }
  }
  type Round = ReturnType<typeof newRound>

  async function nextKeys(current: Round, limit: number): Promise<string[]> {
    if (current.pending.length === 0) {
      const { value } = await current.scan.next()
      if (!value) throw new Error('another slice of this sweep has failed')
      current.pending.push(...value.keys)
      current.isAtEnd = value.isAtEnd
    }
    return current.pending.splice(0, Math.min(stride, limit))
  }

  /** Calls the script with keys on one node. Returns how many tokens it removed, and how many keys it left unfinished. */
  async function sweepKeys(keys: string[], now: number, limit: number, current: Round) {
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

  async function slice(current: Round, now: number, limit: number): Promise<{ removed: number; done: boolean }> {
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
    return { removed, done: current.isAtEnd && current.pending.length === 0 }
  }

  /** Ends the round of this process, and the turn. */
  async function finish({ id, left, leftGuests }: Round): Promise<void> {
    counts.endRound(left, leftGuests)
    round = null
    lastPublished = id
    await redis.call(sweepEndScript, keys, [owner, publishedMs, id, ...left, leftGuests])
  }

  /** Takes over the counts of a round that another process has completed. */
  function learn([id, sliding, fixed, singleUse, guests]: Published): void {
    if (id === lastPublished) return
    lastPublished = id
    counts.endRound([Number(sliding), Number(fixed), Number(singleUse)], Number(guests))
    counts.beginRound()
  }

  async function sweepInTurn(now: number, limit: number): Promise<{ removed: number; done: boolean }> {
    const others = (await redis.call(sweepTurnScript, keys, [owner, turnMs])) as Published | [] | null
    if (others !== null) {
      round = null
      if (others.length > 0) learn(others as Published)
      return { removed: 0, done: true }
    }
    round ??= newRound()
    const current = round
    const { removed, done } = await slice(current, now, limit)
    if (done) await finish(current)
    return { removed, done }
  }

  return async function deleteExpired(now: number, limit: number): Promise<{ removed: number; done: boolean }> {
    try {
      return await redis.run(() => sweepInTurn(now, limit))
    } catch (error) {
      round = null // part of this round may not have been examined
      throw error
    }
  }
}
