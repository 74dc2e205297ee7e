// The instants that Auth goes by: those of the machine's clock, but they never go back. Hides that such a clock is set.

/**
 * Epoch milliseconds. Where `wallNow` goes back this goes on by `monotonicNow`, until the other is ahead again: what has
 * expired stays expired, and nothing lives longer. Where it jumps ahead this does too: at worst sessions end early.
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
