// Middleware for Express.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Admission } from './contract.ts'
import type { Check, Guards, SeenBy } from './guards.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import { checkNode } from './nodeResponse.ts'
import type { LatchkeyOptions } from './options.ts'

declare global {
  namespace Express {
    interface Request {
      /** Whom the token belongs to. Only behind a guard. */
      auth: Admission
    }
  }
}

/** Sets `req.auth` for the handlers behind it. */
export type ExpressGuard = (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => Promise<void>

export interface ExpressLatchkey extends Latchkey, Guards<ExpressGuard> {}

export function latchkey(options?: LatchkeyOptions): ExpressLatchkey {
  const { auth, guards } = openLatchkey(options)
  const guard =
    (check: Check, seenBy: SeenBy): ExpressGuard =>
    async (req, res, next) => {
      const admission = await checkNode(check, req, res, seenBy(req))
      if (admission === null) return
      Object.assign(req, { auth: admission })
      next()
    }
  return { ...auth, ...guards(guard) }
}
