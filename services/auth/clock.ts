// The clock that Auth uses: the machine's wall clock, except that it never goes back. Hides adjustments of the wall
// clock.
/**
 * Returns epoch milliseconds. If `wallNow` goes back, advances with `monotonicNow` until the wall clock has caught up,
 * so that expired tokens stay expired and no token lives longer. If `wallNow` jumps ahead, follows it: at worst,
 * sessions end early.
 */
export function steadyClock(wallNow: () => number, monotonicNow: () => number): () => number {
  let at = wallNow()
  let readAt = monotonicNow()
  return () => {
    const elapsedMs = monotonicNow() - readAt
    readAt += elapsedMs
    at = Math.max(wallNow(), at + elapsedMs)
    return Math.floor(at)
  }
}
