// A value that requests overwrite, such as the roles of a user: which values a read can have seen. Hides which writes may be in
// effect at a time. A write takes effect at some instant between its begin and its last effect, or not at all if it is unknown.
import type { Operation } from './history.ts'
import { byBegin, firstAbove, firstAtLeast, lastEffect } from './operations.ts'

export interface Register<Value> {
  write(operation: Operation, value: Value): void
  /** A read that saw a value of which only this is known: `fits` is true for it. Proves that unknown writes took effect. */
  confirm(read: Operation, fits: (value: Value) => boolean): void
  /** Whether the read can have seen such a value. */
  canBe(read: Operation, fits: (value: Value) => boolean): boolean
  /** The last write that certainly took effect before the read began; null if there was none. */
  lastBefore(read: Operation): Operation | null
  /** Whether any write that began before the read ended wrote such a value. */
  wasEver(read: Operation, fits: (value: Value) => boolean): boolean
}

interface Write<Value> {
  value: Value
  /** Null for the value at the beginning of the history. */
  operation: Operation | null
  beginMs: number
  /** The latest time at which the write can have taken effect. */
  lastMs: number
  /** From this time on the write has certainly taken effect. */
  sureMs: number
}

export function createRegister<Value>(initial: Value): Register<Value> {
  const [before, never] = [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]
  const writes: Write<Value>[] = [{ value: initial, operation: null, beginMs: before, lastMs: before, sureMs: before }]
  let order: ReturnType<typeof ordered> | null = null

  function ordered() {
    writes.sort(byBegin)
    let latest = before
    const latestEffects = writes.map(({ lastMs }) => (latest = Math.max(latest, lastMs)))
    const sure = writes.filter(({ sureMs }) => sureMs < never).sort((a, b) => a.sureMs - b.sureMs)
    let newest = sure[0] as Write<Value>
    const newestSure = sure.map(write => (newest = write.beginMs >= newest.beginMs ? write : newest))
    return { latestEffects, sureTimes: sure.map(({ sureMs }) => sureMs), newestSure }
  }

  /** The write that began last of those that certainly took effect before `ms`. */
  function newestBefore(ms: number): Write<Value> {
    order ??= ordered()
    return order.newestSure[firstAtLeast(order.sureTimes, ms) - 1] as Write<Value>
  }

  /** The writes whose value the read can have seen: begun before it ended, and not certainly overwritten before it began. */
  function* seenBy({ beginMs, endMs }: Operation): Generator<Write<Value>> {
    const overwritten = newestBefore(beginMs).beginMs
    order ??= ordered()
    for (let i = firstAbove(writes, endMs, write => write.beginMs) - 1; i >= 0; i--) {
      if ((order.latestEffects[i] as number) < overwritten) return
      const write = writes[i] as Write<Value>
      if (write.lastMs >= overwritten) yield write
    }
  }

  return {
    write(operation, value) {
      if (operation.outcome === 'refused') return
      const { beginMs, endMs, outcome } = operation
      const sureMs = outcome === 'ok' ? endMs : never
      writes.push({ value, operation, beginMs, lastMs: lastEffect(operation), sureMs })
      order = null
    },

    confirm(read, fits) {
      if (writes.length === 1) return // most registers are never written
      const [write, ...others] = [...seenBy(read)].filter(({ value }) => fits(value))
      if (write === undefined || others.length > 0 || write.operation?.outcome !== 'unknown') return
      if (write.sureMs <= read.endMs) return
      write.sureMs = read.endMs
      write.lastMs = Math.min(write.lastMs, read.endMs)
      order = null
    },

    canBe(read, fits) {
      if (writes.length === 1) return fits(initial)
      for (const { value } of seenBy(read)) if (fits(value)) return true
      return false
    },

    lastBefore: ({ beginMs }) => newestBefore(beginMs).operation,

    wasEver: ({ endMs }, fits) => writes.some(({ beginMs, value }) => beginMs <= endMs && fits(value)),
  }
}
