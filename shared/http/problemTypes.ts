// Problem documents (RFC 9457), and what each error code means, for the page that the `type` of a document leads to.
// docs/http-api.md has the same sentences.
import type { ErrorCode } from './errors.ts'

interface ProblemType {
  title: string
  means: string
  /** What the developer of a client can do. */
  remedy: string
}

export const problemTypes: Record<ErrorCode, ProblemType> = {
  invalid_request: {
    title: 'Invalid request',
    means: 'not well-formed; `detail` says what is expected',
    remedy: 'Change the request as `detail` says. The same request will fail again.',
  },
  invalid_token: {
    title: 'Invalid token',
    means: 'no token, or one that this route refuses',
    remedy:
      'Log in again, and send the new token in `Authorization: Bearer`. The token may be missing, unknown, expired or revoked; the answer does not say which. The log of Auth does: look for the `requestId`.',
  },
  invalid_credentials: {
    title: 'Invalid credentials',
    means: 'wrong username or password',
    remedy: 'Ask the user again. More wrong passwords make the next attempts wait.',
  },
  forbidden: {
    title: 'Forbidden',
    means: 'not allowed for this client or address (`ALLOWED_ADDRESSES`, `DENIED_ADDRESSES`), or not over https',
    remedy: 'Send the request over https. If `detail` says something else, ask the operator.',
  },
  insufficient_scope: {
    title: 'Insufficient scope',
    means:
      'the token is live, but its user lacks a role, or it lacks a scope; `detail` says which, and `WWW-Authenticate` names the scope',
    remedy: 'Ask the operator for the role, or use a token with this scope. A new log-in does not help.',
  },
  not_found: {
    title: 'Not found',
    means: 'nothing at this path; paths are exact, in case and in slashes',
    remedy:
      'Compare the path with the description of this listener, `/openapi.json`. An id in it may belong to something that has ended.',
  },
  method_not_allowed: {
    title: 'Method not allowed',
    means: '`Allow` lists the methods of this path',
    remedy: 'Use one of the methods in the header `Allow`.',
  },
  conflict: {
    title: 'Conflict',
    means: 'it already exists, or a concurrent request changed it',
    remedy: 'Read the current state, then decide whether to send the request again.',
  },
  too_large: {
    title: 'Body too large',
    means: 'the body is larger than this route accepts',
    remedy: 'Send less, or split the request into several.',
  },
  unsupported_media_type: {
    title: 'Unsupported media type',
    means: 'this route refuses this type, charset or encoding',
    remedy: 'Send JSON in UTF-8, uncompressed, with `Content-Type: application/json`.',
  },
  too_many_requests: {
    title: 'Too many requests',
    means: 'slow down; `Retry-After` says how long to wait',
    remedy: 'Wait for the seconds in `Retry-After`. Earlier attempts are refused too.',
  },
  internal: {
    title: 'Internal error',
    means: 'a fault in the service',
    remedy: 'Give the operator the `requestId`: the log has the cause under it.',
  },
  unavailable: {
    title: 'Unavailable',
    means: 'the service is closing or too busy, or a dependency does not answer; `Retry-After` says how long to wait',
    remedy: 'Send the request again after the seconds in `Retry-After`. If it was a change, it may have been made.',
  },
}

/** RFC 9457, section 3.1.1: a relative reference with the full path, so that it leads to a page under any address (D-266). */
export const typeOf = (code: ErrorCode) => `/problems/${code}`

/** The body of an `application/problem+json` response: RFC 9457, plus `error` (the code) and `requestId`. */
export function problemDocument(status: number, code: ErrorCode, detail: string, requestId: string) {
  return { type: typeOf(code), title: problemTypes[code].title, status, detail, error: code, requestId }
}
