// Sends one HTTP request and collects its whole response, up to a maximum size. Can be aborted at any time.
import type { Dispatcher, Pool } from 'undici'

/** One attempt to get an answer from one Auth. */
export interface Attempt {
  pool: Pool
  signal: AbortSignal
  /** False as long as not a byte of the request has been written. If it is false after a failure, Auth never got the request. */
  isSent: boolean
}

export interface HttpAnswer {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
}

/** Uses `dispatch`, because undici's `request` creates a stream and costs 1.5 times as much. */
export function exchange(
  attempt: Attempt,
  request: Dispatcher.DispatchOptions,
  maxAnswerBytes: number,
): Promise<HttpAnswer> {
  const { pool, signal } = attempt
  const { promise, resolve, reject } = Promise.withResolvers<HttpAnswer>()
  const answer: HttpAnswer = { status: 0, headers: {}, text: '' }
  const chunks: Buffer[] = []
  let size = 0
  let controller: Dispatcher.DispatchController | null = null
  signal.addEventListener('abort', () => {
    controller?.abort(signal.reason)
    // While the request waits for a connection there is no controller yet, and only this rejection ends the wait.
    reject(signal.reason)
  })
  pool.dispatch(request, {
    onRequestStart(started) {
      controller = started
      if (signal.aborted) controller.abort(signal.reason)
      else attempt.isSent = true // undici writes the request now
    },
    onResponseStart(_controller, status, headers) {
      answer.status = status
      answer.headers = headers
    },
    onResponseData(controller, chunk) {
      size += chunk.length
      if (size > maxAnswerBytes) controller.abort(new Error(`Auth answered with more than ${maxAnswerBytes} bytes`))
      else chunks.push(chunk)
    },
    onResponseEnd() {
      answer.text = Buffer.concat(chunks).toString('utf8')
      resolve(answer)
    },
    onResponseError(_controller, error) {
      reject(error)
    },
  })
  return promise
}
