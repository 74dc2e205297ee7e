// Writes that are acknowledged only when replicas have them, so that a failover cannot undo them (WAIT). Hides the connections
// of their own that they need, because a connection that waits for replicas executes nothing else, and that writes which
// arrive meanwhile share the next wait.
import type { RedisClientType } from '@redis/client'
import { addressOf } from './lineages.ts'

export interface Durable {
  /**
   * Resolves to the result of `write` once `replicas` replicas have it. Rejects if they do not within `timeoutMs`; the write may
   * then survive a failover or not. `write` must send one command at once, with the client that it gets.
   */
  run(key: string, write: Write): Promise<unknown>
  /** Rejects what is pending. A later call connects again. */
  disconnect(): void
}

export interface DurableOptions {
  replicas: number
  timeoutMs: number
  /** The client that leads to the master of the key. */
  masterOf: (key: string) => Promise<RedisClientType>
}

type Write = (client: RedisClientType) => Promise<unknown>

interface Job extends Omit<PromiseWithResolvers<unknown>, 'promise'> {
  write: Write
}

/** One connection to a master. */
interface Line {
  client: RedisClientType
  opened: Promise<unknown>
  waiting: Job[]
  isBusy: boolean
}

const pingMs = 500 // keeps an idle connection from being closed for its silence

export function openDurable({ replicas, timeoutMs, masterOf }: DurableOptions): Durable {
  /** Address -> line. */
  const lines = new Map<string, Line>()

  async function lineTo(master: RedisClientType): Promise<Line> {
    const address = addressOf(master)
    const known = lines.get(address)
    if (known) {
      await known.opened
      return known
    }
    const client = master.duplicate({ pingInterval: pingMs }) as RedisClientType
    client.on('error', () => {}) // the commands in flight reject, and the next one connects again
    const line: Line = { client, opened: client.connect(), waiting: [], isBusy: false }
    lines.set(address, line)
    try {
      await line.opened
      return line
    } catch (error) {
      if (lines.get(address) === line) lines.delete(address)
      throw error
    }
  }

  async function sendWaiting(line: Line): Promise<void> {
    if (line.isBusy) return
    line.isBusy = true
    while (line.waiting.length > 0) await send(line.client, line.waiting.splice(0))
    line.isBusy = false
  }

  async function send(client: RedisClientType, jobs: Job[]): Promise<void> {
    // All are sent at once on one connection: WAIT counts only the writes of its own connection, so on another one, which may be
    // open again after a failure, it would confirm nothing.
    const writing = jobs.map(({ write }) => write(client))
    const waiting = client.sendCommand(['WAIT', String(replicas), String(timeoutMs)])
    const [waited, ...written] = await Promise.allSettled([waiting, ...writing])
    for (const [i, result] of written.entries()) {
      const { resolve, reject } = jobs[i] as Job
      if (result.status === 'rejected') reject(result.reason)
      else if (waited.status === 'rejected') reject(waited.reason)
      else if (Number(waited.value) >= replicas) resolve(result.value)
      else reject(new Error(`only ${waited.value} of ${replicas} replicas had the change within ${timeoutMs} ms`))
    }
    // After a failover the address may lead to the new master, but this connection still leads to the old one.
    if (written.some(result => result.status === 'rejected' && /^READONLY/.test(result.reason.message))) {
      client.destroy()
      client.connect().catch(() => {}) // rejects if it was closed in the meantime
    }
  }

  return {
    async run(key, write) {
      const line = await lineTo(await masterOf(key))
      const { promise, resolve, reject } = Promise.withResolvers<unknown>()
      line.waiting.push({ write, resolve, reject })
      void sendWaiting(line)
      return promise
    },

    disconnect() {
      for (const { client } of lines.values()) client.destroy()
      lines.clear()
    },
  }
}
