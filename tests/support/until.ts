// Waits for a condition, at most as long as a slow machine needs.
import { setTimeout as sleep } from 'node:timers/promises'

/** Calls the function until its result is neither false nor null nor undefined, and resolves to the result. */
export async function until<T>(
  ask: () => Promise<T> | T,
  timeoutMs = 60_000,
): Promise<Exclude<T, false | null | undefined>> {
  for (const deadline = performance.now() + timeoutMs; ; ) {
    const askedAt = performance.now()
    const answer = await ask()
    if (answer !== false && answer !== null && answer !== undefined) {
      return answer as Exclude<T, false | null | undefined>
    }
    const now = performance.now()
    if (now > deadline) throw new Error(`waited for ${timeoutMs} ms: ${ask}`)
    // A question that takes long, such as a process or a connection, must not keep a core busy.
    await sleep(Math.min(100, Math.max(10, 3 * (now - askedAt))))
  }
}
