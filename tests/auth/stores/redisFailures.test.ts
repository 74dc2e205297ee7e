// Tokens in Redis while the server is down, hangs, is full, loads its data, is a replica or is not Redis at all.

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import type { TokenRef, TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { ask } from '../../support/client.ts'
import { logIn } from '../../support/factories.ts'
import { type Line, startLine } from '../../support/line.ts'
import { hasRedis, type RedisServer, reportMissingRedis, startRedis } from '../../support/redis.ts'
import {
  careful,
  crowdOf,
  everyCall,
  garbage,
  inserted,
  insertedMany,
  isAnswered,
  keysOf,
  look,
  newToken,
  raiseFloor,
  start,
  startWork,
  sweepRound,
  touch,
} from '../../support/redisTokens.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'
import { slackMs } from '../../support/slack.ts'
import { expectAllToReject, expectRecovery, outcomesOf, untilAllSucceed } from '../../support/storeFaults.ts'
import { lineage, type MadeToken, newHash, toMessage, unlimited } from '../../support/storeFixtures.ts'
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
    await Promise.all(opened.splice(0).map(store => store.close()))
  })

  async function open(url = server.url, warn?: (warning: string) => void): Promise<TokenStore> {
    const store = await openTokenStore(url, warn)
    opened.push(store)
    return store
  }
  describe('a Redis that fails:', () => {
    let line: Line
    let store: TokenStore
    beforeEach(async () => {
      line = await startLine(server.port)
      store = await open(`redis://127.0.0.1:${line.port}`)
      await untilAllSucceed(crowdOf(everyCall(store))) // all scripts are loaded
    })
    afterEach(async () => {
      await server.kill()
      await server.start({ appendonly: 'yes', 'key-load-delay': '0' })
      await server.command('flushall')
      await line.close()
    })

    const answers = async (): Promise<boolean> => {
      const pong = server.command('ping').then(() => true)
      return Promise.race([pong, sleep(100, false)])
    }

    interface Fault {
      fail: () => unknown
      mend: () => unknown
      /** The calls to check; by default all. */
      calls?: typeof careful
    }

    const faults: Record<string, Fault> = {
      'was killed': { fail: () => server.kill(), mend: () => server.start() },
      'is hung': { fail: () => server.hang(), mend: () => server.resume() },
      sleeps: {
        async fail() {
          void server.command('debug', 'sleep', 2.2)
          await until(async () => !(await answers()))
        },
        mend: () => server.command('ping'),
      },
      'has paused its clients': {
        fail: () => server.command('client', 'pause', 2200, 'all'),
        mend: () => server.command('ping'),
      },
      'has become a replica': {
        fail: () => server.command('replicaof', '127.0.0.1', 1),
        mend: () => server.command('replicaof', 'no', 'one'),
        calls: careful,
      },
      'has a new password': {
        async fail() {
          await server.command('config', 'set', 'requirepass', 'other')
          await server.command('client', 'kill', 'type', 'normal', 'skipme', 'yes')
        },
        mend: () => server.command('config', 'set', 'requirepass', ''),
      },
      'is behind a line that is cut': {
        fail() {
          line.target = 1
          line.cut()
        },
        mend() {
          line.target = server.port
        },
      },
      'is behind a line that loses everything': {
        fail() {
          line.state = 'silent'
        },
        mend() {
          line.state = 'open'
        },
      },
      'is behind a line that is too slow': {
        fail() {
          line.state = 'slow'
        },
        mend() {
          line.state = 'open'
        },
      },
      'is behind a line that sends garbage': {
        fail() {
          line.alter = () => garbage
        },
        mend() {
          line.alter = answer => answer
        },
      },
    }
    for (const [name, { fail, mend, calls = everyCall }] of Object.entries(faults)) {
      it(`${name}: every call rejects within a second and succeeds within two seconds of its return; acknowledged changes hold`, async () => {
        const { ref, token } = await inserted(store)
        const work = startWork(store)
        await work.more(100)
        const begun = outcomesOf(crowdOf(everyCall(store)), 'any')
        await fail()
        await expectAllToReject(crowdOf(calls(store)))
        await expectAllToReject(crowdOf(calls(store)))
        await until(() => work.rejected() > 20)
        expect((await begun).filter(problem => problem !== null)).to.deep.equal([])
        await mend()
        await expectRecovery(everyCall(store), 2000 + slackMs)
        await work.more(100)
        await work.stop()
        expect(await look(store, ref)).to.deep.equal(token)
      })
    }

    it('does not get the rejected calls when it returns', async () => {
      await server.kill()
      const made = Array.from({ length: 50 }, () => newToken())
      for (const { ref, token } of made) {
        const error = await store.insert(ref, token, unlimited, start).catch((error: unknown) => error)
        expect(error).to.be.an('error')
      }
      await server.start()
      await expectRecovery(everyCall(store), 2000 + slackMs)
      const refs = made.map(({ ref }) => ref)
      expect(await store.look(refs, start, null)).to.deep.equal(refs.map(() => null))
    })

    it('comes back empty: earlier tokens are refused', async () => {
      const { ref } = await inserted(store)
      await server.kill()
      await server.start({ appendonly: 'no' })
      await expectRecovery(everyCall(store), 2000 + slackMs)
      expect(await touch(store, ref)).to.equal(null)
      await inserted(store)
    })

    it('loads its data: every call rejects, and succeeds within two seconds of the end', async () => {
      const made = await insertedMany(store, 600)
      await server.command('save')
      await server.kill()
      const slow = { 'key-load-delay': '5000', 'loading-process-events-interval-bytes': '1024' }
      const started = server.start({ ...slow, appendonly: 'no' })
      await until(() =>
        server.tell('info', 'persistence').then(
          info => info.includes('loading:1'),
          () => false,
        ),
      )
      const other = await open()
      await until(() =>
        touch(store, newToken().ref).then(
          () => true,
          error => /LOADING/.test(toMessage(error)),
        ),
      )
      await expectAllToReject(careful(store))
      await expectAllToReject(careful(other))
      await server.command('config', 'set', 'key-load-delay', 0)
      await started
      await expectRecovery(everyCall(store), 2000 + slackMs)
      for (const { ref } of made) expect(await touch(store, ref)).to.not.equal(null)
    })

    it('may be replaced by another server at the same address', async () => {
      const other = await startRedis()
      try {
        await insertedMany(store, 1500)
        await sweepRound(store, start)
        expect((await store.deleteExpired(start, 10)).done).to.equal(false)
        await server.command('replicaof', '127.0.0.1', other.port)
        line.target = other.port
        await expectAllToReject({ touch: () => touch(store, newToken().ref) })
        await expectRecovery(everyCall(store), 2000 + slackMs)
        await sweepRound(store, start)
        const { ref } = await inserted(store)
        expect(await touch(await open(other.url), ref)).to.not.equal(null)
      } finally {
        await other.remove()
      }
    })

    it('answers garbage once: the next answer is not taken for the missing one', async () => {
      const { ref, token } = await inserted(store)
      let garbled = 0
      line.alter = answer => (garbled++ === 0 ? garbage : answer)
      const answer = touch(store, ref).catch(toMessage)
      await until(() => garbled > 0)
      await until(() => isAnswered(store)) // the next answer is null
      expect(await answer).to.be.a('string')
      expect(await look(store, ref)).to.include({ id: token.id })
    })

    it('answers with another token than requested: the call rejects', async () => {
      const [own, other] = (await insertedMany(store, 2)) as [MadeToken, MadeToken]
      const restOf = ({ token }: MadeToken) => token.id.slice(4)
      line.alter = answer => Buffer.from(answer.toString('latin1').replaceAll(restOf(own), restOf(other)), 'latin1')
      await expectAllToReject({ touch: () => touch(store, own.ref), look: () => look(store, own.ref) })
    })

    it('may end connections under load, again and again', async () => {
      const work = startWork(store)
      for (let i = 0; i < 10; i++) {
        await work.more(30)
        if (i % 2) line.cut()
        else await server.command('client', 'kill', 'type', 'normal', 'skipme', 'yes')
      }
      expect(work.rejected()).to.be.above(0)
      await expectRecovery(everyCall(store), 2000 + slackMs)
      await work.stop()
    })

    it('has at most 10 000 pending commands: one more is rejected at once', async () => {
      const refs = Array.from({ length: 12_000 }, () => newToken().ref)
      server.hang()
      const messages = await Promise.all(refs.map(ref => touch(store, ref).catch(toMessage)))
      const full = messages.filter(message => message === 'The queue is full')
      expect(full.length).to.be.within(2000, 2001) // 2001 if a ping took a place in the queue
      expect(messages.filter(message => typeof message !== 'string')).to.deep.equal([])
    })

    it('loses a connection during a sweep: the next slices remove all dead tokens', async () => {
      await server.command('flushall')
      await sweepRound(store, start)
      await insertedMany(store, 2500, { expiresAt: start + 1 })
      const { removed, done } = await store.deleteExpired(start + 1, 100)
      expect(done).to.equal(false)
      line.cut()
      await until(() => isAnswered(store))
      expect(removed + (await sweepRound(store, start + 1))).to.equal(2500)
      expect(await server.command('keys', 'latchkey:{????}')).to.deep.equal([])
    })

    it('fails in the middle of a slice: the next round leaves no dead token', async () => {
      await server.command('flushall')
      await insertedMany(store, 2500, { expiresAt: start + 1 })
      let removed = 0
      for (let rejected = 0; rejected < 5; ) {
        const slice = store.deleteExpired(start + 1, 50)
        if (removed > rejected * 200) line.cut()
        await slice.then(
          slice => {
            removed += slice.removed
          },
          () => rejected++,
        )
      }
      await until(() => isAnswered(store))
      await sweepRound(store, start + 1)
      expect(await server.command('keys', 'latchkey:{????}')).to.deep.equal([])
    })

    it('is full: everything but inserts works, and an insert leaves nothing half done', async () => {
      const userId = randomUUID()
      const { ref } = await inserted(store, { userId })
      const [renewed, deleted, byId, single, ended] = await insertedMany(store, 5)
      const consumed = await inserted(store, { kind: 'single-use' })
      await sweepRound(store, start)
      const expired = await insertedMany(store, 3, { expiresAt: start + 1 })
      await server.command('config', 'set', 'maxmemory', '100kb')
      const keys = await keysOf(server)
      const refused = newToken()
      const limits = { perUser: 1, total: Infinity }
      for (const members of [{}, { userId }, { userId: null }]) {
        const { ref: other, token } = newToken(members)
        const error = await store.insert(other, token, limits, start).then(() => null, toMessage)
        expect(error).to.match(/^OOM/)
        expect(await look(store, other)).to.equal(null)
      }
      expect(await keysOf(server)).to.deep.equal(keys)
      expect(await touch(store, ref)).to.include({ refreshCount: 1 })
      expect(await store.renew(renewed?.ref as TokenRef, newHash(), lineage, start)).to.include({ refreshCount: 1 })
      expect(await store.delete(deleted?.ref as TokenRef, start)).to.include({ id: deleted?.ref.id })
      expect(await store.deleteById(byId?.ref.id as string, start, null)).to.include({ id: byId?.ref.id })
      expect(await touch(store, consumed.ref)).to.not.equal(null)
      expect(await touch(store, consumed.ref)).to.equal(null)
      await raiseFloor(store, ended?.token.userId as string, 2)
      expect(await look(store, ended?.ref as TokenRef)).to.equal(null)
      await raiseFloor(store, refused.token.userId as string, 2) // this user has no keys yet
      expect(await store.findByUser(userId, start)).to.have.lengthOf(1)
      expect((await store.explain(ref, start, 'other')).reason).to.equal('other_purpose')
      expect(await sweepRound(store, start + 1)).to.equal(expired.length + 1)
      expect(await touch(store, single?.ref as TokenRef)).to.not.equal(null)
      await server.command('config', 'set', 'maxmemory', '100mb')
      await inserted(store)
      expect(await store.insert(refused.ref, refused.token, unlimited, start)).to.equal('ended')
    })
  })

  describe('a revocation that Redis did not accept', () => {
    after(closeServers)

    it('is 503 with Retry-After on every route, and the token is valid when Redis is back (RFC 7009 2.2.1)', async () => {
      // The token lives for an hour, so it does not expire during the outage.
      const { url, internalUrl } = await startAuth({ env: { TOKEN_STORE_URL: server.url, TOKEN_TTL_SECONDS: '3600' } })
      const { url: business } = await startBusiness(internalUrl)
      const token = await logIn(url)
      const statusOfData = async () => (await ask('GET', `${business}/data`, token)).status
      expect(await statusOfData()).to.equal(200)
      await server.command('replicaof', '127.0.0.1', 1)
      try {
        const [session] = await Promise.all([
          ask('POST', `${url}/logout`, token),
          ...[
            ['POST', '/revoke', { token }],
            ['POST', '/renew', undefined],
            ['DELETE', '/sessions', undefined],
          ].map(async ([method, path, body]) => {
            const answer = await ask(method as string, `${url}${path}`, token, body)
            expect(answer.status, `${method} ${path}`).to.equal(503)
            expect(answer.headers.get('retry-after'), `${method} ${path}`).to.match(/^\d+$/)
          }),
        ])
        expect(session.status).to.equal(503)
        expect(await statusOfData()).to.equal(503)
      } finally {
        await server.command('replicaof', 'no', 'one')
      }
      await until(async () => (await statusOfData()) === 200)
    })
  })
})
