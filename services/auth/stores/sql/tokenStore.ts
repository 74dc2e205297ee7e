// The token store in SQLite or PostgreSQL. Every method is one statement or one transaction. Dead tokens stay as
// tombstones for a while, so that every process can explain why they were refused. Hides the queries.

import { packedRate } from '../rates.ts'
import {
  type Found,
  isAdmitted,
  onlyOne,
  type TokenChanges,
  type TokenKind,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../tokenPort.ts'
import { writeAuthority } from './authorities.ts'
import { openDatabase, type SqlDatabase } from './database.ts'
import type { Session } from './driver.ts'
import { joinTouches } from './joinTouches.ts'
import { join, raw, type Sql, sql } from './statement.ts'
import { countKinds, createTokenCounts, type TokenCounts } from './tokenCounts.ts'
import { explain } from './tokenExplain.ts'
import { insertToken } from './tokenInsert.ts'
import type { TouchedRows } from './tokenLimits.ts'
import {
  admissible,
  anyKind,
  askedFor,
  endToken,
  expiredParentOf,
  extendedTo,
  floorOf,
  hasExpired,
  hasLiveParent,
  hasParent,
  inOrder,
  isSessionOfT,
  isStorable,
  lockUser,
  mentionsOf,
  noticeParents,
  type Row,
  recordColumns,
  recordOf,
  type TokenRow,
  type Touch,
} from './tokenQueries.ts'
import { createSweep } from './tokenSweep.ts'
import { createTouchRows, noticing, type TouchRows } from './tokenTouch.ts'

/** Resolves when the schema is up to date; rejects with a message for the operator. */
export async function openTokenStore(url: string, warn: (warning: string) => void): Promise<TokenStore> {
  const counts = createTokenCounts()
  const database = await openDatabase(url, warn, counts.recount)
  const { db, run, runConfirmed } = database
  const touchRows = createTouchRows(database)

  const touchAll: TokenStore['touch'] = (refs, now, purpose) =>
    touch(database, touchRows, counts, { refs, now, purpose, only: anyKind, isLimited: true })

  async function endIn(session: Session, which: Sql, now: number): Promise<TokenRecord | null> {
    const ended = await endToken(which, 'revoked', now, session)
    if (ended) counts.remove([ended])
    return ended
  }

  const end = (which: Sql, now: number) => runConfirmed(session => endIn(session, which, now))

  return {
    insert: (ref, token, limits, now) => insertToken(database, counts, { ref, token, limits, now }),
    touch: database.dialect === 'sqlite' ? joinTouches(touchAll) : touchAll,
    look: (refs, now, purpose) => look(database, touchRows, { refs, now, purpose }),

    async touchSession(ref, now) {
      const batch = { refs: [ref], now, purpose: null, only: isSessionOfT, isLimited: false }
      return onlyOne(await touch(database, touchRows, counts, batch))
    },

    renew: (ref, newHash, lineage, now) =>
      runConfirmed(async session => {
        rejectIfLocked(await touchRows(noticing([ref], now))(session))
        const [row] =
          await session.query<TokenRow>(sql`with asked as (${askedFor(mentionsOf([ref]), database.dialect)}),
          admitted as (
            select t.id as admitted_id from ${admissible(now, null, raw(`t.kind = 'sliding'`))} ${database.lock('for update of t')}
          )
          update latchkey_tokens set
            hash = ${newHash}, lineage = ${lineage}, renewed_at = ${now}, last_used_at = ${now},
            refresh_count = refresh_count + 1, expires_at = ${extendedTo(now)}
          from admitted where id = admitted_id and end_reason is null and hash = ${ref.hash}
          returning ${recordColumns}`)
        return row === undefined ? null : recordOf(row)
      }),

    delete: ({ id, hash }, now) => end(sql`id = ${id} and hash = ${hash}`, now),

    findRenewed: (id, lineage, renewedUntil) =>
      run(async () => {
        const [row] = await db.query<TokenRow>(sql`select ${recordColumns} from latchkey_tokens
          where id = ${id} and end_reason is null and lineage = ${lineage} and renewed_at <= ${renewedUntil}`)
        return row === undefined ? null : recordOf(row)
      }),

    deleteById(id, now, owner) {
      if (owner === null) return end(sql`id = ${id}`, now)
      if (!isStorable(owner)) return run(async () => null)
      const isOwn = sql`id = ${id} and user_id = ${owner}`
      return runConfirmed(async session => {
        const refs = await session.query<TokenRef>(sql`select id, hash from latchkey_tokens where ${isOwn}`)
        rejectIfLocked(await touchRows(noticing(refs, now))(session))
        const isLiveSession = sql`${isOwn} and kind = 'sliding' and purpose is null and expires_at > ${now}
          and credential_version >= ${floorSubquery(owner)}`
        return endIn(session, isLiveSession, now)
      })
    },

    raiseFloor: (userId, version, keep) => raiseFloor(database, userId, version, keep),

    setAuthority: (userId, authority) => runConfirmed(session => writeAuthority(userId, authority, session)),

    change: (id, changes, now) => runConfirmed(session => changeIn(session, { id, changes, now, only: raw('true') })),

    pause: (id, now) =>
      runConfirmed(session => changeIn(session, { id, changes: { paused: true }, now, only: raw('paused % 2 = 0') })),

    findByUser: (userId, now) =>
      run(async () => {
        if (!isStorable(userId)) return []
        const ask = () =>
          db.query<Row>(sql`select ${recordColumns}, hash from latchkey_tokens
            where user_id = ${userId} and end_reason is null and expires_at > 0
              and credential_version >= ${floorSubquery(userId)}
              and (parent_id is null or ${hasParent(raw('latchkey_tokens'), raw('true'))}) order by created_at, id`)
        const found = await findLive(database, touchRows, ask, now)
        rejectIfLocked(found)
        return found.rows.map(({ hash: _, ...row }) => recordOf(row))
      }),

    explain: (ref, now, purpose) => run(() => explain(db, ref, now, purpose)),

    deleteExpired: createSweep(database, counts),

    list: (cursor, limit, now) =>
      run(async () => {
        const rows = await db.query<TokenRow>(sql`select ${recordColumns} from latchkey_tokens
          where end_reason is null and id > ${cursor ?? ''} and expires_at > ${now}
            and credential_version >= ${ownFloor} and ${hasLiveParent(now)}
          order by id limit ${limit}`)
        return { tokens: rows.map(recordOf), next: rows.length === limit ? (rows.at(-1)?.id ?? null) : null }
      }),

    counts: () =>
      run(async () => {
        const byKind: Record<TokenKind, number> = { sliding: 0, fixed: 0, 'single-use': 0 }
        for (const { kind, n } of await countKinds(db, database.dialect)) byKind[kind] = n
        return byKind
      }),

    readClock: () =>
      run(async () => {
        if (database.dialect === 'sqlite') return null
        const [row] = await db.query<{ at: number }>(
          raw('select extract(epoch from clock_timestamp())::float8 * 1000 as at'),
        )
        return (row as { at: number }).at
      }),

    close: database.close,
  }
}

interface Batch {
  refs: Parameters<TokenStore['touch']>[0]
  now: number
  purpose: string | null
}

/** `only`: a further condition on the token, which it calls `t`. */
function touch(
  { db, run }: SqlDatabase,
  touchRows: TouchRows,
  counts: TokenCounts,
  { refs, now, purpose, only, isLimited }: Batch & Pick<Touch, 'only' | 'isLimited'>,
): Promise<Found[]> {
  if (refs.length === 0) return run(async () => [])
  const mentions = mentionsOf(refs)
  const touchOnce = touchRows({ refs, mentions, now, purpose, only, isLimited })
  return run(async () => {
    const { value, confirm } = await db.confirmable(touchOnce)
    const { rows, locked, taken } = value
    const found = answersTo(inOrder(refs, mentions, rows, taken), refs, locked)
    const consumed = rows.filter(
      ({ id, hash, kind, usesLeft }) =>
        usesLeft === 0 || ((kind === 'single-use' || usesLeft !== null) && taken.get(id + hash)?.times !== 0),
    )
    if (consumed.length === 0) return found
    counts.remove(consumed.filter(({ kind, usesLeft }) => kind === 'single-use' || usesLeft === 0))
    // Only extending a token can be lost without harm: a failover would make a consumed one valid again.
    try {
      await confirm()
      return found
    } catch (error) {
      if (consumed.length === rows.length) throw error
      return found.map(token => (isConsumed(token) ? 'unavailable' : token))
    }
  })
}

/** Whether the touch has used up a use, or may have: of the parent. */
const isConsumed = (token: Found): boolean =>
  isAdmitted(token) && (token.kind === 'single-use' || token.usesLeft !== null || token.parent !== null)

/** The answers to a batch. Rejects if it is `unavailable` as a whole. */
function answersTo(tokens: Found[], refs: TokenRef[], locked: Set<string>): Found[] {
  const found = tokens.map((token, i): Found => {
    const { id, hash } = refs[i] as TokenRef
    return token === null && locked.has(id + hash) ? 'unavailable' : token
  })
  if (found.every(token => token === 'unavailable')) throw new Error(lockedMessage)
  return found
}

const lockedMessage = 'another transaction has locked the tokens'

function rejectIfLocked({ locked }: Pick<TouchedRows, 'locked'>): void {
  if (locked.size > 0) throw new Error(lockedMessage)
}

interface Change {
  id: string
  changes: TokenChanges
  now: number
  /** A further condition on the row. */
  only: Sql
}

async function changeIn(session: Session, { id, changes, now, only }: Change): Promise<TokenRecord | null> {
  const [row] = await session.query<TokenRow>(sql`update latchkey_tokens set ${assignments(changes)}
    where id = ${id} and end_reason is null and expires_at > ${now}
      and credential_version >= ${ownFloor} and ${hasLiveParent(now)} and ${only}
    returning ${recordColumns}`)
  return row === undefined ? null : recordOf(row)
}

function assignments({ scope, paused, rate, usesLeft, name }: TokenChanges): Sql {
  const packed = rate && packedRate(rate)
  const isOther = sql`rate is distinct from cast(${packed ?? null} as text)`
  const all = [
    sql`scope = ${scope === undefined ? raw('scope') : sql`${scope}`}`,
    paused !== undefined && sql`paused = paused - paused % 2 + ${paused ? 1 : 0}`,
    packed !== undefined && sql`rate = ${packed}, full_at_us = case when ${isOther} then 0 else full_at_us end`,
    usesLeft !== undefined && sql`uses_left = ${usesLeft}`,
    name !== undefined && sql`name = ${name}`,
  ]
  return join(
    all.filter(one => one !== false),
    raw(', '),
  )
}

/** The live tokens among those that `ask` selects. The end of the others becomes final, except for those that are `locked`. */
async function findLive(
  { db }: SqlDatabase,
  touchRows: TouchRows,
  ask: () => Promise<Row[]>,
  now: number,
): Promise<Pick<TouchedRows, 'rows' | 'locked'>> {
  const rows = await ask()
  const expired = rows.filter(row => hasExpired(row, now))
  const expiredParents = rows.map(row => expiredParentOf(row, now)).filter(id => id !== null)
  if (expired.length === 0 && expiredParents.length === 0) return { rows, locked: new Set() }
  const { locked } = await touchRows(noticing(expired, now))(db)
  await noticeParents(expiredParents, now, db)
  // A late touch may have extended one of them before.
  const again = await ask()
  return { rows: again.filter(row => !hasExpired(row, now) && expiredParentOf(row, now) === null), locked }
}

function look(database: SqlDatabase, touchRows: TouchRows, { refs, now, purpose }: Batch): Promise<Found[]> {
  const { db, dialect, run } = database
  if (refs.length === 0) return run(async () => [])
  const ask = () =>
    db.query<Row>(sql`with asked as (${askedFor(mentionsOf(refs), dialect)})
      select ${recordColumns}, hash from latchkey_tokens
      where id in (select t.id from ${admissible(now, purpose, anyKind)})`)
  return run(async () => {
    const { rows, locked } = await findLive(database, touchRows, ask, now)
    const found = new Map(rows.map(({ hash, ...token }) => [token.id, { hash, token }]))
    const tokens = refs.map(({ id, hash }) => {
      const row = found.get(id)
      return row?.hash === hash ? recordOf(row.token) : null
    })
    return answersTo(tokens, refs, locked)
  })
}

function raiseFloor(
  { dialect, lock, runConfirmed }: SqlDatabase,
  userId: string,
  version: number,
  keep: string | null,
): Promise<void> {
  return runConfirmed(session =>
    session.transaction(async tx => {
      // Without the lock, a token issued in the meantime would have its row locked out of order.
      await lockUser(userId, tx, dialect)
      // Like `touch`, lock all rows in the order of their ids before changing the first.
      await tx.query(sql`select id from latchkey_tokens where user_id = ${userId} and end_reason is null
        order by id ${lock('for update')}`)
      const floor = await floorOf(userId, tx)
      await tx.change(sql`update latchkey_tokens set credential_version = ${version}
        where id = ${keep} and user_id = ${userId} and end_reason is null
          and credential_version < ${version} and credential_version >= ${floor}`)
      await tx.change(sql`insert into latchkey_floors as f (user_id, version) values (${userId}, ${version})
        on conflict (user_id) do update set version = excluded.version, forget_at = 0 where excluded.version > f.version`)
      // The floor already refuses these tokens. With this, the sweeper, which skips a row until `sweep_at`, deletes them soon.
      await tx.change(sql`update latchkey_tokens set sweep_at = 0
        where user_id = ${userId} and end_reason is null and credential_version < ${version}`)
    }),
  )
}

const ownFloor = raw(
  'coalesce((select version from latchkey_floors as f where f.user_id = latchkey_tokens.user_id), 0)',
)

const floorSubquery = (userId: string): Sql =>
  sql`coalesce((select version from latchkey_floors where user_id = ${userId}), 0)`
