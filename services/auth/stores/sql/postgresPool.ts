// The connections to a PostgreSQL database, over pg. Hides the pool, session settings, and when a connection can no longer be
// used.
import type { Pool, PoolClient, PoolConfig, QueryResult } from 'pg'
import { createConnectionQueue } from './connectionQueue.ts'
import type { Connection } from './driver.ts'
import type { DriverError } from './errors.ts'
import { type Sql, textOf } from './statement.ts'

const graceMs = 100 // lets PostgreSQL report its own timeout first, which keeps the connection usable
const poolSize = 5 // connections per store and process; the smallest managed databases allow 20
const maxWaiting = 256 // about as many calls as five connections serve within a deadline
const stuckAfterMs = 500
const int8 = 20 // the object id of this type, which we read as a number: counts and milliseconds are far below 2^53

export interface PostgresTimeouts {
  connectTimeoutMs: number
  /** Limits each statement. */
  timeoutMs: number
}

/** What the server said when the connection was opened. */
interface Greeting {
  /** `synchronous_commit` of the server, the database or the role. */
  commitLevel: string
  /** Changes when the server is restarted, or another one takes its place. */
  serverId: string
  processId: number
}

export interface BorrowedConnection extends Connection, Greeting {
  /** Runs several statements without values. After an error the connection is not used again. */
  script(text: string, onWarning: () => void): Promise<void>
  release(): void
}

export interface PostgresPool {
  borrow(): Promise<BorrowedConnection>
  end(): Promise<void>
}

export async function openPool(url: string, { connectTimeoutMs, timeoutMs }: PostgresTimeouts): Promise<PostgresPool> {
  const { default: pg } = await import('pg')
  const greetings = new WeakMap<object, Greeting>()
  const config: PoolConfig = {
    connectionString: url,
    max: poolSize,
    connectionTimeoutMillis: connectTimeoutMs,
    query_timeout: timeoutMs + graceMs,
    idleTimeoutMillis: 30_000,
    keepAlive: true,
    application_name: 'latchkey',
    async onConnect(client) {
      const results = (await client.query(sessionSettings(timeoutMs))) as unknown as QueryResult<Greeting>[]
      greetings.set(client, results[0]?.rows[0] as Greeting)
    },
    types: {
      getTypeParser: ((oid: number, format: 'text') =>
        oid === int8 ? Number : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
    },
  }
  const pool: Pool = new pg.Pool(config)
  // Emitted when the server closes an idle connection. The pool discards it and opens a new one when needed.
  pool.on('error', () => {})
  pool.on('connect', client => client.on('error', () => {}))
  const queue = createConnectionQueue({ connections: poolSize, maxWaiting, maxWaitMs: connectTimeoutMs, stuckAfterMs })

  return {
    async borrow() {
      await queue.enter()
      const client = await pool.connect().catch(error => {
        queue.leave()
        throw error
      })
      return borrowed(client, greetings.get(client) as Greeting, queue.leave)
    },
    end: () => pool.end(),
  }
}

/**
 * Sets timeouts in the server, because an abandoned statement would keep its connection and its locks. Sets read committed,
 * whatever the database's default is, so that a statement that waited for a lock sees the changes made in the meantime.
 * Commits do not wait for standbys, because a commit that waits holds its locks; see `standbys.ts`.
 */
function sessionSettings(timeoutMs: number): string {
  return `select current_setting('synchronous_commit') as "commitLevel", pg_backend_pid() as "processId",
      extract(epoch from pg_postmaster_start_time())::text as "serverId";
    select set_config('synchronous_commit', 'local', false)
      where current_setting('synchronous_commit') not in ('off', 'local');
    set statement_timeout = ${timeoutMs}; set idle_in_transaction_session_timeout = ${timeoutMs};
    set default_transaction_isolation = 'read committed'`
}

/** The pool discards the connection on release if the server reported that it is shutting down, or did not answer. */
function borrowed(client: PoolClient, greeting: Greeting, leave: () => void): BorrowedConnection {
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
    ...greeting,
    query: async statement => (await execute(statement)).rows,
    change: async statement => (await execute(statement)).rowCount ?? 0,
    async script(text, onWarning) {
      client.on('notice', onWarning)
      try {
        await client.query(text)
      } catch (error) {
        broken = error as Error
        throw error
      } finally {
        client.off('notice', onWarning)
      }
    },
    release() {
      client.release(broken)
      leave()
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
