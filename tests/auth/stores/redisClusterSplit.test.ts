// A master of a Redis Cluster that has lost the others, while Auth reaches all of them. `npm run prove -- --parts network` splits a
// cluster with lost packets.
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import type { TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../../../services/auth/tokens/format.ts'
import { type ClusterNode, hasRedis, type RedisCluster, reportMissingRedis, startCluster } from '../../support/redis.ts'
import { inserted, slotOf, start, touch } from '../../support/redisTokens.ts'
import type { MadeToken } from '../../support/storeFixtures.ts'
import { until } from '../../support/until.ts'

describe('a master without the other masters of its cluster', function () {
  this.timeout(60_000)
  let cluster: RedisCluster
  let store: TokenStore

  before(async function () {
    if (!hasRedis) {
      reportMissingRedis('a master without the other masters of its cluster')
      return this.skip()
    }
    cluster = await startCluster()
  })
  after(async () => {
    await store?.close()
    for (const node of cluster?.nodes ?? []) {
      await node.remove()
      await node.line.close()
    }
  })

  /** A token in a slot of the first master. */
  function insertedAtFirst(): Promise<MadeToken> {
    for (;;) {
      const id = drawTokenId(null, start)
      if (slotOf(id.slice(0, 4)) < Math.floor(16_384 / 3)) return inserted(store, { id })
    }
  }

  it('refuses all commands: its promoted replica is used, of which it does not know', async () => {
    const [first, ...others] = cluster.nodes as [ClusterNode, ...ClusterNode[]]
    const replica = await cluster.addNode()
    await replica.command('cluster', 'replicate', await first.id())
    await until(async () => (await replica.tell('info', 'replication')).includes('master_link_status:up'))
    store = await openTokenStore(cluster.url)
    const { ref } = await insertedAtFirst()
    await first.command('wait', 1, 1000)
    await first.command('config', 'set', 'cluster-require-full-coverage', 'yes')
    for (const node of [...others, replica]) await first.command('cluster', 'forget', await node.id())
    await until(async () => (await first.tell('cluster', 'info')).includes('cluster_state:fail'))
    expect(await touch(store, ref).catch(error => String(error))).to.include('CLUSTERDOWN')
    await replica.command('cluster', 'failover', 'takeover')
    await until(() => touch(store, ref).then(Boolean, () => false), 10_000)
    expect(await first.tell('cluster', 'info')).to.include('cluster_state:fail')
  })
})
