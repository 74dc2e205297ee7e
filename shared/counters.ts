// Counters that expire, keyed by text: a port, and counters in the memory of this process. Hides how a fixed amount of memory
// holds them however many keys clients make up.
import { hash, randomUUID } from 'node:crypto'

export interface Counted {
  count: number
  /** Until the count expires; 0 without a count. */
  remainingMs: number
}

export interface Counter {
  read(key: string): Promise<Counted>
  /** Atomically adds one. The first call for a key sets its expiry: after `forMs`, by default the duration of the counter. */
  add(key: string, forMs?: number): Promise<Counted>
  /** Atomically postpones the expiry of a key that has a count. */
  extend(key: string, byMs: number): Promise<void>
  /** Sets the count and its expiry. */
  set(key: string, count: number, forMs?: number): Promise<void>
  forget(key: string): Promise<void>
}

/** `durationMs`: whole seconds. */
export type OpenCounter = (name: string, durationMs: number) => Counter

/** Counters that several processes share. */
export interface SharedCounters {
  open: OpenCounter
  close(): Promise<void>
}

const slots = 65_536 // keys per counter, in 1.3 MB
const slotsPerKey = 8 // each key can be stored in one of these

/**
 * Counters in fixed memory: a new key replaces the one that expires first if all its slots are taken. `monotonicNow` returns
 * milliseconds that never jump, so that setting the system clock neither shortens nor prolongs a wait.
 */
export function memoryCounters(monotonicNow: () => number): OpenCounter {
  const seed = randomUUID() // so that clients cannot choose keys that collide

  return (_name, durationMs) => {
    // A key is identified by 64 bits of its hash.
    const [high, low, counts] = [new Uint32Array(slots), new Uint32Array(slots), new Uint32Array(slots)]
    const ends = new Float64Array(slots) // monotonic milliseconds; a slot whose end has passed is free

    /** The slot that holds the key, or the slot to write it to. */
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
        return isKnown ? { count: counts[at] as number, remainingMs: endOf(at) - now } : { count: 0, remainingMs: 0 }
      },
      async add(key, forMs = durationMs) {
        const place = locate(key)
        const { at, now, isKnown } = place
        write(place, isKnown ? (counts[at] as number) + 1 : 1, isKnown ? endOf(at) : now + forMs)
        return { count: counts[at] as number, remainingMs: endOf(at) - now }
      },
      async extend(key, byMs) {
        const { at, isKnown } = locate(key)
        if (isKnown) ends[at] = endOf(at) + byMs
      },
      async set(key, count, forMs = durationMs) {
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
