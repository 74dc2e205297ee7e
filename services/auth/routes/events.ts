// GET /events: what happens to tokens, as it happens, for the operator. Server-sent events (HTML Living Standard, 9.2).
import { AppError } from '../../../shared/http/errors.ts'
import { type AuthRoute, noKey } from './route.ts'

export const events: AuthRoute<'stream'> = {
  path: 'GET /events',
  guard: 'adminKey',
  summary: 'Streams what happens to tokens: server-sent events, at most ten times a second, without secrets',
  tag: 'For the operator',
  answers: { 200: { description: 'A stream that ends when Auth does', types: ['text/event-stream'] } },
  problems: { 400: 'Two keys were sent.', 401: noKey },
  handler:
    ({ stream }) =>
    ctx => {
      ctx.type = 'text/event-stream'
      ctx.set('X-Accel-Buffering', 'no') // keeps nginx from buffering the stream
      ctx.set('Connection', 'close') // the stream ends when the process does, so the connection cannot be reused
      if (ctx.method === 'HEAD') {
        ctx.body = ''
        return
      }
      const reader = stream.open()
      if (reader === null) throw new AppError('unavailable', 'There are too many readers already.')
      ctx.body = reader
    },
}
