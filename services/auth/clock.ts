// The time by which tokens live and die: that of the token store if the store has a clock, otherwise the machine's. Hides
// clocks that are wrong, clocks that are set while Auth runs, and machines that were suspended.

import type { TokenStore } from './stores/tokenPort.ts'

export interface Clock {
  /** Epoch milliseconds. Never goes back, except to undo a jump ahead that was an error. */
  now(): number
  /** Null if the time is known, otherwise the reason as a sentence; then no verdict may depend on the time. */
  whyUncertain(): string | null
  /** False for a minute after the time has jumped ahead: the jump may be an error, so no token is deleted for its age. */
  isSteady(): boolean
  /** Follows the store's clock from now on. Resolves after the first reading, or the first failure to read. */
  follow(source: TimeSource): Promise<void>
  stop(): void
}

export interface TimeSource {
  /** Epoch milliseconds by the store's clock; null if it has none of its own. */
  read(): Promise<number | null>
  /** If the machine's clock differs by more, one of the two is wrong, and the time is uncertain. */
  maxSkewMs: number
  emit: (event: ClockEvent) => void
}

export type ClockEvent =
  | { type: 'clock_uncertain'; problem: string }
  | { type: 'clock_certain' }
  /** `skewMs`: how far the machine's clock is ahead of the store's. */
  | { type: 'clock_compared'; skewMs: number }

const jumpMs = 1000 // a larger difference between the wall clock and the monotonic clock is a jump, not drift
const steadyAfterMs = 60_000
const readEveryMs = 60_000
const retryEveryMs = 1000 // while the time is uncertain

/**
 * Both arguments return milliseconds, of the wall clock since the epoch. A jump of the wall clock makes the time uncertain
 * until the store's clock has been read, which is done at once.
 */
export function createClock(wallNow: () => number, monotonicNow: () => number): Clock {
  const timeline = createTimeline(wallNow(), monotonicNow)
  let source: TimeSource | null = null
  let problem: string | null = null
  /** How far the wall clock was ahead of the monotonic one when the store's clock was last read. */
  let lead = 0
  let readAt = Number.NEGATIVE_INFINITY
  let reading: Promise<void> | null = null
  let hasRead = false
  let timer: NodeJS.Timeout | undefined

  const leadNow = () => wallNow() - monotonicNow()

  function setProblem(found: string | null): void {
    if (found !== null && found !== problem) source?.emit({ type: 'clock_uncertain', problem: found })
    if (found === null && problem !== null) source?.emit({ type: 'clock_certain' })
    problem = found
  }

  /** One reading at a time. Never rejects: after a failure the time stays as certain as it was. */
  function compare(): Promise<void> {
    reading ??= readStore()
      .catch(() => {})
      .finally(() => {
        reading = null
      })
    return reading
  }

  async function readStore(): Promise<void> {
    if (source === null) return
    const [askedAt, leadBefore] = [monotonicNow(), leadNow()]
    const answer = await source.read()
    if (answer === null) {
      source = null
      problem = null
      return
    }
    const tookMs = monotonicNow() - askedAt
    // A reading during a jump, or one that took long, says little; it is repeated.
    if (Math.abs(leadNow() - leadBefore) > jumpMs || tookMs > source.maxSkewMs) return
    const storeNow = answer + tookMs / 2
    const skewMs = Math.round(wallNow() - storeNow)
    source.emit({ type: 'clock_compared', skewMs })
    lead = leadNow()
    readAt = monotonicNow()
    if (Math.abs(skewMs) > source.maxSkewMs) {
      setProblem(
        `The clocks of Auth and of the token store differ by ${Math.abs(skewMs)} ms (Auth is ${skewMs > 0 ? 'ahead' : 'behind'}); at most ${source.maxSkewMs} ms are allowed.`,
      )
      return
    }
    if (hasRead) timeline.read(storeNow, source.maxSkewMs)
    else timeline.reset(storeNow)
    hasRead = true
    setProblem(null)
  }

  function noticeJump(): void {
    if (source === null || problem !== null || Math.abs(leadNow() - lead) <= jumpMs) return
    setProblem('The clock of this machine has jumped, or the machine was suspended.')
    void compare()
  }

  return {
    now() {
      if (source === null) timeline.read(wallNow(), 0)
      return timeline.now()
    },

    whyUncertain() {
      noticeJump()
      return problem
    },

    isSteady: () => timeline.isSteady(),

    async follow(given) {
      source = given
      problem = 'The clock of the token store has not been read yet.'
      timer = setInterval(() => {
        if (problem !== null || monotonicNow() - readAt >= readEveryMs) void compare()
      }, retryEveryMs).unref()
      await compare()
      if (source === null) clearInterval(timer)
    },

    stop: () => clearInterval(timer),
  }
}

interface Line {
  at: number
  monotonicAt: number
}

/** The time between two readings advances with the monotonic clock. */
function createTimeline(start: number, monotonicNow: () => number) {
  let line: Line = { at: start, monotonicAt: monotonicNow() }
  /** What the time was before it last jumped ahead. */
  let before: Line | null = null
  let jumpedAt = Number.NEGATIVE_INFINITY
  let last = 0

  const timeOf = ({ at, monotonicAt }: Line) => at + monotonicNow() - monotonicAt

  function reset(reading: number): void {
    line = { at: reading, monotonicAt: monotonicNow() }
    before = null
    last = 0
  }

  return {
    reset,

    now(): number {
      last = Math.max(last, Math.floor(timeOf(line)))
      return last
    },

    isSteady: () => monotonicNow() - jumpedAt >= steadyAfterMs,

    /**
     * `reading` is the time by some clock. If it is behind by at most `toleranceMs`, the time stands still until it has caught
     * up. If it is further behind it is ignored, so that dead tokens stay dead, unless it continues the time before the last
     * jump: then the jump was an error.
     */
    read(reading: number, toleranceMs: number): void {
      const aheadMs = reading - timeOf(line)
      if (aheadMs > jumpMs) {
        ;[before, jumpedAt] = [line, monotonicNow()]
        line = { at: reading, monotonicAt: jumpedAt }
      } else if (aheadMs >= -toleranceMs) {
        line = { at: reading, monotonicAt: monotonicNow() }
      } else if (before !== null && Math.abs(reading - timeOf(before)) <= jumpMs) {
        reset(reading)
      }
    },
  }
}

/** The store, but a call whose result depends on the time rejects while the time is uncertain. Tokens can still be ended. */
export function refuseWhileUncertain(store: TokenStore, clock: Clock): TokenStore {
  const whenCertain =
    <Args extends unknown[], Result>(call: (...args: Args) => Promise<Result>) =>
    (...args: Args): Promise<Result> => {
      const problem = clock.whyUncertain()
      return problem === null ? call(...args) : Promise.reject(new Error(problem))
    }
  return {
    ...store,
    insert: whenCertain(store.insert),
    touch: whenCertain(store.touch),
    touchSession: whenCertain(store.touchSession),
    look: whenCertain(store.look),
    renew: whenCertain(store.renew),
    deleteExpired: whenCertain(store.deleteExpired),
  }
}
