// A proxy between a client and a server. A test can cut its connections, make it silent, slow or late, or let it
// alter answers. Hides the two sockets of each connection.
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** A proxy between a client and a server, on 127.0.0.1. */
export interface Line {
  port: number
  /** The port to which new connections lead. */
  target: number
  /**
   * `open`: passes everything on. `silent`: accepts everything and passes on nothing; a connection that has lost data
   * stays silent. `slow`: answers come one byte at a time.
   */
  state: 'open' | 'silent' | 'slow'
  /** Delay of each answer; requests are passed on at once. */
  delayMs: number
  /** Replaces an answer. */
  alter: (answer: Buffer) => Buffer
  /** The number of chunks that clients have sent, not counting pings. */
  bursts: number
  /** Each connection becomes silent after this many chunks. */
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
    let isLost = false // after a gap the rest of the stream makes no sense
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
      socket.on('error', () => {}) // 'close' follows
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
      // Do not reset a socket that is already ending: Node would lose its handle and never exit.
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
