// Tokens and users in SQLite or PostgreSQL, through Kysely. Every method is one statement or one transaction. Ended tokens
// stay as tombstones for a while, so that any process can tell what became of them.
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

const rememberedMs = 10 * 60_000 // how long a tombstone stays
const recountMs = 60_000 // between two counts of all tokens, which other processes add to and remove from

/** A token's row as it is selected: the record, and what became of it. */
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

/** A row is not what the caller may keep: SQLite's have no prototype. */
const copy = (row: TokenRecord): TokenRecord => ({ ...row })

/** Resolves when the schema is up to date; rejects with a sentence for the operator. */
export async function openTokenStore(url: string, warn: (warning: string) => void): Promise<TokenStore> {
  let atMost = { all: 0, guests: 0 } // tokens, as far as this process knows
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

  /** The mentioned refs as a table `asked (id, hash, times)`: the same parameters, hence one statement for every batch. */
  function askedFor(mentions: Mention[]): RawBuilder<unknown> {
    if (dialect === 'sqlite') {
      const json = JSON.stringify(mentions)
      return sql`select value ->> 'id' as id, value ->> 'hash' as hash, value ->> 'times' as times from json_each(${json})`
    }
    // Arrays, not JSON: of those PostgreSQL knows the length, and does not read the whole table for a few.
    const ids = mentions.map(({ id }) => id)
    const hashes = mentions.map(({ hash }) => hash)
    const times = mentions.map(({ times }) => times)
    return sql`select id, hash, times
      from unnest(${ids}::text[], ${hashes}::text[], ${times}::bigint[]) as asked(id, hash, times)`
  }

  /** From tokens `t`, floors `f` and `asked`: those that may be admitted. */
  function admissible(now: number, purpose: string | null): RawBuilder<unknown> {
    const isMeant = purpose === null ? sql`t.purpose is null` : sql`t.purpose = ${purpose}`
    return sql`latchkey_tokens as t join asked on asked.id = t.id and asked.hash = t.hash
      left join latchkey_floors as f on f.user_id = t.user_id
      where t.end_reason is null and t.expires_at > ${now} and ${isMeant}
        and t.credential_version >= coalesce(f.version, 0)`
  }

  /** Where a token is live no more, its tombstone; returned are the tokens that this has ended. */
  async function end(which: RawBuilder<unknown>, reason: EndReason, now: number): Promise<TokenRecord | null> {
    const { rows } = await sql<TokenRecord>`update latchkey_tokens
      set end_reason = ${reason}, ended_at = ${now}, sweep_at = ${now + rememberedMs}
      where end_reason is null and ${which} returning ${recordColumns}`.execute(db)
    uncount(rows)
    return rows[0] === undefined ? null : copy(rows[0])
  }

  /** One transaction that issues or ends tokens of a user after the other. */
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
            // Or two log-ins would each find room for one.
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
          // Last: nobody loses a session for a token that is refused.
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
        // Locked in the order of their ids: two batches that share tokens wait for each other and do not deadlock.
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
          // Or a token that is issued meanwhile would be locked out of turn.
          await lockUser(userId, tx)
          // Like a batch: all of them in the order of their ids before the first is changed.
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
          // For the sweeper, which looks at nothing before its time; refused they are by the floor.
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
      // One transaction: what is tried again must not have been done in part, or the part is counted by nobody.
      const { looked, removed, forgotten } = await run(() =>
        db.transaction().execute(async tx => {
          // Those whose time had come when it was set; one that was touched since is looked at again when that is up.
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
        // What was removed is, even if counting so many takes too long: then this goes on with what it knows.
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

/** Whether a user id or a name can be in a database: PostgreSQL rejects U+0000, and half a surrogate pair is sent as U+FFFD. */
function isStorable(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed()
}

/** A ref of a batch, and how often it is there. */
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

/** One answer for each mention, as if they had come one after the other; `rows` are as they are after the last. */
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

const lastCodePoint = '\u{10ffff}' // no character, so no username has it

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

/** Column -> value, of a user or of what is to become of one. */
function userRow(members: UserChanges): Partial<Tables['latchkey_users']> {
  const columns = userColumns.map(selected => selected.split(' as ') as [string, string?])
  const given = columns.map(([column, member = column]) => [column, members[member as keyof UserChanges]] as const)
  return Object.fromEntries(given.filter(([, value]) => value !== undefined))
}

/** Resolves when the schema is up to date; rejects with a sentence for the operator. */
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
        // By bytes, as SQLite compares anyway: in the collation of a database a prefix is no range.
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
