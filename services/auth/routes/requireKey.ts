// The lock of the internal listener: a service key, compared in constant time, before anything else of a request is read.
import { hash, timingSafeEqual } from 'node:crypto'
import { readBearerToken } from '../../../shared/bearer.ts'
import { AppError } from '../../../shared/errors.ts'
import type { Handler } from '../../../shared/http.ts'

/** Several keys are accepted at once so that they can be rotated. */
export function keyRequirement(keys: string[]): Handler {
  const digests = keys.map(digestOf)

  return function requireKey(ctx, next) {
    const given = digestOf(readBearerToken(ctx.req))
    let known = false
    // All of them, always: which key matched shall not show in the time either.
    for (const digest of digests) known = timingSafeEqual(digest, given) || known
    if (!known) {
      throw new AppError('invalid_token', 'A service key is needed here: Authorization: Bearer <SERVICE_KEY>.', {
        headers: { 'WWW-Authenticate': 'Bearer realm="latchkey-internal", error="invalid_token"' },
      })
    }
    return next()
  }
}

function digestOf(key: string): Buffer {
  return hash('sha256', key, 'buffer')
}
