// Asks Auth for verdicts over HTTP. Requests that arrive together share one call; every verdict is computed after its
// request arrived; nothing is cached, nothing is retried. Hides batching, deadlines and the distrust of the answer.
import { Pool } from 'undici'
import { AppError } from '../../shared/errors.ts'
import type { Log } from '../../shared/log.ts'
import {
  maxTokensPerCall,
  maxVerdictBytes,
  parseVerdicts,
  type ValidateTokensRequest,
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

interface Question {
  token: string
  requestId: string
  deadlineAt: number
  resolve(verdict: Verdict): void
  reject(error: AppError): void
}

interface Call {
  deadlineAt: number
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
  const waiting: Question[] = []
  const calls = new Set<Call>()
  let sendScheduled = false
  let callCount = 0
  let failedRequests = 0

  // A request joins the call that leaves at the end of this turn of the event loop: with it goes all that the same turn
  // read from the sockets, and one that came alone leaves alone, at once.
  function scheduleSend(): void {
    if (sendScheduled || waiting.length === 0 || calls.size >= maxCalls) return
    sendScheduled = true
    setImmediate(() => {
      sendScheduled = false
      while (waiting.length > 0 && calls.size < maxCalls) void send(waiting.splice(0, maxBatch))
    })
  }

  async function send(questions: Question[]): Promise<void> {
    const first = questions[0] as Question
    const call: Call = { deadlineAt: first.deadlineAt, abort: new AbortController() }
    calls.add(call)
    try {
      const verdicts = await ask(questions, call.abort.signal)
      if (failedRequests > 0) log.info('Auth gives verdicts again', { failedRequests })
      failedRequests = 0
      questions.forEach(({ resolve }, i) => void resolve(verdicts[i] as Verdict))
    } catch (error) {
      failTogether(questions, error)
    } finally {
      calls.delete(call)
      scheduleSend()
    }
  }

  async function ask(questions: Question[], signal: AbortSignal): Promise<Verdict[]> {
    // Begins with the id of the first request, and is unique, so that its echo tells this call's answer from another's.
    const callId = `${questions[0]?.requestId.slice(0, 48)}.${++callCount}`
    const request: ValidateTokensRequest = { tokens: questions.map(({ token }) => token) }
    const answer = await pool.request({
      method: 'POST',
      path: validateTokenPath,
      headers: { ...headers, 'x-request-id': callId },
      body: JSON.stringify(request),
      signal,
    })
    const text = await readAtMost(answer.body, maxVerdictBytes * (questions.length + 1))
    if (answer.statusCode !== 200) throw new Error(`Auth answered ${answer.statusCode}`)
    if (!/^application\/json\s*(;|$)/.test(String(answer.headers['content-type'])))
      throw new Error('Auth did not answer in JSON')
    if (answer.headers['x-request-id'] !== callId) throw new Error('Auth answered another request')
    return parseVerdicts(text, questions.length)
  }

  // One line when verdicts stop and one when they come again: an outage must not fill the disk with the same sentence.
  function failTogether(questions: Question[], cause: unknown): void {
    if (questions.length > 0 && failedRequests === 0) log.warn('Auth gives no verdict', { cause })
    failedRequests += questions.length
    for (const { reject } of questions) reject(new AppError('unavailable', 'Auth gave no verdict; try again.'))
  }

  const watch = setInterval(() => {
    const now = monotonicNow()
    for (const call of calls) {
      if (call.deadlineAt <= now) call.abort.abort(new Error(`Auth did not answer within ${deadlineMs} ms`))
    }
    const inTime = waiting.findIndex(({ deadlineAt }) => deadlineAt > now)
    const overdue = waiting.splice(0, inTime < 0 ? waiting.length : inTime)
    failTogether(overdue, new Error(`no call was free within ${deadlineMs} ms`))
  }, watchEveryMs).unref()

  return {
    /** Resolves to a verdict that Auth computed after this was called; rejects with `unavailable` where there is none. */
    validate(token: string, requestId: string): Promise<Verdict> {
      return new Promise((resolve, reject) => {
        const question = { token, requestId, deadlineAt: monotonicNow() + deadlineMs, resolve, reject }
        if (waiting.length >= maxWaiting)
          return failTogether([question], new Error(`${maxWaiting} requests wait already`))
        waiting.push(question)
        scheduleSend()
      })
    },

    /** Null where Auth gives verdicts, else a sentence. */
    async whyNotReady(requestId: string): Promise<string | null> {
      // No token of ours looks like this: Auth answers without asking its store.
      return this.validate('ready', requestId).then(
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

async function readAtMost(body: AsyncIterable<Buffer>, limit: number): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > limit) throw new Error(`Auth answered with more than ${limit} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
