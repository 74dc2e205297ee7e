// Asks Auth for verdicts over HTTP. Requests that arrive together share one call; every verdict is computed after its
// request arrived; nothing is cached or retried. Hides batching, deadlines and the checks of Auth's answer.
import { Pool } from 'undici'
import { type Batch, type Caller, createBatches } from './batches.ts'
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
import { everySecond } from './everySecond.ts'
import { exchange } from './exchange.ts'

export interface AuthClientOptions {
  /** Base URL of Auth's internal listener. Take it from configuration, never from a request. */
  url: string
  /** The service key. */
  key: string
  /** Gets one line when verdicts stop and one when they resume. `console` will do. */
  log: Record<'info' | 'warn', (event: string, fields: Record<string, unknown>) => void>
  /** Monotonic clock in milliseconds. */
  monotonicNow: () => number
  /** Maximum time from a request's arrival to its verdict or its error, including the wait for a free call. */
  deadlineMs?: number
  /** Maximum number of calls in flight. More calls mean smaller batches. */
  maxCalls?: number
  /** Maximum number of tokens in one call. */
  maxBatch?: number
  /** Maximum number of requests that wait for a call; further requests fail at once with `unavailable`. */
  maxWaiting?: number
  /** Called when a call to Auth has finished. */
  onCall?: (call: AuthCall) => void
}

export interface AuthCall {
  /** Number of requests that shared the call. */
  requests: number
  durationMs: number
  failed: boolean
}

/** A verdict, and the timing of the call that produced it. */
export interface Validation {
  verdict: Verdict
  /**
   * Value for a `Server-Timing` header: how long Auth took in milliseconds, a name for the call, and how many requests shared
   * it. All of these requests get the same string.
   */
  serverTiming: string
}

export interface AuthClient {
  /**
   * Resolves to a verdict that Auth computed after `validate` was called. Rejects with a `TokenError` of code
   * `unavailable` if Auth gives none within the deadline.
   */
  validate(token: string, caller: Caller): Promise<Validation>
  /** Number of calls without a response so far. */
  callsInFlight(): number
  /** Null if Auth gives verdicts, otherwise the reason as a sentence. */
  whyNotReady(caller: Caller): Promise<string | null>
  /** Waits for the calls in flight. */
  close(): Promise<void>
}

/** One HTTP call: the batches that waited when it was sent, each with its own deadline. */
interface Call {
  /** Oldest first. */
  batches: Batch[]
  tokens: string[]
  abort: AbortController
}

const maxReadyBytes = 4096
const watchEveryMs = 50 // how late a deadline may be noticed; one timer for all requests is cheaper than one for each

export function openAuthClient(options: AuthClientOptions): AuthClient {
  const { url, key, log, monotonicNow, deadlineMs = 1000, maxCalls = 2, maxWaiting = 10_000 } = options
  const maxBatch = options.maxBatch ?? maxTokensPerCall - 1 // 255 tokens of maximum length fit in the 512 KB that Auth accepts
  const pool = openPool(url, maxCalls, deadlineMs)
  const outage = createOutageLog(log)
  const batches = createBatches({ maxBatch, deadlineSlackMs: watchEveryMs })
  const inFlight = new Set<Call>()
  const askVerdicts = createVerdictCall(pool, key)
  const askReadyStatus = everySecond(() => readyStatusOf(pool, deadlineMs), monotonicNow)
  let isSendScheduled = false

  // A call is sent at the end of the current turn of the event loop, with every request that this turn read from the sockets.
  // A request that arrives alone is therefore sent alone, without delay.
  function scheduleSend(): void {
    if (isSendScheduled || inFlight.size >= maxCalls) return
    isSendScheduled = true
    setImmediate(() => {
      isSendScheduled = false
      sendWaiting()
    })
  }

  function sendWaiting(): void {
    while (inFlight.size < maxCalls) {
      const taken = batches.takeCall()
      if (taken === null) return
      const tokens = taken.length === 1 ? (taken[0] as Batch).tokens : taken.flatMap(({ tokens }) => tokens)
      void send({ batches: taken, tokens, abort: new AbortController() })
    }
  }

  async function send(call: Call): Promise<void> {
    inFlight.add(call)
    const startedAt = monotonicNow()
    const outcome = await askVerdicts(call).catch((error: Error) => error)
    inFlight.delete(call)
    // Send the next call before answering the requests of this one, so that Auth is not idle meanwhile.
    sendWaiting()
    const failed = outcome instanceof Error
    const durationMs = monotonicNow() - startedAt
    options.onCall?.({ requests: call.tokens.length, durationMs, failed })
    if (failed) {
      for (const batch of call.batches) reject(batch, outcome)
      return
    }
    outage.end()
    resolveAll(call, outcome, durationMs)
  }

  function reject({ tokens, verdicts }: Batch, cause: Error): void {
    verdicts.reject(outage.noVerdict(tokens.length, cause))
  }

  const watch = setInterval(() => {
    const now = monotonicNow()
    const late = () => new Error(`Auth did not answer within ${deadlineMs} ms`)
    for (const call of inFlight) {
      if ((call.batches.at(-1) as Batch).deadlineAt <= now) call.abort.abort(late())
      else while ((call.batches[0] as Batch).deadlineAt <= now) reject(call.batches.shift() as Batch, late())
    }
    for (const batch of batches.takeLate(now)) reject(batch, new Error(`no call was free within ${deadlineMs} ms`))
  }, watchEveryMs).unref()

  async function validate(token: string, caller: Caller): Promise<Validation> {
    if (batches.count() >= maxWaiting)
      throw outage.noVerdict(1, new Error(`${maxWaiting} requests are already waiting`))
    const batch = batches.join(token, caller, monotonicNow() + deadlineMs)
    const at = batch.tokens.length - 1
    if (at === 0) scheduleSend()
    const verdicts = await batch.verdicts.promise
    return { verdict: verdicts[at] as Verdict, serverTiming: batch.serverTiming }
  }

  return {
    validate,
    callsInFlight: () => inFlight.size,

    async whyNotReady(caller) {
      // The verdict shows that Auth accepts the key. The token is malformed on purpose: a well-formed one would reach the store
      // and appear in the security log as a guess.
      const validation = await validate('ready', caller).catch(() => null)
      const status = validation && (await askReadyStatus())
      if (status === 200) return null
      return status === 503 ? 'Auth gives no verdicts: its token store does not answer.' : 'Auth gives no verdicts.'
    },

    async close() {
      clearInterval(watch)
      await pool.close()
    },
  }
}

function openPool(url: string, maxCalls: number, deadlineMs: number): Pool {
  // No pipelining: a call must not wait for the response to another call. HTTP/1.1 only: Auth speaks nothing else.
  return new Pool(url, {
    connections: maxCalls,
    pipelining: 1,
    allowH2: false,
    connect: { timeout: deadlineMs },
    headersTimeout: deadlineMs,
    bodyTimeout: deadlineMs,
  })
}

/** Logs once when verdicts stop and once when they resume, so that an outage does not fill the disk. */
function createOutageLog(log: AuthClientOptions['log']) {
  let failedRequests = 0
  return {
    noVerdict(requests: number, cause: Error): TokenError {
      if (failedRequests === 0) log.warn('auth_unavailable', { channel: 'security', cause })
      failedRequests += requests
      return new TokenError('unavailable', 'Auth gave no verdict; try again.', { 'Retry-After': '1' })
    },
    end(): void {
      if (failedRequests > 0) log.info('auth_recovered', { channel: 'security', failedRequests })
      failedRequests = 0
    },
  }
}

/** The returned function asks Auth for the verdicts of a call. */
function createVerdictCall(pool: Pool, key: string) {
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
  let callCount = 0

  return async function ask({ batches, tokens, abort }: Call): Promise<Verdict[]> {
    const { requestId, traceparent } = batches[0] as Batch
    // The id begins with that of the first request and is unique, so its echo proves that the response belongs to this call.
    // Auth echoes only ids of these characters: otherwise one client's unusual id would fail every request of the call.
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
}

/** Gives each batch its verdicts. Batches whose deadline passed during the call have been removed from it. */
function resolveAll({ batches, tokens: asked }: Call, all: Verdict[], durationMs: number): void {
  const serverTiming = `auth;dur=${durationMs.toFixed(2)};desc="call ${drawCallName()} shared by ${asked.length}"`
  let from = asked.length - batches.reduce((sum, { tokens }) => sum + tokens.length, 0)
  for (const batch of batches) {
    const { tokens, verdicts } = batch
    batch.serverTiming = serverTiming
    verdicts.resolve(tokens.length === asked.length ? all : all.slice(from, from + tokens.length))
    from += tokens.length
  }
}

/** Random, because a counter would show clients how busy Auth is. Unique enough to distinguish all calls within a minute. */
function drawCallName(): string {
  return Math.floor(Math.random() * 2 ** 32).toString(36)
}

/** The HTTP status of Auth's `/ready`; null if Auth did not answer in time. */
async function readyStatusOf(pool: Pool, timeoutMs: number): Promise<number | null> {
  const abort = new AbortController()
  const late = setTimeout(() => abort.abort(new Error(`Auth did not answer within ${timeoutMs} ms`)), timeoutMs)
  try {
    return (await exchange(pool, { method: 'GET', path: readyPath }, maxReadyBytes, abort.signal)).status
  } catch {
    return null
  } finally {
    clearTimeout(late)
  }
}
