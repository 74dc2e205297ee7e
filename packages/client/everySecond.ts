// Keeps clients from triggering the same question more than once a second.

/** Calls `ask` at most once a second. Callers within that second share its answer. */
export function everySecond<T>(ask: () => Promise<T>, monotonicNow: () => number): () => Promise<T> {
  let last: { askedAt: number; answer: Promise<T> } | null = null
  return () => {
    const now = monotonicNow()
    if (last === null || now - last.askedAt >= 1000) last = { askedAt: now, answer: ask() }
    return last.answer
  }
}
