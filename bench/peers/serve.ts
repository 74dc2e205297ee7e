// Starts a server of a peer and reports its address to bench/peers.ts.
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'

/** The answer of every peer to an admitted request. */
export const greeting = { data: 'Hello, demo@example.com!' }

export function serve(listener: RequestListener): void {
  const server = createServer(listener).listen(0, '127.0.0.1', () => {
    const business = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    process.send?.({ type: 'ready', addresses: { business } })
  })
  process.on('disconnect', () => process.exit())
}
