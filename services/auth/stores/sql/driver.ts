// What the SQL stores need from a database driver.
import type { Sql } from './statement.ts'

/** Runs statements: in a transaction all on one connection, otherwise each on any connection. */
export interface Connection {
  /** The rows that the statement returns. */
  query<Row>(statement: Sql): Promise<Row[]>
  /** The number of rows that the statement changed. */
  change(statement: Sql): Promise<number>
}

export interface Driver extends Connection {
  /** Commits if `work` resolves; otherwise rolls back and rejects with its error. `work` must use only `tx`. */
  transaction<T>(work: (tx: Connection) => Promise<T>): Promise<T>
  close(): Promise<void>
}
