// Middleware for Express.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Admission } from './contract.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import { checkNode } from './nodeResponse.ts'
import type { LatchkeyOptions } from './options.ts'

declare global {
  namespace Express {
    interface Request {
      /** Whom the token belongs to. Only behind `requireToken()`. */
      auth: Admission
    }
  }
}

export interface ExpressLatchkey extends Latchkey {
  /**
   * Admits a request with a live token and sets `req.auth`. Answers others with 400, 401 or 503, in
   * `application/problem+json`.
   */
  requireToken(): (req: IncomingMessage, res: ServerResponse, next: (error?: unknown) => void) => Promise<void>
}

export function latchkey(options?: LatchkeyOptions): ExpressLatchkey {
  const { auth, check } = openLatchkey(options)
  return {
    ...auth,
    requireToken: () => async (req, res, next) => {
      const admission = await checkNode(check, req, res)
      if (admission === null) return
      Object.assign(req, { auth: admission })
      next()
    },
  }
}
