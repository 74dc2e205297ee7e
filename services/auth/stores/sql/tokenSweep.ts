// The sweep: deletes dead tokens, of which some first become tombstones, and floors that no token needs, in bounded slices. Hides
// that the processes which share a database sweep one at a time.
import { floorKeptMs, type TokenStore } from '../tokenPort.ts'
import type { SqlDatabase } from './database.ts'
import type { Connection } from './driver.ts'
import { sql } from './statement.ts'
import type { TokenCounts } from './tokenCounts.ts'
import { isOneOf, rememberedMs } from './tokenQueries.ts'

/** Where a round has arrived in each index, so that a slice does not pass again what the slices before it have removed. */
interface Position {
  due: number
  ended: number
  floors: number
}

interface Examined {
  id: string
  isDead: number
  userId: string | null
  /** When the token was due. */
  dueAt: number
}

/** Tombstones per slice, for `explain`: operators ask about few of the tokens that expire together. */
const rememberedPerSlice = 50

interface Slice {
  examined: Examined[]
  /** The `sweep_at` of each tombstone deleted. */
  forgotten: number[]
  floors: ExaminedFloors
}

interface ExaminedFloors {
  /** The `forget_at` of each floor deleted. */
  forgotten: number[]
  /** How many are kept until they are examined again. */
  kept: number
}

const begin: Position = { due: 0, ended: 0, floors: 0 }
const noFloors: ExaminedFloors = { forgotten: [], kept: 0 }

export function createSweep(database: SqlDatabase, counts: TokenCounts): TokenStore['deleteExpired'] {
  const { db, run } = database
  let position = begin

  return async (now, limit) => {
    const from = position
    // One transaction, because a retry after half of the work would leave that half uncounted.
    const slice = await run(() =>
      db.transaction(async (tx): Promise<Slice | null> => {
        if (!(await isOurTurn(database, tx))) return null
        // A slice does one kind of work, except the last one of its kind, so that a large sweep needs fewer statements.
        const examined = await removeDue(database, tx, { now, limit, from: from.due })
        if (examined.length === limit) return { examined, forgotten: [], floors: noFloors }
        const forgotten = await deleteTombstones(database, tx, { now, limit, from: from.ended })
        if (forgotten.length === limit) return { examined, forgotten, floors: noFloors }
        return { examined, forgotten, floors: await forgetFloors(database, tx, { now, limit, from: from.floors }) }
      }),
    )
    // Another process sweeps: it removes what is dead, and this round is over.
    const { examined, forgotten, floors } = slice ?? { examined: [], forgotten: [], floors: noFloors }
    const removed = examined.filter(({ isDead }) => isDead)
    counts.remove(removed)
    const done = [examined.length, forgotten.length, floors.forgotten.length, floors.kept].every(n => n < limit)
    position = done
      ? begin
      : {
          due: examined.reduce((latest, { dueAt }) => Math.max(latest, dueAt), from.due),
          ended: forgotten.reduce((latest, at) => Math.max(latest, at), from.ended),
          floors: floors.forgotten.reduce((latest, at) => Math.max(latest, at), from.floors),
        }
    // The sweep has succeeded even if this recount takes too long; the running count is kept then.
    if (done && counts.isDue(now)) await run(() => counts.recount(db, database.dialect)).catch(() => {})
    return { removed: removed.length, done }
  }
}

/**
 * Takes the lock of the sweep until the end of the transaction, unless another process has it. A slice that a crash undoes is
 * repeated by the next sweep, so its commit does not wait for the disk. The settings last as long as the transaction: without
 * them the planner reads a table of moderate size, or one that has grown since it was analysed, as a whole in each slice.
 */
async function isOurTurn({ dialect }: SqlDatabase, tx: Connection): Promise<boolean> {
  if (dialect === 'sqlite') return true // one writer at a time anyway
  const [row] = await tx.query<{ isOurs: boolean }>(sql`select set_config('synchronous_commit', 'off', true),
    set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    pg_try_advisory_xact_lock(hashtextextended('latchkey sweep of ' || current_schema(), 0)) as "isOurs"`)
  return row?.isOurs === true
}

interface Part {
  now: number
  limit: number
  from: number
}

/**
 * Examines the tokens that are due. Extending a token does not write `sweep_at`, so a due token may still be live; it
 * becomes due again at its new expiry.
 */
async function removeDue(database: SqlDatabase, tx: Connection, { now, limit, from }: Part): Promise<Examined[]> {
  const { dialect, lock } = database
  const examined = await tx.query<Examined>(sql`select t.id, t.user_id as "userId", t.sweep_at as "dueAt",
      case when t.expires_at <= ${now} or t.credential_version < coalesce(f.version, 0) then 1 else 0 end as "isDead"
    from latchkey_tokens as t left join latchkey_floors as f on f.user_id = t.user_id
    where t.end_reason is null and t.sweep_at >= ${from} and t.sweep_at <= ${now} order by t.sweep_at limit ${limit}
    ${lock('for update of t skip locked')}`)
  const dead = examined.filter(({ isDead }) => isDead)
  const live = examined.filter(({ isDead }) => !isDead)
  const isAmong = (tokens: Examined[]) =>
    isOneOf(
      tokens.map(({ id }) => id),
      dialect,
    )
  const buried = dead.slice(0, rememberedPerSlice)
  const deleted = dead.slice(rememberedPerSlice)
  if (live.length > 0) await tx.change(sql`update latchkey_tokens set sweep_at = expires_at where ${isAmong(live)}`)
  if (buried.length > 0) {
    await tx.change(sql`update latchkey_tokens set
      end_reason = case when expires_at <= ${now} then 'expired' else 'ended' end,
      ended_at = abs(expires_at), sweep_at = ${now + rememberedMs} where ${isAmong(buried)}`)
  }
  if (deleted.length > 0) await tx.change(sql`delete from latchkey_tokens where ${isAmong(deleted)}`)
  return examined
}

async function deleteTombstones({ lock }: SqlDatabase, tx: Connection, { now, limit, from }: Part): Promise<number[]> {
  const rows = await tx.query<{ at: number }>(sql`delete from latchkey_tokens where id in (
      select t.id from latchkey_tokens as t
      where t.end_reason is not null and t.sweep_at >= ${from} and t.sweep_at <= ${now}
      order by t.sweep_at limit ${limit} ${lock('for update of t skip locked')}
    ) returning sweep_at as at`)
  return rows.map(({ at }) => at)
}

/**
 * A token below a floor that is gone would be valid again, so a floor stays as long as the table has one, and an authority as long
 * as the user has a token or their bucket is not full. Those that cannot be forgotten yet become due again a day later, and so do those that were raised since
 * the last sweep.
 */
async function forgetFloors(
  { lock }: SqlDatabase,
  tx: Connection,
  { now, limit, from }: Part,
): Promise<ExaminedFloors> {
  const rows = await tx.query<{ at: number }>(sql`delete from latchkey_floors where user_id in (
      select f.user_id from latchkey_floors as f
      where f.forget_at > 0 and f.forget_at >= ${from} and f.forget_at <= ${now} and not exists (
        select 1 from latchkey_tokens as t
        where t.user_id = f.user_id and t.end_reason is null
          and (t.credential_version < f.version or f.authority_version > 0)
      ) and f.full_at_us <= ${now * 1000}
      order by f.forget_at limit ${limit} ${lock('for update of f skip locked')}
    ) returning forget_at as at`)
  const forgotten = rows.map(({ at }) => at)
  if (forgotten.length === limit) return { forgotten, kept: 0 }
  const kept = await tx.change(sql`update latchkey_floors set forget_at = ${now + floorKeptMs} where user_id in (
      select f.user_id from latchkey_floors as f where f.forget_at <= ${now}
      order by f.forget_at limit ${limit} ${lock('for update of f skip locked')}
    )`)
  return { forgotten, kept }
}
