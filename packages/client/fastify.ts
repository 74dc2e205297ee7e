// A hook for Fastify.
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Admission } from './contract.ts'
import type { Check, Guards, SeenBy } from './guards.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import type { LatchkeyOptions } from './options.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Whom the token belongs to. Only behind a guard. */
    auth: Admission
  }
}

/** An `onRequest` hook, which sets `request.auth` for the handlers behind it. */
export type FastifyGuard = (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>

export interface FastifyLatchkey extends Latchkey, Guards<FastifyGuard> {}

export function latchkey(options?: LatchkeyOptions): FastifyLatchkey {
  const { auth, guards } = openLatchkey(options)
  const guard =
    (check: Check, seenBy: SeenBy): FastifyGuard =>
    async (request, reply) => {
      const outcome = await check(request.raw, request.id, seenBy(request))
      const headers = Object.entries(outcome.headers).filter(([name]) => !reply.hasHeader(name))
      reply.headers(Object.fromEntries(headers))
      if (outcome.admission === null) {
        reply.code(outcome.status)
        reply.send(outcome.body)
        return reply // the request is answered
      }
      request.auth = outcome.admission
      return undefined
    }
  return { ...auth, ...guards(guard) }
}
