// The log of outages of Auth, and the error that requests without a verdict get.
import { TokenError } from './errors.ts'

/** `console` will do. */
export type ClientLog = Record<'info' | 'warn', (event: string, fields: Record<string, unknown>) => void>

/** Rejects one request. */
export function noVerdictError(): TokenError {
  return new TokenError('unavailable', 'Auth gave no verdict; try again.', { 'Retry-After': '1' })
}

/** Logs once when verdicts stop and once when they resume, so that an outage does not fill the disk. */
export function createOutageLog(log: ClientLog) {
  let isOut = false
  let failedRequests = 0

  function begin(cause: Error): void {
    if (!isOut) log.warn('auth_unavailable', { channel: 'security', cause })
    isOut = true
  }

  return {
    begin,
    noVerdict(requests: number, cause: Error): TokenError {
      begin(cause)
      failedRequests += requests
      return noVerdictError()
    },
    end(): void {
      if (isOut) log.info('auth_recovered', { channel: 'security', failedRequests })
      isOut = false
      failedRequests = 0
    },
  }
}
