// Runs the touches of one turn of the event loop in one statement. Calls with few tokens arrive together when many services
// ask, and a commit costs SQLite as much as fifty touches and blocks the event loop meanwhile.
import type { Found, TokenStore } from '../tokenPort.ts'

type Touch = TokenStore['touch']

interface WaitingTouch {
  refs: Parameters<Touch>[0]
  now: number
  result: PromiseWithResolvers<Found[]>
}

/** Touches of tokens with a purpose are rare and not joined. */
export function joinTouches(touch: Touch): Touch {
  let waiting: WaitingTouch[] = []

  function touchWaiting(): void {
    const joined = waiting
    waiting = []
    const now = Math.max(...joined.map(({ now }) => now))
    touch(
      joined.flatMap(({ refs }) => refs),
      now,
      null,
    ).then(
      tokens => {
        let from = 0
        for (const { refs, result } of joined) {
          result.resolve(tokens.slice(from, from + refs.length))
          from += refs.length
        }
      },
      error => {
        for (const { result } of joined) result.reject(error)
      },
    )
  }

  return (refs, now, purpose) => {
    if (purpose !== null) return touch(refs, now, purpose)
    if (waiting.length === 0) setImmediate(touchWaiting)
    const result = Promise.withResolvers<Found[]>()
    waiting.push({ refs, now, result })
    return result.promise
  }
}
