// Asks Auth for verdicts over HTTP. Requests that arrive together share one call; every verdict is computed after its
// request arrived; nothing is cached, nothing is retried. Hides batching, deadlines and the distrust of the answer.
import { type Dispatcher, Pool } from 'undici'
import { AppError } from '../../shared/errors.ts'
import type { Log } from '../../shared/log.ts'
import {
  maxTokensPerCall,
  maxVerdictBytes,
  parseVerdicts,
  type ValidateTokenRequest,
  type Verdict,
  validateTokenPath,
} from '../../shared/validateToken.ts'

export interface AuthClientOptions {
  /** Auth's internal listener. From configuration, never from a request. */
  url: string
  /** The service key. */
  key: string
  log: Log
  /** Milliseconds that never jump. */
  monotonicNow: () => number
  /** From a request's arrival to its verdict or its 503, waiting included. */
  deadlineMs?: number
  /** Calls in flight at a time. More of them means smaller batches. */
  maxCalls?: number
  /** Tokens in one call. */
  maxBatch?: number
  /** Requests that may wait for a call; one more is 503 at once. */
  maxWaiting?: number
}

export type AuthClient = ReturnType<typeof openAuthClient>

/** Requests that share one call. */
interface Batch {
  tokens: string[]
  /** The id of the first request. */
  requestId: string
  /** Of the first request: the others arrived up to `watchEveryMs` later and share its fate. */
  deadlineAt: number
  verdicts: PromiseWithResolvers<Verdict[]>
  abort: AbortController
}

const watchEveryMs = 50 // how late a deadline may be noticed; one timer for all is cheaper than one each

export function openAuthClient({
  url,
  key,
  log,
  monotonicNow,
  deadlineMs = 1000,
  maxCalls = 2,
  maxBatch = maxTokensPerCall - 1, // 255 tokens of the greatest length still fit in the 512 KB that Auth reads
  maxWaiting = 10_000,
}: AuthClientOptions) {
  // No pipelining: a call must not wait behind another's answer. HTTP/1.1 only: Auth speaks nothing else.
  const pool = new Pool(url, {
    connections: maxCalls,
    pipelining: 1,
    allowH2: false,
    connect: { timeout: deadlineMs },
    headersTimeout: deadlineMs,
    bodyTimeout: deadlineMs,
  })
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
  /** Not sent yet; all but the last are full. */
  const waiting: Batch[] = []
  const inFlight = new Set<Batch>()
  let waitingCount = 0
  let sendScheduled = false
  let callCount = 0
  let failedRequests = 0

  // A request joins the call that leaves at the end of this turn of the event loop: with it goes all that the same turn
  // read from the sockets, and one that came alone leaves alone, at once.
  function scheduleSend(): void {
    if (sendScheduled || inFlight.size >= maxCalls) return
    sendScheduled = true
    setImmediate(() => {
      sendScheduled = false
      sendWaiting()
    })
  }

  function sendWaiting(): void {
    while (waiting.length > 0 && inFlight.size < maxCalls) void send(takeFirst())
  }

  function join(token: string, requestId: string): Batch {
    let batch = waiting.at(-1)
    const deadlineAt = monotonicNow() + deadlineMs
    // Not one that has waited long: its deadline would be too near for a request that has just arrived.
    if (batch === undefined || batch.tokens.length >= maxBatch || batch.deadlineAt + watchEveryMs < deadlineAt) {
      batch = { tokens: [], requestId, deadlineAt, verdicts: Promise.withResolvers(), abort: new AbortController() }
      waiting.push(batch)
      scheduleSend()
    }
    batch.tokens.push(token)
    waitingCount++
    return batch
  }

  function takeFirst(): Batch {
    const batch = waiting.shift() as Batch
    waitingCount -= batch.tokens.length
    return batch
  }

  async function send(batch: Batch): Promise<void> {
    inFlight.add(batch)
    const outcome = await ask(batch).catch((error: Error) => error)
    inFlight.delete(batch)
    // Before the requests of this call are answered: Auth works on the next call meanwhile.
    sendWaiting()
    if (outcome instanceof Error) return batch.verdicts.reject(noVerdict(batch.tokens.length, outcome))
    if (failedRequests > 0) log.info('Auth gives verdicts again', { failedRequests })
    failedRequests = 0
    batch.verdicts.resolve(outcome)
  }

  async function ask({ tokens, requestId, abort }: Batch): Promise<Verdict[]> {
    // Begins with the id of the first request, and is unique, so that its echo tells this call's answer from another's.
    const callId = `${requestId.slice(0, 48)}.${++callCount}`
    const answer = await exchange(
      pool,
      {
        method: 'POST',
        path: validateTokenPath,
        headers: { ...headers, 'x-request-id': callId },
        body: JSON.stringify({ tokens } satisfies ValidateTokenRequest),
      },
      maxVerdictBytes * (tokens.length + 1),
      abort.signal,
    )
    if (answer.status !== 200) throw new Error(`Auth answered ${answer.status}`)
    if (!/^application\/json\s*(;|$)/.test(String(answer.headers['content-type']))) {
      throw new Error('Auth did not answer in JSON')
    }
    if (answer.headers['x-request-id'] !== callId) throw new Error('Auth answered another request')
    return parseVerdicts(answer.text, tokens.length)
  }

  // One line when verdicts stop and one when they come again: an outage must not fill the disk with the same sentence.
  function noVerdict(requests: number, cause: Error): AppError {
    if (failedRequests === 0) log.warn('Auth gives no verdict', { cause })
    failedRequests += requests
    return new AppError('unavailable', 'Auth gave no verdict; try again.')
  }

  const watch = setInterval(() => {
    const now = monotonicNow()
    for (const { deadlineAt, abort } of inFlight) {
      if (deadlineAt <= now) abort.abort(new Error(`Auth did not answer within ${deadlineMs} ms`))
    }
    while (waiting[0] && waiting[0].deadlineAt <= now) {
      const { tokens, verdicts } = takeFirst()
      verdicts.reject(noVerdict(tokens.length, new Error(`no call was free within ${deadlineMs} ms`)))
    }
  }, watchEveryMs).unref()

  /** Resolves to a verdict that Auth computed after this was called; rejects with `unavailable` where there is none. */
  async function validate(token: string, requestId: string): Promise<Verdict> {
    if (waitingCount >= maxWaiting) throw noVerdict(1, new Error(`${maxWaiting} requests wait already`))
    const batch = join(token, requestId)
    const at = batch.tokens.length - 1
    return (await batch.verdicts.promise)[at] as Verdict
  }

  return {
    validate,

    /** Null where Auth gives verdicts, else a sentence. */
    async whyNotReady(requestId: string): Promise<string | null> {
      // No token of ours looks like this: Auth answers without asking its store.
      return validate('ready', requestId).then(
        () => null,
        () => 'Auth gives no verdicts.',
      )
    },

    /** Waits for the calls in flight. */
    async close(): Promise<void> {
      clearInterval(watch)
      await pool.close()
    },
  }
}

interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
}

/** One request and its whole answer. By `dispatch`: undici's `request` makes a stream of the answer, for half as much again. */
function exchange(
  pool: Pool,
  request: Dispatcher.DispatchOptions,
  maxAnswerBytes: number,
  signal: AbortSignal,
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const answer: Answer = { status: 0, headers: {}, text: '' }
  const chunks: Buffer[] = []
  let size = 0
  let controller: Dispatcher.DispatchController | null = null
  signal.addEventListener('abort', () => {
    controller?.abort(signal.reason)
    // Also where it waits for a connection still, and there is nothing to abort.
    reject(signal.reason)
  })
  pool.dispatch(request, {
    onRequestStart(started) {
      controller = started
      if (signal.aborted) controller.abort(signal.reason)
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
