// Counters of what callers do, which forget with time, and the limit on invalid tokens that both services have. Hides how
// many keys are kept at most, and that an address of IPv6 is one of 2^64 that its holder has.
import { hash, randomUUID } from 'node:crypto'
import { invalidToken } from '../packages/client/bearer.ts'
import { AppError, type KnownError } from './http/errors.ts'

export interface Counted {
  count: number
  /** Until the key is forgotten; 0 where it is not known. */
  ms: number
}

export interface Counter {
  read(key: string): Promise<Counted>
  /** One more, in one step. The first one of a key decides when it is forgotten: after `forMs`, or what the counter has. */
  add(key: string, forMs?: number): Promise<Counted>
  /** Forgotten so much later, in one step. */
  lengthen(key: string, byMs: number): Promise<void>
  /** This many, from now on for `forMs`. */
  put(key: string, count: number, forMs?: number): Promise<void>
  forget(key: string): Promise<void>
}

/** `durationMs`: whole seconds. */
export type OpenCounter = (name: string, durationMs: number) => Counter

/** Counters that several processes have in common. */
export interface SharedCounters {
  open: OpenCounter
  close(): Promise<void>
}

const slots = 65_536 // of a counter: keys that it can hold, in 1.3 MB
const slotsPerKey = 8 // that a key may be in

/**
 * Of this process. Their memory is fixed, whatever keys are made up: where there is no room for a key, the one in its way
 * that would be forgotten first is. `monotonicNow`: milliseconds that never jump, so that a clock that is set neither ends
 * nor prolongs a wait.
 */
export function memoryCounters(monotonicNow: () => number): OpenCounter {
  const seed = randomUUID() // nobody can choose keys that are in each other's way

  return (_name, durationMs) => {
    // A key is known by 64 bits of its hash.
    const [high, low, counts] = [new Uint32Array(slots), new Uint32Array(slots), new Uint32Array(slots)]
    const ends = new Float64Array(slots) // monotonic milliseconds; what has ended is free

    /** Where the key is, or else is to be. */
    function locate(key: string) {
      const digest = hash('sha1', seed + key, 'buffer')
      const [a, b] = [digest.readUInt32LE(0), digest.readUInt32LE(4)]
      const first = (digest.readUInt32LE(8) % (slots / slotsPerKey)) * slotsPerKey
      const now = monotonicNow()
      let at = first
      for (let i = first; i < first + slotsPerKey; i++) {
        if (high[i] === a && low[i] === b && endOf(i) > now) return { at: i, a, b, now, isKnown: true }
        if (endOf(i) < endOf(at)) at = i
      }
      return { at, a, b, now, isKnown: false }
    }

    const endOf = (at: number) => ends[at] as number

    function write({ at, a, b }: { at: number; a: number; b: number }, count: number, end: number): void {
      high[at] = a
      low[at] = b
      counts[at] = count
      ends[at] = end
    }

    return {
      async read(key) {
        const { at, now, isKnown } = locate(key)
        return isKnown ? { count: counts[at] as number, ms: endOf(at) - now } : { count: 0, ms: 0 }
      },
      async add(key, forMs = durationMs) {
        const place = locate(key)
        const { at, now, isKnown } = place
        write(place, isKnown ? (counts[at] as number) + 1 : 1, isKnown ? endOf(at) : now + forMs)
        return { count: counts[at] as number, ms: endOf(at) - now }
      },
      async lengthen(key, byMs) {
        const { at, isKnown } = locate(key)
        if (isKnown) ends[at] = endOf(at) + byMs
      },
      async put(key, count, forMs = durationMs) {
        const place = locate(key)
        write(place, count, place.now + forMs)
      },
      async forget(key) {
        const { at, isKnown } = locate(key)
        if (isKnown) ends[at] = 0
      },
    }
  }
}

/** By what an address is counted. An IPv6 one by its /64: whoever has one address of it has them all (RFC 6177). */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address
  const [head = '', tail] = address.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail ? tail.split(':').length + (tail.includes('.') ? 1 : 0) : 0
  const missing = tail === undefined ? 0 : 8 - left.length - right
  return `${[...left, ...Array<string>(missing).fill('0'), ...(tail ?? '').split(':')].slice(0, 4).join(':')}::/64`
}

/** 429. `ms`: how long to wait before the next attempt. */
export function tooManyRequests(ms: number): AppError {
  const headers = { 'Retry-After': String(Math.max(1, Math.ceil(ms / 1000))) }
  return new AppError('too_many_requests', 'Too many attempts. Try again after the time in Retry-After.', { headers })
}

/** The request that presented an invalid token. */
interface InvalidCaller {
  requestId: string
  address: string
}

export interface InvalidTokens {
  /**
   * Counts an invalid token. Null while the address may go on; otherwise the milliseconds until its limit is lifted. Call it
   * only for tokens that were validated and refused: a valid token is never refused because of others from its address.
   */
  record(caller: InvalidCaller): Promise<number | null>
}

export interface InvalidTokensOptions {
  /** Invalid tokens from one address in a minute. */
  limit: number
  /** Milliseconds that never jump. */
  monotonicNow: () => number
  observe: (event: InvalidCaller & { type: 'rate_limited'; what: 'invalid_tokens'; userId: null }) => void
}

export function limitInvalidTokens({ limit, monotonicNow, observe }: InvalidTokensOptions): InvalidTokens {
  const counter = memoryCounters(monotonicNow)('invalidTokens', 60_000)
  return {
    async record({ requestId, address }) {
      const { count, ms } = await counter.add(networkOf(address))
      if (count <= limit) return null
      observe({ type: 'rate_limited', what: 'invalid_tokens', requestId, address, userId: null })
      return ms
    },
  }
}

/** The error for an invalid token, by the result of `record`: 401, or 429 if the address is limited. */
export function invalidTokenError(limitedForMs: number | null): KnownError {
  return limitedForMs === null ? invalidToken() : tooManyRequests(limitedForMs)
}
