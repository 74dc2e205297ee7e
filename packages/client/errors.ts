// The error that the client throws, and the body of the response that reports it.
import { STATUS_CODES } from 'node:http'

/** code -> HTTP status */
const statusOf = {
  invalid_request: 400,
  invalid_token: 401,
  insufficient_scope: 403,
  too_many_requests: 429,
  unavailable: 503,
} as const

/** Why a request is not admitted. The message may be shown to the caller. */
export class TokenError extends Error {
  readonly code: keyof typeof statusOf
  readonly status: number
  /** The headers of the response: `WWW-Authenticate`, `Retry-After` or `RateLimit`. */
  readonly headers: Record<string, string>

  constructor(code: keyof typeof statusOf, message: string, headers: Record<string, string> = {}) {
    super(message)
    this.name = 'TokenError'
    this.code = code
    this.status = statusOf[code]
    this.headers = headers
  }
}

/** The body of an `application/problem+json` response: RFC 9457, plus `error` (the code) and `requestId`. */
export function problemOf(status: number, code: string, detail: string, requestId: string): Record<string, unknown> {
  return { type: 'about:blank', title: STATUS_CODES[status], status, detail, error: code, requestId }
}
