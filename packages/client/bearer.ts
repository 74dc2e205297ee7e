// Where a bearer token may stand in a request, and what a 401 says about it (RFC 6750 sections 2.1 and 3).
import type { IncomingMessage } from 'node:http'
import { TokenError } from './errors.ts'

const maxTokenLength = 2048 // characters; contract.md: a longer one is 401 without asking anybody
const b64token = /^[A-Za-z0-9\-._~+/]+=*$/ // RFC 6750 section 2.1
const challenge = 'Bearer realm="latchkey"'

/** RFC 6750 section 2.1: a string that could be a bearer token of anybody's. */
export function isBearerToken(text: string): boolean {
  return text.length <= maxTokenLength && b64token.test(text)
}

/**
 * The token in `Authorization: Bearer <token>` or in `token: <token>`; never from a URL or a cookie.
 * Throws `invalid_token` where there is none or an ill-formed one, `invalid_request` where there are two, or two headers
 * Authorization of whatever scheme.
 */
export function readBearerToken(req: IncomingMessage): string {
  let token: string | null = null
  let count = 0
  let authorizations = 0
  // Not req.headers: Node keeps only the first of two Authorization headers.
  const raw = req.rawHeaders
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    if (name.length === 13 && name.toLowerCase() === 'authorization') {
      authorizations++
      const credentials = raw[i + 1] as string
      if (!/^bearer /i.test(credentials)) continue
      token = credentials.slice(7)
      count++
    } else if (name.length === 5 && name.toLowerCase() === 'token') {
      token = raw[i + 1] as string
      count++
    }
  }
  if (count > 1 || authorizations > 1) {
    throw new TokenError('invalid_request', 'Send the token once: in one Authorization or in the header token.')
  }
  if (token === null) {
    // RFC 6750 section 3.1: no error code for a request that carried no credentials.
    throw new TokenError(
      'invalid_token',
      'A bearer token is needed: Authorization: Bearer <token>, or token: <token>.',
      { 'WWW-Authenticate': challenge },
    )
  }
  if (!isBearerToken(token)) throw invalidToken()
  return token
}

/** The one 401 for every token that opens nothing, whatever the reason: a client learns no more than that. */
export function invalidToken(): TokenError {
  return new TokenError('invalid_token', 'The token is missing, unknown, expired or revoked.', {
    'WWW-Authenticate': `${challenge}, error="invalid_token"`,
  })
}
