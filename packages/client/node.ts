// A wrapper for request handlers of node:http.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Admission } from './contract.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import { checkNode } from './nodeResponse.ts'
import type { LatchkeyOptions } from './options.ts'

/** `auth`: whom the token belongs to. */
export type AuthenticatedRequest = IncomingMessage & { auth: Admission }

export interface NodeLatchkey extends Latchkey {
  /**
   * Returns a handler that calls `handler` for a request with a live token. Answers others with 400, 401 or 503, in
   * `application/problem+json`.
   */
  requireToken(
    handler: (req: AuthenticatedRequest, res: ServerResponse) => unknown,
  ): (req: IncomingMessage, res: ServerResponse) => Promise<void>
}

export function latchkey(options?: LatchkeyOptions): NodeLatchkey {
  const { auth, check } = openLatchkey(options)
  return {
    ...auth,
    requireToken: handler => async (req, res) => {
      const admission = await checkNode(check, req, res)
      if (admission !== null) await handler(Object.assign(req, { auth: admission }), res)
    },
  }
}
