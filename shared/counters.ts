// Counters that expire, one per key: the port, and an implementation in the memory of this process. Hides how they fit in a
// fixed amount of memory, however many keys clients make up.
import { hash, randomUUID } from 'node:crypto'

export interface Counted {
  count: number
  /** Time until the count expires; 0 if there is no count. */
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

/** `durationMs` must be a whole number of seconds. */
export type OpenCounter = (name: string, durationMs: number) => Counter

/** Counters that several processes share. */
export interface SharedCounters {
  open: OpenCounter
  close(): Promise<void>
}

const slots = 65_536 // keys per counter; they take 1.3 MB
const slotsPerKey = 8 // each key can be in any of this many slots

/**
 * Counters in fixed memory: if all slots of a new key are taken, the key in these slots that expires first is replaced.
 * `monotonicNow` returns milliseconds that never jump, so that setting the system clock neither shortens nor prolongs a wait.
 */
export function memoryCounters(monotonicNow: () => number): OpenCounter {
  const seed = randomUUID() // so that clients cannot choose keys that collide

  return (_name, durationMs) => {
    /** Allocated for the first count, because Auth opens many counters and uses few of them. */
    let table: Table | null = null

    /** The slot that holds the key, or the slot to write it to. */
    function locate(key: string, { high, low, ends }: Table) {
      const digest = hash('sha1', seed + key, 'buffer')
      const [a, b] = [digest.readUInt32LE(0), digest.readUInt32LE(4)]
      const first = (digest.readUInt32LE(8) % (slots / slotsPerKey)) * slotsPerKey
      const now = monotonicNow()
      let at = first
      for (let i = first; i < first + slotsPerKey; i++) {
        if (high[i] === a && low[i] === b && (ends[i] as number) > now) return { at: i, a, b, now, isKnown: true }
        if ((ends[i] as number) < (ends[at] as number)) at = i
      }
      return { at, a, b, now, isKnown: false }
    }

    /** The slot of the key; null if the key has no count. */
    function find(key: string) {
      if (table === null) return null
      const place = locate(key, table)
      return place.isKnown ? { table, ...place } : null
    }

    function write(
      { high, low, counts, ends }: Table,
      { at, a, b, now }: Place,
      count: number,
      forMs: number,
    ): Counted {
      high[at] = a
      low[at] = b
      counts[at] = count
      ends[at] = now + forMs
      return { count, remainingMs: forMs }
    }

    return {
      async read(key) {
        const found = find(key)
        return found ? countedAt(found.table, found) : { count: 0, remainingMs: 0 }
      },
      async add(key, forMs = durationMs) {
        table ??= newTable()
        const place = locate(key, table)
        if (!place.isKnown) return write(table, place, 1, forMs)
        table.counts[place.at] = (table.counts[place.at] as number) + 1
        return countedAt(table, place)
      },
      async extend(key, byMs) {
        const found = find(key)
        if (found) found.table.ends[found.at] = (found.table.ends[found.at] as number) + byMs
      },
      async set(key, count, forMs = durationMs) {
        table ??= newTable()
        write(table, locate(key, table), count, forMs)
      },
      async forget(key) {
        const found = find(key)
        if (found) found.table.ends[found.at] = 0
      },
    }
  }
}

interface Place {
  at: number
  /** The two halves of the key's hash. */
  a: number
  b: number
  now: number
}

function countedAt({ counts, ends }: Table, { at, now }: Place): Counted {
  return { count: counts[at] as number, remainingMs: (ends[at] as number) - now }
}

interface Table {
  /** A key is identified by 64 bits of its hash. */
  high: Uint32Array
  low: Uint32Array
  counts: Uint32Array
  /** Monotonic milliseconds; a slot whose end has passed is free. */
  ends: Float64Array
}

const newTable = (): Table => ({
  high: new Uint32Array(slots),
  low: new Uint32Array(slots),
  counts: new Uint32Array(slots),
  ends: new Float64Array(slots),
})
