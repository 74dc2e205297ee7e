// Requests that a client sends before the previous request is answered (pipelining). Few clients do that. Their number
// and size are limited, because in memory they take a hundred times what a client sends, for as long as it does not read
// the responses.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Connection, WaitingRequest } from './networks.ts'

const maxUnanswered = 64 // requests on one connection
const maxWaitingBytes = 16 * 1024 * 1024 // on all connections
const requestBytes = 8 * 1024 // what Node holds in memory for a request, without its headers and its body
const maxBodyBytes = 128 * 1024 // how much of a body Node reads before it stops reading from the socket

export interface WaitingRequests {
  /** Returns false and adds nothing if there is no room; the connection must then be closed. */
  add(connection: Connection, req: IncomingMessage, res: ServerResponse): boolean
  takeNext(connection: Connection): WaitingRequest | undefined
  drop(connection: Connection): void
}

/** `onFull` is called when the requests of all connections would hold too much memory. */
export function createWaitingRequests(onFull: (connection: Connection) => void): WaitingRequests {
  let totalBytes = 0

  return {
    add(connection, req, res) {
      const bytes = bytesOf(req)
      if (totalBytes + bytes > maxWaitingBytes) {
        onFull(connection)
        return false
      }
      connection.waiting ??= []
      if (connection.waiting.length + 1 >= maxUnanswered) return false
      totalBytes += bytes
      connection.waiting.push({ req, res, bytes })
      return true
    },

    takeNext(connection) {
      const next = connection.waiting?.shift()
      totalBytes -= next?.bytes ?? 0
      return next
    },

    drop(connection) {
      for (const { bytes } of connection.waiting ?? []) totalBytes -= bytes
      connection.waiting = null
    },
  }
}

function bytesOf({ rawHeaders, url = '', headers }: IncomingMessage): number {
  const length = headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : maxBodyBytes
  const head = rawHeaders.reduce((sum, text) => sum + text.length, url.length)
  return requestBytes + head + Math.min(length || 0, maxBodyBytes)
}
