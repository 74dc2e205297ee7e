// Ports that must be known before a process starts: for two processes that must find each other, or a server that is
// restarted.
import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

/**
 * A port on which nothing listens at 127.0.0.1. It is below the ephemeral ports (from 32768 on Linux), so that no
 * connection of another test takes it before it is used.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 32_768)
    const server = createServer()
    const isFree = await new Promise<boolean>(resolve => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
    })
    if (isFree) return port
  }
}

/** Ports for both services. */
export async function freePorts() {
  const names = ['AUTH_PORT', 'AUTH_INTERNAL_PORT', 'BUSINESS_PORT', 'BUSINESS_INTERNAL_PORT'] as const
  const ports = new Set<number>()
  while (ports.size < names.length) ports.add(await freePort())
  const [AUTH_PORT = '', AUTH_INTERNAL_PORT = '', BUSINESS_PORT = '', BUSINESS_INTERNAL_PORT = ''] = [...ports].map(
    String,
  )
  return { AUTH_PORT, AUTH_INTERNAL_PORT, BUSINESS_PORT, BUSINESS_INTERNAL_PORT }
}
