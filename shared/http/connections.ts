// The connections of a listener. Hides that the requests of one connection run one after another, which connection is closed
// when there are too many, and what is closed when too much memory is held for clients that do not read.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { networkOf, peerAddress } from './address.ts'

export interface ConnectionsOptions {
  /** Runs a request; resolves once its answer has been given, which need not have been sent by then. */
  handle: (req: IncomingMessage, res: ServerResponse) => Promise<void>
  maxConnections: number
  /** For the answers that clients have not read, of all connections. */
  maxUnreadBytes: number
  /** Called for each connection that is closed because the listener is full. */
  onFull: (fields: Record<string, unknown>) => void
  /** Called for each connection that is closed because too much memory is held. */
  onCut: (fields: Record<string, unknown>) => void
}

export interface Connections {
  size(): number
  accept(socket: Socket): void
  /** Call this once a TLS handshake is done, for the socket that the requests come from. */
  secure(socket: Socket): void
  /** Runs the request, or keeps it until those before it on the same connection have been answered. */
  receive(req: IncomingMessage, res: ServerResponse): void
  /** What came next is not HTTP: drops the requests that wait. Returns the answer that is under way, or null. */
  abandon(socket: Socket): ServerResponse | null
  /** The address of the other end, as `peerAddress` gives it. */
  peerOf(socket: Socket): string
}

interface Network {
  name: string
  connections: number
  /** Connections without a request, the longest idle first. */
  idle: Set<Connection>
  /** Connections with a request, the oldest first. */
  busy: Set<Connection>
  unreadBytes: number
}

interface Connection {
  socket: Socket
  network: Network
  peer: string
  req: IncomingMessage | null
  res: ServerResponse | null
  /** Requests that wait for the one before; null as long as the client has not sent any. */
  waiting: Waiting[] | null
  /** Counted for an answer that the client has not read. */
  unreadBytes: number
  isClosed: boolean
}

interface Waiting {
  req: IncomingMessage
  res: ServerResponse
  bytes: number
}

// Few clients send a request before the last one is answered. A client that sends thousands and reads no answer would have
// all of them in memory, a hundred times what it sent.
const maxUnanswered = 64 // requests on one connection
const maxWaitingBytes = 16 * 1024 * 1024 // for the requests that wait, of all connections
const requestBytes = 8 * 1024 // that Node keeps for a request, beside its headers and its body
const maxBodyBytes = 128 * 1024 // that Node reads of a body before it stops reading from the socket
const leastUnreadBytes = 128 * 1024 // the buffers of a streamed answer and of its socket

const own = Symbol('connection')
type OwnSocket = Socket & { [own]?: Connection }

export function createConnections({
  handle,
  maxConnections,
  maxUnreadBytes,
  onFull,
  onCut,
}: ConnectionsOptions): Connections {
  const networks = new Map<string, Network>()
  /** Networks by how many connections they have: at any time the largest one is found in one step. */
  const byCount: Set<Network>[] = []
  const unread = new Set<Connection>() // the oldest answer first
  let size = 0
  let waitingBytes = 0
  let unreadBytes = 0

  function accept(socket: OwnSocket): void {
    const peer = peerAddress(socket)
    const network = findNetwork(networkOf(peer))
    const connection: Connection = {
      socket,
      network,
      peer,
      req: null,
      res: null,
      waiting: null,
      unreadBytes: 0,
      isClosed: false,
    }
    socket[own] = connection
    network.idle.add(connection)
    resize(network, 1)
    socket.once('close', () => remove(connection))
    if (size > maxConnections) makeRoom(connection)
  }

  function findNetwork(name: string): Network {
    let network = networks.get(name)
    if (network === undefined) {
      network = { name, connections: 0, idle: new Set(), busy: new Set(), unreadBytes: 0 }
      networks.set(name, network)
    }
    return network
  }

  function resize(network: Network, by: 1 | -1): void {
    byCount[network.connections]?.delete(network)
    network.connections += by
    size += by
    if (network.connections === 0) networks.delete(network.name)
    else {
      byCount[network.connections] ??= new Set()
      byCount[network.connections]?.add(network)
    }
    // It grows and shrinks by one, so the largest is never further away.
    while (byCount.length > 0 && (byCount.at(-1)?.size ?? 0) === 0) byCount.pop()
  }

  function makeRoom(newcomer: Connection): void {
    const largest = largestNetwork(newcomer.network)
    const closed = first(largest.idle) ?? firstThatWaitsForItsClient(largest) ?? newcomer
    const held = { network: largest.name, connections: largest.connections }
    cut(closed)
    onFull({ maxConnections, ...held, isNewcomerRefused: closed === newcomer })
  }

  /** Among several that are as large, not the newcomer's. */
  function largestNetwork(newcomers: Network): Network {
    const largest = byCount.at(-1) as Set<Network>
    for (const network of largest) if (network !== newcomers) return network
    return newcomers
  }

  /** One that sends its body slowly or does not read its answer, which makes no work for this process. */
  function firstThatWaitsForItsClient({ busy }: Network): Connection | undefined {
    for (const connection of busy) {
      const [req, res] = [connection.req as IncomingMessage, connection.res as ServerResponse]
      if (!req.complete || res.writableEnded || res.writableNeedDrain) return connection
    }
    return undefined
  }

  function cut(connection: Connection): void {
    remove(connection) // now: the next connection may be accepted before the socket says that it is closed
    connection.socket.destroy()
  }

  function remove(connection: Connection): void {
    if (connection.isClosed) return
    connection.isClosed = true
    const { network } = connection
    network.idle.delete(connection)
    network.busy.delete(connection)
    dropWaiting(connection)
    countUnread(connection, 0)
    resize(network, -1)
  }

  function receive(req: IncomingMessage, res: ServerResponse): void {
    const connection = (req.socket as OwnSocket)[own] as Connection
    if (connection.isClosed) return
    if (connection.res !== null) wait(connection, req, res)
    else {
      connection.network.idle.delete(connection)
      connection.network.busy.add(connection)
      run(connection, req, res)
    }
  }

  function run(connection: Connection, req: IncomingMessage, res: ServerResponse): void {
    connection.req = req
    connection.res = res
    // Emitted once the last byte has been handed to the system, or the connection has gone.
    res.once('close', () => finish(connection))
    handle(req, res).then(
      () => res.writableFinished || res.destroyed || keepUnread(connection),
      () => cut(connection), // an error of ours while the error was answered: nobody must wait for the rest
    )
  }

  function finish(connection: Connection): void {
    countUnread(connection, 0)
    connection.req = null
    connection.res = null
    if (connection.isClosed) return
    if (!connection.socket.writable) dropWaiting(connection) // the last answer has closed it
    const next = connection.waiting?.shift()
    if (next) {
      waitingBytes -= next.bytes
      run(connection, next.req, next.res)
    } else {
      connection.network.busy.delete(connection)
      connection.network.idle.add(connection)
    }
  }

  function wait(connection: Connection, req: IncomingMessage, res: ServerResponse): void {
    const bytes = bytesOf(req)
    const isTooMuch = waitingBytes + bytes > maxWaitingBytes
    connection.waiting ??= []
    if (isTooMuch) onCut({ reason: 'unanswered_requests', network: connection.network.name })
    if (isTooMuch || connection.waiting.length + 1 >= maxUnanswered) cut(connection)
    else {
      waitingBytes += bytes
      connection.waiting.push({ req, res, bytes })
    }
  }

  function dropWaiting(connection: Connection): void {
    for (const { bytes } of connection.waiting ?? []) waitingBytes -= bytes
    connection.waiting = null
  }

  function keepUnread(connection: Connection): void {
    if (connection.isClosed || connection.res === null) return
    countUnread(connection, Math.max(leastUnreadBytes, connection.socket.writableLength))
    while (unreadBytes > maxUnreadBytes) {
      const closed = oldestUnread()
      onCut({ reason: 'unread_answers', network: closed.network.name })
      cut(closed)
    }
  }

  /** The oldest unread answer of the network for which the most is held. */
  function oldestUnread(): Connection {
    let oldest = first(unread) as Connection
    for (const connection of unread) {
      if (connection.network.unreadBytes > oldest.network.unreadBytes) oldest = connection
    }
    return oldest
  }

  function countUnread(connection: Connection, bytes: number): void {
    if (bytes === connection.unreadBytes) return
    unreadBytes += bytes - connection.unreadBytes
    connection.network.unreadBytes += bytes - connection.unreadBytes
    connection.unreadBytes = bytes
    if (bytes === 0) unread.delete(connection)
    else unread.add(connection)
  }

  return {
    size: () => size,
    accept,
    secure(socket: OwnSocket) {
      // TLSSocket has no public name for the socket that it was made from.
      const { _parent: plain } = socket as OwnSocket & { _parent?: OwnSocket }
      const connection = plain?.[own]
      if (connection === undefined) return void socket.destroy()
      connection.socket = socket
      socket[own] = connection
    },
    receive,
    abandon(socket: OwnSocket) {
      const connection = socket[own]
      if (connection === undefined) return null // in its TLS handshake
      dropWaiting(connection)
      return connection.res
    },
    peerOf: (socket: OwnSocket) => socket[own]?.peer ?? '',
  }
}

function first<T>(set: Set<T>): T | undefined {
  for (const member of set) return member
  return undefined
}

function bytesOf({ rawHeaders, url = '', headers }: IncomingMessage): number {
  const length = headers['transfer-encoding'] === undefined ? Number(headers['content-length'] ?? 0) : maxBodyBytes
  const head = rawHeaders.reduce((sum, text) => sum + text.length, url.length)
  return requestBytes + head + Math.min(length || 0, maxBodyBytes)
}
