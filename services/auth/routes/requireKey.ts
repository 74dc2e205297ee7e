// The keys of the internal listener, checked in constant time before anything else of a request is read.
import { hash, timingSafeEqual } from 'node:crypto'
import { readBearerToken } from '../../../shared/bearer.ts'
import { AppError, statusOf } from '../../../shared/errors.ts'
import type { Context, Handler } from '../../../shared/http.ts'

/** `action` is a method and a route as in the list of routes: what is in the path may be a secret in the wrong place. */
export type KeyEvent =
  | { type: 'key refused'; key: string; reason: 'missing' | 'wrong' }
  | { type: 'admin acted'; action: string; status: number }
  /** `key` is the setting that holds the key. */
  | { type: 'key_used'; key: string }

type Observe = (event: KeyEvent) => void

/** The keys that open something, by the settings that hold them. */
type AcceptedKeys = Record<string, string>

/** `previous`, if there is one, is accepted as well until everything that uses the key has `current`. */
export function rotatedKeys(setting: string, current: string, previous: string | null): AcceptedKeys {
  return { [setting]: current, ...(previous !== null && { [`${setting}_PREVIOUS`]: previous }) }
}

/** `name`: the setting that a refused caller is told to use. The log names the one that was used. */
export function keyRequirement(name: string, keys: AcceptedKeys, observe: Observe): Handler {
  const digests = Object.entries(keys).map(([setting, key]) => ({ setting, digest: digestOf(key) }))

  return function requireKey(ctx, next) {
    const given = digestOf(readKey(ctx))
    // Always compares all keys, so that the time does not show which one matched.
    const [used] = digests.filter(({ digest }) => timingSafeEqual(digest, given))
    if (used === undefined) {
      observe({ type: 'key refused', key: name, reason: 'wrong' })
      throw new AppError('invalid_token', `A key is needed here: Authorization: Bearer <${name}>.`, {
        headers: { 'WWW-Authenticate': 'Bearer realm="latchkey-internal", error="invalid_token"' },
      })
    }
    ctx.state['by'] = used.setting
    observe({ type: 'key_used', key: used.setting })
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

/** Emits an event for each request with an operator's key, with the status of the answer. */
export function adminKeyRequirement(keys: AcceptedKeys, observe: Observe): Handler {
  const requireKey = keyRequirement('ADMIN_KEY', keys, observe)

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
