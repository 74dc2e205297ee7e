// The metric of held tokens: how many open connections depend on this Auth. Hides the window that smooths it.
import { Gauge, type Registry } from '@prometheus-io/client'
import type { AuthEvent } from './events.ts'

const windowSeconds = 10

/** A client looks at each held token once a second, at one Auth of several, so looks per second add up to the held tokens. */
export function countHeld(registry: Registry, monotonicNow: () => number): (event: AuthEvent) => void {
  /** Looks by second, modulo the length: the last ten full seconds and the current one. */
  const looks: number[] = Array(windowSeconds + 1).fill(0)
  let newest = 0

  /** Forgets the seconds that have left the window; returns the index of the current one. */
  function advance(): number {
    const second = Math.floor(monotonicNow() / 1000)
    for (let passed = Math.max(newest, second - looks.length) + 1; passed <= second; passed++) {
      looks[passed % looks.length] = 0
    }
    newest = second
    return second % looks.length
  }

  new Gauge({
    name: 'latchkey_held_tokens',
    help: 'Tokens that open connections of clients hold, as looks per second over the last ten seconds',
    registers: [registry],
    collect() {
      const current = advance()
      const sum = looks.reduce((sum, count, i) => (i === current ? sum : sum + count), 0)
      this.set(Math.round(sum / windowSeconds))
    },
  })

  return event => {
    if (event.type !== 'held') return
    const current = advance()
    looks[current] = (looks[current] as number) + event.count
  }
}
