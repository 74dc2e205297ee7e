// The promises that are figures, and whether a run kept them, for both the report and the exit code. Promises about single
// answers are checked by checker.ts.
import type { FaultResult } from './drive.ts'
import type { RestartResult } from './restarts.ts'
import type { SoakResult } from './soak.ts'
import type { StormResult } from './storm.ts'

export interface Promised {
  promise: string
  found: string
  isKept: boolean
}

export const mostRecoveryMs = 2000
/** Business waits one second for a verdict; the other half second allows for a machine shared with twenty clients. */
export const mostDataMs = 1500

export function isKeptUnder({ kind, recoveryMs, slowestDataMs, unavailableMs }: FaultResult): boolean {
  const isInTime = unavailableMs <= (kind.maxUnavailableMs ?? Infinity)
  return recoveryMs !== null && recoveryMs <= mostRecoveryMs && slowestDataMs <= mostDataMs && isInTime
}

export function promisesOfStorm({ burst, aborted, ...storm }: StormResult): Promised[] {
  const { calmP99Ms, stormP99Ms, validations, failed, loginsPerSecond } = storm
  const ratio = stormP99Ms / calmP99Ms
  return [
    {
      promise: 'a storm of log-ins at most triples the p99 of validations',
      found: `${calmP99Ms.toFixed(1)} ms without log-ins, ${stormP99Ms.toFixed(1)} ms while 16 clients log in without a pause (${loginsPerSecond.toFixed(1)} a second): ${ratio.toFixed(1)} times as long`,
      isKept: ratio <= 3,
    },
    {
      promise: 'every validation is answered during a storm',
      found: `${validations - failed} of ${validations} were answered`,
      isKept: failed === 0,
    },
    {
      promise: 'the queue is bounded, and a client that finds it full gets its 503 within a second',
      found: `${burst.logins} log-ins at once: ${inWords(burst.byStatus)}; at most ${burst.longestQueue} waited, the slowest 503 took ${burst.slowest503Ms.toFixed(0)} ms`,
      isKept: burst.longestQueue <= 64 && burst.slowest503Ms <= 1000,
    },
    {
      promise: 'a client that disconnects leaves the queue',
      found: `${aborted.logins} log-ins: ${aborted.queuedBefore} were waiting when their clients disconnected, ${aborted.queuedAfter} a quarter of a second later`,
      isKept: aborted.queuedAfter <= 1,
    },
  ]
}

/** `growth` is the median over the last fifth of the run minus the median over its second fifth. */
export function promisesOfSoak({ growth }: Pick<SoakResult, 'growth'>): Promised[] {
  return (
    [
      ['resident memory of Auth', growth.authMb, 64, ' MB'],
      ['resident memory of Business', growth.businessMb, 64, ' MB'],
      ['open file descriptors of both services', growth.descriptors, 20, ''],
      ['tokens in the store, including dead ones that are not swept yet', growth.tokens, 200, ''],
    ] as const
  ).map(([what, grown, most, unit]) => ({
    promise: `${what}: growth of at most ${most}${unit}`,
    found: `${grown < 0 ? '-' : '+'}${Math.abs(grown).toFixed(1)}${unit}`,
    isKept: grown <= most,
  }))
}

/** While some processes are replaced, the others must answer every request. */
export function isKeptOver({ lost, otherStatuses }: RestartResult): boolean {
  return lost === 0 && Object.keys(otherStatuses).length === 0
}

export function inWords(statuses: Record<string, number>): string {
  return Object.entries(statuses)
    .map(([status, count]) => `${count.toLocaleString('en')} × ${status}`)
    .join(', ')
}
