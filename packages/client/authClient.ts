// Asks Auth for verdicts over HTTP. Requests that arrive together share one call; every verdict is computed after its
// request arrived; nothing is cached, and nothing is repeated that may have changed a token. Hides batching, deadlines and
// the checks of Auth's answer.
import type { Lookup } from './addresses.ts'
import { type Batch, type Caller, createBatches } from './batches.ts'
import {
  maxTokensPerCall,
  maxVerdictBytes,
  type NoVerdict,
  parseVerdicts,
  readyPath,
  type ValidateTokenRequest,
  type Verdict,
  type Verdicts,
  validateTokenPath,
} from './contract.ts'
import { everySecond } from './everySecond.ts'
import { type Attempt, exchange } from './exchange.ts'
import { type Hold, type HoldOptions, type Looks, maxLookCalls, openHolds } from './holds.ts'
import { type ClientLog, createOutageLog, noVerdictError } from './outageLog.ts'
import { openUpstreams, type UpstreamCounts, type Upstreams } from './upstreams.ts'

export interface AuthClientOptions {
  /**
   * Base URL of Auth's internal listener, or several: a list, or a string with commas. A name may have several addresses. Calls
   * are balanced over all of them. Take it from configuration, never from a request.
   */
  url: string | readonly string[]
  /** The service key. */
  key: string
  /** Gets one line when verdicts stop and one when they resume, also for one of several Auths. `console` will do. */
  log: ClientLog
  /** Monotonic clock in milliseconds. */
  monotonicNow: () => number
  /** Maximum time from a request's arrival to its verdict or its error, including the wait for a free call. */
  deadlineMs?: number
  /** Maximum number of calls in flight at each Auth. More calls mean smaller batches. */
  maxCalls?: number
  /** Maximum number of tokens in one call. */
  maxBatch?: number
  /** Maximum number of requests that wait for a call; further requests fail at once with `unavailable`. */
  maxWaiting?: number
  /** A hold ends with `unavailable` after this long without a verdict on its token. At least 2000. */
  maxSilenceMs?: number
  /** Called when a call to Auth has finished. */
  onCall?: (call: AuthCall) => void
  /** Called when a call to Auth begins, with the callers of all requests that share it. Null if the call is not traced. */
  traceCall?: ((callers: readonly Caller[]) => CallTrace | null) | undefined
  /** Resolves a name to all of its addresses. `dns.lookup` by default. */
  lookup?: Lookup
}

export interface AuthCall {
  /** Number of requests that shared the call; 0 if it was made for held tokens alone. */
  requests: number
  durationMs: number
  failed: boolean
}

export interface CallTrace {
  /** Sent to Auth instead of that of the first request; its format is that of W3C Trace Context. */
  traceparent: string
  end(call: AuthCall): void
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
  /**
   * Watches the token of a connection that stays open, once a second, beside the tokens of requests. The token should just have
   * been validated. `onEnd` is called within two seconds of its end, or after `maxSilenceMs` without a verdict.
   */
  hold(token: string, options: HoldOptions): Hold
  /** Number of holds that have not ended. */
  holds(): number
  /** Number of calls without a response so far. */
  callsInFlight(): number
  /** How many Auths are in use, and how many are not because they failed. */
  auths(): UpstreamCounts
  /** Null if any Auth gives verdicts, otherwise the reason as a sentence. */
  whyNotReady(caller: Caller): Promise<string | null>
  /** Ends every hold, and waits for the calls in flight. */
  close(): Promise<void>
}

/** One HTTP call: the batches that waited when it was sent, each with its own deadline, and held tokens. */
interface Call {
  /** Oldest first. None if the call is made for held tokens alone. */
  batches: Batch[]
  /** The tokens of the batches. */
  tokens: string[]
  looks: Looks | null
  /** The deadline of the last batch. */
  deadlineAt: number
  abort: AbortController
  trace: CallTrace | null
}

/** Asked to learn whether Auth accepts the key. A well-formed token would reach the store and look like a guess in the log. */
const malformedToken = 'ready'
/** So many tokens of maximum length fit in the 512 KB that Auth accepts. */
export const largestBatch = maxTokensPerCall - 1
const maxReadyBytes = 4096
/** The caller of a call that no request makes: for held tokens alone, or a probe. */
const forHolds: Caller = { requestId: 'holds' }
const watchEveryMs = 50 // how late a deadline may be noticed; one timer for all requests is cheaper than one for each

export function openAuthClient(options: AuthClientOptions): AuthClient {
  const { key, log, monotonicNow, deadlineMs = 1000, maxCalls = 2, maxWaiting = 10_000 } = options
  const { url, lookup, maxSilenceMs = 10_000 } = options
  const { maxBatch = largestBatch } = options
  const askVerdicts = createVerdictCall(key)
  const probe = createProbe(askVerdicts)
  const upstreams = openUpstreams({
    ...{ url, lookup, log, monotonicNow, deadlineMs, watchEveryMs },
    ...{ maxCalls, maxBackgroundCalls: maxLookCalls },
    probe,
    onFree: scheduleSend,
  })
  const outage = createOutageLog(log)
  const batches = createBatches({ maxBatch, deadlineSlackMs: watchEveryMs })
  const inFlight = new Set<Call>()
  // Counted separately, on connections of their own, so that no request waits for them.
  const lookCalls = new Set<Call>()
  const askReadyStatus = everySecond(() => readyStatusOf(upstreams, probe, deadlineMs), monotonicNow)
  let isSendScheduled = false
  let closed: Promise<void> | null = null
  const holds = openHolds({
    maxBatch,
    maxSilenceMs,
    monotonicNow,
    sendAlone(looks) {
      const deadlineAt = monotonicNow() + deadlineMs
      return send({ batches: [], tokens: [], looks, deadlineAt, abort: new AbortController(), trace: null }, lookCalls)
    },
    onThrown: cause => log.warn('hold_end_failed', { cause }),
  })

  // A call is sent at the end of the current turn of the event loop, with every request that this turn read from the sockets.
  // A request that arrives alone is therefore sent alone, without delay.
  function scheduleSend(): void {
    if (isSendScheduled || !upstreams.hasFree()) return
    isSendScheduled = true
    setImmediate(() => {
      isSendScheduled = false
      sendWaiting()
    })
  }

  function sendWaiting(): void {
    while (upstreams.hasFree()) {
      const taken = batches.takeCall()
      if (taken === null) return
      const tokens = taken.length === 1 ? (taken[0] as Batch).tokens : taken.flatMap(({ tokens }) => tokens)
      const { deadlineAt } = taken.at(-1) as Batch
      const looks = holds.takeAlong(maxBatch - tokens.length)
      const trace = options.traceCall?.(taken.flatMap(({ callers }) => callers)) ?? null
      void send({ batches: taken, tokens, looks, deadlineAt, abort: new AbortController(), trace }, inFlight)
    }
  }

  async function send(call: Call, calls: Set<Call>): Promise<void> {
    calls.add(call)
    const startedAt = monotonicNow()
    const outcome = await upstreams
      .call(attempt => askVerdicts(attempt, call), {
        signal: call.abort.signal,
        isRepeatable: call.tokens.length === 0 && call.looks?.touches.length === 0,
        isBackground: calls === lookCalls,
      })
      .catch((error: Error) => error)
    calls.delete(call)
    // Send the next call before answering the requests of this one, so that Auth is not idle meanwhile.
    sendWaiting()
    const failed = outcome instanceof Error
    const durationMs = monotonicNow() - startedAt
    const finished = { requests: call.tokens.length, durationMs, failed }
    options.onCall?.(finished)
    call.trace?.end(finished)
    if (failed) {
      outage.begin(outcome)
      for (const batch of call.batches) reject(batch, outcome)
      call.looks?.settle(null)
      return
    }
    outage.end()
    const { verdicts, held } = outcome
    const count = call.tokens.length
    resolveAll(call, verdicts.length === count ? verdicts : verdicts.slice(0, count), durationMs)
    call.looks?.settle({ touched: verdicts.slice(count), held })
  }

  function reject({ tokens, verdicts }: Batch, cause: Error): void {
    verdicts.reject(outage.noVerdict(tokens.length, cause))
  }

  const watch = setInterval(() => {
    const now = monotonicNow()
    const late = () => new Error(`Auth did not answer within ${deadlineMs} ms`)
    for (const call of inFlight) {
      if (call.deadlineAt <= now) call.abort.abort(late())
      else while ((call.batches[0] as Batch).deadlineAt <= now) reject(call.batches.shift() as Batch, late())
    }
    for (const call of lookCalls) if (call.deadlineAt <= now) call.abort.abort(late())
    for (const batch of batches.takeLate(now)) reject(batch, new Error(`no call was free within ${deadlineMs} ms`))
    upstreams.watch(now)
  }, watchEveryMs).unref()

  async function validate(token: string, caller: Caller): Promise<Validation> {
    if (batches.count() >= maxWaiting)
      throw outage.noVerdict(1, new Error(`${maxWaiting} requests are already waiting`))
    const batch = batches.join(token, caller, monotonicNow() + deadlineMs)
    const at = batch.tokens.length - 1
    if (at === 0) scheduleSend()
    const verdict = (await batch.verdicts.promise)[at] as Verdict | NoVerdict
    // Not logged as an outage: Auth answers, and logs which part of its store does not.
    if (verdict.authenticated === undefined) throw noVerdictError()
    return { verdict, serverTiming: batch.serverTiming }
  }

  return {
    validate,
    hold: holds.hold,
    holds: holds.count,
    callsInFlight: () => inFlight.size + lookCalls.size,
    auths: upstreams.counts,

    async whyNotReady(caller) {
      const validation = await validate(malformedToken, caller).catch(() => null)
      const { healthy, ejected } = upstreams.counts()
      // If one of several Auths fails, another may give verdicts.
      const status = validation || healthy + ejected > 1 ? await askReadyStatus() : null
      if (status === 200) return null
      return status === 503 ? 'Auth gives no verdicts: its token store does not answer.' : 'Auth gives no verdicts.'
    },

    async close() {
      holds.close()
      clearInterval(watch)
      closed ??= upstreams.close()
      await closed
    },
  }
}

type AskVerdicts = ReturnType<typeof createVerdictCall>

/** The returned function asks one Auth for the verdicts of a call. */
function createVerdictCall(key: string) {
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
  let callCount = 0

  return async function ask(
    attempt: Attempt,
    { batches, tokens: ofRequests, looks, trace }: Omit<Call, 'deadlineAt' | 'abort'>,
  ): Promise<Verdicts> {
    const first = batches[0]?.callers[0] ?? forHolds
    const traceparent = trace === null ? first.traceparent : trace.traceparent
    const tokens = looks && looks.touches.length > 0 ? [...ofRequests, ...looks.touches] : ofRequests
    const held = looks?.held ?? []
    const body: ValidateTokenRequest = {
      ...(tokens.length > 0 && { tokens }),
      ...(held.length > 0 && { held }),
    }
    // The id begins with that of the first request and is unique, so its echo proves that the response belongs to this call.
    // Auth echoes only ids of these characters: otherwise one client's unusual id would fail every request of the call.
    const callId = `${first.requestId.slice(0, 48).replace(/[^\w.-]/g, '_')}.${++callCount}`
    const answer = await exchange(
      attempt,
      {
        method: 'POST',
        path: validateTokenPath,
        headers: { ...headers, 'x-request-id': callId, ...(traceparent && { traceparent }) },
        body: JSON.stringify(body),
      },
      maxVerdictBytes * (tokens.length + held.length + 1),
    )
    if (answer.status !== 200) throw new Error(`Auth answered ${answer.status}`)
    if (!/^application\/json\s*(;|$)/.test(String(answer.headers['content-type']))) {
      throw new Error('Auth did not answer in JSON')
    }
    if (answer.headers['x-request-id'] !== callId) throw new Error('Auth answered another request')
    return parseVerdicts(answer.text, tokens.length, held.length)
  }
}

/** Gives each batch its verdicts. Batches whose deadline passed during the call have been removed from it. */
function resolveAll({ batches, tokens: asked }: Call, all: Verdicts['verdicts'], durationMs: number): void {
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

/** The returned function rejects unless this Auth accepts the key and its token store answers. */
function createProbe(askVerdicts: AskVerdicts) {
  return async function probe(attempt: Attempt): Promise<void> {
    await askVerdicts(attempt, { batches: [], tokens: [malformedToken], looks: null, trace: null })
    const { status } = await exchange(attempt, { method: 'GET', path: readyPath }, maxReadyBytes)
    if (status !== 200) throw new Error('Auth is not ready', { cause: status })
  }
}

/** 200 if any Auth is ready, otherwise the HTTP status of `/ready` of the last one; null if that did not answer in time. */
async function readyStatusOf(upstreams: Upstreams, probe: ReturnType<typeof createProbe>, timeoutMs: number) {
  const abort = new AbortController()
  const late = setTimeout(() => abort.abort(new Error(`Auth did not answer within ${timeoutMs} ms`)), timeoutMs)
  try {
    await upstreams.call(probe, { signal: abort.signal, isRepeatable: true, isBackground: true })
    return 200
  } catch (error) {
    return error instanceof Error ? error.cause : null
  } finally {
    clearTimeout(late)
  }
}
