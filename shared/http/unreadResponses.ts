// The responses that clients have not read, and a limit on the memory that they hold on all connections together.
import type { Connection } from './networks.ts'

const minUnreadBytes = 128 * 1024 // the buffers of a streamed response and of its socket

export interface UnreadResponses {
  /** Counts what the client has yet to read, and closes connections while the total is above the limit. */
  add(connection: Connection): void
  remove(connection: Connection): void
}

/** `cut` must close the connection, and remove it from here. */
export function createUnreadResponses(maxBytes: number, cut: (connection: Connection) => void): UnreadResponses {
  const unread = new Set<Connection>() // the oldest response first
  let totalBytes = 0

  function count(connection: Connection, bytes: number): void {
    if (bytes === connection.unreadBytes) return
    totalBytes += bytes - connection.unreadBytes
    connection.network.unreadBytes += bytes - connection.unreadBytes
    connection.unreadBytes = bytes
    if (bytes === 0) unread.delete(connection)
    else unread.add(connection)
  }

  /** The oldest response of the network with the most unread bytes. */
  function oldestOfLargest(): Connection {
    let oldest: Connection | null = null
    for (const connection of unread) {
      if (oldest === null || connection.network.unreadBytes > oldest.network.unreadBytes) oldest = connection
    }
    return oldest as Connection
  }

  return {
    add(connection) {
      count(connection, Math.max(minUnreadBytes, connection.socket.writableLength))
      while (totalBytes > maxBytes) cut(oldestOfLargest())
    },
    remove: connection => count(connection, 0),
  }
}
