// What all checks of one run share: the target, the client, and how results are reported.
import {
  CheckFailure,
  type Exchange,
  openClient,
  type RequestOptions,
  type SmokeClient,
  type SmokeTimes,
} from './client.ts'

export interface Target {
  /** An origin, as `business` is. */
  auth: string
  business: string
  /** Null if the internal listener cannot be reached from here. */
  internal: string | null
  /** Ports on which no internal listener may respond. */
  internalPorts: number[]
  user: Credentials | null
  serviceKey: string | null
  allowsHttp: boolean
}

export interface Credentials {
  username: string
  password: string
}

export type Outcome = 'passed' | 'failed' | 'unchecked'

export interface SmokeRun {
  target: Target
  /** One origin if a single address serves both services. */
  publicOrigins: string[]
  send: SmokeClient['send']
  exchanges: Exchange[]
  /** Runs and reports a check. `run` returns what it saw, or throws a `CheckFailure`. Returns whether the check passed. */
  check(title: string, run: () => Promise<string>): Promise<boolean>
  skip(title: string, reason: string): void
  getData(options?: RequestOptions): Promise<Exchange>
  /** The session is revoked when the run ends. */
  logIn(credentials: Credentials): Promise<Exchange>
  revokeAtEnd(token: string): void
  /** Revokes the sessions of this run. */
  close(): Promise<void>
}

const defaultTimes: SmokeTimes = { budgetMs: 18_000, responseTimeoutMs: 5000 }
export const parallelRequests = 4 // so that several processes behind one address take part
export const formHeaders = ['Content-Type', 'application/x-www-form-urlencoded']
/** Well formed, but never issued. */
export const unknownToken = `lk_${'0'.repeat(62)}x`

export function openRun(
  target: Target,
  report: (outcome: Outcome, title: string, seen: string) => void,
  times: SmokeTimes = defaultTimes,
): SmokeRun {
  const { auth, business } = target
  const { send, exchanges, close } = openClient(times)
  const issued: string[] = []
  return {
    target,
    publicOrigins: [...new Set([auth, business])],
    send,
    exchanges,

    async check(title, run) {
      try {
        report('passed', title, await run())
        return true
      } catch (error) {
        if (!(error instanceof CheckFailure)) throw error
        report('failed', title, error.message)
        return false
      }
    },

    skip: (title, reason) => report('unchecked', title, reason),

    getData: options => send('GET', `${business}/data`, options),

    async logIn(credentials) {
      const exchange = await send('POST', `${auth}/login`, { body: credentials })
      if (exchange.status === 200 && typeof exchange.body['token'] === 'string') issued.push(exchange.body['token'])
      return exchange
    },

    revokeAtEnd: token => void issued.push(token),

    async close() {
      const revoke = (token: string) => send('POST', `${auth}/revoke`, { headers: formHeaders, body: `token=${token}` })
      await Promise.allSettled(issued.map(revoke))
      close()
    },
  }
}

export function isLoopback(hostname: string): boolean {
  return /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)
}
