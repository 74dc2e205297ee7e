// The schema of the SQL stores as a list of migrations, for both SQLite and PostgreSQL, and how they are applied. Never
// change a released migration; add a new one.
import type { Connection, Driver } from './driver.ts'
import { UnknownMigrationError } from './errors.ts'
import { raw, sql } from './statement.ts'

export type SqlDialect = 'sqlite' | 'postgres'

/** Statements by the name of the migration. Migrations run in the order of their names. */
export function migrationsFor(dialect: SqlDialect): Record<string, string[]> {
  // Leaves room in each page for new versions of its rows, so that a touch writes no index (PostgreSQL's HOT updates).
  const storage = dialect === 'postgres' ? 'with (fillfactor = 70)' : ''

  return {
    '0001_users': [
      `create table latchkey_users (
        id text primary key not null,
        username text not null unique,
        password_hash text not null,
        credential_version bigint not null,
        ended_version bigint not null,
        created_at bigint not null,
        confirmed_at bigint,
        disabled_at bigint,
        deleted_at bigint
      )`,
      'create index latchkey_users_unfinished on latchkey_users (id) where ended_version < credential_version',
    ],

    // sweep_at: when the sweeper next examines the token. Extending a token never writes this column, and so never has
    // to update the index either.
    '0002_tokens': [
      `create table latchkey_tokens (
        id text primary key not null,
        hash text not null,
        kind text not null,
        purpose text,
        user_id text,
        username text,
        credential_version bigint not null,
        created_at bigint not null,
        last_used_at bigint not null,
        expires_at bigint not null,
        absolute_expires_at bigint not null,
        ttl_ms bigint not null,
        refresh_count bigint not null,
        sweep_at bigint not null,
        end_reason text,
        ended_at bigint,
        renewed_at bigint
      ) ${storage}`,
      'create index latchkey_tokens_user on latchkey_tokens (user_id) where end_reason is null',
      'create index latchkey_tokens_kind on latchkey_tokens (kind) where end_reason is null',
      'create index latchkey_tokens_due on latchkey_tokens (sweep_at) where end_reason is null',
      'create index latchkey_tokens_ended on latchkey_tokens (sweep_at) where end_reason is not null',
      'create table latchkey_floors (user_id text primary key not null, version bigint not null)',
    ],

    // Null for existing tokens, whose users must log in again for actions that require a recent log-in.
    '0003_token_logins': ['alter table latchkey_tokens add column login_id text'],

    '0004_token_lineages': ['alter table latchkey_tokens add column lineage text'],

    // forget_at: when the sweeper next examines the floor; 0 if it was raised since the last sweep.
    '0005_floors_end': [
      'alter table latchkey_floors add column forget_at bigint not null default 0',
      'create index latchkey_floors_due on latchkey_floors (forget_at)',
    ],

    // The row of a user in the table of floors mirrors what the user may do, so that a touch reads both at once.
    '0006_authorities': [
      ...['latchkey_users', 'latchkey_floors'].flatMap(table => [
        `alter table ${table} add column authority_version bigint not null default 0`,
        `alter table ${table} add column roles text not null default ''`,
        `alter table ${table} add column paused bigint not null default 0`,
      ]),
      'alter table latchkey_users add column mirrored_authority bigint not null default 0',
      `create index latchkey_users_unmirrored on latchkey_users (id) where mirrored_authority < authority_version`,
      'alter table latchkey_tokens add column scope text',
      'alter table latchkey_tokens add column paused bigint not null default 0',
    ],

    // rate: requests per minute / burst. full_at_us: when the bucket of this rate is full again, in microseconds.
    '0007_limits': [
      'alter table latchkey_users add column rate text',
      ...['latchkey_floors', 'latchkey_tokens'].flatMap(table => [
        `alter table ${table} add column rate text`,
        `alter table ${table} add column full_at_us bigint not null default 0`,
      ]),
      'alter table latchkey_tokens add column uses_left bigint',
    ],

    '0008_attributes': [`alter table latchkey_users add column attributes text not null default '{}'`],

    '0009_emails': ['email', 'pending_email', 'email_token_id'].map(
      name => `alter table latchkey_users add column ${name} text`,
    ),

    '0010_keys': ['name', 'parent_id'].map(name => `alter table latchkey_tokens add column ${name} text`),

    // starts_at begins a minute (span_ms 60000) or an hour (3600000). Empty without KEY_USAGE_DAYS.
    '0011_key_usage': [
      `create table latchkey_key_usage (
        key_id text not null,
        span_ms bigint not null,
        starts_at bigint not null,
        count bigint not null,
        delegated_count bigint not null,
        primary key (key_id, span_ms, starts_at)
      ) ${storage}`,
      'create index latchkey_key_usage_age on latchkey_key_usage (span_ms, starts_at)',
    ],
  }
}

// The table and the lock are those of Kysely's migrator, which applied the migrations of earlier versions.
const lockId = '3853314791062309107'
const createTable = raw(
  'create table latchkey_migrations (name varchar(255) primary key not null, timestamp varchar(255) not null)',
)

const timestamps = {
  sqlite: raw(`strftime('%Y-%m-%dT%H:%M:%fZ', 'now')`),
  postgres: raw(`to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`),
}

/** Applies what is pending in one transaction, one process at a time. */
export async function migrate(driver: Driver, dialect: SqlDialect): Promise<void> {
  const migrations = migrationsFor(dialect)
  await driver.transaction(async tx => {
    if (dialect === 'postgres') await tx.query(raw(`select pg_advisory_xact_lock(${lockId})`))
    const applied = await appliedTo(tx, dialect)
    // Not `create table if not exists`, which needs the right to create tables even if the table exists.
    if (applied === null) await tx.change(createTable)
    for (const name of pendingAfter(applied ?? [], dialect)) {
      for (const statement of migrations[name] ?? []) await tx.change(raw(statement))
      await tx.change(sql`insert into latchkey_migrations (name, timestamp) values (${name}, ${timestamps[dialect]})`)
    }
  })
}

/** The names of the migrations already applied; null if the database has none of our tables. */
export async function appliedTo(db: Connection, dialect: SqlDialect): Promise<string[] | null> {
  const tables =
    dialect === 'sqlite'
      ? sql`select 1 from sqlite_master where type = 'table' and name = 'latchkey_migrations'`
      : sql`select 1 from pg_tables where schemaname = current_schema() and tablename = 'latchkey_migrations'`
  if ((await db.query(tables)).length === 0) return null
  const rows = await db.query<{ name: string }>(sql`select name from latchkey_migrations order by name`)
  return rows.map(({ name }) => name)
}

/** Throws if there are migrations that this version does not know. */
export function pendingAfter(applied: string[], dialect: SqlDialect): string[] {
  const all = Object.keys(migrationsFor(dialect))
  const unknown = applied.find(name => !all.includes(name))
  if (unknown !== undefined) throw new UnknownMigrationError(`unknown migration ${unknown}`)
  return all.filter(name => !applied.includes(name))
}
