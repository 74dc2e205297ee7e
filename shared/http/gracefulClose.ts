// Closes a server without losing a request: clients that are connecting are accepted, and clients that are connected learn
// of the end from a response, not from a reset.
import cluster from 'node:cluster'
import type { Server as HttpServer } from 'node:http'
import { Server as NetServer, type Server } from 'node:net'
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises'

export interface CloseOptions {
  /**
   * During the first half new clients are still served, but `/ready` is 503, so that load balancers send no more of them.
   * During the second half no client can connect, and each response has `Connection: close`. Either half ends early once no
   * connection has been open for a while.
   */
  lameDuckMs: number
  /** How long pending requests may take after the lame-duck time, before their connections are cut. */
  drainMs: number
}

export interface CloseDeps {
  monotonicNow: () => number
  openConnections: () => number
  /** Called when each response must end its connection. */
  onLastResponses: () => void
}

const stopAcceptingMs = 50
const acceptTimeoutMs = 1000 // for the clients that are already connecting
const quietTurnMs = 0.5 // in a longer turn of the event loop a client may have connected after the check
const emptyForMs = 200 // without a connection there is no client left to notify

export async function closeGracefully(
  server: HttpServer,
  { lameDuckMs, drainMs }: CloseOptions,
  { monotonicNow, openConnections, onLastResponses }: CloseDeps,
): Promise<void> {
  await untilEmpty(lameDuckMs / 2, openConnections)
  await acceptConnecting(server, monotonicNow)
  // Not the HTTP server's own close: that cuts idle connections at once, and with them requests that are on their way.
  const stopped = new Promise<void>(resolve => NetServer.prototype.close.call(server, () => resolve()))
  // In a cluster, the primary process still hands over connections for a moment after a worker has asked it to stop.
  await sleep(stopAcceptingMs)
  onLastResponses()
  await untilEmpty(lameDuckMs / 2, openConnections)
  server.closeIdleConnections()
  const cut = setTimeout(() => server.closeAllConnections(), drainMs)
  await stopped
  clearTimeout(cut)
}

/** Accepts the clients that wait in the backlog: they would be reset when the socket closes. */
async function acceptConnecting(server: Server, monotonicNow: () => number): Promise<void> {
  if (cluster.isWorker) return // the primary process accepts connections, and goes on doing so for the other workers
  // There is no public API for this. With a backlog of 0 the kernel lets new clients retry until another process listens.
  const { _handle: handle } = server as { _handle?: { listen?: (backlog: number) => void } }
  handle?.listen?.(0)
  let accepted = 0
  const count = () => void accepted++
  server.on('connection', count)
  const deadline = monotonicNow() + acceptTimeoutMs
  // Node accepts one connection per turn of the event loop, and none in the rest of this turn.
  await turn()
  for (let isDone = false; !isDone && monotonicNow() < deadline; ) {
    const [before, from] = [accepted, monotonicNow()]
    await turn()
    isDone = accepted === before && monotonicNow() - from < quietTurnMs
  }
  server.off('connection', count)
}

/**
 * Resolves after `maxMs`, or once no connection has been open for a while. A shorter gap does not count, because a client
 * that opens a connection for each request has none open between two requests.
 */
async function untilEmpty(maxMs: number, openConnections: () => number): Promise<void> {
  const stepMs = 20
  let emptyMs = 0
  for (let waitedMs = 0; waitedMs < maxMs && emptyMs < emptyForMs; waitedMs += stepMs) {
    await sleep(stepMs)
    emptyMs = openConnections() === 0 ? emptyMs + stepMs : 0
  }
}
