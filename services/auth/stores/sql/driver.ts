// What the SQL stores need from a database driver.
import type { Sql } from './statement.ts'

/** Runs statements: in a transaction all on one connection, otherwise each on any connection. */
export interface Connection {
  /** The rows that the statement returns. */
  query<Row>(statement: Sql): Promise<Row[]>
  /** The number of rows that the statement changed. */
  change(statement: Sql): Promise<number>
}

export interface Session extends Connection {
  /** Commits if `work` resolves; otherwise rolls back and rejects with its error. `work` must use only `tx`. */
  transaction<T>(work: (tx: Connection) => Promise<T>): Promise<T>
}

export interface Confirmable<T> {
  value: T
  /**
   * Resolves when the synchronous standbys have what `work` committed, so that no failover can undo it; at once if there are
   * none. Rejects if they do not answer in time. What was committed stays, but a failover might lose it.
   */
  confirm(): Promise<void>
}

/** Commits without waiting for standbys. */
export interface Driver extends Session {
  /** Runs `work`, whose commits may then be confirmed. */
  confirmable<T>(work: (session: Session) => Promise<T>): Promise<Confirmable<T>>
  close(): Promise<void>
}
