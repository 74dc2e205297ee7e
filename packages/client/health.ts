// Whether one Auth is used: it is ejected when it fails, and readmitted when a probe or a call succeeds. Hides the pauses
// between probes and how often the log mentions an Auth that comes and goes.
import type { ClientLog } from './outageLog.ts'

export interface Health {
  isEjected(): boolean
  /** When a call or a probe failed; null if none has failed yet. */
  failedAt(): number | null
  /** Ejects the Auth. */
  failed(cause: Error): void
  /** Readmits the Auth. */
  succeeded(): void
  /** Probes an ejected Auth when it is time. */
  watch(now: number): void
}

export interface HealthOptions {
  /** How the log names it. */
  address: () => string
  log: ClientLog
  monotonicNow: () => number
  /** Rejects if the Auth gives no verdicts. */
  probe: () => Promise<unknown>
  onReadmitted: () => void
}

const minPauseMs = 100
const maxPauseMs = 2000
const stableAfterMs = 10_000 // an Auth that fails sooner after a readmission is probed less often than the time before
const logEveryMs = 10_000

export function createHealth({ address, log, monotonicNow, probe, onReadmitted }: HealthOptions): Health {
  let ejection: { at: number; probeAt: number; isProbing: boolean; isLogged: boolean } | null = null
  let failedAt: number | null = null
  let readmittedAt = Number.NEGATIVE_INFINITY
  let loggedAt = Number.NEGATIVE_INFINITY
  let pauseMs = minPauseMs

  function failed(cause: Error): void {
    const now = monotonicNow()
    failedAt = now
    if (ejection !== null) return
    pauseMs = now - readmittedAt < stableAfterMs ? Math.min(2 * pauseMs, maxPauseMs) : minPauseMs
    const isLogged = now - loggedAt >= logEveryMs
    ejection = { at: now, probeAt: now + pauseMs, isProbing: false, isLogged }
    if (!isLogged) return
    loggedAt = now
    log.warn('auth_ejected', { channel: 'security', auth: address(), cause })
  }

  function succeeded(): void {
    if (ejection === null) return
    const { at, isLogged } = ejection
    ejection = null
    readmittedAt = monotonicNow()
    if (isLogged)
      log.info('auth_readmitted', { channel: 'security', auth: address(), ejectedMs: Math.round(readmittedAt - at) })
    onReadmitted()
  }

  async function runProbe(current: NonNullable<typeof ejection>): Promise<void> {
    current.isProbing = true
    const isHealthy = await probe().then(
      () => true,
      () => false,
    )
    current.isProbing = false
    if (ejection !== current) return // a call has succeeded meanwhile
    if (isHealthy) {
      succeeded()
      return
    }
    pauseMs = Math.min(2 * pauseMs, maxPauseMs)
    failedAt = monotonicNow()
    current.probeAt = failedAt + pauseMs
  }

  return {
    isEjected: () => ejection !== null,
    failedAt: () => failedAt,
    failed,
    succeeded,
    watch(now) {
      if (ejection !== null && !ejection.isProbing && now >= ejection.probeAt) void runProbe(ejection)
    },
  }
}
