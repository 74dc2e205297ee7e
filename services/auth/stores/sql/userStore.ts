// The user store in SQLite or PostgreSQL. Every method is one statement. Hides the queries.
import type { AuthorityChanges, UserRecord, UserStore } from '../userPort.ts'
import { type AuthorityColumns, authorityOf, columnsOf } from './authorities.ts'
import { openDatabase } from './database.ts'
import { isDuplicate } from './errors.ts'
import { join, raw, type Sql, sql } from './statement.ts'
import { isStorable } from './tokenQueries.ts'

/** A user as the table holds them. */
type UserRow = Omit<UserRecord, 'authority'> & AuthorityColumns

const columns: Record<keyof UserRow, string> = {
  id: 'id',
  username: 'username',
  passwordHash: 'password_hash',
  credentialVersion: 'credential_version',
  endedVersion: 'ended_version',
  createdAt: 'created_at',
  confirmedAt: 'confirmed_at',
  disabledAt: 'disabled_at',
  deletedAt: 'deleted_at',
  authorityVersion: 'authority_version',
  roles: 'roles',
  paused: 'paused',
  rate: 'rate',
  mirroredAuthority: 'mirrored_authority',
  email: 'email',
  pendingEmail: 'pending_email',
  emailTokenId: 'email_token_id',
  attributes: 'attributes',
}

const fields = Object.keys(columns) as (keyof UserRow)[]
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
    const rows = await db.query<UserRow>(sql`select ${selection} from latchkey_users where ${condition}`)
    return rows.map(userOf)
  }

  async function findOne(condition: Sql): Promise<UserRecord | null> {
    return (await find(condition))[0] ?? null
  }

  function updateIf(id: string, isAsRead: Sql, changes: Partial<UserRow>): Promise<UserRecord | null> {
    return runConfirmed(async session => {
      if (!isStorable(id)) return null
      const [row] = await session.query<UserRow>(sql`update latchkey_users set ${assignments(changes)}
        where id = ${id} and ${isAsRead} returning ${selection}`)
      return row === undefined ? null : userOf(row)
    })
  }

  return {
    insert: user =>
      runConfirmed(async session => {
        const row: UserRow = { ...user, ...columnsOf(user.authority) }
        const values = join(
          fields.map(field => sql`${row[field]}`),
          comma,
        )
        const inserted = await session.change(
          sql`insert into latchkey_users (${columnList}) values (${values}) on conflict do nothing`,
        )
        return inserted === 1
      }),

    findByUsername: username => run(async () => (isStorable(username) ? findOne(sql`username = ${username}`) : null)),

    findById: id => run(async () => (isStorable(id) ? findOne(sql`id = ${id}`) : null)),

    update: (id, ifVersion, changes) => updateIf(id, sql`credential_version = ${ifVersion}`, changes),

    updateAuthority: (id, ifVersion, changes) => updateIf(id, sql`authority_version = ${ifVersion}`, rowOf(changes)),

    updateAttributes: (id, ifAttributes, attributes) => updateIf(id, sql`attributes = ${ifAttributes}`, { attributes }),

    rename: (id, ifVersion, changes) =>
      updateIf(id, sql`credential_version = ${ifVersion}`, changes).catch(error => {
        if (isDuplicate(error)) return 'taken' as const
        throw error
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

    findUnmirrored: limit => run(() => find(sql`mirrored_authority < authority_version limit ${limit}`)),

    close,
  }
}

function userOf({ authorityVersion, roles, paused, rate, ...others }: UserRow): UserRecord {
  return { ...others, authority: authorityOf({ authorityVersion, roles, paused, rate }) }
}

/** Only the columns that change. */
function rowOf({ authority, mirroredAuthority }: AuthorityChanges): Partial<UserRow> {
  return {
    ...(authority && columnsOf(authority)),
    ...(mirroredAuthority !== undefined && { mirroredAuthority }),
  }
}

function assignments(changes: Partial<UserRow>): Sql {
  const changed = fields.filter(field => changes[field] !== undefined)
  return join(
    changed.map(field => sql`${raw(columns[field])} = ${changes[field] as string | number | null}`),
    comma,
  )
}
