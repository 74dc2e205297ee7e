// Tokens in a Redis whose master Sentinels choose: failovers, Sentinels that fail, and what is said to the operator.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { openSharedCounters, openTokenStore } from '../../../services/auth/stores/index.ts'
import type { TokenRef, TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { ask } from '../../support/client.ts'
import { isLive, logIn, validate } from '../../support/factories.ts'
import { freePort } from '../../support/freePort.ts'
import { hasRedis, type RedisServer, reportMissingRedis, startRedis } from '../../support/redis.ts'
import {
  commandsOf,
  inserted,
  insertedMany,
  isAnswered,
  look,
  raiseFloor,
  start,
  touch,
} from '../../support/redisTokens.ts'
import {
  masterName,
  sharedSentinel,
  startSentinels,
  startWatchedRedis,
  urlOf,
  type WatchedRedis,
} from '../../support/sentinels.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { toMessage } from '../../support/storeFixtures.ts'
import { startStoreProcess } from '../../support/storeProcess.ts'
import { until } from '../../support/until.ts'

describe('tokens in Redis with Sentinels,', function () {
  this.timeout(120_000) // a vote of the Sentinels can take half a minute

  before(function () {
    if (hasRedis) return
    reportMissingRedis('Redis with Sentinels')
    this.skip()
  })

  describe('after a failover', () => {
    let redis: WatchedRedis
    const opened: TokenStore[] = []
    const warnings: string[] = []

    beforeEach(async () => {
      redis = await startWatchedRedis()
      warnings.length = 0
    })

    afterEach(async () => {
      await closeServers()
      await Promise.all(opened.splice(0).map(store => store.close()))
      await redis.remove()
    })

    async function open(url = redis.url): Promise<TokenStore> {
      const store = await openTokenStore(url, warning => warnings.push(warning))
      opened.push(store)
      return store
    }

    const failovers: Record<string, () => Promise<unknown>> = {
      'because the master was killed': () => redis.master.kill(),
      'because the master hangs': async () => redis.master.hang(),
      async 'by hand'() {
        // On a busy machine the Sentinels could take the new master for down, and return to the former one.
        for (const sentinel of redis.sentinels) {
          await sentinel.command('sentinel', 'set', masterName, 'down-after-milliseconds', 60_000)
        }
        // NOGOODSLAVE until this Sentinel has heard of the replica again.
        await until(async () => {
          const failover = redis.sentinels[0]?.command('sentinel', 'failover', masterName)
          return failover?.then(
            () => true,
            () => false,
          )
        })
      },
    }

    for (const [why, failOver] of Object.entries(failovers)) {
      it(`${why}, uses the new master by itself, and what it lacks is repeated before the first answer`, async () => {
        const store = await open()
        const [live, deleted, byFloor] = await insertedMany(store, 3)
        if (!live || !deleted || !byFloor) throw new Error('three tokens were inserted')
        await redis.settle()
        redis.replication.state = 'silent'
        await store.delete(deleted.ref, start)
        await raiseFloor(store, byFloor.token.userId as string, 2)
        const ended = [deleted.ref, byFloor.ref]

        let admitted = 0
        let isOver = false
        async function keepAsking(): Promise<void> {
          while (!isOver && opened.length > 0) {
            const found = await store.look(ended, start, null).catch(() => [])
            admitted += found.filter(token => token !== null).length
            await sleep(1)
          }
        }
        const asking = [keepAsking(), keepAsking()]
        await failOver()
        await redis.promoted()
        const promotedAt = performance.now()
        await until(async () => warnings.some(warning => /2 revocations, .* were repeated/.test(warning)))
        await until(() => isAnswered(store))
        expect(performance.now() - promotedAt).to.be.below(20_000)
        isOver = true
        await Promise.all(asking)
        expect(admitted).to.equal(0)
        // Sentinels may close connections once more, when they configure the servers.
        const found = await until(() => look(store, live.ref).catch(() => null))
        expect(found).to.include({ id: live.token.id })

        const made = await until(() => inserted(store).catch(() => null))
        const after = await openTokenStore(redis.replica.url)
        opened.push(after)
        const lookAt = (ref: TokenRef) =>
          until(() =>
            look(after, ref).then(
              found => ({ found }),
              () => null,
            ),
          )
        expect((await lookAt(made.ref)).found).to.include({ id: made.token.id })
        for (const ref of ended) expect((await lookAt(ref)).found).to.equal(null)
      })
    }

    it('does not return to a former master that hung and wakes up', async () => {
      const store = await open()
      redis.master.hang()
      await redis.promoted()
      await until(() => isAnswered(store))
      const { ref } = await inserted(store)
      redis.master.resume()
      // The Sentinels close its connections when they make it a replica.
      const tellRole = () => redis.master.tell('info', 'replication').catch(() => '')
      await until(async () => (await tellRole()).includes('role:slave'))
      expect(await touch(store, ref)).to.not.equal(null)
    })

    it('believes the Sentinels that saw it, and not one that did not', async () => {
      const behind = redis.sentinels[0] as RedisServer
      const store = await open()
      behind.hang()
      await redis.master.kill()
      await redis.promoted()
      await until(() => isAnswered(store))
      behind.resume() // it names the former master until the others have told it
      const { ref } = await inserted(store)
      await redis.master.start()
      for (let i = 0; i < 30; i++) {
        expect(await touch(store, ref)).to.not.equal(null)
        await sleep(100)
      }
    })

    it('waits for the replicas of the new master with REDIS_WAIT_REPLICAS', async () => {
      const store = await open(`${redis.url}?wait-replicas=1&wait-timeout-ms=300`)
      const [first, second] = await insertedMany(store, 2)
      if (!first || !second) throw new Error('two tokens were inserted')
      await store.delete(first.ref, start)
      await redis.settle()
      await redis.master.kill()
      await redis.promoted()
      await until(() => isAnswered(store))
      expect(await look(store, first.ref)).to.equal(null)
      expect(await store.delete(second.ref, start).catch(toMessage)).to.match(/only 0 of 1 replicas had the change/)
      await redis.master.start() // the Sentinels make it a replica
      await until(() =>
        store.deleteById('none', start, null).then(
          () => true,
          () => false,
        ),
      )
    })

    it('is 503 meanwhile and recovers, and limits are counted at the new master', async () => {
      const { url, internalUrl } = await startAuth({ env: { TOKEN_STORE_URL: redis.url } })
      const token = await logIn(url)
      const ended = await logIn(url)
      await redis.settle()
      await redis.master.kill()
      expect((await validate(internalUrl, { token })).status).to.equal(503)
      expect((await ask('POST', `${url}/logout`, token)).status).to.equal(503)
      await redis.promoted()
      await until(async () => (await validate(internalUrl, { token })).status === 200)
      expect((await ask('POST', `${url}/logout`, ended)).status).to.equal(204)
      expect(await isLive(internalUrl, ended)).to.equal(false)

      const counters = await openSharedCounters(redis.url)
      try {
        expect(await counters?.open('test', 1000).add('key')).to.include({ count: 1 })
      } finally {
        await counters?.close()
      }
    })

    it('keeps no process alive that is closed before it is over', async () => {
      const one = startStoreProcess(redis.url)
      const other = startStoreProcess(`${redis.url}?wait-replicas=1`)
      await Promise.all([one.ready, other.ready])
      redis.master.hang()
      expect(await one.close()).to.equal('0')
      await redis.promoted()
      expect(await other.close()).to.equal('0')
    })
  })

  it('are ended at the former master too, if Sentinels return to it', async () => {
    const [former, other] = [await startRedis(), await startRedis()]
    // On a busy machine the Sentinel would take a server for down by itself.
    const lines = [`sentinel down-after-milliseconds ${masterName} 60000`]
    const [sentinel] = (await startSentinels(former, 1, lines)) as [RedisServer]
    const warnings: string[] = []
    const store = await openTokenStore(urlOf([sentinel]), warning => warnings.push(warning))
    const callsOf = async (server: RedisServer) => (await commandsOf(server))['evalsha'] ?? 0
    async function moveTo(server: RedisServer): Promise<void> {
      const calls = await callsOf(server)
      await sentinel.command('sentinel', 'remove', masterName)
      await sentinel.command('sentinel', 'monitor', masterName, '127.0.0.1', server.port, 1)
      await until(async () => (await isAnswered(store)) && (await callsOf(server)) > calls)
    }
    try {
      await other.command('replicaof', '127.0.0.1', former.port)
      const { ref } = await inserted(store)
      // The mark of the format may arrive long before the token.
      await until(async () => (await other.command('dbsize')) === (await former.command('dbsize')))
      await other.command('replicaof', 'no', 'one')
      await moveTo(other)
      expect(await store.delete(ref, start)).to.include({ id: ref.id })
      await moveTo(former)
      expect(await look(store, ref)).to.equal(null)
      expect(warnings.at(-1)).to.match(/1 revocations, .* were repeated/)
    } finally {
      await store.close()
      await Promise.all([former, other, sentinel].map(server => server.remove()))
    }
  })

  describe('is opened', () => {
    const refusal = (url: string) => openTokenStore(url).then(() => 'opened', toMessage)

    async function expectToOpen(url: string): Promise<void> {
      const store = await openTokenStore(url)
      await inserted(store)
      await store.close()
    }

    it('not with a name that the Sentinels do not know', async () => {
      const { url } = await sharedSentinel()
      const address = /127[\d.:]+/.exec(url)?.[0]
      expect(await refusal(url.replace(masterName, 'other'))).to.equal(
        `TOKEN_STORE_URL: the Redis Sentinels at ${address} know no master other: expected the name in a line "sentinel monitor" of theirs`,
      )
    })

    it('not if no Sentinel can be reached; one is enough', async () => {
      const { url } = await sharedSentinel()
      const sentinel = Number(/:(\d+)\//.exec(url)?.[1])
      const dead = await freePort()
      expect(await refusal(urlOf([{ port: dead }]))).to.equal(
        `TOKEN_STORE_URL: the Redis Sentinels at 127.0.0.1:${dead} cannot be reached (ECONNREFUSED)`,
      )
      await expectToOpen(urlOf([{ port: dead }, { port: sentinel }]))
    })

    it('not if the master that they name cannot be reached', async () => {
      const master = await startRedis()
      const [sentinel] = (await startSentinels(master, 1)) as [RedisServer]
      try {
        await master.kill()
        expect(await refusal(urlOf([sentinel]))).to.equal(
          `TOKEN_STORE_URL: the Redis master ${masterName} at 127.0.0.1:${master.port} cannot be reached (ECONNREFUSED)`,
        )
      } finally {
        await Promise.all([sentinel.remove(), master.remove()])
      }
    })

    it('only with the scheme for what answers', async () => {
      const { url, master } = await sharedSentinel()
      const sentinel = /127[\d.:]+/.exec(url)?.[0]
      expect(await refusal(`redis://${sentinel}`)).to.equal(
        `TOKEN_STORE_URL: the Redis server at ${sentinel} is a Sentinel: begin the URL with redis-sentinel://, and end it with /name of the master`,
      )
      expect(await refusal(urlOf([master]))).to.equal(
        `TOKEN_STORE_URL: the Redis Sentinels at 127.0.0.1:${master.port} are no Sentinels: begin the URL with redis://, rediss:// or redis-cluster://`,
      )
    })

    it('with passwords of their own for the Sentinels and the master', async () => {
      const master = await startRedis({ requirepass: 'of-master' })
      const lines = [
        `sentinel auth-pass ${masterName} of-master`,
        'user asker on >of-sentinel +sentinel|get-master-addr-by-name +sentinel|master',
        'user default off',
      ]
      const [sentinel] = (await startSentinels(master, 1, lines)) as [RedisServer]
      const url = urlOf([sentinel]).replace('//', '//:of-master@')
      try {
        await expectToOpen(`${url}?sentinel-user=asker&sentinel-password=of-sentinel&database=2`)
        expect(await master.tell('info', 'keyspace')).to.match(/db2:keys=/)
        for (const query of ['', '?sentinel-user=asker&sentinel-password=hunter2']) {
          expect(await refusal(`${url}${query}`)).to.equal(
            `TOKEN_STORE_URL: the Redis Sentinels at 127.0.0.1:${sentinel.port} refuse the user or password of sentinel-user and sentinel-password in the query of the URL`,
          )
        }
        const wrong = urlOf([sentinel]).replace('//', '//:hunter2@')
        expect(await refusal(`${wrong}?sentinel-user=asker&sentinel-password=of-sentinel`)).to.equal(
          `TOKEN_STORE_URL: the Redis master ${masterName} at 127.0.0.1:${master.port} refuses this user or its password`,
        )
      } finally {
        await Promise.all([sentinel.remove(), master.remove()])
      }
    })
  })
})
