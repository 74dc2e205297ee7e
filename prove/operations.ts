// What the rules of the checker ask about operations: when they can have taken effect, their order, and their names in sentences.
import type { Operation } from './history.ts'

/** The latest time at which an operation can have taken effect. */
export function lastEffect({ outcome, settledMs, endMs }: Operation): number {
  return outcome === 'unknown' ? (settledMs ?? Number.POSITIVE_INFINITY) : endMs
}

export function told({ op, beginMs, id }: Operation): string {
  return `${op} #${id} (begun at ${at(beginMs)})`
}

export function at(ms: number): string {
  return `${ms.toFixed(1)} ms`
}

export function byBegin(a: { beginMs: number }, b: { beginMs: number }): number {
  return a.beginMs - b.beginMs
}

export function byEnd(a: Operation, b: Operation): number {
  return a.endMs - b.endMs
}

/** The index of the first item above `limit`; the items are in ascending order. */
export function firstAbove<T>(items: T[], limit: number, read: (item: T) => number): number {
  return firstWhere(items, item => read(item) > limit)
}

export function firstAtLeast(items: number[], limit: number): number {
  return firstWhere(items, item => item >= limit)
}

function firstWhere<T>(items: T[], isBeyond: (item: T) => boolean): number {
  let [low, high] = [0, items.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (isBeyond(items[middle] as T)) high = middle
    else low = middle + 1
  }
  return low
}
