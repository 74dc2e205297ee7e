// What every framework needs of the client: reads the token of a request, gets its verdict, and knows which headers or
// which answer follow. The adapters (koa.ts, express.ts …) only apply the result.
import { type AuthClient, openAuthClient, type Validation } from './authClient.ts'
import { beyondLimit, invalidToken, readBearerToken } from './bearer.ts'
import type { Admission } from './contract.ts'
import { problemOf, TokenError } from './errors.ts'
import { type Check, createGuards, type MakeGuards, type Refused } from './guards.ts'
import type { Hold, HoldOptions } from './holds.ts'
import { type LatchkeyOptions, readOptions } from './options.ts'
import { type AnyRequest, headerOf, idOf, pairsOf } from './requestHeaders.ts'
import { isTraceparent } from './requestIdentity.ts'
import { createShadowRules, type ShadowRule } from './shadowRules.ts'

/** One connection pool to Auth. Open one per process. */
export interface Latchkey {
  /**
   * Whom the token of the request belongs to. Throws a `TokenError`, which has the `status` and the `headers` of the response:
   * 400 if there are two tokens, 401 without a live token, 429 if the token is used more often than it may be, 503 if Auth gave no
   * verdict.
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
  /** What the rules with `shadow` have counted in this process. */
  shadowRules(): ShadowRule[]
}

export interface OpenLatchkey {
  auth: Latchkey
  check: Check
  guards: MakeGuards
}

/** Throws a `TypeError` at once if an option is wrong. */
export function openLatchkey(options: LatchkeyOptions = {}): OpenLatchkey {
  const { onShadow, ...clientOptions } = readOptions(options, process.env)
  const monotonicNow = () => performance.now()
  const client = openAuthClient({ ...clientOptions, monotonicNow })
  const shadowRules = createShadowRules({ monotonicNow, onShadow, log: clientOptions.log })

  const check: Check = async (request, givenId) => {
    const pairs = pairsOf(request)
    const requestId = givenId ?? idOf(pairs)
    try {
      const { verdict, serverTiming } = await admit(client, pairs, requestId)
      return { admission: verdict, headers: { ...headersOf(requestId), 'Server-Timing': serverTiming } }
    } catch (error) {
      if (!(error instanceof TokenError)) throw error
      return refuse(error, requestId)
    }
  }

  return {
    auth: {
      authenticate: async request => (await admit(client, pairsOf(request))).verdict,
      hold: (of, options) =>
        client.hold(typeof of === 'string' ? of : readBearerToken({ rawHeaders: pairsOf(of) }), options),
      holds: client.holds,
      whyNotReady: () => client.whyNotReady({ requestId: 'ready' }),
      callsInFlight: client.callsInFlight,
      close: client.close,
      shadowRules: shadowRules.list,
    },
    check,
    guards: createGuards({ check, refuse, requestIdOf: request => idOf(pairsOf(request)), shadowRules }),
  }
}

/** The header `token` does not keep shared caches from storing a response, as `Authorization` does (RFC 9111, section 3.5). */
function headersOf(requestId: string): Record<string, string> {
  return { 'Cache-Control': 'no-store', 'X-Request-Id': requestId }
}

function refuse(error: TokenError, requestId: string): Refused {
  const { status, code, message } = error
  const headers = { ...headersOf(requestId), 'Content-Type': 'application/problem+json', ...error.headers }
  return { admission: null, error, status, headers, body: JSON.stringify(problemOf(status, code, message, requestId)) }
}

async function admit(client: AuthClient, pairs: readonly string[], requestId = idOf(pairs)) {
  const traceparent = headerOf(pairs, 'traceparent')
  const validation = await client.validate(readBearerToken({ rawHeaders: pairs }), {
    requestId,
    traceparent: isTraceparent(traceparent) ? traceparent : undefined,
  })
  const { verdict } = validation
  if (!verdict.authenticated) throw verdict.limited === true ? beyondLimit(verdict) : invalidToken()
  return validation as Validation & { verdict: Admission }
}
