// The clock of the tests.

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
