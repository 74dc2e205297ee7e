// The locks of the internal listener: a key, compared in constant time, before anything else of a request is read.
import { hash, timingSafeEqual } from 'node:crypto'
import { readBearerToken } from '../../../shared/bearer.ts'
import { AppError, statusOf } from '../../../shared/errors.ts'
import type { Context, Handler } from '../../../shared/http.ts'

/** `action` is a method and a route as in the list of routes: what is in the path may be a secret in the wrong place. */
export type KeyEvent =
  | { type: 'key refused'; key: string; reason: 'missing' | 'wrong' }
  | { type: 'admin acted'; action: string; status: number }

type Observe = (event: KeyEvent) => void

/** `name`: of the setting that holds the key. Several are accepted at once, so that they can be rotated. */
export function keyRequirement(name: string, keys: string[], observe: Observe): Handler {
  const digests = keys.map(digestOf)

  return function requireKey(ctx, next) {
    const given = digestOf(readKey(ctx))
    let known = false
    // All of them, always: which key matched shall not show in the time either.
    for (const digest of digests) known = timingSafeEqual(digest, given) || known
    if (!known) {
      observe({ type: 'key refused', key: name, reason: 'wrong' })
      throw new AppError('invalid_token', `A key is needed here: Authorization: Bearer <${name}>.`, {
        headers: { 'WWW-Authenticate': 'Bearer realm="latchkey-internal", error="invalid_token"' },
      })
    }
    ctx.state['by'] = name
    return next()
  }

  function readKey(ctx: Context): string {
    try {
      return readBearerToken(ctx.req)
    } catch (error) {
      observe({ type: 'key refused', key: name, reason: 'missing' })
      throw error
    }
  }
}

/** Everything that is asked with the key of an operator is told, and how it was answered. */
export function adminKeyRequirement(key: string, observe: Observe): Handler {
  const requireKey = keyRequirement('ADMIN_KEY', [key], observe)

  return function requireAdminKey(ctx, next) {
    return requireKey(ctx, async () => {
      const tell = (status: number) => observe({ type: 'admin acted', action: actionOf(ctx), status })
      try {
        await next()
      } catch (error) {
        tell(error instanceof AppError ? statusOf[error.code] : 500)
        throw error
      }
      tell(ctx.status)
    })
  }
}

function actionOf(ctx: Context): string {
  return `${ctx.method} ${String((ctx as { _matchedRoute?: unknown })._matchedRoute)}`
}

function digestOf(key: string): Buffer {
  return hash('sha256', key, 'buffer')
}
