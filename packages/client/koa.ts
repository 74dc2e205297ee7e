// Middleware for Koa.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Admission } from './contract.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import { knownId, setHeaders } from './nodeResponse.ts'
import type { LatchkeyOptions } from './options.ts'

/** The state of a context behind `requireToken()`: `new Koa<AuthState>()`. */
export interface AuthState {
  /** Whom the token belongs to. */
  auth: Admission
}

/** The part of a Koa context that is used here. */
export interface KoaContext {
  req: IncomingMessage
  res: ServerResponse
  state: Partial<AuthState>
  status: number
  body: unknown
  set(headers: Record<string, string>): void
}

export interface KoaLatchkey extends Latchkey {
  /**
   * Admits a request with a live token and sets `ctx.state.auth`. Answers others with 400, 401 or 503, in
   * `application/problem+json`.
   */
  requireToken(): (ctx: KoaContext, next: () => Promise<unknown>) => Promise<void>
}

export function latchkey(options?: LatchkeyOptions): KoaLatchkey {
  const { auth, check } = openLatchkey(options)
  return {
    ...auth,
    requireToken: () => async (ctx, next) => {
      const outcome = await check(ctx.req, knownId(ctx.res))
      if (outcome.admission === null) {
        ctx.status = outcome.status
        ctx.body = outcome.body
        ctx.set(outcome.headers)
        return
      }
      setHeaders(ctx.res, outcome.headers)
      ctx.state.auth = outcome.admission
      await next()
    },
  }
}
