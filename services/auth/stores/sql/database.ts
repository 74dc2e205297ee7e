// Opens a SQLite file or a PostgreSQL database and brings its schema up to date. Hides deadlines and retries. Only the
// queries can tell which database it is.
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { within } from '../../../../shared/deadline.ts'
import type { Driver, Session } from './driver.ts'
import {
  type CommitSettings,
  commitProblem,
  type DriverError,
  databaseProblem,
  fileProblem,
  isWorthRetrying,
} from './errors.ts'
import { appliedTo, migrate, migrationsFor, pendingAfter, type SqlDialect } from './migrations.ts'
import { openPostgres } from './postgres.ts'
import { closeToOthers, type FileUse, openSqlite } from './sqlite.ts'
import { raw, type Sql, sql } from './statement.ts'

export interface SqlDatabase {
  dialect: SqlDialect
  db: Driver
  /** `for update …` in PostgreSQL, which locks rows; empty in SQLite, where a writer locks the whole file. */
  lock(clause: 'for update' | 'for update of t' | 'for update of t skip locked' | 'for update of f skip locked'): Sql
  /**
   * Resolves to the result of `work`. Rejects once closed, or after `deadlineMs`; `work` may still complete after that.
   * Retries `work` if the database reports that nothing was done: a busy SQLite file, or a deadlock in PostgreSQL.
   */
  run<T>(work: () => Promise<T>): Promise<T>
  /**
   * Like `run`, for a change that no failover may undo once it is acknowledged: resolves when the synchronous standbys have it,
   * if there are any. If it rejects, the change may hold nevertheless.
   */
  runConfirmed<T>(work: (session: Session) => Promise<T>): Promise<T>
  close(): Promise<void>
}

const deadlineMs = 900 // for a store's answer, so that the client gets its 503 within a second
const retryMs = 1 // short, because a busy SQLite file is free only for moments
const migrateTimeoutMs = 10 * 60_000 // indexing a million rows takes a while

/**
 * Migrates the schema, one process at a time, and rejects with a message for the operator. Then runs `prepare`, which
 * may take longer than `deadlineMs`.
 */
export async function openDatabase(
  url: string,
  warn: (warning: string) => void,
  prepare: (db: Driver, dialect: SqlDialect) => Promise<void> = async () => {},
): Promise<SqlDatabase> {
  const dialect = dialectOf(url)
  if (dialect === 'sqlite') closeToOthers(pathOf(url), warn)
  try {
    await migrateAndPrepare(url, prepare)
    const database = createDatabase(dialect, await connect(url, deadlineMs, 'checked'))
    try {
      // A write that changes nothing, so that a read-only file or server is reported at start.
      await database.run(() => database.db.change(sql`update latchkey_floors set version = 0 where 1 = 0`))
      if (dialect === 'postgres') await checkCommits(url, database, warn)
      return database
    } catch (error) {
      await database.close().catch(() => {})
      throw error
    }
  } catch (error) {
    throw new Error(problemOf(url, error as DriverError), { cause: error })
  }
}

/** Warns if the server acknowledges commits that it may lose. */
async function checkCommits(url: string, { db, run }: SqlDatabase, warn: (warning: string) => void): Promise<void> {
  const [row] = await run(() =>
    // The driver has changed the current setting of its connections, so this reads what they had before.
    db.query<CommitSettings>(sql`select reset_val as level, current_setting('synchronous_standby_names') as standbys
      from pg_settings where name = 'synchronous_commit'`),
  )
  const problem = row && commitProblem(url, row)
  if (problem) warn(problem)
}

/** The names of the migrations already applied, and of the migrations that `openDatabase` would apply. Changes nothing. */
export async function listMigrations(url: string): Promise<{ applied: string[]; pending: string[] }> {
  const dialect = dialectOf(url)
  if (dialect === 'sqlite' && !existsSync(pathOf(url))) {
    return { applied: [], pending: Object.keys(migrationsFor(dialect)) }
  }
  try {
    const db = await connect(url, deadlineMs, 'read')
    try {
      const applied = (await appliedTo(db, dialect)) ?? []
      return { applied, pending: pendingAfter(applied, dialect) }
    } finally {
      await db.close().catch(() => {})
    }
  } catch (error) {
    throw new Error(problemOf(url, error as DriverError), { cause: error })
  }
}

/** Uses a connection of its own, because the statements of the store have a much shorter timeout. */
async function migrateAndPrepare(
  url: string,
  prepare: (db: Driver, dialect: SqlDialect) => Promise<void>,
): Promise<void> {
  const run = createRunner(migrateTimeoutMs)
  const db = await run(() => connect(url, migrateTimeoutMs, 'first'))
  try {
    await run(() => migrate(db, dialectOf(url)))
    await prepare(db, dialectOf(url))
  } finally {
    await db.close().catch(() => {})
  }
}

function createDatabase(dialect: SqlDialect, db: Driver): SqlDatabase {
  let closed: Promise<void> | null = null
  const runner = createRunner(deadlineMs)

  async function run<T>(work: () => Promise<T>): Promise<T> {
    if (closed) throw new Error('the store is closed')
    return runner(work)
  }

  return {
    dialect,
    db,
    lock: clause => raw(dialect === 'postgres' ? clause : ''),
    run,
    runConfirmed: work =>
      run(async () => {
        const { value, confirm } = await db.confirmable(work)
        await confirm()
        return value
      }),
    close: () => (closed ??= db.close()),
  }
}

/** Runs work within a deadline, and again while the database reports that it was busy and did nothing. */
function createRunner(timeoutMs: number): SqlDatabase['run'] {
  // A queue of calls to retry: one at a time and the oldest first, so that none starves.
  let line: Promise<unknown> = Promise.resolve()

  return work => {
    let isOver = false
    let lastFailure: Error | null = null

    async function attempt() {
      try {
        return { value: await work() }
      } catch (error) {
        if (isOver || !isWorthRetrying(error as DriverError)) throw error
        lastFailure = error as Error
        return null
      }
    }

    async function retried() {
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

    return within(timeoutMs, retried(), () => {
      isOver = true
      return lastFailure ?? new Error(`the database did not answer within ${timeoutMs} ms`)
    })
  }
}

/**
 * A part of the work of `run` that commits. If the work is retried, the part is not done again: that would touch tokens twice, and
 * refuse those that it has consumed.
 */
export function once<T>(part: (session: Session) => Promise<T>): (session: Session) => Promise<T> {
  let done: { value: T } | null = null
  return async session => {
    done ??= { value: await part(session) }
    return done.value
  }
}

function dialectOf(url: string): SqlDialect {
  return url.startsWith('sqlite:') ? 'sqlite' : 'postgres'
}

/** `sqlite:relative/path`, `sqlite:/absolute/path`, `sqlite:///absolute/path`. */
function pathOf(url: string): string {
  return url.slice('sqlite:'.length).replace(/^\/\//, '')
}

async function connect(url: string, timeoutMs: number, use: FileUse): Promise<Driver> {
  if (dialectOf(url) === 'sqlite') return openSqlite(pathOf(url), use)
  return openPostgres(url, { connectTimeoutMs: deadlineMs, timeoutMs })
}

function problemOf(url: string, error: DriverError): string {
  return dialectOf(url) === 'sqlite' ? fileProblem(pathOf(url), error) : databaseProblem(url, error)
}
