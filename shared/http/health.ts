// The routes of probes.
import { AppError } from './errors.ts'
import type { Handler, RequestState } from './types.ts'

/** `GET /health`: 200 while the process responds. It checks nothing else. */
export const health: Handler = ctx => {
  ctx.body = { status: 'ok' }
}

/** `GET /ready`: 503 with the reason that `whyNot` resolves to, or 200 if that is null. */
export function readiness(whyNot: (request: RequestState) => Promise<string | null>): Handler {
  return async function ready(ctx) {
    const reason = await whyNot(ctx.state)
    if (reason !== null) throw new AppError('unavailable', reason)
    ctx.body = { status: 'ready' }
  }
}
