// The schema of the SQL stores as a list of migrations, for both SQLite and PostgreSQL. Never change a released
// migration; add a new one.
import { type Kysely, sql } from 'kysely'
import type { Migration } from 'kysely/migration'

export type SqlDialect = 'sqlite' | 'postgres'

/** The migrations run in the order of their names. */
export function migrationsFor(dialect: SqlDialect): Record<string, Migration> {
  // Leaves room in each page for new versions of its rows, so that a touch writes no index (PostgreSQL's HOT updates).
  const storage = dialect === 'postgres' ? sql`with (fillfactor = 70)` : sql``

  return {
    '0001_users': {
      async up(db: Kysely<unknown>) {
        await db.schema
          .createTable('latchkey_users')
          .addColumn('id', 'text', column => column.primaryKey().notNull())
          .addColumn('username', 'text', column => column.notNull().unique())
          .addColumn('password_hash', 'text', column => column.notNull())
          .addColumn('credential_version', 'bigint', column => column.notNull())
          .addColumn('ended_version', 'bigint', column => column.notNull())
          .addColumn('created_at', 'bigint', column => column.notNull())
          .addColumn('confirmed_at', 'bigint')
          .addColumn('disabled_at', 'bigint')
          .addColumn('deleted_at', 'bigint')
          .execute()
        await sql`create index latchkey_users_unfinished on latchkey_users (id)
          where ended_version < credential_version`.execute(db)
      },
    },

    '0002_tokens': {
      async up(db: Kysely<unknown>) {
        await db.schema
          .createTable('latchkey_tokens')
          .addColumn('id', 'text', column => column.primaryKey().notNull())
          .addColumn('hash', 'text', column => column.notNull())
          .addColumn('kind', 'text', column => column.notNull())
          .addColumn('purpose', 'text')
          .addColumn('user_id', 'text')
          .addColumn('username', 'text')
          .addColumn('credential_version', 'bigint', column => column.notNull())
          .addColumn('created_at', 'bigint', column => column.notNull())
          .addColumn('last_used_at', 'bigint', column => column.notNull())
          .addColumn('expires_at', 'bigint', column => column.notNull())
          .addColumn('absolute_expires_at', 'bigint', column => column.notNull())
          .addColumn('ttl_ms', 'bigint', column => column.notNull())
          .addColumn('refresh_count', 'bigint', column => column.notNull())
          // When the sweeper next examines the token. Extending a token never writes this, so its index costs a touch
          // nothing.
          .addColumn('sweep_at', 'bigint', column => column.notNull())
          .addColumn('end_reason', 'text')
          .addColumn('ended_at', 'bigint')
          .addColumn('renewed_at', 'bigint')
          .modifyEnd(storage)
          .execute()
        await sql`create index latchkey_tokens_user on latchkey_tokens (user_id) where end_reason is null`.execute(db)
        await sql`create index latchkey_tokens_kind on latchkey_tokens (kind) where end_reason is null`.execute(db)
        await sql`create index latchkey_tokens_due on latchkey_tokens (sweep_at) where end_reason is null`.execute(db)
        await sql`create index latchkey_tokens_ended on latchkey_tokens (sweep_at)
          where end_reason is not null`.execute(db)
        await db.schema
          .createTable('latchkey_floors')
          .addColumn('user_id', 'text', column => column.primaryKey().notNull())
          .addColumn('version', 'bigint', column => column.notNull())
          .execute()
      },
    },

    '0003_token_logins': {
      async up(db: Kysely<unknown>) {
        // Null for existing tokens, whose users must log in again for actions that require a recent login.
        await db.schema.alterTable('latchkey_tokens').addColumn('login_id', 'text').execute()
      },
    },

    '0004_token_lineages': {
      async up(db: Kysely<unknown>) {
        await db.schema.alterTable('latchkey_tokens').addColumn('lineage', 'text').execute()
      },
    },
  }
}
