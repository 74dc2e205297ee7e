// The locks of the internal listener: a key, compared in constant time, before anything else of a request is read.
import { hash, timingSafeEqual } from 'node:crypto'
import { readBearerToken } from '../../../shared/bearer.ts'
import { AppError } from '../../../shared/errors.ts'
import type { Handler } from '../../../shared/http.ts'

/** `name`: of the setting that holds the key. Several are accepted at once, so that they can be rotated. */
export function keyRequirement(name: string, keys: string[]): Handler {
  const digests = keys.map(digestOf)

  return function requireKey(ctx, next) {
    const given = digestOf(readBearerToken(ctx.req))
    let known = false
    // All of them, always: which key matched shall not show in the time either.
    for (const digest of digests) known = timingSafeEqual(digest, given) || known
    if (!known) {
      throw new AppError('invalid_token', `A key is needed here: Authorization: Bearer <${name}>.`, {
        headers: { 'WWW-Authenticate': 'Bearer realm="latchkey-internal", error="invalid_token"' },
      })
    }
    return next()
  }
}

function digestOf(key: string): Buffer {
  return hash('sha256', key, 'buffer')
}
