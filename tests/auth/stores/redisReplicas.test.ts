// Revocations that a failover does not undo: with REDIS_WAIT_REPLICAS, on a server and on a cluster, and by repeating them.
import { setImmediate as turn } from 'node:timers/promises'
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import { keyOf, tagOfId } from '../../../services/auth/stores/redis/tokens.ts'
import { noAuthority, type TokenStore, tagOf } from '../../../services/auth/stores/tokenPort.ts'
import { ask } from '../../support/client.ts'
import { isLive, logIn, validate } from '../../support/factories.ts'
import { type Line, startLine } from '../../support/line.ts'
import {
  type ClusterNode,
  hasRedis,
  type RedisCluster,
  type RedisServer,
  reportMissingRedis,
  startCluster,
  startRedis,
} from '../../support/redis.ts'
import { inserted, insertedMany, look, newToken, raiseFloor, start, touch } from '../../support/redisTokens.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { lineage, type MadeToken, newHash } from '../../support/storeFixtures.ts'
import { until } from '../../support/until.ts'

async function startReplicaOf(master: RedisServer): Promise<RedisServer> {
  const replica = await startRedis()
  await replica.command('replicaof', '127.0.0.1', master.port)
  await until(async () => (await replica.tell('info', 'replication')).includes('master_link_status:up'))
  await until(async () => (await master.tell('info', 'replication')).includes('state=online'))
  return replica
}

const admin = { ...noAuthority, version: 1, roles: ['admin'] }

/** `resolved`, or why the work was rejected. */
const rejection = (work: Promise<unknown>) =>
  work.then(
    () => 'resolved',
    (error: Error) => error.message,
  )

describe('tokens in Redis with REDIS_WAIT_REPLICAS', () => {
  let master: RedisServer
  let replica: RedisServer
  const opened: TokenStore[] = []

  before(function () {
    if (hasRedis) return
    reportMissingRedis('REDIS_WAIT_REPLICAS')
    this.skip()
  })

  beforeEach(async () => {
    master = await startRedis()
    replica = await startReplicaOf(master)
  })

  afterEach(async () => {
    await closeServers()
    await Promise.all(opened.splice(0).map(store => store.close()))
    replica.resume()
    await Promise.all([master.remove(), replica.remove()])
  })

  async function open(url = `${master.url}?wait-replicas=1&wait-timeout-ms=200`): Promise<TokenStore> {
    const store = await openTokenStore(url)
    opened.push(store)
    return store
  }

  it('has every revocation, renewal, floor, role, limit and pause on the replica once it is acknowledged', async () => {
    const store = await open()
    const durableCalls: Record<string, (made: MadeToken) => Promise<unknown>> = {
      delete: ({ ref }) => store.delete(ref, start),
      deleteById: ({ ref }) => store.deleteById(ref.id, start, null),
      'deleteById with an owner': ({ ref, token }) => store.deleteById(ref.id, start, token.userId),
      change: ({ ref }) => store.change(ref.id, { rate: { perMinute: 1, burst: 1 } }, start),
      pause: ({ ref }) => store.pause(ref.id, start),
      setAuthority: ({ token }) => store.setAuthority(token.userId as string, admin),
      raiseFloor: ({ token }) => raiseFloor(store, token.userId as string, 2),
      renew: ({ ref }) => store.renew(ref, newHash(), lineage, start),
    }
    for (const [name, call] of Object.entries(durableCalls)) {
      const made = await inserted(store)
      const key = keyOf('latchkey:', tagOfId(made.ref.id))
      // Two servers may list the same fields in another order.
      const read = async (node: RedisServer) => JSON.stringify([await node.command('hgetall', key)].flat().sort())
      const before = await read(master)
      await until(async () => (await read(replica)) === before)
      await call(made)
      const after = await read(replica)
      expect(after, name).to.not.equal(before)
      expect(await read(master), name).to.equal(after)
    }
  })

  it('rejects them in time if the replica does not have them, and keeps validating at full speed', async () => {
    const store = await open()
    const { ref } = await inserted(store)
    const before = await Promise.all(Array.from({ length: 20 }, () => inserted(store)))
    replica.hang()
    const startedAt = performance.now()
    const pending = rejection(store.delete(ref, start))
    const touched = await Promise.all(before.map(({ ref }) => touch(store, ref)))
    expect(performance.now() - startedAt).to.be.below(150) // well before the deletion has waited for the replica
    expect(touched).to.not.include(null)
    expect(await pending).to.equal('only 0 of 1 replicas had the change within 200 ms')
    replica.resume()
    await until(async () => (await rejection(store.deleteById('none', start, null))) === 'resolved')
  })

  it('loses no acknowledged revocation when the master dies', async () => {
    const store = await open(`${master.url}?wait-replicas=1&wait-timeout-ms=800`)
    const made = await insertedMany(store, 100)
    const ended: typeof made = []
    let killed: Promise<void> | null = null
    async function endInTurn(tokens: typeof made): Promise<void> {
      for (const one of tokens) {
        if ((await rejection(store.delete(one.ref, start))) === 'resolved') ended.push(one)
        if (ended.length === 30) killed ??= master.kill()
      }
    }
    await Promise.all([0, 1, 2, 3].map(worker => endInTurn(made.slice(worker * 25, worker * 25 + 25))))
    await killed
    expect(ended.length).to.be.within(30, 99)
    await replica.command('replicaof', 'no', 'one')
    const after = await open(replica.url)
    for (const { ref } of ended) expect(await look(after, ref)).to.equal(null)
  })

  it('is refused at the start if the server has too few replicas', async () => {
    const message = await rejection(open(`${master.url}?wait-replicas=2`))
    expect(message).to.match(
      /has 1 connected replicas, and REDIS_WAIT_REPLICAS is 2: no revocation could be acknowledged/,
    )
  })

  it('answers a log-out 503 until the replica has it', async () => {
    const env = { TOKEN_STORE_URL: master.url, REDIS_WAIT_REPLICAS: '1', REDIS_WAIT_TIMEOUT_MS: '100' }
    const { url, internalUrl } = await startAuth({ env })
    const token = await logIn(url)
    const other = await logIn(url)
    replica.hang()
    expect((await ask('POST', `${url}/logout`, token)).status).to.equal(503)
    expect((await validate(internalUrl, { token: other })).status).to.equal(200)
    replica.resume()
    await until(async () => (await ask('POST', `${url}/logout`, other)).status === 204)
    expect(await isLive(internalUrl, other)).to.equal(false)
  })
})

describe('tokens in Redis after a failover to a replica that is behind', () => {
  let master: RedisServer
  let replica: RedisServer
  let replication: Line
  let address: Line
  let store: TokenStore
  const warnings: string[] = []

  before(function () {
    if (hasRedis) return
    reportMissingRedis('a failover to a replica that is behind')
    this.skip()
  })

  beforeEach(async () => {
    master = await startRedis()
    replica = await startRedis()
    replication = await startLine(master.port)
    await replica.command('replicaof', '127.0.0.1', replication.port)
    await until(async () => (await master.tell('info', 'replication')).includes('state=online'))
    address = await startLine(master.port)
    warnings.length = 0
    store = await openTokenStore(`redis://127.0.0.1:${address.port}`, warning => warnings.push(warning))
  })

  afterEach(async () => {
    await closeServers()
    await store.close()
    await Promise.all([master.remove(), replica.remove()])
    await Promise.all([replication.close(), address.close()])
  })

  const isBehindNot = async () => {
    const [ofMaster, ofReplica] = await Promise.all([master, replica].map(node => node.tell('info', 'replication')))
    const offset = /^master_repl_offset:(\d+)/m
    return offset.exec(ofMaster as string)?.[1] === offset.exec(ofReplica as string)?.[1]
  }

  async function failOver(): Promise<void> {
    await master.kill()
    await replica.command('replicaof', 'no', 'one')
    address.target = replica.port
    address.cut()
  }

  it('stay ended, renewed and consumed, and no others are lost', async () => {
    const [live, deleted, byFloor, renewed] = await insertedMany(store, 4)
    if (!live || !deleted || !byFloor || !renewed) throw new Error('four tokens were inserted')
    const oneTime = await inserted(store, { kind: 'single-use' })
    await until(isBehindNot)
    replication.state = 'silent'
    await store.delete(deleted.ref, start)
    await raiseFloor(store, byFloor.token.userId as string, 2)
    const secret = newHash()
    await store.renew(renewed.ref, secret, lineage, start)
    expect(await touch(store, oneTime.ref)).to.not.equal(null)
    await failOver()
    await until(async () => (await rejection(store.look([live.ref], start, null))) === 'resolved')
    for (const { ref } of [deleted, byFloor, renewed, oneTime]) expect(await look(store, ref)).to.equal(null)
    expect(await look(store, live.ref)).to.include({ id: live.token.id })
    expect(await look(store, { id: renewed.ref.id, hash: secret })).to.include({ id: renewed.token.id })
    expect(warnings.at(-1)).to.match(/was restarted or replaced; 4 revocations, renewals and password changes/)
  })

  it('obey the last change of any Auth, whether the new server has it or not', async () => {
    const other = await openTokenStore(`redis://127.0.0.1:${address.port}`)
    try {
      const [known, lost] = await insertedMany(store, 2)
      if (!known || !lost) throw new Error('two tokens were inserted')
      const rates = [1, 2].map(burst => ({ perMinute: 1, burst }))
      async function change({ ref: { id } }: MadeToken): Promise<void> {
        for (const rate of rates) await store.change(id, { paused: true, rate }, start)
        await other.change(id, { scope: 'orders:read' }, start)
        await store.change(id, { paused: false }, start)
        await other.change(id, { paused: true }, start)
      }
      await change(known)
      await until(isBehindNot)
      replication.state = 'silent'
      await change(lost)
      await failOver()
      for (const one of [store, other]) {
        await until(async () => (await rejection(one.look([known.ref], start, null))) === 'resolved')
      }
      for (const { ref } of [known, lost]) {
        expect(await look(store, ref)).to.equal(null)
        const [listed] = await store.findByUser((await store.change(ref.id, {}, start))?.userId as string, start)
        expect(listed).to.deep.include({ paused: true, scope: 'orders:read', rate: rates[1] })
      }
    } finally {
      await other.close()
    }
  })

  it('have the roles that their user was last given, and are paused with their user', async () => {
    const [promoted, demoted, paused] = await insertedMany(store, 3)
    if (!promoted || !demoted || !paused) throw new Error('three tokens were inserted')
    const userOf = ({ token }: MadeToken) => token.userId as string
    await store.setAuthority(userOf(demoted), admin)
    await until(isBehindNot)
    replication.state = 'silent'
    await store.setAuthority(userOf(promoted), admin)
    await store.setAuthority(userOf(demoted), { ...noAuthority, version: 2 })
    await store.setAuthority(userOf(paused), { ...noAuthority, version: 1, paused: true })
    await failOver()
    await until(async () => (await rejection(store.look([promoted.ref], start, null))) === 'resolved')
    expect((await look(store, promoted.ref))?.authority).to.deep.equal(admin)
    expect((await look(store, demoted.ref))?.authority).to.deep.equal({ ...noAuthority, version: 2 })
    expect(await look(store, paused.ref)).to.equal(null)
  })

  it('have no fuller bucket after a change that the new server has', async () => {
    const { ref } = await inserted(store)
    for (const burst of [1, 2]) await store.change(ref.id, { rate: { perMinute: 1, burst } }, start)
    expect(await touch(store, ref)).to.include({ refreshCount: 1 })
    expect(await touch(store, ref)).to.include({ refreshCount: 2 })
    await until(isBehindNot)
    await failOver()
    await until(async () => (await rejection(store.look([ref], start, null))) === 'resolved')
    expect(await touch(store, ref)).to.include({ limited: true })
  })

  it('have no more uses than before, although the change of their number is repeated', async () => {
    const [used, lowered] = [await inserted(store, { usesLeft: 1 }), await inserted(store, { usesLeft: 9 })]
    await store.change(used.ref.id, { usesLeft: 3, paused: true }, start)
    await store.change(used.ref.id, { paused: false }, start)
    for (let i = 0; i < 2; i++) expect(await touch(store, used.ref)).to.include({ usesLeft: 2 - i })
    await until(isBehindNot)
    replication.state = 'silent'
    await store.change(lowered.ref.id, { usesLeft: 2 }, start)
    await failOver()
    await until(async () => (await rejection(store.look([used.ref], start, null))) === 'resolved')
    expect(await look(store, used.ref)).to.include({ usesLeft: 1, paused: false })
    expect(await look(store, lowered.ref)).to.include({ usesLeft: 2 })
  })

  it('are never admitted in between, however many requests there are', async () => {
    const made = await insertedMany(store, 200)
    await until(isBehindNot)
    replication.state = 'silent'
    for (const { ref } of made) await store.delete(ref, start)
    let admitted = 0
    let answers = 0
    let isOver = false
    async function keepAsking(): Promise<void> {
      while (!isOver) {
        const found = await store
          .look(
            made.map(({ ref }) => ref),
            start,
            null,
          )
          .catch(() => null)
        await turn()
        if (found === null) continue
        answers++
        admitted += found.filter(token => token !== null).length
      }
    }
    const asking = [keepAsking(), keepAsking(), keepAsking()]
    await failOver()
    const before = answers
    await until(async () => answers > before + 10)
    isOver = true
    await Promise.all(asking)
    expect(admitted).to.equal(0)
  })

  it('are repeated once, and not because the connection was lost', async () => {
    const { ref } = await inserted(store)
    await store.delete(ref, start)
    address.cut()
    await until(async () => (await rejection(store.look([ref], start, null))) === 'resolved')
    expect(warnings.filter(warning => /replaced/.test(warning))).to.deep.equal([])
    await until(isBehindNot)
    await failOver()
    await until(async () => (await rejection(store.look([ref], start, null))) === 'resolved')
    await look(store, ref)
    expect(warnings.filter(warning => /replaced/.test(warning))).to.have.length(1)
  })
})

describe('tokens in a Redis cluster with REDIS_WAIT_REPLICAS', () => {
  let cluster: RedisCluster
  let replicas: ClusterNode[]
  let store: TokenStore

  before(async function () {
    if (!hasRedis) {
      reportMissingRedis('REDIS_WAIT_REPLICAS on a cluster')
      return this.skip()
    }
    cluster = await startCluster()
    replicas = []
    for (const master of cluster.nodes.slice(0, 3)) {
      const replica = await cluster.addNode()
      await replica.command('cluster', 'replicate', await master.id())
      await until(async () => (await master.tell('info', 'replication')).includes('state=online'))
      replicas.push(replica)
    }
    store = await openTokenStore(`${cluster.url}?wait-replicas=1&wait-timeout-ms=200`)
  })

  after(async () => {
    for (const replica of replicas ?? []) replica.resume()
    await store?.close()
    for (const node of cluster?.nodes ?? []) {
      await node.remove()
      await node.line.close()
    }
  })

  it('waits for the replicas of the shard, and for no other', async () => {
    const owners = Array.from({ length: 60 }, (_, i) => `user-${i}`)
    const made = await Promise.all(owners.map(userId => inserted(store, { userId, id: newToken({ userId }).token.id })))
    expect(new Set(owners.map(tagOf)).size).to.be.above(50)
    replicas[0]?.hang()
    const outcomes = await Promise.allSettled(made.map(({ ref }) => store.delete(ref, start)))
    const refused = outcomes.filter(({ status }) => status === 'rejected')
    expect(refused.length).to.be.within(5, 40)
    for (const { reason } of refused as PromiseRejectedResult[]) {
      expect(reason.message).to.equal('only 0 of 1 replicas had the change within 200 ms')
    }
    replicas[0]?.resume()
    await until(async () => {
      const again = await Promise.allSettled(owners.map(userId => raiseFloor(store, userId, 2)))
      return again.every(({ status }) => status === 'fulfilled')
    })
  })
})
