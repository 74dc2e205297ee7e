// The usage store in the memory of this process, lost when it exits. Every method is one synchronous step and therefore atomic.
import {
  addUp,
  oldestStart,
  startOf,
  type UsageBucket,
  type UsageSpan,
  type UsageStore,
  usageSpans,
} from '../usagePort.ts'
import { createGate } from './gate.ts'

/** The buckets of a key, by their start. */
type Buckets = Record<UsageSpan, Map<number, UsageBucket>>

/** `days`: how long the buckets of hours are kept. */
export async function openUsageStore(_url: string, days: number): Promise<UsageStore> {
  const byKey = new Map<string, Buckets>()
  /** The keys that the sweep has yet to examine; null between two rounds. */
  let unswept: Iterator<[string, Buckets]> | null = null
  const gate = createGate()

  return {
    async add(uses, now) {
      gate.check()
      for (const { keyId, count, delegatedCount } of addUp(uses)) {
        const buckets = byKey.get(keyId) ?? { minute: new Map(), hour: new Map() }
        byKey.set(keyId, buckets)
        for (const span of usageSpans) {
          const startsAt = startOf(span, now)
          const bucket = buckets[span].get(startsAt) ?? { startsAt, count: 0, delegatedCount: 0 }
          bucket.count += count
          bucket.delegatedCount += delegatedCount
          buckets[span].set(startsAt, bucket)
        }
      }
    },

    async read(keyId, span, now) {
      gate.check()
      const oldest = oldestStart(span, days, now)
      const kept = [...(byKey.get(keyId)?.[span].values() ?? [])].filter(({ startsAt }) => startsAt >= oldest)
      return kept.map(bucket => ({ ...bucket })).toSorted((a, b) => a.startsAt - b.startsAt)
    },

    async deleteExpired(now, limit) {
      gate.check()
      unswept ??= byKey.entries()
      for (let examined = 0; examined < limit; examined++) {
        const next = unswept.next()
        if (next.done) {
          unswept = null
          return true
        }
        const [keyId, buckets] = next.value
        for (const span of usageSpans) forgetBefore(oldestStart(span, days, now), buckets[span])
        if (usageSpans.every(span => buckets[span].size === 0)) byKey.delete(keyId)
      }
      return false
    },

    close: gate.close,
  }
}

/** Buckets are in the order of their first use, so this reads one more than it removes. */
function forgetBefore(oldest: number, buckets: Map<number, UsageBucket>): void {
  for (const startsAt of buckets.keys()) {
    if (startsAt >= oldest) return
    buckets.delete(startsAt)
  }
}
