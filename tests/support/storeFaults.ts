// What every store must do while its server is down, and afterwards.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { slackMs } from './slack.ts'
import { until } from './until.ts'

/** Calls by the name that a failure message shows. */
export type Calls = Record<string, () => Promise<unknown>>

/** Runs all calls at the same time. Null for each call that ended as expected within a second, otherwise what happened. */
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

/** Runs all calls at the same time; each must reject within a second. */
export async function expectAllToReject(calls: Calls): Promise<void> {
  expect((await outcomesOf(calls, 'rejected')).filter(problem => problem !== null)).to.deep.equal([])
}

/** Runs all calls at the same time, repeatedly until all succeed: on a busy machine the first calls can miss their deadline. */
export async function untilAllSucceed(calls: Calls): Promise<void> {
  await until(async () => {
    const outcomes = await Promise.allSettled(Object.values(calls).map(call => call()))
    return outcomes.every(({ status }) => status === 'fulfilled')
  })
}

/** Repeats the calls until all are answered, at most for `timeoutMs`. */
export async function expectRecovery(calls: Calls, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs
  for (const [name, call] of Object.entries(calls)) {
    for (;;) {
      const error = await call().then(
        () => null,
        (error: Error) => error,
      )
      if (error === null) break
      expect(performance.now(), `${name}: ${error.message}`).to.be.below(deadline)
      await sleep(10)
    }
  }
}
