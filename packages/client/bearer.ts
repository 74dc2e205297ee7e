// Reads the bearer token of a request, and makes the errors for an invalid one (RFC 6750, sections 2.1 and 3) and for one that is
// used too often.
import type { Limitation } from './contract.ts'
import { TokenError } from './errors.ts'

const maxTokenLength = 2048 // characters; a longer token is 401 without a call to Auth
const b64token = /^[A-Za-z0-9\-._~+/]+=*$/ // RFC 6750 section 2.1
const challenge = 'Bearer realm="latchkey"'

/** Whether the string has the syntax of a bearer token (RFC 6750, section 2.1). */
export function isBearerToken(text: string): boolean {
  return text.length <= maxTokenLength && b64token.test(text)
}

/**
 * The token from `Authorization: Bearer <token>` or `token: <token>`, never from a URL or a cookie. Throws `invalid_token` if
 * it is missing or malformed, and `invalid_request` if there are two tokens or two Authorization headers of any scheme.
 */
export function readBearerToken({ rawHeaders: raw }: { rawHeaders: readonly string[] }): string {
  let token: string | null = null
  let count = 0
  let authorizations = 0
  // Not `headers`: Node keeps only the first of two Authorization headers.
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
    throw new TokenError('invalid_request', 'Send the token once: in one Authorization header or in the header token.')
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

/** The same 401 for every invalid token, so that a client cannot learn the reason. */
export function invalidToken(): TokenError {
  return new TokenError('invalid_token', 'The token is missing, unknown, expired or revoked.', {
    'WWW-Authenticate': `${challenge}, error="invalid_token"`,
  })
}

/**
 * For a valid token that is beyond its limits or those of its user. The header `RateLimit` is that of
 * draft-ietf-httpapi-ratelimit-headers: nothing remains, and `t` is in seconds.
 */
export function beyondLimit({ retryAfterMs }: Pick<Limitation, 'retryAfterMs'>): TokenError {
  const seconds = Math.ceil(retryAfterMs / 1000)
  const headers = { 'Retry-After': String(seconds), RateLimit: `"token";r=0;t=${seconds}` }
  return new TokenError(
    'too_many_requests',
    'The token is used too often. Try again after the time in Retry-After.',
    headers,
  )
}
