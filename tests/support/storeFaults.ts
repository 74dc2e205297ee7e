// What every store owes its callers while its server is away, and after it.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { slackMs } from './slack.ts'

/** By what they are called in a failure. */
export type Calls = Record<string, () => Promise<unknown>>

/** How each went, all at the same time, each within a second; null: as it should. */
export async function outcomesOf(calls: Calls, expected: 'rejected' | 'any'): Promise<(string | null)[]> {
  const startedAt = performance.now()
  return Promise.all(
    Object.entries(calls).map(async ([name, call]) => {
      const outcome = await call().then(
        value => `resolved to ${JSON.stringify(value)}`,
        (error: unknown) => (error instanceof Error ? 'rejected' : `rejected with ${error}`),
      )
      const ms = Math.round(performance.now() - startedAt)
      const isAsExpected = outcome === 'rejected' || (expected === 'any' && outcome.startsWith('resolved'))
      return isAsExpected && ms < 1000 + slackMs ? null : `${name} ${outcome} after ${ms} ms`
    }),
  )
}

/** All at the same time: none of them may be answered, or keep its caller waiting. */
export async function expectAllToReject(calls: Calls): Promise<void> {
  expect((await outcomesOf(calls, 'rejected')).filter(problem => problem !== null)).to.deep.equal([])
}

/** Every call is answered again by then. */
export async function expectRecovery(calls: Calls, withinMs: number): Promise<void> {
  const giveUpAt = performance.now() + withinMs
  for (const [name, call] of Object.entries(calls)) {
    for (;;) {
      const error = await call().then(
        () => null,
        (error: Error) => error,
      )
      if (error === null) break
      expect(performance.now(), `${name}: ${error.message}`).to.be.below(giveUpAt)
      await sleep(10)
    }
  }
}
