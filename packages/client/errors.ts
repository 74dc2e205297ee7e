// The error that the client throws. A service answers with its `code`, `status` and `headers`.

/** code -> HTTP status */
const statusOf = { invalid_request: 400, invalid_token: 401, unavailable: 503 } as const

/** Why a request is not admitted. The message may be shown to the caller. */
export class TokenError extends Error {
  readonly code: keyof typeof statusOf
  readonly status: number
  /** The headers of the response: `WWW-Authenticate` or `Retry-After`. */
  readonly headers: Record<string, string>

  constructor(code: keyof typeof statusOf, message: string, headers: Record<string, string> = {}) {
    super(message)
    this.name = 'TokenError'
    this.code = code
    this.status = statusOf[code]
    this.headers = headers
  }
}
