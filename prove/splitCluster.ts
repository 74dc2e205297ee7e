// A Redis Cluster on two hosts, which can be split: a master on the smaller side, its replica and the other two masters on the
// larger one. Hides how the nodes find each other, and how the first master becomes master again.
import type { Host } from '../tests/support/host.ts'
import { type RedisServer, startRedis } from '../tests/support/redis.ts'
import { until } from '../tests/support/until.ts'

export interface SplitCluster {
  url: string
  /** Resolves when the node on the smaller side is a master with a replica. */
  restore(): Promise<void>
  remove(): Promise<void>
}

const config = {
  'cluster-enabled': 'yes',
  'cluster-node-timeout': '1000',
  'cluster-require-full-coverage': 'no',
  'cluster-replica-validity-factor': '0',
  'cluster-allow-replica-migration': 'no',
  'protected-mode': 'no',
}
const slots = 16_384

export async function startSplitCluster(smaller: Host, larger: Host): Promise<SplitCluster> {
  const start = (host: Host) => startRedis(config, host)
  const [first, ...others] = await Promise.all([start(smaller), start(larger), start(larger)])
  const replica = await start(larger)
  const masters = [first, ...others] as [RedisServer, ...RedisServer[]]
  const nodes = [...masters, replica]
  const replicationOf = (node: RedisServer) => node.tell('info', 'replication')
  const isInStep = async (node: RedisServer) => (await replicationOf(node)).includes('master_link_status:up')
  const isMaster = async () => (await replicationOf(first)).includes('role:master')

  for (const [i, master] of masters.entries()) {
    await master.command('cluster', 'set-config-epoch', i + 1)
    await master.command('cluster', 'addslotsrange', Math.ceil((slots * i) / 3), Math.ceil((slots * (i + 1)) / 3) - 1)
  }
  for (const node of nodes.slice(1)) await node.command('cluster', 'meet', smaller.address, first.port)
  await settle()
  await replica.command('cluster', 'replicate', await first.tell('cluster', 'myid'))
  await until(() => isInStep(replica))

  async function settle(): Promise<void> {
    await until(async () => {
      const infos = await Promise.all(nodes.map(node => node.tell('cluster', 'info')))
      const isKnown = `cluster_known_nodes:${nodes.length}\r`
      return infos.every(info => info.includes('cluster_state:ok') && info.includes(isKnown))
    })
  }

  return {
    url: `redis-cluster://${nodes.map(({ url }) => new URL(url).host).join(',')}`,

    async restore() {
      await settle()
      while (!(await isMaster())) {
        await until(() => isInStep(first))
        await first.command('cluster', 'failover')
        // On a busy machine Redis may give up the failover after five seconds, so it is requested again.
        await until(isMaster, 7000).catch(() => {})
      }
      await until(() => isInStep(replica))
    },

    async remove() {
      await Promise.all(nodes.map(node => node.remove()))
    },
  }
}
