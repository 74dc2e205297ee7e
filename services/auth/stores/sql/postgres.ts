// The driver for PostgreSQL, over pg. Hides the pool, session settings, and when a connection can no longer be used.
import type { Pool, PoolConfig } from 'pg'
import { type ConnectionQueue, createConnectionQueue } from './connectionQueue.ts'
import type { Connection, Driver } from './driver.ts'
import type { DriverError } from './errors.ts'
import { raw, type Sql, textOf } from './statement.ts'

const graceMs = 100 // lets PostgreSQL report its own timeout first, which keeps the connection usable
const poolSize = 5 // connections per store and process; the smallest managed databases allow 20
const maxWaitMs = 500 // for a connection, so that the statement still has time
const maxWaiting = 256 // about as many calls as five connections serve in that time
const int8 = 20 // the object id of this type, which we read as a number: counts and milliseconds are far below 2^53

export interface PostgresTimeouts {
  connectTimeoutMs: number
  /** Limits each statement. */
  timeoutMs: number
}

export async function openPostgres(url: string, timeouts: PostgresTimeouts): Promise<Driver> {
  const pool = await openPool(url, timeouts)
  const queue = createConnectionQueue({ connections: poolSize, maxWaiting, maxWaitMs })

  async function withClient<T>(work: (client: Connection) => Promise<T>): Promise<T> {
    const { connection, release } = await borrow(pool, queue)
    try {
      return await work(connection)
    } finally {
      release()
    }
  }

  return {
    query: statement => withClient(client => client.query(statement)),
    change: statement => withClient(client => client.change(statement)),
    transaction: work =>
      withClient(async client => {
        await client.change(raw('begin'))
        try {
          const result = await work(client)
          await client.change(raw('commit'))
          return result
        } catch (error) {
          await client.change(raw('rollback')).catch(() => {})
          throw error
        }
      }),
    close: () => pool.end(),
  }
}

async function openPool(url: string, { connectTimeoutMs, timeoutMs }: PostgresTimeouts): Promise<Pool> {
  const { default: pg } = await import('pg')
  const config: PoolConfig = {
    connectionString: url,
    max: poolSize,
    connectionTimeoutMillis: connectTimeoutMs,
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
  // Emitted when the server closes an idle connection. The pool discards it and opens a new one when needed.
  pool.on('error', () => {})
  pool.on('connect', client => client.on('error', () => {}))
  return pool
}

/**
 * Sets timeouts in the server, because an abandoned statement would keep its connection and its locks. Sets read committed,
 * whatever the database's default is, so that a statement that waited for a lock sees the changes made in the meantime.
 */
function sessionSettings(timeoutMs: number): string {
  return `set statement_timeout = ${timeoutMs}; set idle_in_transaction_session_timeout = ${timeoutMs};
    set default_transaction_isolation = 'read committed'`
}

/** A connection that the pool discards on release if the server reported that it is shutting down, or did not answer. */
async function borrow(pool: Pool, queue: ConnectionQueue): Promise<{ connection: Connection; release(): void }> {
  await queue.enter()
  const client = await pool.connect().catch(error => {
    queue.leave()
    throw error
  })
  let broken: Error | undefined

  async function execute(statement: Sql) {
    if (broken) throw broken // fail fast with the original error instead of waiting for a rollback
    try {
      return await client.query(textOf(statement, '$'), [...statement.values])
    } catch (error) {
      if (!isAnswer(error as DriverError)) broken = error as Error
      throw error
    }
  }

  return {
    connection: {
      query: async statement => (await execute(statement)).rows,
      change: async statement => (await execute(statement)).rowCount ?? 0,
    },
    release() {
      client.release(broken)
      queue.leave()
    },
  }
}

/**
 * Whether the server rejected just this statement. Codes of the classes 08 and 57P mean that the server is no longer
 * running.
 */
function isAnswer({ code = '' }: DriverError): boolean {
  return /^[0-9A-Z]{5}$/.test(code) && !/^(08|57P)/.test(code)
}
