// Counters that all processes of Auth share through Redis. Each process counts on its own if there is no Redis or Redis does
// not answer, so that there is always a limit and no request waits long for Redis.
import type { Counter, OpenCounter } from '../../../shared/counters.ts'
import { within } from '../../../shared/deadline.ts'

const answerTimeoutMs = 150 // for `downMs` after a timeout, Redis is not asked: a log-in waits less than 300 ms in all
const downMs = 1000

const late = () => new Error(`Redis did not answer within ${answerTimeoutMs} ms`)

export interface CountersOptions {
  /** The counters in Redis; null without Redis. */
  shared: OpenCounter | null
  /** The counters of this process. */
  own: OpenCounter
  /** Called once per outage, for the first failure since Redis last answered. */
  onOutage: (cause: unknown) => void
}

export function createCounters({ shared, own, onOutage }: CountersOptions): OpenCounter {
  if (shared === null) return own
  let isDown = false
  let isReported = false

  function pauseRedis(cause: unknown): void {
    if (isDown) return
    isDown = true
    setTimeout(() => {
      isDown = false
    }, downMs).unref()
    if (!isReported) onOutage(cause)
    isReported = true
  }

  return (name, durationMs) => {
    const [inRedis, inProcess] = [shared(name, durationMs), own(name, durationMs)]

    async function call<T>(use: (counter: Counter) => Promise<T>): Promise<T> {
      if (isDown) return use(inProcess)
      try {
        const answer = await within(answerTimeoutMs, use(inRedis), late)
        isReported = false
        return answer
      } catch (cause) {
        pauseRedis(cause)
        return use(inProcess)
      }
    }

    return {
      read: key => call(counter => counter.read(key)),
      add: (key, forMs) => call(counter => counter.add(key, forMs)),
      extend: (key, byMs) => call(counter => counter.extend(key, byMs)),
      set: (key, count, forMs) => call(counter => counter.set(key, count, forMs)),
      forget: key => call(counter => counter.forget(key)),
    }
  }
}
