// The errors that the client reports. A Koa, Express or Fastify service answers with `code`, `status` and `headers`.

/** code -> HTTP status */
const statusOf = { invalid_request: 400, invalid_token: 401, unavailable: 503 } as const

/** Why a request is not admitted. The message may be shown to the caller. */
export class TokenError extends Error {
  readonly code: keyof typeof statusOf
  readonly status: number
  /** For the answer: `WWW-Authenticate` or `Retry-After`. */
  readonly headers: Record<string, string>

  constructor(code: keyof typeof statusOf, message: string, headers: Record<string, string> = {}) {
    super(message)
    this.name = 'TokenError'
    this.code = code
    this.status = statusOf[code]
    this.headers = headers
  }
}
