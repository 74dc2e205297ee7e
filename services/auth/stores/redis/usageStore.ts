// The usage store in Redis, over a connection of its own. Hides that one hash has the buckets of a key for the
// minutes of an hour, or for the hours of a day, and that Redis removes it by itself. It is in the slot of the key's token.
import {
  addUp,
  type KeyCounts,
  keptMs,
  oldestStart,
  spanMs,
  startOf,
  type UsageBucket,
  type UsageSpan,
  type UsageStore,
  usageSpans,
} from '../usagePort.ts'
import { openRedis, scriptOf } from './connection.ts'
import { keyOf, restOf, tagOfId } from './tokens.ts'

/**
 * keys: hashes. args of each: field, count, delegated count, and the expiry in milliseconds if the hash is new. Uses of delegated
 * tokens have a field of their own, so that most hashes stay small enough for the compact encoding.
 */
const addScript = scriptOf(`
for i, key in ipairs(KEYS) do
  local field, count, delegated, ms = unpack(ARGV, 4 * i - 3, 4 * i)
  if count ~= '0' then redis.call('hincrby', key, field, count) end
  if delegated ~= '0' then redis.call('hincrby', key, 'd' .. field, delegated) end
  if redis.call('pttl', key) < 0 then redis.call('pexpire', key, ms) end
end
`)

/** keys: hashes. Fields and values of each. */
const readScript = scriptOf(`
local hashes = {}
for i, key in ipairs(KEYS) do hashes[i] = redis.call('hgetall', key) end
return hashes
`)

const bucketsPerHash = { minute: 60, hour: 24 }
const letters = { minute: 'm', hour: 'h' }

/**
 * Requires the URL of a token store that is already open: opening it has reported any warnings about the server. `days`: how long
 * the buckets of hours are kept.
 */
export async function openUsageStore(url: string, days: number): Promise<UsageStore> {
  const redis = await openRedis(url, { warn: () => {}, onReplaced: async () => {} })
  const { prefix, run, call } = redis
  const tagKeyOf = (keyId: string) => keyOf(prefix, tagOfId(keyId))
  const hashKeyOf = (keyId: string, span: UsageSpan, from: number) =>
    `${tagKeyOf(keyId)}${restOf(keyId)}:${letters[span]}:${from / hashMs(span)}`

  /** All keys are in one slot, or there is one server. */
  async function addTo(sums: KeyCounts[], now: number): Promise<void> {
    const places = sums.flatMap(sum => usageSpans.map(span => ({ ...sum, span })))
    const keys = places.map(({ keyId, span }) => hashKeyOf(keyId, span, hashStart(span, now)))
    const args = places.flatMap(({ count, delegatedCount, span }) => [
      (startOf(span, now) - hashStart(span, now)) / spanMs[span],
      count,
      delegatedCount,
      keptMs(span, days) + hashMs(span),
    ])
    await call(addScript, keys, args)
  }

  // A missing right of the user is reported at the start, and not by the first use of a key.
  const probe = `${prefix}usage`
  await run(() => call(addScript, [probe], [0, 1, 0, 1000])).catch(async error => {
    await redis.close()
    throw new Error(`the Redis server does not count uses of keys (${error.message})`, { cause: error })
  })

  return {
    add: (uses, now) =>
      run(async () => {
        const sums = addUp(uses)
        const groups = redis.together(sums.map(({ keyId }) => tagKeyOf(keyId)))
        await Promise.all(
          groups.map(group =>
            addTo(
              group.map(i => sums[i] as KeyCounts),
              now,
            ),
          ),
        )
      }),

    read: (keyId, span, now) =>
      run(async () => {
        const oldest = oldestStart(span, days, now)
        const starts: number[] = []
        // The clock of another process may be a little ahead, so that it counts in the next hash already.
        const last = now + hashMs(span)
        for (let from = hashStart(span, oldest); from <= last; from += hashMs(span)) starts.push(from)
        const keys = starts.map(from => hashKeyOf(keyId, span, from))
        const hashes = (await call(readScript, keys, [])) as string[][]
        const buckets = hashes.flatMap((fields, i) => bucketsOf(fields, starts[i] as number, span))
        return buckets.filter(({ startsAt }) => startsAt >= oldest)
      }),

    deleteExpired: () => run(async () => true),
    close: redis.close,
  }
}

/** The time that one hash covers. */
function hashMs(span: UsageSpan): number {
  return bucketsPerHash[span] * spanMs[span]
}

function hashStart(span: UsageSpan, at: number): number {
  return at - (at % hashMs(span))
}

function bucketsOf(fields: string[], from: number, span: UsageSpan): UsageBucket[] {
  const buckets = new Map<number, UsageBucket>()
  for (let i = 0; i < fields.length; i += 2) {
    const [field, value] = [fields[i] as string, Number(fields[i + 1])]
    const isDelegated = field.startsWith('d')
    const startsAt = from + Number(isDelegated ? field.slice(1) : field) * spanMs[span]
    const bucket = buckets.get(startsAt) ?? { startsAt, count: 0, delegatedCount: 0 }
    buckets.set(startsAt, isDelegated ? { ...bucket, delegatedCount: value } : { ...bucket, count: value })
  }
  return [...buckets.values()].toSorted((a, b) => a.startsAt - b.startsAt)
}
