// The connections of a listener by network: an IPv4 address or an IPv6 /64. Hides how the network with the most connections
// is found in constant time.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

export interface Network {
  name: string
  connections: number
  /** Connections without a request, the longest idle first. */
  idle: Set<Connection>
  /** Connections with a request, the oldest first. */
  busy: Set<Connection>
  unreadBytes: number
}

export interface Connection {
  socket: Socket
  network: Network
  peer: string
  /** The request that is being handled, and its response; null if the connection is idle. */
  req: IncomingMessage | null
  res: ServerResponse | null
  /** Requests that wait for the one in progress, the oldest first; null or empty if there are none. */
  waiting: WaitingRequest[] | null
  /** The bytes that are counted for a response that the client has not read. */
  unreadBytes: number
  isClosed: boolean
}

export interface WaitingRequest {
  req: IncomingMessage
  res: ServerResponse
  /** An estimate of the memory that it holds. */
  bytes: number
}

export interface Networks {
  /** How many connections there are. */
  size(): number
  /** The network with this name, new if it has no connection yet. */
  find(name: string): Network
  /** Records that the network has one connection more or less. */
  resize(network: Network, by: 1 | -1): void
  /** The network with the most connections; in a tie, another than `network`. There must be at least one connection. */
  largestExcept(network: Network): Network
}

export function createNetworks(): Networks {
  const networks = new Map<string, Network>()
  /** `byCount[i]` has the networks with i connections. The last entry is never empty. */
  const byCount: Set<Network>[] = []
  let size = 0

  return {
    size: () => size,

    find(name) {
      let network = networks.get(name)
      if (network === undefined) {
        network = { name, connections: 0, idle: new Set(), busy: new Set(), unreadBytes: 0 }
        networks.set(name, network)
      }
      return network
    },

    resize(network, by) {
      byCount[network.connections]?.delete(network)
      network.connections += by
      size += by
      if (network.connections === 0) networks.delete(network.name)
      else {
        byCount[network.connections] ??= new Set()
        byCount[network.connections]?.add(network)
      }
      // Counts change by one, so this loop is short.
      while (byCount.length > 0 && (byCount.at(-1)?.size ?? 0) === 0) byCount.pop()
    },

    largestExcept(network) {
      for (const largest of byCount.at(-1) as Set<Network>) if (largest !== network) return largest
      return network
    },
  }
}

/** The connection that can be closed with the least loss: the longest idle one, or else one that waits for its client. */
export function cheapestOf({ idle, busy }: Network): Connection | undefined {
  for (const connection of idle) return connection
  for (const connection of busy) if (waitsForClient(connection)) return connection
  return undefined
}

/** Whether the client sends its body slowly or does not read its response; neither costs this process any work. */
function waitsForClient(connection: Connection): boolean {
  const [req, res] = [connection.req as IncomingMessage, connection.res as ServerResponse]
  return !req.complete || res.writableEnded || res.writableNeedDrain
}
