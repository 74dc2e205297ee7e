// A wrapper for request handlers of node:http.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Admission } from './contract.ts'
import type { RuleOptions } from './guards.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import { checkNode } from './nodeResponse.ts'
import type { LatchkeyOptions } from './options.ts'
import type { Names } from './rules.ts'

/** `auth`: whom the token belongs to. */
export type AuthenticatedRequest = IncomingMessage & { auth: Admission }

export type AuthenticatedHandler = (req: AuthenticatedRequest, res: ServerResponse) => unknown

export type NodeHandler = (req: IncomingMessage, res: ServerResponse) => Promise<void>

/** Each method returns a handler that calls `handler` for a request that it admits. See `Guards`, which other frameworks have. */
export interface NodeLatchkey extends Latchkey {
  /** Needs a live token. Answers other requests with 400, 401 or 503, in `application/problem+json`. */
  requireToken(handler: AuthenticatedHandler): NodeHandler
  /** Also needs this role, or all of several; 403 without. Inside another guard it uses the same verdict. */
  requireRole(names: Names, handler: AuthenticatedHandler, options?: RuleOptions): NodeHandler
  /** The same for the scope of the token. A session has no scope of its own, and is admitted. */
  requireScope(names: Names, handler: AuthenticatedHandler, options?: RuleOptions): NodeHandler
}

export function latchkey(options?: LatchkeyOptions): NodeLatchkey {
  const { auth, guards } = openLatchkey(options)
  const { requireToken, requireRole, requireScope } = guards(
    (check, seenBy) =>
      (handler: AuthenticatedHandler): NodeHandler =>
      async (req, res) => {
        const admission = await checkNode(check, req, res, seenBy(req))
        if (admission !== null) await handler(Object.assign(req, { auth: admission }), res)
      },
  )
  return {
    ...auth,
    requireToken: requireToken(),
    requireRole: (names, handler, options) => requireRole(names, options)(handler),
    requireScope: (names, handler, options) => requireScope(names, options)(handler),
  }
}
