// Chooses an Auth for each call: balances over the healthy ones, ejects those that fail or hang, and sends a call to another
// one if that cannot change anything twice. Hides connections. A single Auth is never ejected.
import { Pool } from 'undici'
import { type Addresses, createAddresses, type Lookup, parseUrls, type Target } from './addresses.ts'
import type { Attempt } from './exchange.ts'
import { createHealth, type Health, type HealthOptions } from './health.ts'

export interface Upstreams {
  /** Whether a call would be sent at once. */
  hasFree(): boolean
  /**
   * Runs `ask` with one Auth after another, each at most once, until it resolves. Another Auth is tried only if not a byte of
   * the request was sent, or if the call is repeatable. Waits while all of them have `maxCalls` calls in flight.
   */
  call<T>(ask: (attempt: Attempt) => Promise<T>, options: CallOptions): Promise<T>
  /** Ejects and probes. Must be called every `watchEveryMs`. */
  watch(now: number): void
  counts(): UpstreamCounts
  /** Waits for the calls in flight. */
  close(): Promise<void>
}

export interface CallOptions {
  /** Aborted at the deadline of the call. */
  signal: AbortSignal
  /** True only if the call extends and consumes nothing, so that it may be sent twice. */
  isRepeatable: boolean
  /** `maxCalls` does not count it, so no other call waits for it, and it waits for no other. */
  isBackground?: boolean
}

export interface UpstreamCounts {
  healthy: number
  ejected: number
}

export interface UpstreamsOptions extends Pick<HealthOptions, 'log' | 'monotonicNow'> {
  /** One or more base URLs; a string may be a list, separated by commas. */
  url: string | readonly string[]
  /** `dns.lookup` by default. */
  lookup?: Lookup | undefined
  deadlineMs: number
  /** Maximum number of calls in flight at each Auth, apart from background calls. */
  maxCalls: number
  /** Connections for background calls at each Auth; further ones wait for a connection. */
  maxBackgroundCalls?: number
  watchEveryMs: number
  /** Rejects if the Auth gives no verdicts. */
  probe: (attempt: Attempt) => Promise<unknown>
  /** Called when a call can be sent that had to wait before, other than by the end of a call. */
  onFree: () => void
  /** A connection of this age is replaced before its next call: names are resolved again, and load balancers can balance. */
  maxConnectionAgeMs?: number
}

interface Upstream {
  target: Target
  pool: Pool
  health: Health
  flights: Set<Flight>
  /** The number of flights, and of calls that are about to begin. */
  taken: number
  /** The number of the last call. */
  lastTaken: number
}

/** A call at one Auth. */
interface Flight {
  attempt: Attempt
  /** Ends the attempt, but not the call. Null if there was no other Auth. */
  abort: AbortController | null
  isRepeatable: boolean
  /** The Auths that have got the call, including this one. */
  tried: ReadonlySet<Upstream>
  /** On the clock `awakeMs`. */
  beganAt: number
  /** Whether the Auth was ejected because of this call; it must not be ejected for it again. */
  isBlamed: boolean
}

/** A call that waits until an Auth which it has not tried is free. */
interface Waiting {
  tried: ReadonlySet<Upstream>
  resolve: (upstream: Upstream) => void
}

const nothingTried: ReadonlySet<Upstream> = new Set()

export function openUpstreams(options: UpstreamsOptions): Upstreams {
  const { monotonicNow, deadlineMs, watchEveryMs, onFree } = options
  const ejectAfterMs = deadlineMs / 2
  const fleet = openFleet(options, () => {
    serveWaiting()
    onFree()
  })
  const waiting = new Set<Waiting>()
  // Counts only time during which this process ran: if it stood still, answers may have arrived that it has not read yet.
  let awakeMs = 0
  let watchedAt = monotonicNow()

  function serveWaiting(): void {
    for (const one of waiting) {
      const upstream = fleet.take(one.tried, false)
      if (upstream === null) continue
      waiting.delete(one)
      one.resolve(upstream)
    }
  }

  function waitForFree(tried: ReadonlySet<Upstream>, signal: AbortSignal): Promise<Upstream> {
    const { promise, resolve, reject } = Promise.withResolvers<Upstream>()
    const one: Waiting = { tried, resolve }
    waiting.add(one)
    signal.addEventListener('abort', () => {
      if (waiting.delete(one)) reject(signal.reason)
    })
    return promise
  }

  function begin(upstream: Upstream, triedBefore: ReadonlySet<Upstream>, options: CallOptions): Flight {
    const { signal, isRepeatable } = options
    const abort = fleet.isSingle() ? null : new AbortController()
    if (abort) signal.addEventListener('abort', () => abort.abort(signal.reason))
    const attempt = { pool: upstream.pool, signal: abort?.signal ?? signal, isSent: false }
    const tried = new Set(triedBefore).add(upstream)
    const flight = { attempt, abort, isRepeatable, tried, beganAt: awakeMs + watchEveryMs, isBlamed: false }
    upstream.flights.add(flight)
    return flight
  }

  const canBegin = ({ isBackground = false }: CallOptions) => isBackground || fleet.hasFree()

  const mayGoOn = (attempt: Attempt, isRepeatable: boolean, tried: ReadonlySet<Upstream>) =>
    (isRepeatable || !attempt.isSent) && fleet.hasOther(tried)

  const isLate = ({ beganAt }: Flight) => awakeMs - beganAt >= ejectAfterMs

  /** Ejects the Auth, and takes away its calls that may go to another one. */
  function eject({ health, flights }: Upstream, cause: Error): void {
    if (fleet.isSingle()) return
    health.failed(cause)
    for (const flight of flights) {
      if (mayGoOn(flight.attempt, flight.isRepeatable, flight.tried)) flight.abort?.abort(cause)
    }
  }

  function noteFailure(upstream: Upstream, flight: Flight, error: Error, hasExpired: boolean): void {
    const wasTakenAway = flight.attempt.signal.aborted && !hasExpired
    // A call that had waited long before it was sent says little about this Auth.
    if (wasTakenAway || (hasExpired && !isLate(flight))) return
    eject(upstream, error)
    if (!hasExpired || fleet.isSingle()) return
    // This Auth has hung for nearly a deadline: its other late calls fail now instead of at their own deadlines.
    for (const other of upstream.flights) if (isLate(other)) other.abort?.abort(error)
  }

  /** The common case costs as little as possible: with a single Auth there is nothing to note. */
  async function callSingle<T>(ask: (attempt: Attempt) => Promise<T>, options: CallOptions): Promise<T> {
    const { signal, isBackground = false } = options
    const upstream = fleet.take(nothingTried, isBackground) as Upstream
    const attempt = { pool: upstream.pool, signal, isSent: false }
    try {
      return await ask(attempt)
    } catch (error) {
      // The name may have got another address when the connection was opened.
      const tried = new Set([upstream])
      if (signal.aborted || !mayGoOn(attempt, options.isRepeatable, tried)) throw error
      return callOneOf(ask, options, tried)
    } finally {
      release(upstream, isBackground)
    }
  }

  function release(upstream: Upstream, isBackground: boolean): void {
    if (!isBackground) upstream.taken--
    if (waiting.size > 0) serveWaiting()
  }

  async function callOneOf<T>(
    ask: (attempt: Attempt) => Promise<T>,
    options: CallOptions,
    triedBefore: ReadonlySet<Upstream>,
  ): Promise<T> {
    const { signal, isBackground = false } = options
    let tried = triedBefore
    for (;;) {
      const upstream = fleet.take(tried, isBackground) ?? (await waitForFree(tried, signal))
      const flight = begin(upstream, tried, options)
      tried = flight.tried
      try {
        signal.throwIfAborted()
        const answer = await ask(flight.attempt)
        upstream.health.succeeded()
        return answer
      } catch (error) {
        noteFailure(upstream, flight, error as Error, signal.aborted)
        if (signal.aborted || !mayGoOn(flight.attempt, options.isRepeatable, tried)) throw error
      } finally {
        upstream.flights.delete(flight)
        release(upstream, isBackground)
      }
      onFree()
    }
  }

  return {
    hasFree: fleet.hasFree,
    call: (ask, options) =>
      fleet.isSingle() && canBegin(options) ? callSingle(ask, options) : callOneOf(ask, options, nothingTried),

    watch(now) {
      awakeMs += Math.min(now - watchedAt, 2 * watchEveryMs)
      watchedAt = now
      if (fleet.isSingle()) return
      for (const upstream of fleet.all()) {
        for (const flight of upstream.flights) {
          if (flight.isBlamed || !isLate(flight)) continue
          flight.isBlamed = true
          eject(upstream, new Error(`Auth did not answer within ${ejectAfterMs} ms`))
        }
        upstream.health.watch(now)
      }
    },

    counts() {
      const ejected = fleet.all().filter(({ health }) => health.isEjected()).length
      return { healthy: fleet.all().length - ejected, ejected }
    },

    close: fleet.close,
  }
}

interface Fleet {
  all(): readonly Upstream[]
  isSingle(): boolean
  hasOther(tried: ReadonlySet<Upstream>): boolean
  /** Whether `take` would return an Auth for a new call. */
  hasFree(): boolean
  /**
   * Chooses an Auth that has not been tried, and counts the call. Null if each usable one has `maxCalls` calls already; never
   * for a background call.
   */
  take(tried: ReadonlySet<Upstream>, isBackground: boolean): Upstream | null
  close(): Promise<void>
}

/** The Auths at the configured addresses. Follows the addresses that their names have. */
function openFleet(options: UpstreamsOptions, onMore: () => void): Fleet {
  const { log, monotonicNow, deadlineMs, maxCalls, probe } = options
  const { maxBackgroundCalls = 0, maxConnectionAgeMs = 30_000 } = options
  const closing = new AbortController()
  const retired = new Set<Promise<void>>()
  const addresses: Addresses = createAddresses(parseUrls(options.url), {
    lookup: options.lookup,
    monotonicNow,
    resolveTimeoutMs: deadlineMs / 4,
    onChange: follow,
  })
  let upstreams = addresses.targets().map(openUpstream)
  let takenCount = 0

  function openUpstream(target: Target): Upstream {
    // No pipelining: a call must not wait for the response to another call. HTTP/1.1 only: Auth speaks nothing else.
    const pool = new Pool(target.origin, {
      connections: maxCalls + maxBackgroundCalls,
      pipelining: 1,
      allowH2: false,
      clientTtl: maxConnectionAgeMs,
      connect: { timeout: deadlineMs, lookup: target.lookup },
      headersTimeout: deadlineMs,
      bodyTimeout: deadlineMs,
    })
    const health = createHealth({
      address: () => target.address,
      log,
      monotonicNow,
      probe: () =>
        probe({ pool, signal: AbortSignal.any([closing.signal, AbortSignal.timeout(deadlineMs)]), isSent: false }),
      onReadmitted: onMore,
    })
    return { target, pool, health, flights: new Set(), taken: 0, lastTaken: 0 }
  }

  function follow(): void {
    const before = upstreams
    upstreams = addresses
      .targets()
      .map(target => before.find(upstream => upstream.target === target) ?? openUpstream(target))
    for (const { pool } of before.filter(upstream => !upstreams.includes(upstream))) {
      const closed = pool.close().finally(() => retired.delete(closed))
      retired.add(closed)
    }
    if (upstreams.length === 1) upstreams[0]?.health.succeeded()
    onMore()
  }

  function choose(tried: ReadonlySet<Upstream>, maxTaken: number): Upstream | null {
    const isFree = ({ taken }: Upstream) => taken < maxTaken
    const [first] = upstreams as [Upstream]
    if (upstreams.length === 1) return isFree(first) && !tried.has(first) ? first : null
    const untried = upstreams.filter(upstream => !tried.has(upstream))
    const healthy = untried.filter(({ health }) => !health.isEjected())
    // If all are ejected, calls are the fastest way to find out that one is back.
    const [best] = healthy.length > 0 ? healthy.sort(byLoad) : untried.filter(isFree).sort(byFailure)
    return best && isFree(best) ? best : null
  }

  return {
    all: () => upstreams,
    isSingle: () => upstreams.length === 1,
    hasOther: tried => upstreams.some(upstream => !tried.has(upstream)),
    hasFree: () => choose(nothingTried, maxCalls) !== null,

    take(tried, isBackground) {
      const upstream = choose(tried, isBackground ? Infinity : maxCalls)
      if (upstream === null) return null
      if (!isBackground) upstream.taken++
      upstream.lastTaken = ++takenCount
      return upstream
    },

    async close() {
      closing.abort(new Error('the client is closing'))
      await Promise.all([...upstreams.map(({ pool }) => pool.close()), ...retired])
    },
  }
}

/** The fewest calls first; of equals, the least recently used one. */
function byLoad(one: Upstream, other: Upstream): number {
  return one.taken - other.taken || one.lastTaken - other.lastTaken
}

/** The least recently failed one first. */
function byFailure(one: Upstream, other: Upstream): number {
  return (one.health.failedAt() ?? 0) - (other.health.failedAt() ?? 0)
}
