// The user store in SQLite or PostgreSQL. Every method is one statement. Hides the queries.
import type { UserChanges, UserRecord, UserStore } from '../ports.ts'
import { openDatabase } from './database.ts'
import { join, raw, type Sql, sql } from './statement.ts'
import { isStorable } from './tokenQueries.ts'

const columns: Record<keyof UserRecord, string> = {
  id: 'id',
  username: 'username',
  passwordHash: 'password_hash',
  credentialVersion: 'credential_version',
  endedVersion: 'ended_version',
  createdAt: 'created_at',
  confirmedAt: 'confirmed_at',
  disabledAt: 'disabled_at',
  deletedAt: 'deleted_at',
}

const fields = Object.keys(columns) as (keyof UserRecord)[]
const columnList = raw(fields.map(field => columns[field]).join(', '))
const selection = raw(fields.map(field => `${columns[field]} as "${field}"`).join(', '))
const comma = raw(', ')
const lastCodePoint = '\u{10ffff}' // not a character, so it occurs in no username

/** Resolves when the schema is up to date; rejects with a message for the operator. */
export async function openUserStore(url: string, warn: (warning: string) => void): Promise<UserStore> {
  const { db, dialect, run, runConfirmed, close } = await openDatabase(url, warn)
  // Compare bytes, as SQLite always does: in a database's own collation a prefix is not a contiguous range.
  const username = raw(dialect === 'postgres' ? 'username collate "C"' : 'username')

  async function find(condition: Sql): Promise<UserRecord[]> {
    const rows = await db.query<UserRecord>(sql`select ${selection} from latchkey_users where ${condition}`)
    return rows.map(row => ({ ...row })) // SQLite's rows have no prototype
  }

  async function findOne(condition: Sql): Promise<UserRecord | null> {
    return (await find(condition))[0] ?? null
  }

  return {
    insert: user =>
      runConfirmed(async session => {
        const values = join(
          fields.map(field => sql`${user[field]}`),
          comma,
        )
        const inserted = await session.change(
          sql`insert into latchkey_users (${columnList}) values (${values}) on conflict do nothing`,
        )
        return inserted === 1
      }),

    findByUsername: username => run(async () => (isStorable(username) ? findOne(sql`username = ${username}`) : null)),

    findById: id => run(async () => (isStorable(id) ? findOne(sql`id = ${id}`) : null)),

    update: (id, ifVersion, changes) =>
      runConfirmed(async session => {
        if (!isStorable(id)) return null
        const [row] = await session.query<UserRecord>(sql`update latchkey_users set ${assignments(changes)}
          where id = ${id} and credential_version = ${ifVersion} returning ${selection}`)
        return row === undefined ? null : { ...row }
      }),

    delete: id =>
      runConfirmed(
        async session =>
          isStorable(id) && (await session.change(sql`delete from latchkey_users where id = ${id}`)) === 1,
      ),

    list: (afterId, limit) =>
      run(async () => {
        if (afterId !== null && !isStorable(afterId)) return []
        return find(sql`id > ${afterId ?? ''} order by id limit ${limit}`)
      }),

    search: (prefix, afterId, limit) =>
      run(async () => {
        if (!isStorable(prefix + (afterId ?? ''))) return []
        return find(sql`${username} >= ${prefix} and ${username} < ${prefix + lastCodePoint}
          and id > ${afterId ?? ''} order by id limit ${limit}`)
      }),

    findUnfinished: limit => run(() => find(sql`ended_version < credential_version limit ${limit}`)),

    close,
  }
}

function assignments(changes: UserChanges): Sql {
  const changed = fields.filter(field => changes[field as keyof UserChanges] !== undefined)
  return join(
    changed.map(
      field => sql`${raw(columns[field])} = ${changes[field as keyof UserChanges] as string | number | null}`,
    ),
    comma,
  )
}
