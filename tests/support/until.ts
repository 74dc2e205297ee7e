// Waiting for what comes about by itself, and no longer than it may take.
import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves when `what` does to true. */
export async function until(what: () => Promise<boolean> | boolean, withinMs = 5000): Promise<void> {
  for (const giveUpAt = performance.now() + withinMs; !(await what()); await sleep(10)) {
    if (performance.now() > giveUpAt) throw new Error(`waited for ${withinMs} ms: ${what}`)
  }
}
