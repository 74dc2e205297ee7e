// The connections of a listener. Hides that the requests of one connection are handled one after another, and which
// connection is closed when there are too many or when clients hold too much memory.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { networkOf, peerAddress } from './address.ts'
import { type Connection, cheapestOf, createNetworks } from './networks.ts'
import { createUnreadResponses } from './unreadResponses.ts'
import { createWaitingRequests } from './waitingRequests.ts'

export interface ConnectionsOptions {
  /** Handles a request; resolves once the response is complete, even if it has not been sent. */
  handle: (req: IncomingMessage, res: ServerResponse) => Promise<void>
  maxConnections: number
  /** Limit for the responses that clients have not read, on all connections together. */
  maxUnreadBytes: number
  /** Called for each connection that is closed because the listener is full. */
  onFull: (fields: Record<string, unknown>) => void
  /** Called for each connection that is closed because clients hold too much memory. */
  onCut: (fields: Record<string, unknown>) => void
}

export interface Connections {
  size(): number
  accept(socket: Socket): void
  /** Call this after a TLS handshake, with the socket that the requests come from. */
  secure(socket: Socket): void
  /** Handles the request once the earlier requests of its connection are done. */
  receive(req: IncomingMessage, res: ServerResponse): void
  /**
   * Call this after bytes that are not HTTP. Drops the waiting requests and returns the response in progress, or null.
   */
  abandon(socket: Socket): ServerResponse | null
}

const own = Symbol('connection')
type OwnSocket = Socket & { [own]?: Connection }

/** The address of the other end of a connection, as `peerAddress` gives it. */
export function peerOf(socket: OwnSocket): string {
  return socket[own]?.peer ?? ''
}

export function createConnections(options: ConnectionsOptions): Connections {
  const { handle, maxConnections, maxUnreadBytes, onFull, onCut } = options
  const networks = createNetworks()
  const waiting = createWaitingRequests(({ network }) =>
    onCut({ reason: 'unanswered_requests', network: network.name }),
  )
  const unread = createUnreadResponses(maxUnreadBytes, connection => {
    onCut({ reason: 'unread_answers', network: connection.network.name })
    cut(connection)
  })

  function accept(socket: OwnSocket): void {
    const peer = peerAddress(socket)
    const network = networks.find(networkOf(peer))
    const state = { req: null, res: null, waiting: null, unreadBytes: 0, isClosed: false }
    const connection: Connection = { socket, network, peer, ...state }
    socket[own] = connection
    network.idle.add(connection)
    networks.resize(network, 1)
    socket.once('close', () => remove(connection))
    if (networks.size() > maxConnections) makeRoom(connection)
  }

  function makeRoom(newcomer: Connection): void {
    const largest = networks.largestExcept(newcomer.network)
    const { name: network, connections } = largest
    const closed = cheapestOf(largest) ?? newcomer
    cut(closed)
    onFull({ maxConnections, network, connections, isNewcomerRefused: closed === newcomer })
  }

  function cut(connection: Connection): void {
    remove(connection) // now, because the next connection may be accepted before the socket emits `close`
    connection.socket.destroy()
  }

  function remove(connection: Connection): void {
    if (connection.isClosed) return
    connection.isClosed = true
    const { network } = connection
    network.idle.delete(connection)
    network.busy.delete(connection)
    waiting.drop(connection)
    unread.remove(connection)
    networks.resize(network, -1)
  }

  function receive(req: IncomingMessage, res: ServerResponse): void {
    const connection = (req.socket as OwnSocket)[own] as Connection
    if (connection.isClosed) return
    if (connection.res !== null) {
      if (!waiting.add(connection, req, res)) cut(connection)
      return
    }
    connection.network.idle.delete(connection)
    connection.network.busy.add(connection)
    run(connection, req, res)
  }

  function run(connection: Connection, req: IncomingMessage, res: ServerResponse): void {
    connection.req = req
    connection.res = res
    // Emitted once the last byte has been handed to the system, or the connection has closed.
    res.once('close', () => finish(connection))
    handle(req, res).then(
      () => {
        // Most responses have been handed to the system at this point.
        const isSent = res.writableEnded && connection.socket.writableLength === 0
        if (!isSent && !res.destroyed && !connection.isClosed && connection.res !== null) unread.add(connection)
      },
      () => cut(connection), // the error exit itself has failed: the client must not wait for a response
    )
  }

  function finish(connection: Connection): void {
    unread.remove(connection)
    connection.req = null
    connection.res = null
    if (connection.isClosed) return
    if (!connection.socket.writable) waiting.drop(connection) // the connection ended with the response that has just finished
    const next = waiting.takeNext(connection)
    if (next) {
      run(connection, next.req, next.res)
    } else {
      connection.network.busy.delete(connection)
      connection.network.idle.add(connection)
    }
  }

  return {
    size: networks.size,
    accept,
    secure(socket: OwnSocket) {
      // A TLSSocket has no public property for the socket that it wraps.
      const { _parent: plain } = socket as OwnSocket & { _parent?: OwnSocket }
      const connection = plain?.[own]
      if (connection === undefined) {
        socket.destroy()
        return
      }
      connection.socket = socket
      socket[own] = connection
    },
    receive,
    abandon(socket: OwnSocket) {
      const connection = socket[own]
      if (connection === undefined) return null // its TLS handshake has not finished
      waiting.drop(connection)
      return connection.res
    },
  }
}
