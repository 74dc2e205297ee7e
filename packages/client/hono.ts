// Middleware for Hono on Node.js.
import type { MiddlewareHandler } from 'hono'
import type { Admission } from './contract.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import type { LatchkeyOptions } from './options.ts'

/** The variables of a context behind `requireToken()`: `new Hono<AuthEnv>()`, or inferred if it stands in the route. */
export interface AuthEnv {
  Variables: {
    /** Whom the token belongs to. */
    auth: Admission
  }
}

export interface HonoLatchkey extends Latchkey {
  /**
   * Admits a request with a live token and sets the variable `auth`. Answers others with 400, 401 or 503, in
   * `application/problem+json`.
   */
  requireToken(): MiddlewareHandler<AuthEnv>
}

export function latchkey(options?: LatchkeyOptions): HonoLatchkey {
  const { auth, check } = openLatchkey(options)
  return {
    ...auth,
    requireToken: () => async (c, next) => {
      const outcome = await check(c.req.raw, c.res.headers.get('x-request-id') ?? undefined)
      if (outcome.admission === null) return new Response(outcome.body, outcome)
      for (const [name, value] of Object.entries(outcome.headers)) {
        if (!c.res.headers.has(name)) c.header(name, value)
      }
      c.set('auth', outcome.admission)
      await next()
      return undefined
    },
  }
}
