// What /data/live streams: the data as server-sent events (HTML Living Standard, 9.2), until the token ends. Hides the limits on
// open streams and on events that a slow client has yet to read.
import { Readable } from 'node:stream'
import type { AuthClient } from '../../packages/client/authClient.ts'
import { readBearerToken } from '../../packages/client/bearer.ts'
import type { HoldEnd } from '../../packages/client/holds.ts'
import { AppError } from '../../shared/http/errors.ts'
import type { Route } from '../../shared/http/route.ts'
import { getData, greetingFor } from './data.ts'
import { verdictOf } from './requireToken.ts'

export interface LiveDeps {
  auth: Pick<AuthClient, 'hold'>
  /** Aborted when Business begins to close: a stream never ends by itself and would delay the close. */
  closing: AbortSignal
}

const everyMs = 2000 // often enough that no proxy takes the connection for idle
const maxStreams = 200 // the listener counts each stream as 128 KB of unread answers, and cuts connections above 32 MB
const maxWaitingBytes = 16 * 1024 // per stream, in addition to the socket's own buffer

export const getLiveData: Route<LiveDeps, 'bearer'> = {
  path: 'GET /data/live',
  guard: 'bearer',
  summary: 'Streams the protected data until the token ends, which this stream does not extend',
  tag: 'Data',
  answers: {
    200: {
      description: 'Server-sent events: `data`, and at last `end` with the reason: `ended`, `unavailable` or `closed`',
      types: ['text/event-stream'],
    },
  },
  problems: getData.problems ?? {},
  handler: ({ auth, closing }) => {
    let openStreams = 0
    return ctx => {
      ctx.type = 'text/event-stream'
      ctx.set('X-Accel-Buffering', 'no') // keeps nginx from buffering the stream
      if (ctx.method === 'HEAD') {
        ctx.body = ''
        return
      }
      if (openStreams >= maxStreams) throw new AppError('unavailable', 'There are too many open streams already.')
      const data = greetingFor(verdictOf(ctx))
      const stream = openStream(count => ({ data, count }))
      const hold = auth.hold(readBearerToken(ctx.req), { onEnd: stream.end })
      const close = () => stream.end('closed')
      closing.addEventListener('abort', close)
      if (closing.aborted) close()
      openStreams++
      stream.readable.once('close', () => {
        openStreams--
        hold.release()
        closing.removeEventListener('abort', close)
      })
      ctx.body = stream.readable
    }
  },
}

/** Sends an event `data` now and every two seconds; `end` sends the last event. */
function openStream(dataOf: (count: number) => object) {
  const readable = new Readable({ read() {} })
  let count = 0
  let isEnded = false

  const send = (event: string, data: object) => readable.push(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
  function sendData(): void {
    if (readable.readableLength < maxWaitingBytes) send('data', dataOf(++count))
  }

  sendData()
  const timer = setInterval(sendData, everyMs).unref()
  readable.once('close', () => clearInterval(timer))

  return {
    readable,
    end(reason: HoldEnd): void {
      if (isEnded || readable.destroyed) return
      isEnded = true
      clearInterval(timer)
      send('end', { reason })
      readable.push(null)
    },
  }
}
