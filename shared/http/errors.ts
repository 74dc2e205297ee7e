// The error of the services and the closed table of codes. A code is API: it is sent as `error` and decides the status.
import { TokenError } from '../../packages/client/errors.ts'

/** code -> HTTP status. Add to it rarely: clients switch on the codes. */
export const statusOf = {
  invalid_request: 400,
  invalid_token: 401,
  invalid_credentials: 401,
  forbidden: 403,
  insufficient_scope: 403,
  not_found: 404,
  method_not_allowed: 405,
  conflict: 409,
  too_large: 413,
  unsupported_media_type: 415,
  too_many_requests: 429,
  internal: 500,
  unavailable: 503,
} as const

export type ErrorCode = keyof typeof statusOf

/** `cause` is logged and never sent; `headers` are added to the response. */
export interface AppErrorOptions {
  cause?: unknown
  headers?: Record<string, string>
}

/** An error with a code and a message that the client may see. */
export class AppError extends Error {
  readonly code: ErrorCode
  readonly headers: Record<string, string>

  constructor(code: ErrorCode, message: string, { cause, headers = {} }: AppErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'AppError'
    this.code = code
    this.headers = headers
  }
}

/** An error whose code and message the client may see. */
export type KnownError = AppError | TokenError

export function isKnownError(error: unknown): error is KnownError {
  return error instanceof AppError || error instanceof TokenError
}

/** 429 with a Retry-After header. */
export function tooManyRequests(retryAfterMs: number): AppError {
  const seconds = Math.max(1, Math.ceil(retryAfterMs / 1000))
  const headers = { 'Retry-After': String(seconds) }
  return new AppError('too_many_requests', 'Too many attempts. Try again after the time in Retry-After.', { headers })
}
