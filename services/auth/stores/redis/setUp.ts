// Checks, when a store is opened, that the Redis servers are configured not to lose data.
import { addressOf } from './lineages.ts'
import { type Place, SetUpError } from './place.ts'
import { masters, type Server } from './server.ts'

/** Rejects if the server may evict keys: losing a floor would make revoked tokens valid again. */
export async function checkSetUp(place: Place, server: Server, warn: (warning: string) => void): Promise<void> {
  for (const node of await masters(server)) {
    const info = await node.info()
    if (!server.isCluster && /^cluster_enabled:1/m.test(info)) {
      throw new SetUpError('is part of a cluster: begin the URL with redis-cluster://')
    }
    if (/^redis_mode:sentinel/m.test(info)) {
      throw new SetUpError('is a Sentinel: begin the URL with redis-sentinel://, and end it with /name of the master')
    }
    const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1] ?? 'unknown'
    if (policy !== 'noeviction' && place.eviction === 'refused') {
      throw new SetUpError(
        `has maxmemory-policy ${policy}: when its memory is full it forgets sessions and revocations. Set it to noeviction, or add eviction=allowed to the query of the URL`,
      )
    }
    const replicas = Number(/^connected_slaves:(\d+)/m.exec(info)?.[1] ?? 0)
    if (replicas < place.waitReplicas) {
      throw new SetUpError(
        `has ${replicas} connected replicas, and REDIS_WAIT_REPLICAS is ${place.waitReplicas}: no revocation could be acknowledged. Connect more replicas, or lower the setting`,
      )
    }
    if (/^aof_enabled:0/m.test(info)) {
      warn(
        `the Redis server at ${addressOf(node)} has no append-only file (appendonly no): if it stops without a snapshot, sessions are lost and tokens revoked since the last snapshot may be valid again.`,
      )
    }
  }
}
