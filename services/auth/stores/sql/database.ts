// Opens a SQLite file or a PostgreSQL database and migrates its schema. Hides drivers, pools, deadlines, retries, and
// most differences between the two databases.
import { chmodSync, closeSync, existsSync, openSync, statSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type DatabaseIntrospector,
  Kysely,
  PostgresDialect,
  type PostgresPool,
  type PostgresPoolClient,
  type RawBuilder,
  SqliteAdapter,
  type SqliteDatabase,
  SqliteDialect,
  sql,
} from 'kysely'
import { Migrator } from 'kysely/migration'
import type { Pool, PoolClient, PoolConfig } from 'pg'
import { within } from '../../../../shared/deadline.ts'
import { migrationsFor, type SqlDialect } from './migrations.ts'

/** The tables, typed for Kysely. */
export interface Tables {
  latchkey_users: {
    id: string
    username: string
    password_hash: string
    credential_version: number
    ended_version: number
    created_at: number
    confirmed_at: number | null
    disabled_at: number | null
    deleted_at: number | null
  }
  latchkey_tokens: { id: string; end_reason: string | null; ended_at: number | null; sweep_at: number }
  latchkey_floors: { user_id: string; version: number }
}

export interface SqlDatabase {
  dialect: SqlDialect
  db: Kysely<Tables>
  /** `for update …` in PostgreSQL, which locks rows; empty in SQLite, where a writer locks the whole file. */
  lock(clause: 'for update' | 'for update of t' | 'for update of t skip locked'): RawBuilder<unknown>
  /**
   * Resolves to the result of `work`. Rejects once closed, or after `deadlineMs`, when `work` may still complete.
   * Retries `work` if the database reports that it did nothing: a busy SQLite file, or a deadlock in PostgreSQL.
   */
  run<T>(work: () => Promise<T>): Promise<T>
  close(): Promise<void>
}

const deadlineMs = 900 // for a store's answer, so that the client gets its 503 within a second
const graceMs = 100 // lets PostgreSQL report its own timeout first, which keeps the connection usable
const retryMs = 1 // a busy SQLite file is free only for moments
const poolSize = 5 // connections per store and process; the smallest managed databases allow 20
const migrateWithinMs = 10 * 60_000 // indexing a million rows takes a while

/**
 * Migrates the schema, one process at a time, and rejects with a message for the operator. Then runs `prepare`, which
 * may take longer than `deadlineMs`.
 */
export async function openDatabase(
  url: string,
  warn: (warning: string) => void,
  prepare: (db: Kysely<Tables>) => Promise<void> = async () => {},
): Promise<SqlDatabase> {
  const dialect = dialectOf(url)
  if (dialect === 'sqlite') closeToOthers(pathOf(url), warn)
  const database = createDatabase(dialect, connect(url, dialect, deadlineMs, 'checked'))
  const { db, run, close } = database
  try {
    await migrate(url, dialect, prepare)
    // A write that changes nothing, so that a read-only file or server is reported at start.
    await run(() => sql`update latchkey_floors set version = 0 where 1 = 0`.execute(db))
    return database
  } catch (error) {
    await close().catch(() => {})
    throw new Error(sentence(url, error as DriverError), { cause: error })
  }
}

/** The names of the migrations already applied, and of those that `openDatabase` would apply. Changes nothing. */
export async function listMigrations(url: string): Promise<{ applied: string[]; pending: string[] }> {
  const dialect = dialectOf(url)
  const all = Object.keys(migrationsFor(dialect))
  if (dialect === 'sqlite' && !existsSync(pathOf(url))) return { applied: [], pending: all }
  const db = connect(url, dialect, deadlineMs, 'read')
  try {
    const migrations = await (await migratorFor(db, dialect)).getMigrations()
    const applied = migrations.filter(({ executedAt }) => executedAt).map(({ name }) => name)
    const inAll =
      applied.length === 0 ? [] : (await sql<{ name: string }>`select name from latchkey_migrations`.execute(db)).rows
    // Unknown migrations come from another Latchkey version. Report them with Kysely's words, as opening would.
    if (inAll.some(({ name }) => !all.includes(name))) throw new Error('corrupted migrations')
    return { applied, pending: all.filter(name => !applied.includes(name)) }
  } catch (error) {
    throw new Error(sentence(url, error as DriverError), { cause: error })
  } finally {
    await db.destroy().catch(() => {})
  }
}

function createDatabase(dialect: SqlDialect, db: Kysely<Tables>): SqlDatabase {
  let closed: Promise<void> | null = null
  // A queue of calls to retry: one at a time and the oldest first, so that none starves.
  let line: Promise<unknown> = Promise.resolve()

  async function retried<T>(work: () => Promise<T>, giveUpAt: number): Promise<T> {
    const attempt = async () => {
      try {
        return { value: await work() }
      } catch (error) {
        if (!isWorthRetrying(error as DriverError) || performance.now() > giveUpAt) throw error
        return null
      }
    }
    const first = await attempt()
    if (first !== null) return first.value
    const turn = line.then(async () => {
      for (;;) {
        const done = await attempt()
        if (done !== null) return done.value
        await sleep(retryMs)
      }
    })
    line = turn.catch(() => {})
    return turn
  }

  return {
    dialect,
    db,
    lock: clause => (dialect === 'postgres' ? sql.raw(clause) : sql``),

    async run(work) {
      if (closed) throw new Error('the store is closed')
      const answer = retried(work, performance.now() + deadlineMs - retryMs)
      return within(deadlineMs, answer, () => new Error(`the database did not answer within ${deadlineMs} ms`))
    },

    close: () => (closed ??= db.destroy()),
  }
}

function dialectOf(url: string): SqlDialect {
  return url.startsWith('sqlite:') ? 'sqlite' : 'postgres'
}

/** `sqlite:relative/path`, `sqlite:/absolute/path`, `sqlite:///absolute/path`. */
function pathOf(url: string): string {
  return url.slice('sqlite:'.length).replace(/^\/\//, '')
}

/** How to open a SQLite file: `first` checks its integrity, `checked` skips that, `read` checks it and is read-only. */
type Use = 'first' | 'checked' | 'read'

function connect(url: string, dialect: SqlDialect, timeoutMs: number, use: Use): Kysely<Tables> {
  if (dialect === 'postgres') {
    return new Kysely({ dialect: new OwnSchemaPostgresDialect({ pool: () => openPool(url, timeoutMs) }) })
  }
  return new Kysely({
    dialect: new TransactionalSqliteDialect({ database: async () => openSqlite(pathOf(url), use) }),
  })
}

async function migrate(
  url: string,
  dialect: SqlDialect,
  prepare: (db: Kysely<Tables>) => Promise<void>,
): Promise<void> {
  const db = connect(url, dialect, migrateWithinMs, 'first')
  try {
    const migrator = await migratorFor(db, dialect)
    for (const giveUpAt = performance.now() + migrateWithinMs; ; await sleep(retryMs)) {
      const { error } = await migrator.migrateToLatest()
      if (error === undefined) return await prepare(db)
      if (!isWorthRetrying(error as DriverError) || performance.now() > giveUpAt) throw error
    }
  } finally {
    await db.destroy().catch(() => {})
  }
}

async function migratorFor(db: Kysely<Tables>, dialect: SqlDialect): Promise<Migrator> {
  const provider = { getMigrations: async () => migrationsFor(dialect) }
  const names = { migrationTableName: 'latchkey_migrations', migrationLockTableName: 'latchkey_migrations_lock' }
  if (dialect === 'sqlite') return new Migrator({ db, provider, ...names })
  // Without the schema, Kysely mistakes a table of the same name in another schema for ours.
  const { rows } = await sql<{ schema: string | null }>`select current_schema() as schema`.execute(db)
  return new Migrator({ db, provider, ...names, migrationTableSchema: rows[0]?.schema ?? 'public' })
}

// SQLite
// ---------------------------------------------------------------------------------------------------------------

class TransactionalSqliteAdapter extends SqliteAdapter {
  /** SQLite does support it. Kysely then migrates in a transaction, which serialises processes that start together. */
  override get supportsTransactionalDdl(): boolean {
    return true
  }
}

class TransactionalSqliteDialect extends SqliteDialect {
  override createAdapter(): SqliteAdapter {
    return new TransactionalSqliteAdapter()
  }
}

/**
 * The file contains password hashes. If every user of the machine can access it, which is the result of a umask rather
 * than an operator's choice, restricts it to its owner; access for the group alone is left as it is. If the mode cannot
 * be changed the file is still used, because some shared volumes show every file as open to all.
 */
function closeToOthers(path: string, warn: (warning: string) => void): void {
  if (process.platform === 'win32') return
  const open = [path, `${path}-wal`, `${path}-shm`].filter(isOpenToAll)
  if (open.length === 0) return
  try {
    for (const file of open) chmodSync(file, 0o600)
    warn(`the file ${path} could be used by every user of this machine; its mode is 600 now`)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    warn(`the file ${path} can be used by every user of this machine, and its mode cannot be changed (${code})`)
  }
}

function isOpenToAll(file: string): boolean {
  try {
    const { mode } = statSync(file)
    return (mode & 0o007) !== 0
  } catch {
    return false // it does not exist, or opening it will report the error
  }
}

/** Adapts node:sqlite to Kysely. */
function openSqlite(path: string, use: Use): SqliteDatabase {
  const readOnly = use === 'read'
  // The file contains password hashes, so only its owner may read it. SQLite gives its WAL files the same mode.
  if (!readOnly && !existsSync(path)) closeSync(openSync(path, 'a', 0o600))
  // timeout 0: `run` waits for other writers without blocking the thread.
  const file = new DatabaseSync(path, { readOnly, timeout: 0 })
  try {
    if (use !== 'checked') {
      const problem = file.prepare('pragma quick_check(1)').get() as { quick_check: string }
      if (problem.quick_check !== 'ok') throw Object.assign(new Error(problem.quick_check), { errcode: 11 })
    }
    // FULL: a commit is on disk before it is acknowledged. WAL: readers and the writer do not block each other.
    if (!readOnly) file.exec('pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on')
  } catch (error) {
    file.close()
    throw error
  }
  const statements = new Map<string, StatementSync>()

  return {
    close: () => file.close(),
    prepare(text) {
      // A plain `begin` acquires the lock only at the first write, when it is too late to wait for it.
      const own = text === 'begin' ? 'begin immediate' : text
      let statement = statements.get(own)
      if (statement === undefined) {
        statement = file.prepare(own)
        statements.set(own, statement)
      }
      const known = statement
      type Values = Parameters<StatementSync['all']>
      // If the disk is full SQLite has already rolled back, and a failing second rollback would hide the cause.
      const isDone = () => own === 'rollback' && !file.isTransaction
      return {
        reader: known.columns().length > 0,
        all: values => known.all(...(values as Values)),
        run: values => (isDone() ? { changes: 0, lastInsertRowid: 0 } : known.run(...(values as Values))),
        iterate: values => known.iterate(...(values as Values)) as IterableIterator<unknown>,
      }
    },
  }
}

// PostgreSQL
// -----------------------------------------------------------------------------------------------------------

/**
 * The migrator only needs to know whether its tables exist. Kysely's own introspection reads every column of every
 * schema, and fails if another program drops a table in the meantime.
 */
class OwnSchemaPostgresDialect extends PostgresDialect {
  override createIntrospector(db: Kysely<unknown>): DatabaseIntrospector {
    return {
      async getSchemas() {
        return (await sql<{ name: string }>`select nspname as name from pg_namespace`.execute(db)).rows
      },
      async getTables() {
        const { rows } = await sql<{ name: string; schema: string }>`
          select tablename as name, schemaname as schema from pg_tables where schemaname = current_schema()`.execute(db)
        return rows.map(table => ({ ...table, isView: false, isForeign: false, columns: [] }))
      },
    }
  }
}

const int8 = 20 // the object id of the type; our values are counts and milliseconds, far below 2^53

async function openPool(url: string, timeoutMs: number): Promise<PostgresPool> {
  const { default: pg } = await import('pg')
  const config: PoolConfig = {
    connectionString: url,
    max: poolSize,
    connectionTimeoutMillis: Math.min(timeoutMs, deadlineMs),
    query_timeout: timeoutMs + graceMs,
    idleTimeoutMillis: 30_000,
    keepAlive: true,
    application_name: 'latchkey',
    onConnect: client => client.query(sessionSettings(timeoutMs)),
    types: {
      getTypeParser: ((oid: number, format: 'text') =>
        oid === int8 ? Number : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
    },
  }
  const pool = new pg.Pool(config)
  // The server closed an idle connection. The pool discards it and opens a new one when needed.
  pool.on('error', () => {})
  pool.on('connect', client => client.on('error', () => {}))
  return { connect: () => borrow(pool), end: () => pool.end(), options: {} }
}

/**
 * Server-side timeouts, because an abandoned statement would keep its connection and its locks. Read committed, so that
 * a statement that waited for a lock sees the changes made in the meantime, whatever the default of the database.
 */
function sessionSettings(timeoutMs: number): string {
  return `set statement_timeout = ${timeoutMs}; set idle_in_transaction_session_timeout = ${timeoutMs};
    set default_transaction_isolation = 'read committed'`
}

/** A client that the pool discards on release if the server did not answer or reported that it is shutting down. */
async function borrow(pool: Pool): Promise<PostgresPoolClient> {
  const client: PoolClient = await pool.connect()
  let broken: Error | undefined
  return {
    query: (async (text: string, values: unknown[]) => {
      if (broken) throw broken // fail fast with the original error instead of waiting for a rollback
      try {
        return await client.query(text, values)
      } catch (error) {
        if (!isAnswer(error as DriverError)) broken = error as Error
        throw error
      }
    }) as unknown as PostgresPoolClient['query'], // Kysely's type includes cursors, which we never open
    release: () => client.release(broken),
  }
}

/** Whether a server that is still running rejected just this statement. Classes 08 and 57P mean that it is not. */
function isAnswer({ code = '' }: DriverError): boolean {
  return /^[0-9A-Z]{5}$/.test(code) && !/^(08|57P)/.test(code)
}

// Errors
// ---------------------------------------------------------------------------------------------------------------

/** An error of either driver: `code` is PostgreSQL's SQLSTATE or a system error code, `errcode` is SQLite's. */
type DriverError = Error & { code?: string; errcode?: number; syscall?: string }

/** A file that we failed to create counts as one that SQLite could not open (14). */
const sqliteCode = ({ errcode = 0, syscall }: DriverError): number => (syscall === 'open' ? 14 : errcode & 0xff)

/** SQLite: busy or locked. PostgreSQL: deadlock or serialization failure. In all four cases nothing was done. */
function isWorthRetrying(error: DriverError): boolean {
  return [5, 6].includes(sqliteCode(error)) || ['40P01', '40001'].includes(error.code ?? '')
}

const sqliteSentences: Record<number, string> = {
  5: 'is locked by another process',
  8: 'is read-only for this user',
  11: 'is damaged; nothing was changed: restore a backup',
  13: 'cannot grow: the disk is full',
  14: 'cannot be opened: does its folder exist, and may this user write to it?',
  26: 'is no SQLite database; nothing was changed',
}

const postgresSentences: Record<string, string> = {
  '28000': 'refuses this user, or a connection without TLS',
  '28P01': 'refuses this user or its password',
  '3D000': 'is not there',
  '42501': 'does not let this user make or use its tables',
  '25006': 'is read-only',
  '53100': 'has no room on its disk',
  '53300': 'takes no more connections',
  '57P03': 'is starting or stopping; try again',
}

/** The message for the operator. It omits the URL, which may contain a password. */
function sentence(url: string, error: DriverError): string {
  const isFile = dialectOf(url) === 'sqlite'
  const subject = isFile ? `the file ${pathOf(url)}` : `the database ${placeOf(url)}`
  if (/corrupted migrations/.test(error.message)) return `${subject} was made by a newer Latchkey; use that one with it`
  const known = isFile ? sqliteSentences[sqliteCode(error)] : postgresSentences[error.code ?? '']
  if (known !== undefined) return `${subject} ${known}`
  const why = error.code === undefined || error.code === 'ERR_SQLITE_ERROR' ? error.message : error.code
  return `${subject} cannot be ${isFile ? 'used' : 'reached'} (${why})`
}

function placeOf(url: string): string {
  if (!URL.canParse(url)) return 'of this URL'
  const { hostname, port, pathname } = new URL(url)
  return `${pathname.slice(1) || '(default)'} at ${hostname || 'localhost'}:${port || 5432}`
}
