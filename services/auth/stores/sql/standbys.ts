// Waits until the synchronous standbys of a PostgreSQL have what was committed before. Hides how: a small commit that
// follows the others, shared by all who wait. A change that waited in its own commit would hold its locks meanwhile, and its
// connection beyond every timeout.
import type { BorrowedConnection, PostgresPool } from './postgresPool.ts'
import { sql } from './statement.ts'

const maxWaitMs = 600 // leaves a call time for its change itself

/** Whether a commit at this level of `synchronous_commit` waits for standbys. */
export function isReplicated(commitLevel: string): boolean {
  return !['off', 'local'].includes(commitLevel)
}

export interface Standbys {
  /**
   * Resolves when the standbys have all that was committed before the call on the server `serverId`; at once if it has none.
   * Rejects if they do not confirm it in time, or if another server has taken its place, which may lack it.
   */
  confirm(serverId: string): Promise<void>
}

export function createStandbys(borrow: PostgresPool['borrow']): Standbys {
  let running: Promise<string> | null = null
  let next: Promise<string> | null = null

  function begin(): Promise<string> {
    running = confirmAll(borrow).finally(() => {
      running = null
    })
    return running
  }

  /** A commit that is already on its way may be earlier than the caller's, so the caller shares the one after it. */
  function beginNext(current: Promise<string>): Promise<string> {
    next ??= current
      .catch(() => {})
      .then(() => {
        next = null
        return begin()
      })
    return next
  }

  return {
    async confirm(serverId) {
      const confirmedBy = await (running === null ? begin() : beginNext(running))
      if (confirmedBy !== serverId) throw new Error('another server has taken over, which may lack the change')
    },
  }
}

/** Returns the id of the server whose standbys have confirmed. */
async function confirmAll(borrow: PostgresPool['borrow']): Promise<string> {
  const connection = await borrow()
  let isGivenUp = false
  let cancelling: Promise<void> = Promise.resolve()
  const timer = setTimeout(() => {
    isGivenUp = true
    cancelling = cancel(borrow, connection)
  }, maxWaitMs)
  try {
    // PostgreSQL also ends its wait at the request of an operator, with a warning, as if the commit had been confirmed.
    await connection.script(smallCommit(connection.commitLevel), () => {
      isGivenUp = true
    })
  } finally {
    clearTimeout(timer)
    await cancelling // before another statement uses the connection
    connection.release()
  }
  if (isGivenUp) throw new Error(`the standby has not confirmed the change within ${maxWaitMs} ms`)
  return connection.serverId
}

/** Writes only if there are synchronous standbys: then the commit waits for them, because it has a write of its own. */
function smallCommit(level: string): string {
  return `begin; set local synchronous_commit = ${level}; set local client_min_messages = warning;
    select case when current_setting('synchronous_standby_names') <> ''
      then pg_logical_emit_message(true, 'latchkey', '') end;
    commit`
}

/** Without this, the process in the server would wait on although its connection has ended, until no connection is left. */
async function cancel(borrow: PostgresPool['borrow'], { processId }: BorrowedConnection): Promise<void> {
  try {
    const connection = await borrow()
    try {
      await connection.query(sql`select pg_cancel_backend(${processId}::int)`)
    } finally {
      connection.release()
    }
  } catch {} // no connection, or the server is gone
}
