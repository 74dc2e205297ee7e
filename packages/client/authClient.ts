// Asks Auth for verdicts over HTTP. Requests that arrive together share one call; every verdict is computed after its
// request arrived; nothing is cached, nothing is retried. Hides batching, deadlines and the distrust of the answer.
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
  /** Auth's internal listener. From configuration, never from a request. */
  url: string
  /** The service key. */
  key: string
  /** Hears when verdicts stop and when they come again. `console` will do. */
  log: Record<'info' | 'warn', (event: string, fields: Record<string, unknown>) => void>
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
  /** Hears of each call when it is over. */
  observe?: (call: AuthCall) => void
}

export interface AuthCall {
  /** How many shared it. */
  requests: number
  durationMs: number
  failed: boolean
}

export type AuthClient = ReturnType<typeof openAuthClient>

/** A verdict, and what the call was like that brought it. */
export interface Judgement {
  verdict: Verdict
  /**
   * As `Server-Timing` has it: how long Auth took in milliseconds, a name of the call, and how many requests shared it, this
   * one included. One string for all of them.
   */
  serverTiming: string
}

/** The request that a verdict is for. */
export interface Caller {
  requestId: string
  traceparent?: string | undefined
}

/** Requests that arrived within `watchEveryMs` of each other. */
interface Batch {
  tokens: string[]
  /** The id of the first request. */
  requestId: string
  /** Of the first request: what a W3C trace shows of the call. */
  traceparent: string | undefined
  /** Of the first request: the others arrived a little later and share its fate. */
  deadlineAt: number
  verdicts: PromiseWithResolvers<Verdict[]>
  /** Known with the verdicts. */
  serverTiming: string
}

/** What is asked at once: all that waited when it left, each batch with a deadline of its own. */
interface Call {
  /** The oldest first. */
  batches: Batch[]
  tokens: string[]
  abort: AbortController
}

const askReadyEveryMs = 1000 // whoever wants to know: anybody may
const maxReadyBytes = 4096

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
  observe = () => {},
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
  /** Not sent yet, the oldest first. */
  const waiting: Batch[] = []
  const inFlight = new Set<Call>()
  let waitingCount = 0
  let sendScheduled = false
  let callCount = 0
  let failedRequests = 0
  let readyAskedAt = -Infinity
  let readyStatus: Promise<number | null> = Promise.resolve(null)

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
    while (waiting.length > 0 && inFlight.size < maxCalls) void send(takeCall())
  }

  function join(token: string, { requestId, traceparent }: Caller): Batch {
    let batch = waiting.at(-1)
    const deadlineAt = monotonicNow() + deadlineMs
    // Not one that has waited long: its deadline would be too near for a request that has just arrived.
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

  // All that wait, not the first batch alone: a batch begins every `watchEveryMs`, and where Auth takes longer for a call
  // there would be ever more of them.
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
    // Before the requests of this call are answered: Auth works on the next call meanwhile.
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
    let from = requests - call.batches.reduce((sum, { tokens }) => sum + tokens.length, 0) // of those given up already
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
    // Begins with the id of the first request, and is unique, so that its echo tells this call's answer from another's.
    // Auth echoes these characters only: an id with others, sent by anybody, would cost the whole call its verdicts.
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

  // One line when verdicts stop and one when they come again: an outage must not fill the disk with the same sentence.
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

  /** Resolves to a verdict that Auth computed after this was called; rejects with `unavailable` where there is none. */
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

  /** The status of Auth's own answer; null where there is none. */
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

    /** Calls that are not answered yet. */
    callsInFlight: () => inFlight.size,

    /** Null where Auth gives verdicts, else a sentence. */
    async whyNotReady(caller: Caller): Promise<string | null> {
      // No token of ours looks like this: the verdict shows that Auth takes the key. A well-formed one would touch the store,
      // too, and stand in the security log as somebody's guess each time.
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

/** Not the count of calls: how many there were is nobody's business. Unique enough to tell the calls of a minute apart. */
function drawCallName(): string {
  return Math.floor(Math.random() * 2 ** 32).toString(36)
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
