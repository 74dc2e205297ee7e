// Deletes dead tokens in the background, in bounded slices. Sweeping never changes which tokens are valid.
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import type { TokenStore } from '../stores/tokenPort.ts'

export type SweepEvent =
  | { type: 'swept'; removed: number; durationMs: number }
  | { type: 'sweep_failed'; cause: unknown }

export interface SweeperOptions {
  store: Pick<TokenStore, 'deleteExpired'>
  /** Pause between the end of one sweep and the start of the next: sweeps never overlap. */
  intervalMs: number
  /** Epoch milliseconds. */
  now: () => number
  /** While it returns false no sweep starts by itself, because a token might be deleted in error. */
  isSteady: () => boolean
  /** Monotonic clock in milliseconds, for durations. */
  monotonicNow: () => number
  emit: (event: SweepEvent) => void
}

const sliceMs = 2 // then yield, so that no request waits longer than this
const restRatio = 4 // the sweeper rests this many times as long as its slices took, so that requests keep the store
const sliceLength = 500 // tokens that one call of the store examines

export type Sweeper = ReturnType<typeof createSweeper>

export function createSweeper({ store, intervalMs, now, isSteady, monotonicNow, emit }: SweeperOptions) {
  let timer: NodeJS.Timeout | null = null
  let running: Promise<number> | null = null
  let isUrgent = false
  let stopped = false
  const stopping = new AbortController()

  async function rest(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: stopping.signal, ref: false }).catch(() => {})
  }

  /**
   * One whole sweep, or the one that is already running. Returns how many tokens it removed; rejects if the store does. It does
   * not rest while a caller waits for it.
   */
  function sweep(): Promise<number> {
    isUrgent = true
    return begin()
  }

  function begin(): Promise<number> {
    running ??= sweepInSlices().finally(() => {
      isUrgent = false
      running = null
    })
    return running
  }

  async function sweepInSlices(): Promise<number> {
    const startedAt = monotonicNow()
    let sliceStartedAt = startedAt
    let removed = 0
    for (let done = false; !done && !stopped; ) {
      const slice = await store.deleteExpired(now(), sliceLength)
      removed += slice.removed
      done = slice.done
      const tookMs = monotonicNow() - sliceStartedAt
      if (done || tookMs < sliceMs) continue
      if (isUrgent) await nextTurn()
      else await rest(tookMs * restRatio)
      sliceStartedAt = monotonicNow()
    }
    emit({ type: 'swept', removed, durationMs: Math.round(monotonicNow() - startedAt) })
    return removed
  }

  function schedule(): void {
    if (stopped) return
    timer = setTimeout(async () => {
      // A failed sweep is reported and tried again, so the loop survives outages of the store.
      if (isSteady()) await begin().catch(cause => emit({ type: 'sweep_failed', cause }))
      schedule()
    }, intervalMs).unref()
  }

  return {
    start: schedule,
    sweep,
    /** Waits for the running slice; no further slice begins. */
    async stop(): Promise<void> {
      stopped = true
      stopping.abort()
      if (timer) clearTimeout(timer)
      await running?.catch(() => {})
    },
  }
}
