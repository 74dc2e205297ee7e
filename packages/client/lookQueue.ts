// When each held token is due for a look: at once, and then once a second. Hides how looks fill calls, and how calls for looks
// alone are spread over the second.

export interface LookQueue<Token> {
  add(token: Token): void
  delete(token: Token): void
  /** At most `places` tokens that are due, the oldest look first. */
  takeDue(now: number, places: number): Token[]
  /** The tokens for a call of their own. Null unless one is overdue and enough time has passed since the last such call. */
  takeForCall(now: number): Token[] | null
}

const everyMs = 1000
const earlyMs = 100 // a call that leaves anyway takes a look along this long before the second is over
const timerSlackMs = 50 // how late a timer may be

/** `maxBatch` is the maximum number of tokens in one call. */
export function createLookQueue<Token>({ maxBatch }: { maxBatch: number }): LookQueue<Token> {
  /** Without a look so far, the oldest first. */
  const unseen = new Set<Token>()
  /** Token -> when its last look began, the oldest first. */
  const seen = new Map<Token, number>()
  /** When the last call of their own was due to leave. */
  let lastCallAt = -Infinity

  /** Takes tokens without a look so far, and those whose last look began no later than `until`. */
  function take(now: number, places: number, until: number): Token[] {
    const taken: Token[] = []
    for (const token of unseen) {
      if (taken.length >= places) break
      taken.push(token)
    }
    for (const [token, lookedAt] of seen) {
      if (taken.length >= places || lookedAt > until) break
      taken.push(token)
    }
    for (const token of taken) {
      unseen.delete(token)
      seen.delete(token) // the entry moves to the end
      seen.set(token, now)
    }
    return taken
  }

  function isOverdue(now: number): boolean {
    if (unseen.size > 0) return true
    for (const lookedAt of seen.values()) return now - lookedAt >= everyMs
    return false
  }

  return {
    add: token => void unseen.add(token),

    delete(token) {
      unseen.delete(token)
      seen.delete(token)
    },

    takeDue: (now, places) => take(now, places, now - everyMs + earlyMs),

    takeForCall(now) {
      // Makes as many calls a second as the tokens fill, evenly spaced: 40 for 10,000 tokens.
      const gapMs = everyMs / Math.max(1, Math.ceil((unseen.size + seen.size) / maxBatch))
      const dueAt = lastCallAt + gapMs
      if (now < dueAt || !isOverdue(now)) return null
      // From the moment at which the call was due, so that late timers do not make the calls fewer. After a pause, the calls
      // that were missed are not made up.
      lastCallAt = now - dueAt >= everyMs ? now : Math.max(dueAt, now - timerSlackMs)
      // The tokens that would be overdue before the next call come along.
      return take(now, maxBatch, now - everyMs + Math.max(0, gapMs - timerSlackMs))
    },
  }
}
