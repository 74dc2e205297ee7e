// The clock of the tests.
import type { Clock } from '../../services/auth/clock.ts'

/** Stands still until a test advances it. */
export function createClock() {
  let at = 1_800_000_000_000
  return {
    now: () => at,
    advance(ms: number): void {
      at += ms
    },
  }
}

/** A clock that follows no store, because the store's clock stands still for no test. */
export function unfollowed(now: () => number): Clock {
  return { now, whyUncertain: () => null, isSteady: () => true, follow: async () => {}, stop: () => {} }
}
