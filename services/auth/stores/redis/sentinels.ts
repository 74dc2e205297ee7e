// Asks Redis Sentinels which server is the master. Hides that some of them may be down, hang, or know less than others.
import { createClient, type RedisClientOptions } from '@redis/client'
import { within } from '../../../../shared/deadline.ts'
import { type Address, SetUpError } from './place.ts'

export interface Sentinels {
  /** Resolves to the address of the master. Rejects if no Sentinel names one. */
  findMaster(): Promise<Address>
  close(): void
}

interface Answer {
  master: Address
  /** Rises with each failover. */
  epoch: number
}

interface Sentinel {
  /** Null if it knows no master of this name. */
  ask(): Promise<Answer | null>
  close(): void
}

const askTimeoutMs = 1500 // also for opening the connection; calls do not wait for it, only a move to another master does
const reconnectMs = 250

/** `options` say how to connect, without the address. */
export function openSentinels(nodes: Address[], masterName: string, options: RedisClientOptions): Sentinels {
  const sentinels = nodes.map(node => openSentinel(node, masterName, options))
  return {
    async findMaster() {
      // All are asked, because one that was cut off or hung during a failover still names the former master.
      const late = () => new Error('no answer')
      const outcomes = await Promise.allSettled(sentinels.map(({ ask }) => within(askTimeoutMs, ask(), late)))
      const answers = outcomes.filter(outcome => outcome.status === 'fulfilled').map(({ value }) => value)
      const [newest] = answers.filter(answer => answer !== null).sort((a, b) => b.epoch - a.epoch)
      if (newest) return newest.master
      if (answers.length > 0) {
        throw new SetUpError(`know no master ${masterName}: expected the name in a line "sentinel monitor" of theirs`)
      }
      throw (outcomes[0] as PromiseRejectedResult).reason
    },

    close() {
      for (const sentinel of sentinels) sentinel.close()
    },
  }
}

function openSentinel(node: Address, masterName: string, options: RedisClientOptions): Sentinel {
  const client = createClient({
    ...options,
    RESP: 2,
    socket: { ...options.socket, ...node, reconnectStrategy: () => reconnectMs } as RedisClientOptions['socket'] &
      object,
  })
  let trouble: Error | null = null
  /** Resolves when the first attempt to connect has succeeded or failed. */
  const tried = new Promise<void>(resolve => {
    client.on('error', (error: Error) => {
      trouble = error
      resolve()
    })
    client.on('ready', () => {
      trouble = null
      resolve()
    })
  })
  client.connect().catch(() => {}) // rejects if the client is closed before

  return {
    async ask() {
      await tried
      if (trouble !== null && !client.isReady) throw trouble
      try {
        // Both are sent in one write, so that no failover comes in between. The first names a new master earlier than the second.
        const [address, master] = await Promise.all([
          client.sendCommand<string[]>(['SENTINEL', 'GET-MASTER-ADDR-BY-NAME', masterName]),
          client.sendCommand<string[]>(['SENTINEL', 'MASTER', masterName]),
        ])
        const [host = '', port] = address
        return { master: { host, port: Number(port) }, epoch: Number(master[master.indexOf('config-epoch') + 1]) }
      } catch (error) {
        if (/No such master/.test((error as Error).message)) return null
        throw error
      }
    },

    close: () => client.destroy(),
  }
}
