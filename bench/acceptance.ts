// How long a revoked session is still accepted.

export interface Acceptance {
  /** From the answer to the revocation to the last request that was admitted; 0 if none was. */
  acceptedMs: number
  /** Whether a request was refused at last; otherwise the measurement ended first. */
  isOver: boolean
}

export interface PollOptions {
  /** Resolves to whether a request with the revoked session is admitted. */
  isAdmitted: () => Promise<boolean>
  /** The measurement ends after this long. */
  capMs: number
  monotonicNow: () => number
  sleep: (ms: number) => Promise<unknown>
}

/** Call it when the revocation has been answered. */
export async function pollRevoked({ isAdmitted, capMs, monotonicNow, sleep }: PollOptions): Promise<Acceptance> {
  const revokedAt = monotonicNow()
  let acceptedMs = 0
  while (await isAdmitted()) {
    acceptedMs = monotonicNow() - revokedAt
    if (acceptedMs >= capMs) return { acceptedMs, isOver: false }
    // Precise at the beginning, sparing later.
    await sleep(acceptedMs < 1000 ? 5 : 250)
  }
  return { acceptedMs, isOver: true }
}

/** `setting` says how long it can last by a setting, if more than the next request; it is not measured. */
export function describeAcceptance({ acceptedMs, isOver }: Acceptance, setting: string | null): string {
  const seconds = acceptedMs < 10_000 ? (acceptedMs / 1000).toFixed(1) : Math.round(acceptedMs / 1000).toString()
  if (isOver) return acceptedMs === 0 ? 'refused at once' : `${seconds} s`
  return `more than ${seconds} s${setting === null ? '' : `; by its setting ${setting}`}`
}
