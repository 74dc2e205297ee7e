// Counters that all processes of Auth share where there is a Redis, and that each has for itself where there is none or it
// gives no answer: never without a limit, and never waiting for one.

import type { Counter, OpenCounter } from '../../../shared/counters.ts'
import { within } from '../../../shared/deadline.ts'

const answerWithinMs = 150 // several questions of one log-in stay below 300 ms: after one without an answer nobody asks
const awayMs = 1000

const late = () => new Error(`Redis did not answer within ${answerWithinMs} ms`)

export interface CountersOptions {
  /** Null: there is none. */
  shared: OpenCounter | null
  /** Of this process alone. */
  own: OpenCounter
  /** The first failure after an answer. */
  onAway: (cause: unknown) => void
}

export function openCounters({ shared, own, onAway }: CountersOptions): OpenCounter {
  if (shared === null) return own
  let isAway = false
  let isTold = false

  function leave(cause: unknown): void {
    if (isAway) return
    isAway = true
    setTimeout(() => {
      isAway = false
    }, awayMs).unref()
    if (!isTold) onAway(cause)
    isTold = true
  }

  return (name, durationMs) => {
    const [far, near] = [shared(name, durationMs), own(name, durationMs)]

    async function ask<T>(question: (counter: Counter) => Promise<T>): Promise<T> {
      if (isAway) return question(near)
      try {
        const answer = await within(answerWithinMs, question(far), late)
        isTold = false
        return answer
      } catch (cause) {
        leave(cause)
        return question(near)
      }
    }

    return {
      read: key => ask(counter => counter.read(key)),
      add: (key, forMs) => ask(counter => counter.add(key, forMs)),
      extend: (key, byMs) => ask(counter => counter.extend(key, byMs)),
      set: (key, count, forMs) => ask(counter => counter.set(key, count, forMs)),
      forget: key => ask(counter => counter.forget(key)),
    }
  }
}
