// The port of the usage store: how often each API key was used, in buckets of a minute and of an hour, and what its
// adapters have in common. Only KEY_USAGE_DAYS needs it. Instants are epoch milliseconds; a rejected promise means the store is unavailable.

export type UsageSpan = 'minute' | 'hour'

/** One admitted use of a key, or of a token that was delegated from it. */
export interface KeyUse {
  keyId: string
  isDelegated: boolean
}

export interface UsageBucket {
  /** Begins a minute or an hour of UTC. */
  startsAt: number
  /** Uses of the key itself. */
  count: number
  /** Uses of tokens that were delegated from it. */
  delegatedCount: number
}

/** Every method but `close` rejects once the store is closed. */
export interface UsageStore {
  /** Adds the uses to the buckets of `now`, all of them or, if it rejects, any number of them. Concurrent calls lose none. */
  add(uses: KeyUse[], now: number): Promise<void>

  /** The buckets of the key that have uses and are still kept at `now`, oldest first. */
  read(keyId: string, span: UsageSpan, now: number): Promise<UsageBucket[]>

  /**
   * One bounded step of a sweep: removes what is no longer kept at `now`, of about `limit` keys or buckets at most. True at the end
   * of a round, and always if the database removes buckets by itself.
   */
  deleteExpired(now: number, limit: number): Promise<boolean>

  /** Idempotent. */
  close(): Promise<void>
}

export const usageSpans: readonly UsageSpan[] = ['minute', 'hour']

const minuteMs = 60_000
const dayMs = 86_400_000

export const spanMs: Readonly<Record<UsageSpan, number>> = { minute: minuteMs, hour: 60 * minuteMs }

/** How long buckets are kept: a day, and for hours as many days as the operator wants. */
export function keptMs(span: UsageSpan, days: number): number {
  return span === 'minute' ? dayMs : days * dayMs
}

/** The start of the bucket that `at` belongs to. */
export function startOf(span: UsageSpan, at: number): number {
  return at - (at % spanMs[span])
}

/** The start of the oldest bucket that is still kept. */
export function oldestStart(span: UsageSpan, days: number, now: number): number {
  return startOf(span, now - keptMs(span, days))
}

export interface KeyCounts {
  keyId: string
  count: number
  delegatedCount: number
}

/** The sums by key, in the order of the ids: adapters that lock rows do so in the same order everywhere. */
export function addUp(uses: KeyUse[]): KeyCounts[] {
  const sums = new Map<string, KeyCounts>()
  for (const { keyId, isDelegated } of uses) {
    const sum = sums.get(keyId) ?? { keyId, count: 0, delegatedCount: 0 }
    if (isDelegated) sum.delegatedCount++
    else sum.count++
    sums.set(keyId, sum)
  }
  return [...sums.values()].toSorted((a, b) => (a.keyId < b.keyId ? -1 : 1))
}
