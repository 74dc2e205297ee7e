// The one exit for errors: whatever a handler throws becomes a problem document (RFC 9457) with a status from errors.ts.
// Koa's own error handler is not used, because it removes headers.
import { describeError, type Log } from '../log/log.ts'
import { AppError, isKnownError, statusOf } from './errors.ts'
import { problemDocument } from './problemTypes.ts'
import type { PipelineContext } from './types.ts'

export function createProblemResponder({ listener, log }: { listener: string; log: Log }) {
  return function respondWithProblem(ctx: PipelineContext, error: unknown): void {
    const { requestId } = ctx.state
    const known = isKnownError(error)
      ? error
      : new AppError('internal', 'An internal error occurred.', { cause: error })
    const { code, message, cause } = known
    if (cause !== undefined) {
      // `cause` is described here, because anything can be thrown, not only an Error.
      const fields = { listener, requestId, code, cause: describeError(cause) }
      if (code === 'internal') {
        log.error('request_failed', { ...fields, ...(error instanceof Error && { stack: error.stack }) })
      } else {
        log.warn('request_failed', fields)
      }
    }
    const status = statusOf[code]
    for (const [header, value] of Object.entries(known.headers)) ctx.set(header, value)
    if (status === 429 || status === 503) ctx.set('Retry-After', known.headers['Retry-After'] ?? '1')
    ctx.status = status
    ctx.body = JSON.stringify(problemDocument(status, code, message, requestId))
    ctx.type = 'application/problem+json'
  }
}

/** Throws if no route has responded: 404, or 405 if the router has set `Allow` because the path has other methods. */
export function requireResponse({ body, status }: PipelineContext): void {
  if (body !== undefined) return
  if (status === 404) throw new AppError('not_found', 'There is nothing at this path.')
  if (status === 405) {
    throw new AppError(
      'method_not_allowed',
      'This path does not support this method. The header Allow lists the methods that it supports.',
    )
  }
}
