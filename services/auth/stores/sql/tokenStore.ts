// Token and user stores in SQLite or PostgreSQL. Every method is one statement or one transaction. Dead tokens stay as
// tombstones for a while, so that every process can explain why they were refused. Hides the queries.
import { type Kysely, type RawBuilder, sql, type Transaction } from 'kysely'
import {
  type EndReason,
  guestLimit,
  type Refusal,
  type TokenKind,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
  type UserChanges,
  type UserRecord,
  type UserStore,
} from '../ports.ts'
import { openDatabase, type Tables } from './database.ts'

export { listMigrations } from './database.ts'

const rememberedMs = 10 * 60_000 // lifetime of a tombstone
const recountMs = 60_000 // minimum time between recounts, which include the changes of other processes

/** A selected row: the token, and how it was renewed or ended. */
type TokenRow = TokenRecord & {
  hash: string
  endReason: string | null
  endedAt: number | null
  renewedAt: number | null
}

const recordColumns = sql.raw(
  `id, kind, purpose, user_id as "userId", username, credential_version as "credentialVersion",
   created_at as "createdAt", login_id as "loginId", last_used_at as "lastUsedAt", expires_at as "expiresAt",
   absolute_expires_at as "absoluteExpiresAt", ttl_ms as "ttlMs", refresh_count as "refreshCount"`,
)
const rowColumns = sql`${recordColumns}, hash, end_reason as "endReason", ended_at as "endedAt", renewed_at as "renewedAt"`

/** Turns a row into an ordinary object; SQLite's rows have no prototype. */
const copy = (row: TokenRecord): TokenRecord => ({ ...row })

/** Resolves when the schema is up to date; rejects with a message for the operator. */
export async function openTokenStore(url: string, warn: (warning: string) => void): Promise<TokenStore> {
  let atMost = { all: 0, guests: 0 } // token counts as known to this process
  let countedAt: number | null = null
  const database = await openDatabase(url, warn, countTokens)
  const { db, dialect, lock, run } = database

  async function countTokens(db: Kysely<Tables>): Promise<void> {
    const query = sql<{ n: number; users: number }>`select count(*) as n, count(user_id) as users
      from latchkey_tokens where end_reason is null`
    const [{ n, users } = { n: 0, users: 0 }] = (await query.execute(db)).rows
    atMost = { all: Number(n), guests: Number(n) - Number(users) }
  }

  function uncount(removed: Pick<TokenRecord, 'userId'>[]): void {
    atMost.all -= removed.length
    atMost.guests -= removed.filter(({ userId }) => userId === null).length
  }

  /**
   * The refs as a table `asked (id, hash, times)`. Its parameters do not depend on the batch size, nor does the SQL.
   */
  function askedFor(mentions: Mention[]): RawBuilder<unknown> {
    if (dialect === 'sqlite') {
      const json = JSON.stringify(mentions)
      return sql`select value ->> 'id' as id, value ->> 'hash' as hash, value ->> 'times' as times from json_each(${json})`
    }
    // Arrays instead of JSON: PostgreSQL knows their length, so it does not scan the whole table for a few refs.
    const ids = mentions.map(({ id }) => id)
    const hashes = mentions.map(({ hash }) => hash)
    const times = mentions.map(({ times }) => times)
    return sql`select id, hash, times
      from unnest(${ids}::text[], ${hashes}::text[], ${times}::bigint[]) as asked(id, hash, times)`
  }

  /** The from and where clauses that select the acceptable tokens, with tokens as `t`, floors as `f` and `asked`. */
  function admissible(now: number, purpose: string | null): RawBuilder<unknown> {
    const isMeant = purpose === null ? sql`t.purpose is null` : sql`t.purpose = ${purpose}`
    return sql`latchkey_tokens as t join asked on asked.id = t.id and asked.hash = t.hash
      left join latchkey_floors as f on f.user_id = t.user_id
      where t.end_reason is null and t.expires_at > ${now} and ${isMeant}
        and t.credential_version >= coalesce(f.version, 0)`
  }

  /** Turns the selected token into a tombstone. Returns the token, or null if none was selected. */
  async function end(which: RawBuilder<unknown>, reason: EndReason, now: number): Promise<TokenRecord | null> {
    const { rows } = await sql<TokenRecord>`update latchkey_tokens
      set end_reason = ${reason}, ended_at = ${now}, sweep_at = ${now + rememberedMs}
      where end_reason is null and ${which} returning ${recordColumns}`.execute(db)
    uncount(rows)
    return rows[0] === undefined ? null : copy(rows[0])
  }

  /** Serialises the transactions that issue or revoke tokens of a user. SQLite allows only one writer anyway. */
  async function lockUser(userId: string, tx: Transaction<Tables>): Promise<void> {
    if (dialect === 'postgres') await sql`select pg_advisory_xact_lock(hashtextextended(${userId}, 0))`.execute(tx)
  }

  return {
    insert(ref, token, { perUser, total }, now) {
      const { userId } = token
      return run(async () => {
        const outcome = await db.transaction().execute(async tx => {
          let oldest: Pick<TokenRecord, 'id'> | undefined
          if (userId !== null) {
            // Without the lock, two concurrent logins could both take the last free place.
            await lockUser(userId, tx)
            const floor = await tx
              .selectFrom('latchkey_floors')
              .select('version')
              .where('user_id', '=', userId)
              .executeTakeFirst()
            if (token.credentialVersion < (floor?.version ?? 0)) return 'ended'
            const { rows: own } = await sql<Pick<TokenRecord, 'id' | 'kind' | 'purpose'>>`
              select id, kind, purpose from latchkey_tokens
              where user_id = ${userId} and end_reason is null and expires_at > ${now}
                and credential_version >= ${floor?.version ?? 0} order by created_at, id`.execute(tx)
            if (own.length >= perUser) {
              oldest = own.find(({ kind, purpose }) => kind === 'sliding' && purpose === null)
              if (oldest === undefined) return 'full'
            }
          }
          const evicted = oldest === undefined ? 0 : 1
          if (atMost.all - evicted >= total) return 'full'
          if (userId === null && atMost.guests >= guestLimit(total)) return 'full'
          const { numAffectedRows } = await sql`insert into latchkey_tokens
            (id, hash, kind, purpose, user_id, username, credential_version, created_at, login_id, last_used_at,
              expires_at, absolute_expires_at, ttl_ms, refresh_count, sweep_at)
            values (${ref.id}, ${ref.hash}, ${token.kind}, ${token.purpose}, ${userId}, ${token.username},
              ${token.credentialVersion}, ${token.createdAt}, ${token.loginId}, ${token.lastUsedAt},
              ${token.expiresAt}, ${token.absoluteExpiresAt}, ${token.ttlMs}, ${token.refreshCount}, ${token.expiresAt})
            on conflict (id) do nothing`.execute(tx)
          if (numAffectedRows !== 1n) return 'taken'
          // Evict last, so that no session is lost to a token that is then refused.
          if (oldest !== undefined) {
            await tx
              .updateTable('latchkey_tokens')
              .set({ end_reason: 'evicted', ended_at: now, sweep_at: now + rememberedMs })
              .where('id', '=', oldest.id)
              .execute()
          }
          return evicted
        })
        if (typeof outcome === 'string') return outcome
        atMost.all += 1 - outcome
        if (userId === null) atMost.guests++
        return 'inserted'
      })
    },

    touch(refs, now, purpose) {
      if (refs.length === 0) return run(async () => [])
      const mentions = mentionsOf(refs)
      return run(async () => {
        // Rows are locked in the order of their ids, so that batches with tokens in common wait instead of deadlocking.
        const { rows } = await sql<TokenRecord & { hash: string }>`with asked as (${askedFor(mentions)}),
          admitted as (
            select t.id as admitted_id, asked.times from ${admissible(now, purpose)} order by t.id ${lock('for update of t')}
          )
          update latchkey_tokens set
            refresh_count = refresh_count + case when kind = 'single-use' then 1 else times end,
            last_used_at = ${now},
            expires_at = case when kind <> 'sliding' then expires_at
              when ttl_ms + ${now} < absolute_expires_at then ttl_ms + ${now} else absolute_expires_at end,
            end_reason = case when kind = 'single-use' then 'consumed' end,
            ended_at = case when kind = 'single-use' then cast(${now} as bigint) end,
            sweep_at = case when kind = 'single-use' then ${now + rememberedMs} else sweep_at end
          from admitted where id = admitted_id and end_reason is null returning ${recordColumns}, hash`.execute(db)
        uncount(rows.filter(({ kind }) => kind === 'single-use'))
        return inOrder(refs, mentions, rows)
      })
    },

    look(refs, now, purpose) {
      if (refs.length === 0) return run(async () => [])
      return run(async () => {
        const { rows } = await sql<TokenRecord & { hash: string }>`with asked as (${askedFor(mentionsOf(refs))})
          select ${recordColumns}, hash from latchkey_tokens
          where id in (select t.id from ${admissible(now, purpose)})`.execute(db)
        const found = new Map(rows.map(({ hash, ...token }) => [token.id, { hash, token }]))
        return refs.map(({ id, hash }) => {
          const row = found.get(id)
          return row?.hash === hash ? copy(row.token) : null
        })
      })
    },

    renew(ref, newHash, lineage, now) {
      return run(async () => {
        const { rows } = await sql<TokenRecord>`with asked as (${askedFor(mentionsOf([ref]))}),
          admitted as (
            select t.id as admitted_id from ${admissible(now, null)} and t.kind = 'sliding' ${lock('for update of t')}
          )
          update latchkey_tokens set
            hash = ${newHash}, lineage = ${lineage}, renewed_at = ${now}, last_used_at = ${now}, refresh_count = refresh_count + 1,
            expires_at = case when ttl_ms + ${now} < absolute_expires_at then ttl_ms + ${now} else absolute_expires_at end
          from admitted where id = admitted_id and end_reason is null and hash = ${ref.hash}
          returning ${recordColumns}`.execute(db)
        return rows[0] === undefined ? null : copy(rows[0])
      })
    },

    delete: ({ id, hash }, now) => run(() => end(sql`id = ${id} and hash = ${hash}`, 'revoked', now)),

    deleteRenewed: (id, lineage, renewedUntil, now) =>
      run(() => end(sql`id = ${id} and lineage = ${lineage} and renewed_at <= ${renewedUntil}`, 'revoked', now)),

    deleteById: (id, now) => run(() => end(sql`id = ${id}`, 'revoked', now)),

    endUser(_tag, userId, version, keep) {
      return run(() =>
        db.transaction().execute(async tx => {
          // Without the lock, a token issued in the meantime would have its row locked out of order.
          await lockUser(userId, tx)
          // Like `touch`, lock all rows in the order of their ids before changing the first.
          await sql`select id from latchkey_tokens where user_id = ${userId} and end_reason is null
            order by id ${lock('for update')}`.execute(tx)
          const floor = await tx
            .selectFrom('latchkey_floors')
            .select('version')
            .where('user_id', '=', userId)
            .executeTakeFirst()
          await sql`update latchkey_tokens set credential_version = ${version}
            where id = ${keep} and user_id = ${userId} and end_reason is null
              and credential_version < ${version} and credential_version >= ${floor?.version ?? 0}`.execute(tx)
          await sql`insert into latchkey_floors as f (user_id, version) values (${userId}, ${version})
            on conflict (user_id) do update set version = excluded.version where excluded.version > f.version`.execute(
            tx,
          )
          // The floor already refuses these tokens. This makes them due for the sweeper, which skips rows before
          // `sweep_at`.
          await sql`update latchkey_tokens set sweep_at = 0
            where user_id = ${userId} and end_reason is null and credential_version < ${version}`.execute(tx)
        }),
      )
    },

    findByUser(_tag, userId, now) {
      return run(async () => {
        if (!isStorable(userId)) return []
        const { rows } = await sql<TokenRecord>`select ${recordColumns} from latchkey_tokens
          where user_id = ${userId} and end_reason is null and expires_at > ${now}
            and credential_version >= coalesce((select version from latchkey_floors where user_id = ${userId}), 0)
          order by created_at, id`.execute(db)
        return rows.map(copy)
      })
    },

    explain({ id, hash }, now, purpose) {
      return run(async (): Promise<Refusal> => {
        const { rows } = await sql<TokenRow & { floor: number | null }>`select ${rowColumns},
          (select version from latchkey_floors where user_id = latchkey_tokens.user_id) as floor
          from latchkey_tokens where id = ${id}`.execute(db)
        const [row] = rows
        if (row === undefined) return { reason: 'unknown' }
        if (row.endReason === 'ended') return { reason: 'ended' }
        if (row.endReason !== null) return { reason: row.endReason as EndReason, at: row.endedAt as number }
        if (row.hash !== hash)
          return row.renewedAt === null ? { reason: 'unknown' } : { reason: 'renewed', at: row.renewedAt }
        if (row.credentialVersion < (row.floor ?? 0)) return { reason: 'ended' }
        if (row.expiresAt <= now) return { reason: 'expired', at: row.expiresAt }
        return { reason: row.purpose === purpose ? 'unknown' : 'other_purpose' }
      })
    },

    async deleteExpired(now, limit) {
      // One transaction, because a retry after partial work would leave that part uncounted.
      const { looked, removed, forgotten } = await run(() =>
        db.transaction().execute(async tx => {
          // Extending a token does not write `sweep_at`, so a due token may still be live; it becomes due again at its
          // new expiry.
          const { rows } = await sql<{ ended: number; userId: string | null }>`with due as (
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
            returning case when end_reason is null then 0 else 1 end as ended, user_id as "userId"`.execute(tx)
          const { numAffectedRows } = await sql`delete from latchkey_tokens where id in (
              select t.id from latchkey_tokens as t where t.end_reason is not null and t.sweep_at <= ${now}
              limit ${limit} ${lock('for update of t skip locked')}
            )`.execute(tx)
          const removed = rows.filter(({ ended }) => ended)
          return { looked: rows.length, removed, forgotten: numAffectedRows ?? 0n }
        }),
      )
      uncount(removed)
      const done = looked < limit && forgotten < limit
      if (done && (countedAt === null || Math.abs(now - countedAt) >= recountMs)) {
        countedAt = now
        // The sweep has succeeded even if this count takes too long; in that case keep the running count.
        await run(() => countTokens(db)).catch(() => {})
      }
      return { removed: removed.length, done }
    },

    list(cursor, limit, now) {
      return run(async () => {
        const { rows } = await sql<TokenRecord>`select ${recordColumns} from latchkey_tokens as t
          where end_reason is null and id > ${cursor ?? ''} and expires_at > ${now}
            and credential_version >= coalesce((select version from latchkey_floors as f where f.user_id = t.user_id), 0)
          order by id limit ${limit}`.execute(db)
        return { tokens: rows.map(copy), next: rows.length === limit ? (rows.at(-1)?.id ?? null) : null }
      })
    },

    census() {
      return run(async () => {
        const { rows } = await sql<{ kind: TokenKind; n: number }>`select kind, count(*) as n from latchkey_tokens
          where end_reason is null group by kind`.execute(db)
        const counts: Record<TokenKind, number> = { sliding: 0, fixed: 0, 'single-use': 0 }
        for (const { kind, n } of rows) counts[kind] = Number(n)
        return counts
      })
    },

    close: database.close,
  }
}

/**
 * Whether a user id or username can be in the database: PostgreSQL rejects U+0000, and drivers send a lone surrogate as
 * U+FFFD.
 */
function isStorable(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed()
}

/** A ref and how often it occurs in a batch. */
type Mention = TokenRef & { times: number }

function mentionsOf(refs: TokenRef[]): Mention[] {
  const mentions = new Map<string, Mention>()
  for (const { id, hash } of refs) {
    const known = mentions.get(id + hash)
    if (known) known.times++
    else mentions.set(id + hash, { id, hash, times: 1 })
  }
  return [...mentions.values()]
}

/** One result per ref, as if they had been touched one after another. `rows` hold the state after the last touch. */
function inOrder(
  refs: TokenRef[],
  mentions: Mention[],
  rows: (TokenRecord & { hash: string })[],
): (TokenRecord | null)[] {
  const found = new Map(rows.map(({ hash, ...token }) => [token.id + hash, token]))
  const left = new Map(mentions.map(({ id, hash, times }) => [id + hash, times]))
  return refs.map(({ id, hash }) => {
    const token = found.get(id + hash)
    if (token === undefined) return null
    const after = (left.get(id + hash) as number) - 1
    left.set(id + hash, after)
    if (token.kind !== 'single-use') return { ...token, refreshCount: token.refreshCount - after }
    found.delete(id + hash)
    return token
  })
}

const lastCodePoint = '\u{10ffff}' // not a character, so it occurs in no username

const userColumns = [
  'id',
  'username',
  'password_hash as passwordHash',
  'credential_version as credentialVersion',
  'ended_version as endedVersion',
  'created_at as createdAt',
  'confirmed_at as confirmedAt',
  'disabled_at as disabledAt',
  'deleted_at as deletedAt',
] as const

/** Column -> value, for the given fields of a user. */
function userRow(members: UserChanges): Partial<Tables['latchkey_users']> {
  const columns = userColumns.map(selected => selected.split(' as ') as [string, string?])
  const given = columns.map(([column, member = column]) => [column, members[member as keyof UserChanges]] as const)
  return Object.fromEntries(given.filter(([, value]) => value !== undefined))
}

/** Resolves when the schema is up to date; rejects with a message for the operator. */
export async function openUserStore(url: string, warn: (warning: string) => void): Promise<UserStore> {
  const database = await openDatabase(url, warn)
  const { db, run } = database
  const users = () => db.selectFrom('latchkey_users').select(userColumns)
  const one = async (query: { executeTakeFirst(): Promise<object | undefined> }) => {
    const row = await query.executeTakeFirst()
    return row === undefined ? null : ({ ...row } as UserRecord)
  }
  return {
    insert(user) {
      return run(async () => {
        const row = userRow(user) as Tables['latchkey_users']
        const query = db
          .insertInto('latchkey_users')
          .values(row)
          .onConflict(conflict => conflict.doNothing())
        return (await query.executeTakeFirst()).numInsertedOrUpdatedRows === 1n
      })
    },

    findByUsername(username) {
      return run(async () => (isStorable(username) ? one(users().where('username', '=', username)) : null))
    },

    findById(id) {
      return run(async () => (isStorable(id) ? one(users().where('id', '=', id)) : null))
    },

    update(id, ifVersion, changes) {
      return run(async () => {
        if (!isStorable(id)) return null
        const query = db.updateTable('latchkey_users').set(userRow(changes))
        return one(query.where('id', '=', id).where('credential_version', '=', ifVersion).returning(userColumns))
      })
    },

    delete(id) {
      return run(async () => {
        if (!isStorable(id)) return false
        const { numDeletedRows } = await db.deleteFrom('latchkey_users').where('id', '=', id).executeTakeFirst()
        return numDeletedRows === 1n
      })
    },

    list(afterId, limit) {
      return run(async () => {
        if (afterId !== null && !isStorable(afterId)) return []
        const query = users().orderBy('id').limit(limit)
        const rows = await (afterId === null ? query : query.where('id', '>', afterId)).execute()
        return rows.map(row => ({ ...row }))
      })
    },

    search(prefix, afterId, limit) {
      return run(async () => {
        if (!isStorable(prefix + (afterId ?? ''))) return []
        // Compare bytes, as SQLite always does: in a database's own collation a prefix is not a contiguous range.
        const username = database.dialect === 'postgres' ? sql`username collate "C"` : sql`username`
        const query = users()
          .where(sql<boolean>`${username} >= ${prefix} and ${username} < ${prefix + lastCodePoint}`)
          .orderBy('id')
          .limit(limit)
        const rows = await (afterId === null ? query : query.where('id', '>', afterId)).execute()
        return rows.map(row => ({ ...row }))
      })
    },

    findUnfinished(limit) {
      return run(async () => {
        const rows = await users().whereRef('ended_version', '<', 'credential_version').limit(limit).execute()
        return rows.map(row => ({ ...row }))
      })
    },

    close: database.close,
  }
}
