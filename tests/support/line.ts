// A line between a client and a server that a test may spoil: cut, silent, slow, late, or with other bytes for an answer.
// Hides the two sockets of each connection.
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** Between a client and a server; listens on 127.0.0.1. */
export interface Line {
  port: number
  /** Where new connections lead to. */
  target: number
  /**
   * `open`: as if it was not there. `silent`: takes everything and passes on nothing; a connection of which something was
   * lost stays so. `slow`: answers come a byte at a time.
   */
  state: 'open' | 'silent' | 'slow'
  /** Each answer comes later by so much; what was asked is passed on at once. */
  delayMs: number
  /** What comes instead of an answer. */
  alter: (answer: Buffer) => Buffer
  /** Parts in which clients have sent what they sent, but for pings. */
  bursts: number
  /** Of each connection, after so many of them. */
  silentAfter: number
  connections: number
  /** Resets all connections. */
  cut(): void
  close(): Promise<void>
}

const ping = Buffer.from('*1\r\n$4\r\nPING\r\n')

export async function startLine(target: number): Promise<Line> {
  const sockets = new Set<Socket>()
  const server = createServer(client => {
    line.connections++
    const upstream = connect(line.target, '127.0.0.1')
    upstream.setNoDelay()
    client.setNoDelay()
    let isLost = false // nothing that follows would make sense
    let bursts = 0
    let written: Promise<void> = Promise.resolve()
    client.on('data', chunk => {
      if (!chunk.equals(ping)) line.bursts++
      isLost ||= line.state === 'silent' || bursts++ === line.silentAfter
      if (!isLost) upstream.write(chunk)
    })
    upstream.on('data', chunk => {
      isLost ||= line.state === 'silent'
      if (isLost) return
      const answer = line.alter(chunk)
      const at = performance.now() + line.delayMs
      written = written.then(() => write(client, answer, at))
    })
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket.unref())
      socket.on('error', () => {}) // told by 'close'
      socket.on('close', () => {
        sockets.delete(socket)
        if (!isLost) other.destroy()
      })
    }
  })

  async function write(client: Socket, chunk: Buffer, at: number): Promise<void> {
    if (at > performance.now()) await sleep(at - performance.now())
    let rest = chunk
    for (; line.state === 'slow' && rest.length > 0 && !client.destroyed; rest = rest.subarray(1)) {
      client.write(rest.subarray(0, 1))
      await sleep(30)
    }
    client.write(rest)
  }

  server.listen(0, '127.0.0.1').unref()
  await once(server, 'listening')
  const line: Line = {
    port: (server.address() as { port: number }).port,
    target,
    state: 'open',
    delayMs: 0,
    alter: answer => answer,
    bursts: 0,
    silentAfter: Infinity,
    connections: 0,
    cut() {
      // One that is ending already cannot be reset: Node would lose its handle, and never come to its own end.
      for (const socket of sockets) socket.writableEnded ? socket.destroy() : socket.resetAndDestroy()
    },
    async close() {
      line.cut()
      server.close()
      await once(server, 'close')
    },
  }
  return line
}
