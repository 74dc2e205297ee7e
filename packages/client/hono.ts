// Middleware for Hono on Node.js.
import type { MiddlewareHandler } from 'hono'
import type { Admission } from './contract.ts'
import type { Check, Guards, SeenBy } from './guards.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import type { LatchkeyOptions } from './options.ts'

/** The variables of a context behind a guard: `new Hono<AuthEnv>()`, or inferred if it stands in the route. */
export interface AuthEnv {
  Variables: {
    /** Whom the token belongs to. */
    auth: Admission
  }
}

/** Sets the variable `auth` for the handlers behind it. */
export type HonoGuard = MiddlewareHandler<AuthEnv>

export interface HonoLatchkey extends Latchkey, Guards<HonoGuard> {}

export function latchkey(options?: LatchkeyOptions): HonoLatchkey {
  const { auth, guards } = openLatchkey(options)
  const guard =
    (check: Check, seenBy: SeenBy): HonoGuard =>
    async (c, next) => {
      const outcome = await check(c.req.raw, c.res.headers.get('x-request-id') ?? undefined, seenBy(c))
      if (outcome.admission === null) return new Response(outcome.body, outcome)
      for (const [name, value] of Object.entries(outcome.headers)) {
        if (!c.res.headers.has(name)) c.header(name, value)
      }
      c.set('auth', outcome.admission)
      await next()
      return undefined
    }
  return { ...auth, ...guards(guard) }
}
