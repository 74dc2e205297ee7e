// Masters that have lost the rest of their cluster. Such a master refuses all commands, and does not know that a replica may have
// taken its place; by itself node-redis asks other nodes only after MOVED or a lost connection. Hides how it is made to ask.
import type { RedisClientType, RedisClusterType } from '@redis/client'
import { addressOf } from './lineages.ts'

export interface CutOff {
  /** Must be called with every failure; `master` is the one that was asked. */
  note(error: Error, master: () => Promise<RedisClientType>): Promise<void>
  /** Asks the other nodes for the topology, if a master has refused a command since the last time. */
  lookPast(): void
}

export function createCutOff(cluster: RedisClusterType): CutOff {
  const addresses = new Set<string>()
  return {
    async note({ message }, master) {
      if (/^CLUSTERDOWN/.test(message)) addresses.add(addressOf(await master()))
    },

    lookPast() {
      if (addresses.size === 0) return
      cluster._slots.rediscover(undefined, new Set(addresses)).catch(() => {}) // the next refusal leads to the next attempt
      addresses.clear()
    },
  }
}
