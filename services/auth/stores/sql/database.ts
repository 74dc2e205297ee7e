// A SQLite file or a PostgreSQL database, opened and brought up to date. Hides drivers, pools, deadlines, and what is tried
// again; what differs between the two is here and nowhere else.
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

/** The tables as Kysely sees them. */
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
  /** `for update of …` where rows are locked one by one; nothing where a writer has the whole file. */
  lock(clause: 'for update' | 'for update of t' | 'for update of t skip locked'): RawBuilder<unknown>
  /**
   * What `work` resolves to. Rejects once closed, and where that takes longer than `deadlineMs`: then `work` may yet have
   * been done. Tried again where the database says that nothing was: SQLite is busy, PostgreSQL found a deadlock.
   */
  run<T>(work: () => Promise<T>): Promise<T>
  close(): Promise<void>
}

const deadlineMs = 900 // of a store's answer: the client has its 503 within a second
const graceMs = 100 // for PostgreSQL to say itself that it gives up: then the connection can be used again
const retryMs = 1 // a busy SQLite file is free for moments only
const poolSize = 5 // of each store of each process; the smallest managed databases allow 20 connections
const migrateWithinMs = 10 * 60_000 // an index over a million rows takes its time

/**
 * Brings the schema up to date, one process at a time, and rejects with a sentence for the operator. `prepare` is what
 * may then take longer than the deadline allows.
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
    // A write, of nothing: it is now that the operator hears of a file or a server that can only be read.
    await run(() => sql`update latchkey_floors set version = 0 where 1 = 0`.execute(db))
    return database
  } catch (error) {
    await close().catch(() => {})
    throw new Error(sentence(url, error as DriverError), { cause: error })
  }
}

/** The names of the steps that `openDatabase` would take, and of those it would not have to; changes nothing. */
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
    // As the start would say it: steps that we do not know were taken by another Latchkey.
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
  // Of calls that try again: one at a time and the oldest first, or the unlucky would never get in.
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

/** Of a file: `first` looks through all of it, `checked` has just been looked through, `read` changes nothing. */
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
  // Named, or Kysely takes the table of another schema of this database for ours.
  const { rows } = await sql<{ schema: string | null }>`select current_schema() as schema`.execute(db)
  return new Migrator({ db, provider, ...names, migrationTableSchema: rows[0]?.schema ?? 'public' })
}

// SQLite ---------------------------------------------------------------------------------------------------------------

class TransactionalSqliteAdapter extends SqliteAdapter {
  /** It does: with it, processes that start at the same moment take the steps one after the other. */
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
 * Password hashes are in the file. If every user of the machine may read or write it, which is what a umask leaves and no
 * operator's choice, only its owner may from now on; rights of its group alone stay. A file that this user cannot change is
 * used all the same, because some shared volumes show every file as open to all.
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
    return false // it is not there, or opening it says what is wrong
  }
}

/** Kysely's view of node:sqlite. */
function openSqlite(path: string, use: Use): SqliteDatabase {
  const readOnly = use === 'read'
  // Password hashes are in it: nobody else may read it, nor the files that SQLite puts beside it with the same mode.
  if (!readOnly && !existsSync(path)) closeSync(openSync(path, 'a', 0o600))
  // timeout 0: waiting for another writer happens in `run`, not on the thread.
  const file = new DatabaseSync(path, { readOnly, timeout: 0 })
  try {
    if (use !== 'checked') {
      const problem = file.prepare('pragma quick_check(1)').get() as { quick_check: string }
      if (problem.quick_check !== 'ok') throw Object.assign(new Error(problem.quick_check), { errcode: 11 })
    }
    // FULL: what was acknowledged is on the disk. WAL: readers and the writer do not wait for each other.
    if (!readOnly) file.exec('pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on')
  } catch (error) {
    file.close()
    throw error
  }
  const statements = new Map<string, StatementSync>()

  return {
    close: () => file.close(),
    prepare(text) {
      // Kysely's `begin` takes the lock at the first write, when it is too late to wait for it.
      const own = text === 'begin' ? 'begin immediate' : text
      let statement = statements.get(own)
      if (statement === undefined) {
        statement = file.prepare(own)
        statements.set(own, statement)
      }
      const known = statement
      type Values = Parameters<StatementSync['all']>
      // Where the disk is full SQLite has rolled back by itself, and asking again would hide why.
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

// PostgreSQL -----------------------------------------------------------------------------------------------------------

/**
 * What the migrator asks is whether its tables are there. Kysely's own introspection looks at every column of every schema,
 * and fails where another program drops one of its own meanwhile.
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

const int8 = 20 // its object id; ours are counts and milliseconds, far below 2^53

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
  // The server went away under a connection that nobody was using: the pool drops it, and the next one is new.
  pool.on('error', () => {})
  pool.on('connect', client => client.on('error', () => {}))
  return { connect: () => borrow(pool), end: () => pool.end(), options: {} }
}

/**
 * The server gives up by itself, or what nobody waits for any more would keep its connection and its locks. And whoever
 * waited for a lock sees what was done meanwhile, whatever the database has for a default.
 */
function sessionSettings(timeoutMs: number): string {
  return `set statement_timeout = ${timeoutMs}; set idle_in_transaction_session_timeout = ${timeoutMs};
    set default_transaction_isolation = 'read committed'`
}

/** A client that is not given back to the pool once the server kept silent, or spoke of its own end. */
async function borrow(pool: Pool): Promise<PostgresPoolClient> {
  const client: PoolClient = await pool.connect()
  let broken: Error | undefined
  return {
    query: (async (text: string, values: unknown[]) => {
      if (broken) throw broken // not what becomes of a rollback, which need not be waited for either
      try {
        return await client.query(text, values)
      } catch (error) {
        if (!isAnswer(error as DriverError)) broken = error as Error
        throw error
      }
    }) as unknown as PostgresPoolClient['query'], // Kysely's type knows cursors too, which nothing of ours opens
    release: () => client.release(broken),
  }
}

/** A refusal of this statement by a server that goes on. */
function isAnswer({ code = '' }: DriverError): boolean {
  return /^[0-9A-Z]{5}$/.test(code) && !/^(08|57P)/.test(code)
}

// Errors ---------------------------------------------------------------------------------------------------------------

/** Of either driver: `code` is PostgreSQL's SQLSTATE or the system's, `errcode` SQLite's. */
type DriverError = Error & { code?: string; errcode?: number; syscall?: string }

/** A file that the system did not let us make is one that SQLite could not open. */
const sqliteCode = ({ errcode = 0, syscall }: DriverError): number => (syscall === 'open' ? 14 : errcode & 0xff)

/** SQLite: busy, locked. PostgreSQL: deadlock, serialization failure. In all of them nothing was done. */
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

/** Without the URL, which may hold a password. */
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
