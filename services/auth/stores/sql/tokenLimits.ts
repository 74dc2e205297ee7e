// Touches of tokens that have limits or a parent, or whose user has limits: in one transaction for a whole batch, so that a batch
// that arrives in another process meanwhile sees what this one has taken. Hides that one locked user delays and refuses no others
// for long.

import { type Bucket, packedRate, takeFrom, unpackedRate } from '../rates.ts'
import type { TokenRef } from '../tokenPort.ts'
import { hasRate } from './authorities.ts'
import { once, type SqlDatabase } from './database.ts'
import type { Connection, Session } from './driver.ts'
import { unlessLocked } from './errors.ts'
import type { SqlDialect } from './migrations.ts'
import { raw, type Sql, sql } from './statement.ts'
import {
  admissible,
  askedFor,
  expiredParentOf,
  extendedTo,
  isOneOf,
  lockWaits,
  noticeParents,
  type Row,
  recordColumns,
  rememberedMs,
  type Taken,
  type TokenRow,
  type Touch,
  waitsAtMost,
} from './tokenQueries.ts'

export interface TouchedRows {
  rows: Row[]
  /** Id and hash, in one text, of each token that may be acceptable but could not be touched, because another transaction has locked it. */
  locked: Set<string>
  /** What the limits allowed, of those tokens that have limits. The keys are id and hash, in one text. */
  taken: Map<string, Taken>
}

export const nothing: TouchedRows = { rows: [], locked: new Set(), taken: new Map() }

/** Whether a touch must ask for limits: of the token, its user, or its parent. */
export function isLimited({ rate, usesLeft, parentId, purpose, authority }: TokenRow): boolean {
  return rate !== null || usesLeft !== null || parentId !== null || (purpose === null && hasRate(authority))
}

/** The returned function touches `tokens`, those of the batch that have limits. Like a `TouchRows` it may be called again. */
export function createTouchLimited(database: SqlDatabase) {
  /** Users whose lock, or that of a token of theirs, was held the last time, and who do not delay a batch as long again. */
  const stuck = new Set<string | null>()

  async function touchPart(session: Session, touch: Touch, tokens: Row[], waitMs: number): Promise<TouchedRows> {
    if (tokens.length === 0) return nothing
    const all = await unlessLocked(touchTokens(database, session, touch, tokens, { waitMs, ifLocked: 'reject' }))
    // One lock must not make the tokens of other users unavailable.
    const free = { waitMs: lockWaits.stuckMs, ifLocked: 'skip' } as const
    const { rows, taken } = all ?? (await unlessLocked(touchTokens(database, session, touch, tokens, free))) ?? nothing
    const keys = new Set(rows.map(keyOf))
    const locked = all === null ? tokens.filter(token => !keys.has(keyOf(token))) : []
    for (const { userId } of tokens) stuck.delete(userId)
    for (const { userId } of locked) if (userId !== null && stuck.size < lockWaits.maxStuck) stuck.add(userId)
    return { rows, taken, locked: new Set(locked.map(keyOf)) }
  }

  return (touch: Touch, tokens: Row[]): ((session: Session) => Promise<TouchedRows>) => {
    const [known, others] = [tokens.filter(isStuck), tokens.filter(token => !isStuck(token))]
    const parts = [
      once(session => touchPart(session, touch, others, lockWaits.maxMs)),
      once(session => touchPart(session, touch, known, lockWaits.stuckMs)),
    ]
    return async session => {
      const touched: TouchedRows[] = []
      for (const part of parts) touched.push(await part(session))
      return {
        rows: touched.flatMap(({ rows }) => rows),
        locked: new Set(touched.flatMap(({ locked }) => [...locked])),
        taken: new Map(touched.flatMap(({ taken }) => [...taken])),
      }
    }
  }

  function isStuck({ userId }: Row): boolean {
    return stuck.has(userId)
  }
}

const keyOf = ({ id, hash }: TokenRef): string => id + hash

interface Locking {
  /** For each lock. */
  waitMs: number
  /** `reject`: with the error of the lock, and nothing was done. `skip`: leaves out that token, or all tokens of that user. */
  ifLocked: 'reject' | 'skip'
}

/** Joins the parents as `p` to the tokens `t`. */
const parentsOfT = raw('left join latchkey_tokens as p on p.id = t.parent_id')

function touchTokens(
  database: SqlDatabase,
  session: Session,
  { refs, mentions, now, purpose, only }: Touch,
  tokens: Row[],
  { waitMs, ifLocked }: Locking,
): Promise<Pick<TouchedRows, 'rows' | 'taken'>> {
  const { dialect } = database
  return session.transaction(async tx => {
    const ours = await lockTokens(tx, database, await lockUsers(tx, dialect, tokens, { waitMs, ifLocked }), ifLocked)
    await noticeParents(
      ours.map(token => expiredParentOf(token, now)).filter(id => id !== null),
      now,
      tx,
    )
    const keys = new Set(ours.map(keyOf))
    const asked = mentions.filter(mention => keys.has(keyOf(mention)))
    const states = await tx.query<State>(sql`with asked as (${askedFor(asked, dialect)})
      select t.id, t.hash, t.kind, t.user_id as "userId", t.rate, t.full_at_us as "fullAtUs", t.uses_left as "usesLeft",
        case when t.purpose is null then f.rate end as "userRate", f.full_at_us as "userFullAtUs", t.parent_id as "parentId",
        p.rate as "parentRate", p.full_at_us as "parentFullAtUs", p.uses_left as "parentUsesLeft"
      from ${admissible(now, purpose, only, parentsOfT)} and t.expires_at > ${now}`)
    const { takings, holders, buckets } = takeInOrder(refs, states, now)
    const rows = await tx.query<Row>(sql`with taken as (${rowsOf([...holders.values()], dialect)})
      update latchkey_tokens set
        refresh_count = refresh_count + times, last_used_at = case when times > 0 then ${now} else last_used_at end,
        expires_at = case when times = 0 or kind <> 'sliding' then expires_at else ${extendedTo(now)} end,
        full_at_us = taken_full_at_us, uses_left = uses_left - used, ${ending(now)}
      from taken where id = taken_id returning ${recordColumns}, hash`)
    if (buckets.size > 0) await saveBuckets(tx, buckets, dialect)
    return { rows, taken: takings }
  })
}

/**
 * Without these locks, two processes could take the last validation that a user's rate allows. Returns the tokens of those users
 * who are locked now.
 */
async function lockUsers(
  tx: Connection,
  dialect: SqlDialect,
  tokens: Row[],
  { waitMs, ifLocked }: Locking,
): Promise<Row[]> {
  if (dialect === 'sqlite') return tokens // one writer at a time anyway
  await tx.query(sql`select ${waitsAtMost(waitMs)}`)
  const userIds = [...new Set(tokens.map(({ userId }) => userId).filter(id => id !== null))].sort()
  const key = raw('hashtextextended(id, 0)')
  if (ifLocked === 'reject') {
    await tx.query(sql`select pg_advisory_xact_lock(${key}) from unnest(${userIds}::text[]) as id`)
    return tokens
  }
  const locked = await tx.query<{ id: string }>(
    sql`select id from unnest(${userIds}::text[]) as id where pg_try_advisory_xact_lock(${key})`,
  )
  const ours = new Set<string | null>([null, ...locked.map(({ id }) => id)])
  return tokens.filter(({ userId }) => ours.has(userId))
}

/**
 * Locks the tokens and their parents in the order of their ids, as other touches do. Returns those that are locked now, together
 * with their parent.
 */
async function lockTokens(
  tx: Connection,
  { dialect, lock }: SqlDatabase,
  tokens: Row[],
  ifLocked: Locking['ifLocked'],
): Promise<Row[]> {
  const ids = new Set(tokens.flatMap(({ id, parentId }) => (parentId === null ? [id] : [id, parentId])))
  const waiting = lock(ifLocked === 'skip' ? 'for update of t skip locked' : 'for update of t')
  const locked = await tx.query<{ id: string }>(
    sql`select id from latchkey_tokens as t where ${isOneOf([...ids], dialect)} order by id ${waiting}`,
  )
  const ours = new Set(locked.map(({ id }) => id))
  return tokens.filter(({ id, parentId }) => ours.has(id) && (parentId === null || ours.has(parentId)))
}

interface State extends Pick<Row, 'id' | 'hash' | 'kind' | 'userId' | 'rate' | 'usesLeft' | 'parentId'> {
  fullAtUs: number
  userRate: string | null
  userFullAtUs: number | null
  parentRate: string | null
  parentFullAtUs: number | null
  parentUsesLeft: number | null
}

/** A token whose limits a batch takes from: its own touches, and those of tokens that were delegated from it. */
interface Holder {
  id: string
  /** How often the token itself was touched. */
  times: number
  /** How many uses were taken, of `usesLeft`; null for any number. */
  used: number
  usesLeft: number | null
  bucket: Bucket | null
}

interface Taking extends Taken {
  own: Holder
  parent: Holder | null
  ofUser: Bucket | null
}

/** Takes for one ref after the other. The results are by id and hash of the token, by its id, and by id of the user. */
function takeInOrder(refs: TokenRef[], states: State[], now: number) {
  const holders = new Map<string, Holder>()
  const buckets = new Map<string, Bucket>()
  for (const { id, kind, rate, fullAtUs, usesLeft } of states) {
    addHolder(holders, { id, rate, fullAtUs, usesLeft: kind === 'single-use' ? 1 : usesLeft })
  }
  const takings = new Map(states.map(state => [state.id + state.hash, takingFor(state, holders, buckets)]))
  for (const { id, hash } of refs) {
    const taking = takings.get(id + hash)
    if (taking === undefined) continue
    const retryAfterMs = takeOne(taking, now)
    const { used, usesLeft } = taking.own
    taking.outcomes.push({ retryAfterMs, usesLeft: usesLeft === null ? null : usesLeft - used })
    if (retryAfterMs === 0) taking.times++
  }
  return { takings, holders, buckets }
}

/** Null if no use is left. */
function takeOne({ own, parent, ofUser }: Taking, now: number): number | null {
  const from = parent === null ? [own] : [own, parent]
  if (from.some(({ used, usesLeft }) => usesLeft !== null && used >= usesLeft)) return null
  const buckets = [...from.map(({ bucket }) => bucket), ofUser].filter(bucket => bucket !== null)
  const wait = takeFrom(buckets, now)
  if (wait > 0) return wait
  for (const holder of from) holder.used++
  own.times++
  return 0
}

function addHolder(
  holders: Map<string, Holder>,
  { id, rate, fullAtUs, usesLeft }: Pick<State, 'id' | 'rate' | 'fullAtUs' | 'usesLeft'>,
): Holder {
  const bucket = rate === null ? null : { rate: unpackedRate(rate), fullAtUs }
  const holder = holders.get(id) ?? { id, times: 0, used: 0, usesLeft, bucket }
  holders.set(id, holder)
  return holder
}

/** Tokens of one user share the user's bucket, and those that were delegated from one token the limits of that one. */
function takingFor(state: State, holders: Map<string, Holder>, buckets: Map<string, Bucket>): Taking {
  const { userId, userRate, parentId, parentRate, parentFullAtUs, parentUsesLeft } = state
  let ofUser: Bucket | null = null
  if (userId !== null && userRate !== null) {
    ofUser = buckets.get(userId) ?? { rate: unpackedRate(userRate), fullAtUs: state.userFullAtUs ?? 0 }
    buckets.set(userId, ofUser)
  }
  const hasParentLimits = parentRate !== null || parentUsesLeft !== null
  const parent =
    parentId === null || !hasParentLimits
      ? null
      : addHolder(holders, { id: parentId, rate: parentRate, fullAtUs: parentFullAtUs ?? 0, usesLeft: parentUsesLeft })
  return { times: 0, outcomes: [], own: holders.get(state.id) as Holder, parent, ofUser }
}

function ending(now: number): Sql {
  const isUsedUp = sql`used > 0 and (kind = 'single-use' or uses_left = used)`
  return sql`end_reason = case when ${isUsedUp} then 'consumed' end,
    ended_at = case when ${isUsedUp} then cast(${now} as bigint) end,
    sweep_at = case when ${isUsedUp} then ${now + rememberedMs} else sweep_at end`
}

function rowsOf(holders: Holder[], dialect: SqlDialect): Sql {
  const ids = holders.map(({ id }) => id)
  const times = holders.map(holder => holder.times)
  const used = holders.map(holder => holder.used)
  const fullAtUs = holders.map(({ bucket }) => bucket?.fullAtUs ?? 0)
  return dialect === 'sqlite'
    ? sql`select value ->> 0 as taken_id, value ->> 1 as times, value ->> 2 as used, value ->> 3 as taken_full_at_us
        from json_each(${JSON.stringify(ids.map((id, i) => [id, times[i], used[i], fullAtUs[i]]))})`
    : sql`select * from unnest(${ids}::text[], ${times}::bigint[], ${used}::bigint[], ${fullAtUs}::bigint[])
        as taken(taken_id, times, used, taken_full_at_us)`
}

/** Does not write to a bucket whose rate was changed meanwhile, which makes it full. */
async function saveBuckets(tx: Connection, buckets: Map<string, Bucket>, dialect: SqlDialect): Promise<void> {
  const ids = [...buckets.keys()]
  const rates = [...buckets.values()].map(({ rate }) => packedRate(rate))
  const fullAtUs = [...buckets.values()].map(bucket => bucket.fullAtUs)
  const saved =
    dialect === 'sqlite'
      ? sql`select value ->> 0 as saved_id, value ->> 1 as saved_rate, value ->> 2 as saved_full_at_us
          from json_each(${JSON.stringify(ids.map((id, i) => [id, rates[i], fullAtUs[i]]))})`
      : sql`select * from unnest(${ids}::text[], ${rates}::text[], ${fullAtUs}::bigint[])
          as saved(saved_id, saved_rate, saved_full_at_us)`
  await tx.change(sql`with saved as (${saved}) update latchkey_floors set full_at_us = saved_full_at_us
    from saved where user_id = saved_id and rate = saved_rate`)
}
