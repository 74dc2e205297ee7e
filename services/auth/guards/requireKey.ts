// Guards of the internal listener: each requires a key, and compares it in constant time before the body is read. Hides how a
// key is sent: as a bearer token, or in HTTP Basic if a standard requires it.
import { hash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { readBearerToken } from '../../../packages/client/bearer.ts'
import { AppError, isKnownError, statusOf } from '../../../shared/http/errors.ts'
import { type Handler, routeOf } from '../../../shared/http/types.ts'
import { setCallerKey } from '../observability/requestContext.ts'
import { readBasicCredentials } from './basicCredentials.ts'

/** `action` is a method and the pattern of a route, because the path itself may contain a secret by mistake. */
export type KeyEvent =
  | { type: 'key_refused'; key: string; reason: 'missing' | 'wrong' }
  | { type: 'admin_action'; action: string; status: number }
  /** `key` is the setting that holds the key. */
  | { type: 'key_used'; key: string }

type Emit = (event: KeyEvent) => void

/** Setting -> the key that it holds. Each of these keys is accepted. */
type AcceptedKeys = Record<string, string>

interface KeyOptions {
  /** The setting that a refusal names. Events for accepted requests name the setting whose key was used. */
  name: string
  keys: AcceptedKeys
  /** Accept a key as the password of HTTP Basic too (RFC 7662 section 2.1). */
  takesBasic?: boolean
  emit: Emit
}

const bearerChallenge = 'Bearer realm="latchkey-internal"'
const basicChallenge = 'Basic realm="latchkey-internal", charset="UTF-8"' // RFC 7617 section 2.1

/** `previous`, if not null, is accepted as well, until every client has `current`. */
export function rotatedKeys(setting: string, current: string, previous: string | null): AcceptedKeys {
  return { [setting]: current, ...(previous !== null && { [`${setting}_PREVIOUS`]: previous }) }
}

export function requireKey({ name, keys, takesBasic = false, emit }: KeyOptions): Handler {
  const digests = Object.entries(keys).map(([setting, key]) => ({ setting, digest: digestOf(key) }))

  return (ctx, next) => {
    let used: string | null = null
    // Compare every pair, so that the time does not show which key matched.
    for (const candidate of readCandidates(ctx.req)) {
      const given = digestOf(candidate)
      for (const { setting, digest } of digests) if (timingSafeEqual(digest, given)) used = setting
    }
    if (used === null) throw refuse('wrong')
    setCallerKey(used)
    emit({ type: 'key_used', key: used })
    return next()
  }

  /** The texts to compare with the keys. Throws if the request has no credentials, or two. */
  function readCandidates(req: IncomingMessage): string[] {
    const basic = takesBasic ? readBasicCredentials(req) : null
    if (basic !== null) return basic.map(({ secret }) => secret)
    try {
      return [readBearerToken(req)]
    } catch (error) {
      if (!isKnownError(error) || error.code !== 'invalid_token') throw error
      const isMissing = !/^bearer /i.test(req.headers.authorization ?? '') && req.headers['token'] === undefined
      throw refuse(isMissing ? 'missing' : 'wrong')
    }
  }

  function refuse(reason: 'missing' | 'wrong'): AppError {
    emit({ type: 'key_refused', key: name, reason })
    const basic = takesBasic ? `, or Basic with any client id as the user name and ${name} as the password` : ''
    // RFC 6750 section 3.1: no error code for a request that carried no credentials.
    const bearer = reason === 'missing' ? bearerChallenge : `${bearerChallenge}, error="invalid_token"`
    return new AppError('invalid_token', `A key is needed here: Authorization: Bearer <${name}>${basic}.`, {
      headers: { 'WWW-Authenticate': takesBasic ? `${bearer}, ${basicChallenge}` : bearer },
    })
  }
}

/** Reports every request that an operator's key admits, with the status of its response. */
export function requireAdminKey(keys: AcceptedKeys, emit: Emit): Handler {
  const admit = requireKey({ name: 'ADMIN_KEY', keys, emit })

  return (ctx, next) => {
    return admit(ctx, async () => {
      const action = `${ctx.method} ${routeOf(ctx)}`
      const report = (status: number) => emit({ type: 'admin_action', action, status })
      try {
        await next()
      } catch (error) {
        report(isKnownError(error) ? statusOf[error.code] : 500)
        throw error
      }
      report(ctx.status)
    })
  }
}

function digestOf(key: string): Buffer {
  return Buffer.from(hash('sha256', key, 'base64url'), 'latin1') // half the cost of a digest as a Buffer
}
