// What every framework needs of the client: reads the token of a request, gets its verdict, and knows which headers or
// which answer follow. The adapters (koa.ts, express.ts …) only apply the result.
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { type AuthClient, openAuthClient, type Validation } from './authClient.ts'
import { invalidToken, readBearerToken } from './bearer.ts'
import type { Admission } from './contract.ts'
import { problemOf, TokenError } from './errors.ts'
import type { Hold, HoldOptions } from './holds.ts'
import { type LatchkeyOptions, readOptions } from './options.ts'
import { isRequestId, isTraceparent } from './requestIdentity.ts'

/** A request of node:http (Koa, Express and Fastify have it as `req` or `raw`) or of fetch. */
export type AnyRequest = Pick<IncomingMessage, 'rawHeaders'> | Pick<Request, 'headers'>

/** One connection pool to Auth. Open one per process. */
export interface Latchkey {
  /**
   * Whom the token of the request belongs to. Throws a `TokenError`, which has the `status` and the `headers` of the response:
   * 400 if there are two tokens, 401 without a live token, 503 if Auth gave no verdict.
   */
  authenticate(request: AnyRequest): Promise<Admission>
  /**
   * Watches the token of a connection that stays open: `onEnd` is called within two seconds of the end of the token, or after
   * `maxSilenceMs` without a verdict. Takes the request that was just authenticated, or its token.
   */
  hold(of: AnyRequest | string, options: HoldOptions): Hold
  /** Number of holds that have not ended. */
  holds(): number
  /** Null if Auth gives verdicts, otherwise the reason as a sentence; for a readiness check. */
  whyNotReady(): Promise<string | null>
  /** Number of calls to Auth without a response so far. */
  callsInFlight(): number
  /** Ends every hold, and waits for the calls in flight. A process ends without it too, because idle connections do not keep it alive. */
  close(): Promise<void>
}

export interface Passed {
  admission: Admission
  headers: Record<string, string>
}

export interface Refused {
  admission: null
  status: number
  headers: Record<string, string>
  /** A problem document (RFC 9457). */
  body: string
}

/** `requestId` is an id that the framework has already given to the request. */
export type Check = (request: AnyRequest, requestId?: string) => Promise<Passed | Refused>

/** Throws a `TypeError` at once if an option is wrong. */
export function openLatchkey(options: LatchkeyOptions = {}): { auth: Latchkey; check: Check } {
  const client = openAuthClient({ ...readOptions(options, process.env), monotonicNow: () => performance.now() })
  return {
    auth: {
      authenticate: async request => (await admit(client, pairsOf(request))).verdict,
      hold: (of, options) =>
        client.hold(typeof of === 'string' ? of : readBearerToken({ rawHeaders: pairsOf(of) }), options),
      holds: client.holds,
      whyNotReady: () => client.whyNotReady({ requestId: 'ready' }),
      callsInFlight: client.callsInFlight,
      close: client.close,
    },

    async check(request, givenId) {
      const pairs = pairsOf(request)
      const requestId = givenId ?? idOf(pairs)
      // The header `token` does not keep shared caches from storing a response, as `Authorization` does (RFC 9111, section 3.5).
      const headers = { 'Cache-Control': 'no-store', 'X-Request-Id': requestId }
      try {
        const { verdict, serverTiming } = await admit(client, pairs, requestId)
        return { admission: verdict, headers: { ...headers, 'Server-Timing': serverTiming } }
      } catch (error) {
        if (!(error instanceof TokenError)) throw error
        const { status, code, message } = error
        const body = JSON.stringify(problemOf(status, code, message, requestId))
        const type = { 'Content-Type': 'application/problem+json' }
        return { admission: null, status, headers: { ...headers, ...type, ...error.headers }, body }
      }
    },
  }
}

async function admit(client: AuthClient, pairs: readonly string[], requestId = idOf(pairs)) {
  const traceparent = headerOf(pairs, 'traceparent')
  const validation = await client.validate(readBearerToken({ rawHeaders: pairs }), {
    requestId,
    traceparent: isTraceparent(traceparent) ? traceparent : undefined,
  })
  if (!validation.verdict.authenticated) throw invalidToken()
  return validation as Validation & { verdict: Admission }
}

/** Header names and values in turn, as in `rawHeaders`. */
function pairsOf(request: AnyRequest): readonly string[] {
  if ('rawHeaders' in request) return request.rawHeaders
  // `Headers` joins headers of the same name. Splitting them again finds two tokens; a single token contains no comma.
  return [...request.headers].flatMap(([name, value]) =>
    name === 'authorization' || name === 'token'
      ? value.split(name === 'token' ? /, / : /, (?=[\w-]+ )/).flatMap(one => [name, one])
      : [name, value],
  )
}

/** The id that the client or a proxy has given to the request, or a new one. */
function idOf(pairs: readonly string[]): string {
  const given = headerOf(pairs, 'x-request-id')
  return isRequestId(given) ? given : randomUUID()
}

function headerOf(pairs: readonly string[], name: string): string | undefined {
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i]?.length === name.length && pairs[i]?.toLowerCase() === name) return pairs[i + 1]
  }
  return undefined
}
