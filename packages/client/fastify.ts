// A hook for Fastify.
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Admission } from './contract.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import type { LatchkeyOptions } from './options.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Whom the token belongs to. Only behind `requireToken()`. */
    auth: Admission
  }
}

export interface FastifyLatchkey extends Latchkey {
  /**
   * An `onRequest` hook: admits a request with a live token and sets `request.auth`. Answers others with 400, 401 or 503, in
   * `application/problem+json`.
   */
  requireToken(): (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>
}

export function latchkey(options?: LatchkeyOptions): FastifyLatchkey {
  const { auth, check } = openLatchkey(options)
  return {
    ...auth,
    requireToken: () => async (request, reply) => {
      const outcome = await check(request.raw, request.id)
      const headers = Object.entries(outcome.headers).filter(([name]) => !reply.hasHeader(name))
      reply.headers(Object.fromEntries(headers))
      if (outcome.admission === null) {
        reply.code(outcome.status)
        reply.send(outcome.body)
        return reply // the request is answered
      }
      request.auth = outcome.admission
      return undefined
    },
  }
}
