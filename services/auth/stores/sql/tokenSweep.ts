// One slice of a sweep: turns dead tokens into tombstones, and deletes tombstones that are old enough.
import type { SqlDatabase } from './database.ts'
import type { Connection } from './driver.ts'
import { sql } from './statement.ts'
import type { TokenCounts } from './tokenCounts.ts'
import { rememberedMs } from './tokenQueries.ts'

export async function sweepSlice(
  database: SqlDatabase,
  counts: TokenCounts,
  now: number,
  limit: number,
): Promise<{ removed: number; done: boolean }> {
  const { db, run } = database
  // One transaction, because a retry after half of the work would leave that half uncounted.
  const { examined, forgotten } = await run(() =>
    db.transaction(async tx => ({
      examined: await buryDue(database, tx, now, limit),
      forgotten: await deleteTombstones(database, tx, now, limit),
    })),
  )
  const removed = examined.filter(({ ended }) => ended)
  counts.remove(removed)
  const done = examined.length < limit && forgotten < limit
  // The sweep has succeeded even if this recount takes too long; the running count is kept then.
  if (done && counts.isDue(now)) await run(() => counts.recount(db)).catch(() => {})
  return { removed: removed.length, done }
}

/**
 * Examines the tokens that are due. Extending a token does not write `sweep_at`, so a due token may still be live; it
 * becomes due again at its new expiry.
 */
function buryDue(
  { lock }: SqlDatabase,
  tx: Connection,
  now: number,
  limit: number,
): Promise<{ ended: number; userId: string | null }[]> {
  return tx.query(sql`with due as (
      select t.id as due_id, case when t.credential_version < coalesce(f.version, 0) then 1 else 0 end as is_below
      from latchkey_tokens as t left join latchkey_floors as f on f.user_id = t.user_id
      where t.end_reason is null and t.sweep_at <= ${now} order by t.sweep_at limit ${limit}
      ${lock('for update of t skip locked')}
    )
    update latchkey_tokens set
      end_reason = case when expires_at <= ${now} then 'expired' when is_below = 1 then 'ended' end,
      ended_at = case when expires_at <= ${now} then expires_at when is_below = 1 then expires_at end,
      sweep_at = case when expires_at <= ${now} or is_below = 1 then ${now + rememberedMs} else expires_at end
    from due where id = due_id and end_reason is null
    returning case when end_reason is null then 0 else 1 end as ended, user_id as "userId"`)
}

function deleteTombstones({ lock }: SqlDatabase, tx: Connection, now: number, limit: number): Promise<number> {
  return tx.change(sql`delete from latchkey_tokens where id in (
      select t.id from latchkey_tokens as t where t.end_reason is not null and t.sweep_at <= ${now}
      limit ${limit} ${lock('for update of t skip locked')}
    )`)
}
