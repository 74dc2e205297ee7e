// The driver for a SQLite file, over node:sqlite. Hides file modes, pragmas, prepared statements, and that the one
// connection runs one transaction at a time.
import { chmodSync, closeSync, existsSync, openSync, statSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import type { Connection, Driver, Session } from './driver.ts'
import { type Sql, textOf } from './statement.ts'

/** How to open a file: `first` checks its integrity, `checked` skips the check, `read` checks and only reads. */
export type FileUse = 'first' | 'checked' | 'read'

type Values = Parameters<StatementSync['all']>

export function openSqlite(path: string, use: FileUse): Driver {
  const file = openFile(path, use)
  const statements = new Map<string, StatementSync>()
  let last: Promise<unknown> = Promise.resolve()

  function prepare(statement: Sql): StatementSync {
    const text = textOf(statement, '?')
    const known = statements.get(text)
    if (known) return known
    const prepared = file.prepare(text)
    statements.set(text, prepared)
    return prepared
  }

  const connection: Connection = {
    async query<Row>(statement: Sql) {
      return prepare(statement).all(...(statement.values as Values)) as Row[]
    },
    async change(statement) {
      return Number(prepare(statement).run(...(statement.values as Values)).changes)
    },
  }

  /** Runs `work` after all earlier statements and transactions. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(work)
    last = turn.catch(() => {})
    return turn
  }

  async function commit<T>(work: (tx: Connection) => Promise<T>): Promise<T> {
    // A plain `begin` acquires the lock only at the first write, when it is too late to wait for it.
    file.exec('begin immediate')
    try {
      const result = await work(connection)
      file.exec('commit')
      return result
    } catch (error) {
      // If the disk is full SQLite has already rolled back, and a failing second rollback would hide the cause.
      if (file.isTransaction) file.exec('rollback')
      throw error
    }
  }

  const session: Session = {
    query: statement => inTurn(() => connection.query(statement)),
    change: statement => inTurn(() => connection.change(statement)),
    transaction: work => inTurn(() => commit(work)),
  }

  return {
    ...session,
    confirmable: async work => ({ value: await work(session), confirm: async () => {} }),
    async close() {
      await last
      file.close()
    },
  }
}

function openFile(path: string, use: FileUse): DatabaseSync {
  const readOnly = use === 'read'
  // The file contains password hashes, so only its owner may read it. SQLite gives its WAL files the same mode.
  if (!readOnly && !existsSync(path)) closeSync(openSync(path, 'a', 0o600))
  // timeout 0: the caller waits for other writers without blocking the thread.
  const file = new DatabaseSync(path, { readOnly, timeout: 0 })
  try {
    if (use !== 'checked') {
      const problem = file.prepare('pragma quick_check(1)').get() as { quick_check: string }
      if (problem.quick_check !== 'ok') throw Object.assign(new Error(problem.quick_check), { errcode: 11 })
    }
    // FULL: a commit is on disk before it is acknowledged. WAL: readers and the writer do not block each other.
    if (!readOnly) file.exec('pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on')
    return file
  } catch (error) {
    file.close()
    throw error
  }
}

/**
 * The file contains password hashes. If every user of the machine can access it, most likely because of the umask and
 * not by the operator's choice, restricts it to its owner; access for the group alone is left as it is. If the mode
 * cannot be changed the file is still used, because some shared volumes show every file as open to all.
 */
export function closeToOthers(path: string, warn: (warning: string) => void): void {
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
