// Tokens in a cluster of Redis that loses masters and moves slots.

import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import { isAdmitted, type TokenRecord, type TokenStore, tagOf } from '../../../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../../../services/auth/tokens/format.ts'
import { type IssuedToken, issueToken } from '../../support/factories.ts'
import {
  type ClusterNode,
  hasRedis,
  type RedisCluster,
  type RedisServer,
  reportMissingRedis,
  sharedCluster,
  startRedis,
} from '../../support/redis.ts'
import {
  crowdOf,
  everyCall,
  garbage,
  inserted,
  insertedMany,
  slotOf,
  start,
  startWork,
  touch,
} from '../../support/redisTokens.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'
import { slackMs } from '../../support/slack.ts'
import { expectAllToReject, expectRecovery } from '../../support/storeFaults.ts'
import { answered, type MadeToken } from '../../support/storeFixtures.ts'
import { until } from '../../support/until.ts'

describe('tokens in Redis:', () => {
  let server: RedisServer
  const opened: TokenStore[] = []
  before(async function () {
    if (!hasRedis) {
      reportMissingRedis('tokens in Redis')
      return this.skip()
    }
    server = await startRedis()
  })
  after(() => server?.remove())
  afterEach(async () => {
    await closeServers()
    await Promise.all(opened.splice(0).map(store => store.close()))
  })

  async function open(url = server.url, warn?: (warning: string) => void): Promise<TokenStore> {
    const store = await openTokenStore(url, warn)
    opened.push(store)
    return store
  }
  describe('a cluster', () => {
    let cluster: RedisCluster
    let store: TokenStore
    before(async () => {
      cluster = await sharedCluster()
    })
    beforeEach(async () => {
      // On a busy machine opening may take longer than it may.
      store = await until(() => open(`${cluster.url}?prefix=${randomUUID()}:`).catch(() => null), 50_000)
    })

    const firstSlotOf = (node: number): number => Math.ceil((16_384 * node) / 3)

    /** Inserts a token whose slot is on the master with this number. */
    function insertedAt(node: number, members: Partial<TokenRecord> = {}): Promise<MadeToken> {
      for (;;) {
        const id = drawTokenId(null, start)
        const slot = slotOf(id.slice(0, 4))
        if (slot >= firstSlotOf(node) && slot < firstSlotOf(node + 1)) return inserted(store, { id, ...members })
      }
    }

    /** Returns a function that draws ids of tokens in this slot. */
    const idsIn = (slot: number) => {
      const tags: string[] = []
      for (let n = 0; tags.length < 20; n++) {
        const tag = n.toString(36).padStart(4, '0')
        if (slotOf(tag) === slot) tags.push(tag)
      }
      return (turn: number) => (tags[turn % tags.length] as string) + drawTokenId(null, start).slice(4)
    }

    /** Users whose tokens are in this slot. */
    function usersIn(slot: number): string[] {
      const users: string[] = []
      for (let n = 0; users.length < 20; n++) if (slotOf(tagOf(`user${n}`)) === slot) users.push(`user${n}`)
      return users
    }

    async function moveSlot(slot: number, from: ClusterNode, to: ClusterNode, pause = async () => {}): Promise<void> {
      await to.command('cluster', 'setslot', slot, 'importing', await from.id())
      await from.command('cluster', 'setslot', slot, 'migrating', await to.id())
      for (;;) {
        const keys = (await from.command('cluster', 'getkeysinslot', slot, 20)) as string[]
        if (keys.length === 0) break
        await from.command('migrate', '127.0.0.1', to.port, '', 0, 1000, 'keys', ...keys)
        await pause()
      }
      for (const node of [to, from]) await node.command('cluster', 'setslot', slot, 'node', await to.id())
    }

    it('gets 200 tokens of 200 users in one burst for each master', async () => {
      const made = await insertedMany(store, 200)
      const refs = made.map(({ ref }) => ref)
      await store.touch(refs, start, null) // the script is loaded
      for (const { line } of cluster.nodes) line.bursts = 0
      const answers = await store.touch(refs, start, null)
      expect(answered(answers).map(token => token?.id)).to.deep.equal(refs.map(({ id }) => id))
      expect(cluster.nodes.map(({ line }) => line.bursts)).to.deep.equal([1, 1, 1])
    })

    const faults: Record<string, { fail: (node: ClusterNode) => unknown; mend: (node: ClusterNode) => unknown }> = {
      'was killed': { fail: node => node.kill(), mend: node => node.start() },
      'is hung': { fail: node => node.hang(), mend: node => node.resume() },
      'cannot be reached': {
        fail({ line }) {
          line.target = 1
          line.cut()
        },
        mend({ line, port }) {
          line.target = port
        },
      },
      'never answers': {
        fail({ line }) {
          line.state = 'silent'
        },
        mend({ line }) {
          line.state = 'open'
        },
      },
      'answers garbage': {
        fail({ line }) {
          line.alter = () => garbage
        },
        mend({ line }) {
          line.alter = answer => answer
        },
      },
    }
    for (const [name, { fail, mend }] of Object.entries(faults)) {
      it(`with a master that ${name}: its tokens are unavailable within a second, also in a batch with others, which work, and it recovers`, async () => {
        const [node] = cluster.nodes as [ClusterNode]
        const own = await insertedAt(0)
        const [deleted, ...others] = await Promise.all([insertedAt(0), insertedAt(1), insertedAt(2)])
        await store.delete(deleted.ref, start)
        try {
          await fail(node)
          for (let i = 0; i < 3; i++) {
            const rejected = expectAllToReject(
              crowdOf({ touch: () => touch(store, own.ref), insert: () => insertedAt(0) }),
            )
            for (const { ref, token } of others) expect(await touch(store, ref)).to.include({ id: token.id })
            await rejected
            const oneTime = await insertedAt(1, { kind: 'single-use' })
            const batch = [own, ...others, oneTime].map(({ ref }) => ref)
            const found = await store.touch(batch, start, null)
            expect(found.map(one => (isAdmitted(one) ? one.id : one))).to.deep.equal([
              'unavailable',
              ...[...others, oneTime].map(({ token }) => token.id),
            ])
          }
        } finally {
          await mend(node)
          await cluster.settle()
        }
        await expectRecovery(everyCall(store), 2000 + slackMs)
        const answers = await store.touch(
          [own, ...others, deleted].map(({ ref }) => ref),
          start,
          null,
        )
        expect(answered(answers).map(token => token?.id)).to.deep.equal([
          ...[own, ...others].map(({ token }) => token.id),
          undefined,
        ])
      })
    }

    it('without one master is 503 at Business for the tokens of that master alone', async () => {
      const prefix = `${randomUUID()}:`
      const auth = await startAuth({ env: { TOKEN_STORE_URL: `${cluster.url}?prefix=${prefix}` } })
      const business = await startBusiness(auth.internalUrl)
      // Repeat the call: on a busy machine it may miss the deadline of the store.
      const issue = (): Promise<IssuedToken> => until(() => issueToken(auth.internalUrl).catch(() => null))
      const issued = await Promise.all(Array.from({ length: 30 }, issue))
      const isLost = ({ tokenId }: IssuedToken) => slotOf(tokenId.slice(0, 4)) < firstSlotOf(1)
      const statusOf = async ({ token }: IssuedToken) =>
        (await fetch(`${business.url}/data`, { headers: { token } })).status
      const statuses = () => Promise.all(issued.map(statusOf))
      expect(await statuses()).to.deep.equal(issued.map(() => 200))
      const [node] = cluster.nodes as [ClusterNode]
      try {
        await node.kill()
        for (let i = 0; i < 3; i++) {
          expect(await statuses()).to.deep.equal(issued.map(token => (isLost(token) ? 503 : 200)))
        }
        expect(auth.lines.some(({ event }) => event === 'dependency_failed')).to.equal(true)
      } finally {
        await node.start()
        await cluster.settle()
      }
      await until(async () => (await statuses()).every(status => status === 200))
    })

    it('may move a slot in use to another master: no valid token is refused', async () => {
      const [, from, to] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode]
      const slot = firstSlotOf(1) + 7
      const work = startWork(store, 16, idsIn(slot), usersIn(slot))
      await work.more(100)
      await moveSlot(slot, from, to, () => work.more(5))
      await work.more(100)
      await moveSlot(slot, to, from, () => work.more(5))
      await work.more(100)
      await work.stop()
      expect(work.rejected()).to.equal(0)
    })

    it('may have an unreachable new master: the slots of the other masters are still found', async function () {
      this.timeout(180_000) // a busy machine needs half a minute to set this up
      const [first, second, third] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode]
      const [away, moved] = [firstSlotOf(0) + 3, firstSlotOf(1) + 3]
      // Repeat the call: on a busy machine it may miss the deadline of the store, or opening a connection may take too long.
      const insertedIn = (slot: number) => {
        const idOf = idsIn(slot)
        return until(() => inserted(store, { id: idOf(0) }).catch(() => null), 60_000)
      }
      const [lost, found] = await Promise.all([insertedIn(away), insertedIn(moved)])
      const fourth = await cluster.addNode()
      fourth.line.target = 1
      await moveSlot(away, first, fourth)
      await expectAllToReject({ touch: () => touch(store, lost.ref) })
      await moveSlot(moved, second, third)
      // node-redis alone would never find the new master, because it waits for the old master.
      await until(() => touch(store, found.ref).then(Boolean, () => false))
      fourth.line.target = fourth.port
      await until(() => touch(store, lost.ref).then(Boolean, () => false))
      await moveSlot(away, fourth, first)
      await moveSlot(moved, third, second)
      await expectRecovery(everyCall(store), 20_000)
      await cluster.removeNode(fourth)
    })

    it('may have a replica promoted and demoted again: acknowledged changes hold', async () => {
      const [first] = cluster.nodes as [ClusterNode]
      const replica = await cluster.addNode()
      await replica.command('cluster', 'replicate', await first.id())
      await until(async () => (await replica.tell('info', 'replication')).includes('master_link_status:up'))
      const ids = idsIn(firstSlotOf(0) + 5)
      const users = usersIn(firstSlotOf(0) + 5)
      const earlier = startWork(store, 8, ids, users)
      await earlier.more(100)
      await earlier.stop()
      const { ref, token } = await insertedAt(0)
      await touch(store, ref)
      await until(async () => /slave0:.*lag=[01]/.test(await first.tell('info', 'replication')))
      await first.command('wait', 1, 1000)
      await first.kill()
      await expectAllToReject({ touch: () => touch(store, ref) })
      await until(async () => (await replica.tell('info', 'replication')).includes('role:master'), 10_000)
      const promotedAt = performance.now()
      await until(() =>
        touch(store, ref).then(
          token => token?.refreshCount === 2,
          () => false,
        ),
      )
      expect(performance.now() - promotedAt).to.be.below(2000 + slackMs)
      await earlier.stop()
      await first.start()
      await cluster.settle()
      await until(async () => (await first.tell('info', 'replication')).includes('master_link_status:up'))
      const work = startWork(store, 8, ids, users)
      await work.more(100)
      // On a busy machine Redis may give up the failover after five seconds, so request it again.
      const isMaster = async () => (await first.tell('info', 'replication')).includes('role:master')
      while (!(await isMaster())) {
        await first.command('cluster', 'failover')
        await until(isMaster, 7000).catch(() => {})
      }
      await work.more(100)
      await work.stop()
      expect(await touch(store, ref)).to.include({ id: token.id, refreshCount: 3 })
      await cluster.removeNode(replica)
    })
  })
})
