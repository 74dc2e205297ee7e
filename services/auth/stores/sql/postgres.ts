// The driver for PostgreSQL. Hides transactions, and how commits are confirmed by standbys.
import type { Connection, Driver } from './driver.ts'
import { type BorrowedConnection, openPool, type PostgresTimeouts } from './postgresPool.ts'
import { createStandbys, isReplicated } from './standbys.ts'
import { raw } from './statement.ts'

export async function openPostgres(url: string, timeouts: PostgresTimeouts): Promise<Driver> {
  const pool = await openPool(url, timeouts)
  const standbys = createStandbys(pool.borrow)

  async function withConnection<T>(work: (connection: BorrowedConnection) => Promise<T>): Promise<T> {
    const connection = await pool.borrow()
    try {
      return await work(connection)
    } finally {
      connection.release()
    }
  }

  return {
    query: statement => withConnection(connection => connection.query(statement)),
    change: statement => withConnection(connection => connection.change(statement)),
    transaction: work => withConnection(connection => commit(connection, work)),
    confirmable: work =>
      withConnection(async connection => {
        const { query, change, serverId, commitLevel } = connection
        const value = await work({ query, change, transaction: part => commit(connection, part) })
        return {
          value,
          confirm: async () => {
            if (isReplicated(commitLevel)) await standbys.confirm(serverId)
          },
        }
      }),
    close: pool.end,
  }
}

async function commit<T>(connection: Connection, work: (tx: Connection) => Promise<T>): Promise<T> {
  await connection.change(raw('begin'))
  try {
    const result = await work(connection)
    await connection.change(raw('commit'))
    return result
  } catch (error) {
    await connection.change(raw('rollback')).catch(() => {})
    throw error
  }
}
