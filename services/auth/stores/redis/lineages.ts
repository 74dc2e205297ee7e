// Notices after a failover that a server holds other data than before: a promoted replica may lack the last writes. Hides how
// a server is recognised, and keeps calls from it until what it may lack has been repeated.
import type { RedisClientType } from '@redis/client'

export interface Lineages {
  /** Remembers the servers as they are. */
  learn(clients: RedisClientType[]): Promise<void>
  /** A connection to this address has been opened. Before the next call there, it must be checked who answers. */
  suspect(address: string): void
  /** Another server is the master now. Whatever server is reached from now on, even one used before, lacks what that one gets. */
  forget(): void
  hasSuspects(): boolean
  /** Resolves at once unless the server is suspect. Rejects if it cannot be checked, and remains suspect then. */
  check(client: RedisClientType): Promise<void>
}

/** `onReplaced` is called with a client of a server that is new at its address; calls there wait until it resolves. */
export function createLineages(onReplaced: (client: RedisClientType) => Promise<void>): Lineages {
  /** Address -> lineage. */
  const known = new Map<string, string>()
  const suspects = new Set<string>()
  const checks = new Map<string, Promise<void>>()

  async function checkSuspect(address: string, client: RedisClientType): Promise<void> {
    const lineage = await readLineage(client)
    if (known.get(address) !== lineage) await onReplaced(client)
    known.set(address, lineage)
    suspects.delete(address)
  }

  return {
    async learn(clients) {
      for (const client of clients) {
        const address = addressOf(client)
        known.set(address, await readLineage(client))
        suspects.delete(address)
      }
    },

    suspect: address => void suspects.add(address),
    forget: () => known.clear(),
    hasSuspects: () => suspects.size > 0,

    async check(client) {
      const address = addressOf(client)
      if (!suspects.has(address)) return
      const checking = checks.get(address) ?? checkSuspect(address, client).finally(() => checks.delete(address))
      checks.set(address, checking)
      await checking
    },
  }
}

export function addressOf(client: RedisClientType): string {
  const { host, port } = client.options.socket as { host: string; port: number }
  return `${host}:${port}`
}

/** Changes when the server restarts, when another takes its address, and when a replica becomes master. */
async function readLineage(client: RedisClientType): Promise<string> {
  const info = `${await client.info('server')}${await client.info('replication')}`
  return ['run_id', 'master_replid'].map(name => new RegExp(`^${name}:(\\w+)`, 'm').exec(info)?.[1]).join()
}
