// The order of the checks. They follow docs/http-api.md, and create and revoke their own sessions, but change nothing else.

import { checkAddresses, checkReadiness } from './addressChecks.ts'
import type { SmokeTimes } from './client.ts'
import { checkInternal, checkInternalIsClosed } from './internalChecks.ts'
import { checkLogin } from './loginChecks.ts'
import { checkBadRequests, checkRequestsWithoutToken } from './refusalChecks.ts'
import { checkCors, checkDocuments, checkEveryResponse } from './responseChecks.ts'
import { type Outcome, openRun, type Target } from './run.ts'
import { checkSession } from './sessionChecks.ts'

export type { Outcome, Target }

/** Resolves when everything has been reported. */
export async function runChecks(
  target: Target,
  report: (outcome: Outcome, title: string, seen: string) => void,
  times?: SmokeTimes,
): Promise<void> {
  const run = openRun(target, report, times)
  try {
    if (!(await checkAddresses(run))) return
    const isReady = await checkReadiness(run)
    await checkRequestsWithoutToken(run, isReady)
    await checkBadRequests(run)
    await checkLogin(run)
    if (target.user !== null) await checkSession(run, target.user, isReady)
    else {
      run.skip(
        'with a token: /data, sliding, sessions, renewal, revocation',
        'give --username and --password to check this',
      )
    }
    await checkInternalIsClosed(run)
    if (target.internal !== null) await checkInternal(run, target.internal)
    else run.skip('the internal listener', 'give --internal to check this')
    await checkDocuments(run)
    await checkCors(run)
    await checkEveryResponse(run)
  } finally {
    await run.close()
  }
}
