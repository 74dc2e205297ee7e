// Records each request once it has been handled: in a metric and, if wanted, in a line of the access log.
import type { Log } from '../log/log.ts'
import { type PipelineContext, routeOf } from './types.ts'

export const accessLogModes = ['all', 'errors', 'off'] as const

export interface RequestMetrics {
  /** Counts a request. `route` is the pattern from the list of routes, or null if none matched. */
  recordRequest(listener: string, method: string, route: string | null, status: number, durationMs: number): void
}

export interface RecordOptions {
  listener: string
  log: Log
  /** `errors`: one line per response of 500 and above. */
  accessLog: (typeof accessLogModes)[number]
  metrics: RequestMetrics | null
}

const clientClosedRequest = 499 // as in nginx: the client closed the connection before it had the response

export function createRequestRecord({ listener, log, accessLog, metrics }: RecordOptions) {
  return function recordRequest(ctx: PipelineContext, durationMs: number): void {
    const status = statusOf(ctx)
    metrics?.recordRequest(listener, ctx.method, routeOf(ctx), status, durationMs)
    if (accessLog === 'off' || (accessLog === 'errors' && status < 500)) return
    const { requestId, address, traceparent, user } = ctx.state
    const fields = {
      listener,
      requestId,
      method: ctx.method,
      path: pathWithoutSecrets(ctx.path),
      status,
      address,
      durationMs: Math.round(durationMs * 100) / 100,
      ...(traceparent && { traceId: traceparent.slice(3, 35) }),
    }
    log.request(fields, user ?? null)
  }
}

/** Takes a path without its query, and removes what looks like a secret: clients put secrets into URLs, although they should not. */
export function pathWithoutSecrets(path: string): string {
  return path.replace(/[\w%:-]{20,}/g, '…')
}

/** An internal error is recorded as 500 even if the client has gone. */
export function statusOf({ res, status }: PipelineContext): number {
  return res.destroyed && status !== 500 ? clientClosedRequest : status
}
