// Middleware for Koa.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Admission } from './contract.ts'
import type { Check, Guards, SeenBy } from './guards.ts'
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

/** Sets `ctx.state.auth` for the handlers behind it. */
export type KoaGuard = (ctx: KoaContext, next: () => Promise<unknown>) => Promise<void>

export interface KoaLatchkey extends Latchkey, Guards<KoaGuard> {}

export function latchkey(options?: LatchkeyOptions): KoaLatchkey {
  const { auth, guards } = openLatchkey(options)
  const guard =
    (check: Check, seenBy: SeenBy): KoaGuard =>
    async (ctx, next) => {
      const outcome = await check(ctx.req, knownId(ctx.res), seenBy(ctx))
      if (outcome.admission === null) {
        ctx.status = outcome.status
        ctx.body = outcome.body
        ctx.set(outcome.headers)
        return
      }
      setHeaders(ctx.res, outcome.headers)
      ctx.state.auth = outcome.admission
      await next()
    }
  return { ...auth, ...guards(guard) }
}
