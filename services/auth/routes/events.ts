// GET /events: what happens to tokens, as it happens, for the operator. Server-sent events (HTML Living Standard, 9.2).
import { AppError } from '../../../shared/http/errors.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import type { EventStream } from '../observability/eventStream.ts'

export function eventsRoute(stream: EventStream): Handler {
  return function events(ctx) {
    ctx.type = 'text/event-stream'
    ctx.set('X-Accel-Buffering', 'no') // nginx would keep it back
    ctx.set('Connection', 'close') // once it ends, so does the process: nothing else will be asked here
    if (ctx.method === 'HEAD') {
      ctx.body = ''
      return
    }
    const reader = stream.open()
    if (reader === null) throw new AppError('unavailable', 'There are too many readers already.')
    ctx.body = reader
  }
}
