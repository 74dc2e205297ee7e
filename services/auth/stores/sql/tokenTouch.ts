// The statement behind a touch. Hides that a row which another transaction has locked delays a batch for a moment only.
import type { TokenRef } from '../tokenPort.ts'
import { authorityOfF } from './authorities.ts'
import { once, type SqlDatabase } from './database.ts'
import type { Session } from './driver.ts'
import { unlessLocked } from './errors.ts'
import { raw, type Sql, sql } from './statement.ts'
import { createTouchLimited, isLimited, nothing, type TouchedRows } from './tokenLimits.ts'
import {
  admissible,
  askedFor,
  extendedTo,
  hasExpired,
  lockWaits,
  type Mention,
  mentionsOf,
  type Row,
  recordColumns,
  recordColumnsWith,
  rememberedMs,
  type Touch,
  waitsAtMost,
} from './tokenQueries.ts'

type Locking = Parameters<SqlDatabase['lock']>[0]

/** A touch that accepts no token, and only makes the end of those final that have expired. */
export function noticing(refs: TokenRef[], now: number): Touch {
  return { refs, mentions: mentionsOf(refs), now, purpose: null, only: raw('false'), isLimited: false }
}

/** The returned function may be called again after an error for which `run` retries: it does not repeat what it has committed. */
export type TouchRows = (touch: Touch) => (session: Session) => Promise<TouchedRows>

export function createTouchRows(database: SqlDatabase): TouchRows {
  const touchLimited = createTouchLimited(database)
  /** Tokens that were locked the last time, and do not delay a batch as long again. */
  const stuck = new Set<string>()

  /** Touches the tokens without limits, and leaves the others as they are. */
  async function touchUnlimited(session: Session, touch: Touch) {
    const locked = new Set<string>()
    const rows: Row[] = []
    const touchWith = async (mentions: Mention[], locking: Locking, waitMs: number) =>
      rows.push(...(await session.query<Row>(touchStatement(database, { ...touch, mentions }, locking, waitMs))))

    async function touchTogether(mentions: Mention[]): Promise<void> {
      if (mentions.length === 0) return
      const isDone = await unlessLocked(touchWith(mentions, 'for update of t', lockWaits.maxMs))
      if (isDone !== null) return
      await touchWith(mentions, 'for update of t skip locked', lockWaits.maxMs)
      // Another batch may have locked a token only because it waits for one of the others. So each gets a second chance alone.
      await touchOneByOne(await leftOver(database, session, { ...touch, mentions }, rows), lockWaits.secondMs)
    }

    async function touchOneByOne(mentions: Mention[], waitMs: number): Promise<void> {
      for (const mention of mentions) {
        const key = mention.id + mention.hash
        const isDone = await unlessLocked(touchWith([mention], 'for update of t', Math.ceil(waitMs / mentions.length)))
        if (isDone !== null) stuck.delete(key)
        else {
          locked.add(key)
          if (stuck.size < lockWaits.maxStuck) stuck.add(key)
        }
      }
    }

    const isStuck = ({ id, hash }: Mention) => stuck.has(id + hash)
    const [known, others] = [touch.mentions.filter(isStuck), touch.mentions.filter(mention => !isStuck(mention))]
    await touchTogether(others)
    await touchOneByOne(known, lockWaits.stuckMs)
    const live = rows.filter(row => !hasExpired(row, touch.now))
    const limited = touch.isLimited ? live.filter(isLimited) : []
    return { rows: limited.length === 0 ? live : live.filter(row => !isLimited(row)), locked, limited }
  }

  return touch => {
    const touchFirst = once(async session => {
      const { limited, ...unlimited } = await touchUnlimited(session, touch)
      return { unlimited, touchSecond: limited.length === 0 ? null : touchLimited(touch, limited) }
    })
    return async session => {
      const { unlimited, touchSecond } = await touchFirst(session)
      if (touchSecond === null) return { ...unlimited, taken: nothing.taken }
      const { rows, locked, taken } = await touchSecond(session)
      return { rows: [...unlimited.rows, ...rows], locked: new Set([...unlimited.locked, ...locked]), taken }
    }
  }
}

/** Rows are locked in the order of their ids, so that batches with tokens in common wait instead of deadlocking. */
function touchStatement(
  { dialect, lock }: SqlDatabase,
  { mentions, now, purpose, only, isLimited }: Touch,
  locking: Locking,
  waitMs: number,
): Sql {
  // Evaluated before the first row is locked.
  const limitsWait = dialect === 'postgres' ? waitsAtMost(waitMs) : raw('true')
  // SQLite returns columns of the updated table only. In PostgreSQL a second look at the floors costs a sixth of a touch.
  const returned = dialect === 'postgres' ? recordColumnsWith('known_authority') : recordColumns
  const isExpired = sql`expires_at <= ${now}`
  // Left as they are: `touchLimited` touches them next.
  const limited = isLimited
    ? raw(
        `(t.rate is not null or t.uses_left is not null or t.parent_id is not null or (t.purpose is null and f.rate is not null))`,
      )
    : raw('false')
  const isLeft = sql`(${isExpired} or is_limited)`
  const isConsumed = sql`kind = 'single-use' and not ${isLeft}`
  return sql`with asked as (${askedFor(mentions, dialect)}),
    admitted as (
      select t.id as admitted_id, asked.times, ${limited} as is_limited, ${authorityOfF} as known_authority from ${admissible(now, purpose, only)} and ${limitsWait}
      order by t.id ${lock(locking)}
    )
    update latchkey_tokens set
      refresh_count = refresh_count + case when ${isLeft} then 0 when kind = 'single-use' then 1 else times end,
      last_used_at = case when ${isLeft} then last_used_at else ${now} end,
      expires_at = case when ${isExpired} then -expires_at when is_limited or kind <> 'sliding' then expires_at
        else ${extendedTo(now)} end,
      end_reason = case when ${isConsumed} then 'consumed' end,
      ended_at = case when ${isConsumed} then cast(${now} as bigint) end,
      sweep_at = case when ${isConsumed} then ${now + rememberedMs} else sweep_at end
    from admitted where id = admitted_id and end_reason is null returning ${returned}, hash`
}

/** The acceptable tokens that are not among the touched ones. */
async function leftOver(
  { dialect }: SqlDatabase,
  session: Session,
  { mentions, now, purpose, only }: Touch,
  touched: Row[],
): Promise<Mention[]> {
  const rows = await session.query<Pick<Row, 'id' | 'hash'>>(sql`with asked as (${askedFor(mentions, dialect)})
    select t.id, t.hash from ${admissible(now, purpose, only)}`)
  const left = new Set(rows.map(({ id, hash }) => id + hash))
  for (const { id, hash } of touched) left.delete(id + hash)
  return mentions.filter(({ id, hash }) => left.has(id + hash))
}
