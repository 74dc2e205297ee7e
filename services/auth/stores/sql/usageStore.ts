// The usage store in SQLite or PostgreSQL. Every method is one statement. Hides that uses which arrive in the same turn of the
// event loop are written together in SQLite, where a commit costs much more than a row.
import {
  addUp,
  type KeyCounts,
  oldestStart,
  spanMs,
  startOf,
  type UsageBucket,
  type UsageStore,
  usageSpans,
} from '../usagePort.ts'
import { openDatabase, type SqlDatabase } from './database.ts'
import { type Sql, sql } from './statement.ts'

/** Resolves when the schema is up to date; rejects with a message for the operator. `days`: how long the buckets of hours are kept. */
export async function openUsageStore(url: string, days: number): Promise<UsageStore> {
  const database = await openDatabase(url, () => {}) // the token store has the same URL, and has warned
  const { db, dialect, run, lock } = database
  const add = (rows: UsageRow[]) => run(() => addRows(database, rows))
  const addJoined = dialect === 'sqlite' ? joinAdds(add) : add

  return {
    add: (uses, now) => addJoined(rowsOf(addUp(uses), now)),

    read: (keyId, span, now) =>
      run(() =>
        db.query<UsageBucket>(sql`select starts_at as "startsAt", count, delegated_count as "delegatedCount"
          from latchkey_key_usage
          where key_id = ${keyId} and span_ms = ${spanMs[span]} and starts_at >= ${oldestStart(span, days, now)}
          order by starts_at`),
      ),

    deleteExpired: (now, limit) =>
      run(async () => {
        const isExpired = usageSpans.map(
          span => sql`(span_ms = ${spanMs[span]} and starts_at < ${oldestStart(span, days, now)})`,
        )
        const removed = await Promise.all(
          isExpired.map(condition =>
            db.change(sql`delete from latchkey_key_usage where (key_id, span_ms, starts_at) in (
              select key_id, span_ms, starts_at from latchkey_key_usage as t where ${condition}
              limit ${limit} ${lock('for update of t skip locked')})`),
          ),
        )
        return removed.every(n => n < limit)
      }),

    close: database.close,
  }
}

/** What to add to one row of the table. */
interface UsageRow extends KeyCounts {
  spanMs: number
  startsAt: number
}

function rowsOf(sums: KeyCounts[], now: number): UsageRow[] {
  return sums.flatMap(sum => usageSpans.map(span => ({ ...sum, spanMs: spanMs[span], startsAt: startOf(span, now) })))
}

/** Rows are locked in their order, so that batches with keys in common wait instead of deadlocking. */
async function addRows({ db, dialect }: SqlDatabase, rows: UsageRow[]): Promise<void> {
  await db.change(sql`insert into latchkey_key_usage as u (key_id, span_ms, starts_at, count, delegated_count)
    ${dialect === 'sqlite' ? fromJson(rows) : fromArrays(rows)}
    on conflict (key_id, span_ms, starts_at) do update set
      count = u.count + excluded.count, delegated_count = u.delegated_count + excluded.delegated_count`)
}

// Without the condition, SQLite takes `on conflict` for a part of a join.
const fromJson = (rows: UsageRow[]): Sql =>
  sql`select value ->> 'keyId', value ->> 'spanMs', value ->> 'startsAt', value ->> 'count', value ->> 'delegatedCount'
    from json_each(${JSON.stringify(rows)}) where true`

const fromArrays = (rows: UsageRow[]): Sql =>
  sql`select * from unnest(${rows.map(({ keyId }) => keyId)}::text[], ${rows.map(({ spanMs }) => spanMs)}::bigint[],
    ${rows.map(({ startsAt }) => startsAt)}::bigint[], ${rows.map(({ count }) => count)}::bigint[],
    ${rows.map(({ delegatedCount }) => delegatedCount)}::bigint[])`

/** Writes the rows of one turn of the event loop in one statement. */
function joinAdds(add: (rows: UsageRow[]) => Promise<void>): (rows: UsageRow[]) => Promise<void> {
  let waiting: UsageRow[] = []
  let written: Promise<void> | null = null

  return rows => {
    waiting.push(...rows)
    written ??= new Promise<void>((resolve, reject) => {
      setImmediate(() => {
        const joined = waiting
        waiting = []
        written = null
        add(joined).then(resolve, reject)
      })
    })
    return written
  }
}
