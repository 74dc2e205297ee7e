// Asks Auth for verdicts over HTTP. Requests that arrive together share one call; every verdict is computed after its
// request arrived; nothing is cached or retried. Hides batching, deadlines and the checks of Auth's answer.
import { type Dispatcher, Pool } from 'undici'
import {
  maxTokensPerCall,
  maxVerdictBytes,
  parseVerdicts,
  readyPath,
  type ValidateTokenRequest,
  type Verdict,
  validateTokenPath,
} from './contract.ts'
import { TokenError } from './errors.ts'

export interface AuthClientOptions {
  /** Base URL of Auth's internal listener. Take it from configuration, never from a request. */
  url: string
  /** The service key. */
  key: string
  /** Gets one line when verdicts stop and one when they resume. `console` will do. */
  log: Record<'info' | 'warn', (event: string, fields: Record<string, unknown>) => void>
  /** Monotonic clock in milliseconds. */
  monotonicNow: () => number
  /** From a request's arrival to its verdict or its error, including the time it waits for a free call. */
  deadlineMs?: number
  /** Maximum number of calls in flight. More calls mean smaller batches. */
  maxCalls?: number
  /** Maximum number of tokens in one call. */
  maxBatch?: number
  /** Maximum number of requests that wait for a call; further ones fail at once with `unavailable`. */
  maxWaiting?: number
  /** Called when a call to Auth has finished. */
  observe?: (call: AuthCall) => void
}

export interface AuthCall {
  /** Number of requests that shared the call. */
  requests: number
  durationMs: number
  failed: boolean
}

export type AuthClient = ReturnType<typeof openAuthClient>

/** A verdict, and the timing of the call that produced it. */
export interface Judgement {
  verdict: Verdict
  /**
   * Value for a `Server-Timing` header: how long Auth took in milliseconds, a name for the call, and how many requests shared
   * it, including this one. The same string for all of them.
   */
  serverTiming: string
}

/** The request that needs the verdict. */
export interface Caller {
  requestId: string
  traceparent?: string | undefined
}

/** Requests that arrived within `watchEveryMs` of each other. */
interface Batch {
  tokens: string[]
  /** The id of the first request. */
  requestId: string
  /** The trace context of the first request; the call appears in its W3C trace. */
  traceparent: string | undefined
  /** The deadline of the first request; the others arrived at most `watchEveryMs` later and share it. */
  deadlineAt: number
  verdicts: PromiseWithResolvers<Verdict[]>
  /** Set together with the verdicts. */
  serverTiming: string
}

/** One HTTP call: the batches that waited when it was sent, each with its own deadline. */
interface Call {
  /** Oldest first. */
  batches: Batch[]
  tokens: string[]
  abort: AbortController
}

const askReadyEveryMs = 1000 // /ready needs no key, so a client that asks often gets the status of the last second
const maxReadyBytes = 4096

const watchEveryMs = 50 // how late a deadline may be noticed; one timer for all is cheaper than one per request

export function openAuthClient({
  url,
  key,
  log,
  monotonicNow,
  deadlineMs = 1000,
  maxCalls = 2,
  maxBatch = maxTokensPerCall - 1, // 255 tokens of the maximum length still fit in the 512 KB that Auth accepts
  maxWaiting = 10_000,
  observe = () => {},
}: AuthClientOptions) {
  // No pipelining: a call must not wait behind the response to another. HTTP/1.1 only: Auth speaks nothing else.
  const pool = new Pool(url, {
    connections: maxCalls,
    pipelining: 1,
    allowH2: false,
    connect: { timeout: deadlineMs },
    headersTimeout: deadlineMs,
    bodyTimeout: deadlineMs,
  })
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
  /** Not sent yet, oldest first. */
  const waiting: Batch[] = []
  const inFlight = new Set<Call>()
  let waitingCount = 0
  let sendScheduled = false
  let callCount = 0
  let failedRequests = 0
  let readyAskedAt = -Infinity
  let readyStatus: Promise<number | null> = Promise.resolve(null)

  // A call is sent at the end of the current turn of the event loop, with every request that this turn read from the sockets.
  // A request that arrives alone is therefore sent alone, without delay.
  function scheduleSend(): void {
    if (sendScheduled || inFlight.size >= maxCalls) return
    sendScheduled = true
    setImmediate(() => {
      sendScheduled = false
      sendWaiting()
    })
  }

  function sendWaiting(): void {
    while (waiting.length > 0 && inFlight.size < maxCalls) void send(takeCall())
  }

  function join(token: string, { requestId, traceparent }: Caller): Batch {
    let batch = waiting.at(-1)
    const deadlineAt = monotonicNow() + deadlineMs
    // Do not join a batch that has waited long: its deadline would be too close for a request that has just arrived.
    if (batch === undefined || batch.tokens.length >= maxBatch || batch.deadlineAt + watchEveryMs < deadlineAt) {
      batch = {
        tokens: [],
        requestId,
        traceparent,
        deadlineAt,
        verdicts: Promise.withResolvers(),
        serverTiming: '',
      }
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

  // Takes as many waiting batches as fit, not only the first. A new batch begins every `watchEveryMs`, so if a call takes
  // longer than that, the queue would keep growing.
  function takeCall(): Call {
    const first = takeFirst()
    const batches = [first]
    let size = first.tokens.length
    while (waiting[0] && size + waiting[0].tokens.length <= maxBatch) {
      const next = takeFirst()
      batches.push(next)
      size += next.tokens.length
    }
    const tokens = batches.length === 1 ? first.tokens : batches.flatMap(({ tokens }) => tokens)
    return { batches, tokens, abort: new AbortController() }
  }

  async function send(call: Call): Promise<void> {
    inFlight.add(call)
    const startedAt = monotonicNow()
    const outcome = await ask(call).catch((error: Error) => error)
    inFlight.delete(call)
    // Send the next call before answering the requests of this one, so that Auth is not idle meanwhile.
    sendWaiting()
    const [requests, failed] = [call.tokens.length, outcome instanceof Error]
    const durationMs = monotonicNow() - startedAt
    observe({ requests, durationMs, failed })
    if (outcome instanceof Error) {
      for (const batch of call.batches) giveUp(batch, outcome)
      return
    }
    if (failedRequests > 0) log.info('auth_recovered', { channel: 'security', failedRequests })
    failedRequests = 0
    const serverTiming = `auth;dur=${durationMs.toFixed(2)};desc="call ${drawCallName()} shared by ${requests}"`
    let from = requests - call.batches.reduce((sum, { tokens }) => sum + tokens.length, 0) // skip batches rejected already
    for (const batch of call.batches) {
      const { tokens, verdicts } = batch
      batch.serverTiming = serverTiming
      verdicts.resolve(tokens.length === requests ? outcome : outcome.slice(from, from + tokens.length))
      from += tokens.length
    }
  }

  function giveUp({ tokens, verdicts }: Batch, cause: Error): void {
    verdicts.reject(noVerdict(tokens.length, cause))
  }

  async function ask({ batches, tokens, abort }: Call): Promise<Verdict[]> {
    const { requestId, traceparent } = batches[0] as Batch
    // Begins with the id of the first request and is unique, so that its echo proves that the response belongs to this call.
    // Auth echoes only these characters: one client's id with other characters would fail the call for all its requests.
    const callId = `${requestId.slice(0, 48).replace(/[^\w.-]/g, '_')}.${++callCount}`
    const answer = await exchange(
      pool,
      {
        method: 'POST',
        path: validateTokenPath,
        headers: { ...headers, 'x-request-id': callId, ...(traceparent && { traceparent }) },
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

  // Logs once when verdicts stop and once when they resume, so that an outage does not fill the disk.
  function noVerdict(requests: number, cause: Error): TokenError {
    if (failedRequests === 0) log.warn('auth_unavailable', { channel: 'security', cause })
    failedRequests += requests
    return new TokenError('unavailable', 'Auth gave no verdict; try again.', { 'Retry-After': '1' })
  }

  const watch = setInterval(() => {
    const now = monotonicNow()
    const late = () => new Error(`Auth did not answer within ${deadlineMs} ms`)
    for (const { batches, abort } of inFlight) {
      if ((batches.at(-1) as Batch).deadlineAt <= now) abort.abort(late())
      else while ((batches[0] as Batch).deadlineAt <= now) giveUp(batches.shift() as Batch, late())
    }
    while (waiting[0] && waiting[0].deadlineAt <= now) {
      giveUp(takeFirst(), new Error(`no call was free within ${deadlineMs} ms`))
    }
  }, watchEveryMs).unref()

  /** Resolves to a verdict that Auth computed after this call; rejects with `unavailable` if Auth gives none. */
  async function judge(token: string, caller: Caller): Promise<Judgement> {
    if (waitingCount >= maxWaiting) throw noVerdict(1, new Error(`${maxWaiting} requests wait already`))
    const batch = join(token, caller)
    const at = batch.tokens.length - 1
    const verdicts = await batch.verdicts.promise
    return { verdict: verdicts[at] as Verdict, serverTiming: batch.serverTiming }
  }

  /** The verdict alone. */
  async function validate(token: string, caller: Caller): Promise<Verdict> {
    return (await judge(token, caller)).verdict
  }

  /** The HTTP status of Auth's `/ready`, at most a second old; null if Auth did not answer. */
  function askWhetherReady(): Promise<number | null> {
    if (monotonicNow() - readyAskedAt < askReadyEveryMs) return readyStatus
    readyAskedAt = monotonicNow()
    const abort = new AbortController()
    const late = setTimeout(() => abort.abort(new Error(`Auth did not answer within ${deadlineMs} ms`)), deadlineMs)
    readyStatus = exchange(pool, { method: 'GET', path: readyPath }, maxReadyBytes, abort.signal)
      .then(
        ({ status }) => status,
        () => null,
      )
      .finally(() => clearTimeout(late))
    return readyStatus
  }

  return {
    judge,
    validate,

    /** Number of calls without a response so far. */
    callsInFlight: () => inFlight.size,

    /** Null if Auth gives verdicts, otherwise the reason as a sentence. */
    async whyNotReady(caller: Caller): Promise<string | null> {
      // The verdict shows that Auth accepts the key. The token is malformed on purpose: a well-formed one would reach the store
      // and appear in the security log as a guess.
      const verdict = await validate('ready', caller).catch(() => null)
      const status = verdict && (await askWhetherReady())
      if (status === 200) return null
      return status === 503 ? 'Auth gives no verdicts: its token store gives no answer.' : 'Auth gives no verdicts.'
    },

    /** Waits for the calls in flight. */
    async close(): Promise<void> {
      clearInterval(watch)
      await pool.close()
    },
  }
}

/** Random instead of counted, so that clients cannot see the traffic. Unique enough to tell the calls of a minute apart. */
function drawCallName(): string {
  return Math.floor(Math.random() * 2 ** 32).toString(36)
}

interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
}

/**
 * One request and its whole response. Uses `dispatch`, because undici's `request` creates a stream and costs half as much
 * again.
 */
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
    // Rejects also while the request still waits for a connection and there is nothing to abort.
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
