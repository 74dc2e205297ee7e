// A PostgreSQL that is down, hangs, shuts down, has too many connections, or is too new.

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { openTokenStore, openUserStore } from '../../../services/auth/stores/index.ts'
import type { TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { binaries, type Cluster, startCluster } from '../../support/postgres.ts'
import { slackMs } from '../../support/slack.ts'
import {
  everyCall,
  insertedToken,
  insertedUser,
  newToken,
  openStores,
  repeated,
  start,
  startWork,
  withCrowd,
  writes,
} from '../../support/sqlStores.ts'
import { expectAllToReject, expectRecovery, untilAllSucceed } from '../../support/storeFaults.ts'
import { answered, lineage, newHash, toMessage, unlimited } from '../../support/storeFixtures.ts'
import { startPeer } from '../../support/storePeer.ts'
import { insideTransaction, query } from '../../support/stores.ts'
import { until } from '../../support/until.ts'

describe('PostgreSQL on a server of its own:', () => {
  let cluster: Cluster
  before(async function () {
    if (binaries === null) {
      console.log('  not tested: the stores when PostgreSQL fails, because initdb and pg_ctl are not installed')
      return this.skip()
    }
    cluster = await startCluster()
  })
  after(() => cluster?.remove())

  describe('a PostgreSQL that is down', () => {
    let stores: Awaited<ReturnType<typeof openStores>>
    beforeEach(async () => {
      stores = await openStores(cluster.url)
    })
    afterEach(async () => {
      cluster.resume()
      await cluster.start().catch(() => {}) // rejects if the server is already running
      await stores.close()
    })

    const failures = {
      'was stopped': { fail: () => cluster.stop('fast'), mend: () => cluster.start() },
      'has crashed': { fail: () => cluster.stop('immediate'), mend: () => cluster.start() },
      'is hung': { fail: () => cluster.hang(), mend: () => cluster.resume() },
    }
    for (const [name, { fail, mend }] of Object.entries(failures)) {
      it(`${name}: every call rejects within a second, and succeeds again within two seconds of its return`, async () => {
        const { ref, token } = await insertedToken(stores)
        const user = await insertedUser(stores)
        await untilAllSucceed(withCrowd(stores)) // all connections are open
        await fail()
        await expectAllToReject(withCrowd(stores))
        await expectAllToReject(withCrowd(stores))
        await mend()
        await expectRecovery(everyCall(stores), 2000)
        expect(await stores.tokens.look([ref], start, null)).to.deep.equal([token])
        expect(await stores.users.findById(user.id)).to.deep.equal(user)
      })

      it(`${name} under load: acknowledged changes survive, and nothing is half done`, async () => {
        const work = startWork(stores)
        await sleep(200) // the workers make some calls
        await fail()
        await until(() => work.rejected() >= 16) // every worker has had a rejection
        await mend()
        await expectRecovery(everyCall(stores), 2000)
        await work.stop()
      })
    }

    const backends = `select pid from pg_stat_activity where application_name = 'latchkey'`
    const tableLock = 'lock table latchkey_tokens, latchkey_users'
    const terminate = () => cluster.query(`select pg_terminate_backend(pid) from (${backends}) as them`)

    it('may end idle connections: the next calls open new ones', async () => {
      await untilAllSucceed(withCrowd(stores))
      await until(async () => (await cluster.query(backends)).length === 10)
      await terminate()
      await until(async () => (await cluster.query(backends)).length === 0)
      await expectRecovery(everyCall(stores), 2000)
    })

    it('may end connections that are in use, again and again', async () => {
      const work = startWork(stores)
      for (let i = 0; i < 10; i++) {
        await sleep(30) // the workers make some calls
        await terminate()
      }
      expect(work.rejected()).to.be.above(0)
      await expectRecovery(everyCall(stores), 2000)
      await work.stop()
    })

    it('names why it ended a connection, and that error is reported, not the failed rollback', async () => {
      const { ref, token } = newToken()
      const lock = `select pg_advisory_xact_lock(hashtextextended('${token.userId}', 0))`
      const end = `select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and not granted`
      await insideTransaction(lock, cluster.url, async sameConnection => {
        const refused = stores.tokens.insert(ref, token, unlimited, start).then(() => 'inserted', toMessage)
        await until(async () => (await sameConnection(end)).length > 0)
        expect(await refused).to.equal('terminating connection due to administrator command')
      })
    })

    it('may lose one of its processes and restart', async () => {
      const work = startWork(stores)
      await sleep(100) // the workers make some calls
      const [backend] = await cluster.query(backends)
      process.kill(Number(backend?.['pid']), 'SIGKILL')
      await until(() => work.rejected() > 0)
      await until(() =>
        cluster.query('select 1').then(
          () => true,
          () => false,
        ),
      )
      await expectRecovery(everyCall(stores), 2000)
      await work.stop()
    })

    it('waits at most three seconds for a process that hangs in the middle of a transaction', async () => {
      const peer = await startPeer()
      try {
        await peer.open(cluster.url)
        const userId = randomUUID()
        const isInside = `select 1 from pg_stat_activity join pg_locks using (pid)
          where state = 'idle in transaction' and locktype = 'advisory'`
        await until(async () => {
          const calls = Array.from({ length: 20 }, () => insertedToken(peer, { userId }))
          for (const call of calls) call.catch(() => {})
          await sleep(Math.random() * 20)
          peer.signal('SIGSTOP')
          if ((await cluster.query(isInside)).length > 0) return true
          peer.signal('SIGCONT')
          await Promise.allSettled(calls)
          return false
        })
        const stoppedAt = performance.now()
        await until(() =>
          insertedToken(stores, { userId }).then(
            () => true,
            () => false,
          ),
        )
        // Another waiting call may get the lock first.
        expect(performance.now() - stoppedAt).to.be.below(3000)
      } finally {
        await peer.end()
      }
    })

    it('is used again on new connections if the open ones no longer answer', async () => {
      await untilAllSucceed(withCrowd(stores))
      await until(async () => (await cluster.query(backends)).length === 10)
      const pids = (await cluster.query(backends)).map(({ pid }) => Number(pid))
      for (const pid of pids) process.kill(pid, 'SIGSTOP')
      try {
        const startedAt = performance.now()
        const { insert, findById } = everyCall(stores)
        await expectAllToReject(repeated(5, { insert, findById })) // one call per connection
        await expectRecovery(everyCall(stores), 2000)
        expect(performance.now() - startedAt).to.be.below(1700 + slackMs) // the rollbacks do not wait for a second timeout
      } finally {
        for (const pid of pids) process.kill(pid, 'SIGCONT')
      }
    })

    it('can be closed while it hangs', async () => {
      const crowd = withCrowd(stores)
      await untilAllSucceed(crowd)
      cluster.hang()
      const calls = Promise.allSettled(Object.values(crowd).map(call => call()))
      const startedAt = performance.now()
      await stores.close()
      expect(performance.now() - startedAt).to.be.below(2500 + slackMs)
      await calls
    })

    it('whose connections are all stuck: calls are refused within half a second, and then at once', async () => {
      const { ref } = await insertedToken(stores)
      const look = () => stores.tokens.look([ref], start, null).then(() => 'answered', toMessage)
      const refused = 'all 5 connections to the database are in use'
      const refusedAfter: number[] = []
      let laterMs: number | null = null
      await insideTransaction(tableLock, cluster.url, async () => {
        const startedAt = performance.now()
        const calls = Array.from({ length: 15 }, async () => {
          if ((await look()) !== refused) return
          refusedAfter.push(performance.now() - startedAt)
          if (laterMs !== null) return
          laterMs = 0
          const laterAt = performance.now()
          expect(await look()).to.equal(refused)
          laterMs = performance.now() - laterAt
        })
        await Promise.all(calls)
      })
      expect(laterMs).to.be.below(400)
      expect(refusedAfter).to.have.lengthOf(10)
      expect(Math.max(...refusedAfter)).to.be.below(500 + slackMs)
      await expectRecovery(everyCall(stores), 2000)
    })

    it('gets at most ten connections from repeated calls while a table is locked', async () => {
      await insideTransaction(tableLock, cluster.url, async () => {
        for (let i = 0; i < 2; i++) await expectAllToReject(writes(stores))
        expect(await cluster.query(backends)).to.have.lengthOf.at.most(10)
      })
      await expectRecovery(everyCall(stores), 2000)
    })
  })

  describe('a PostgreSQL that cannot be used', () => {
    const password = 'CANARY&Kn0ck'
    const encoded = encodeURIComponent(password)
    const withUser = (user: string, database = 'postgres', options = '') =>
      `postgres://${user}@127.0.0.1:${cluster.port}/${database}${options}`
    before(async () => {
      await cluster.query(`create role guarded login password '${password}'`)
      await cluster.query('create role reader login')
      await cluster.query('create role crowd login connection limit 0')
      await cluster.query('create database bare')
      const { close } = await openStores(cluster.url)
      await close()
    })

    /** The message for the operator: the same from both stores, and never with the password. */
    async function refusal(url: string): Promise<string> {
      const messages: string[] = []
      for (const open of [openTokenStore, openUserStore]) {
        const error = await open(url).then(
          () => new Error('opened'),
          (error: Error) => error,
        )
        expect(`${error.stack} ${(error.cause as Error | undefined)?.stack}`).to.not.include(password)
        expect(`${error.stack} ${(error.cause as Error | undefined)?.stack}`).to.not.include(encoded)
        messages.push(error.message.replace(/^\w+: /, ''))
      }
      expect(new Set(messages)).to.have.lengthOf(1)
      return messages[0] as string
    }

    const at = () => `127.0.0.1:${cluster.port}`
    const cases: Record<string, [url: () => string, sentence: () => string]> = {
      'nothing listens at its port': [
        () => `postgres://guarded:${encoded}@127.0.0.1:1/postgres`,
        () => 'the database postgres at 127.0.0.1:1 cannot be reached (ECONNREFUSED)',
      ],
      'the password is wrong': [
        () => withUser(`guarded:${encoded}x`),
        () => `the database postgres at ${at()} refuses this user or its password`,
      ],
      'there is no password': [
        () => withUser('guarded'),
        () =>
          `the database postgres at ${at()} cannot be reached (SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string)`,
      ],
      'the database does not exist': [
        () => withUser(`guarded:${encoded}`, 'missing'),
        () => `the database missing at ${at()} does not exist`,
      ],
      'it offers no TLS': [
        () => withUser(`guarded:${encoded}`, 'postgres', '?sslmode=require'),
        () => `the database postgres at ${at()} cannot be reached (The server does not support SSL connections)`,
      ],
      'the user may not create tables': [
        () => withUser(`guarded:${encoded}`, 'bare'),
        () => `the database bare at ${at()} does not allow this user to create or use its tables`,
      ],
      'the user may not use the tables': [
        () => withUser('reader'),
        () => `the database postgres at ${at()} does not allow this user to create or use its tables`,
      ],
      'it is read-only and empty': [
        () => withUser('postgres', 'bare', '?options=-c%20default_transaction_read_only%3Don'),
        () => `the database bare at ${at()} is read-only`,
      ],
      'it is read-only and has our tables': [
        () => withUser('postgres', 'postgres', '?options=-c%20default_transaction_read_only%3Don'),
        () => `the database postgres at ${at()} is read-only`,
      ],
      'it has too many connections': [
        () => withUser('crowd'),
        () => `the database postgres at ${at()} accepts no more connections`,
      ],
      'its URL has a stray %': [
        () => `postgres://guarded:${encoded}@${at()}/100%`,
        () => `the database 100% at ${at()} cannot be reached (URI malformed)`,
      ],
      'its URL has an invalid port': [
        () => `postgres://guarded:${encoded}@127.0.0.1:port/postgres`,
        () => 'the database of this URL cannot be reached (ERR_INVALID_URL)',
      ],
    }
    for (const [name, [url, sentence]] of Object.entries(cases)) {
      it(`${name}: the error says so in a sentence`, async () => {
        expect(await refusal(url())).to.equal(sentence())
      })
    }

    it('it hangs: the error comes within two seconds', async () => {
      cluster.hang()
      const startedAt = performance.now()
      try {
        const message = await openUserStore(cluster.url).then(() => 'opened', toMessage)
        expect(message).to.include(`the database postgres at ${at()} cannot be reached (`)
        expect(performance.now() - startedAt).to.be.below(2000 + slackMs)
      } finally {
        cluster.resume()
      }
    })

    it('its certificate is self-signed: verify-full rejects it, no-verify accepts it', async () => {
      await cluster.offerTls()
      const withTls = (mode: string) => withUser(`guarded:${encoded}`, 'postgres', `?sslmode=${mode}`)
      await until(async () => (await refusal(withTls('verify-full'))).includes('SELF_SIGNED'))
      expect(await refusal(withTls('verify-full'))).to.equal(
        `the database postgres at ${at()} cannot be reached (DEPTH_ZERO_SELF_SIGNED_CERT)`,
      )
      await cluster.query('grant select, insert, update, delete on all tables in schema public to guarded')
      const users = await openUserStore(withTls('no-verify'))
      await insertedUser({ users })
      const [{ count } = {}] = await cluster.query('select count(*)::int from pg_stat_ssl where ssl')
      expect(count).to.be.above(0)
      await users.close()
    })
  })

  describe('a PostgreSQL under load', () => {
    /** A new database, so that the server's counts contain nothing else. */
    async function freshDatabase(): Promise<string> {
      const name = `test_${randomUUID().slice(0, 8)}`
      await cluster.query(`create database ${name}`)
      return cluster.url.replace(/postgres$/, name)
    }

    it('finds tokens by its indexes, and a touch does not write to an index', async () => {
      const url = await freshDatabase()
      const stores = await openStores(url)
      const { ref } = await insertedToken(stores)
      await stores.close()
      const copy = `json_populate_record(t, json_build_object('id', 'token' || i, 'user_id', 'user' || i))`
      await query(
        `insert into latchkey_tokens select (${copy}).* from latchkey_tokens t, generate_series(1, 5000) i`,
        url,
      )
      await query('vacuum analyze', url)

      /** What the server counts during `work`, including the opening and closing of a store. */
      async function counted(work: (store: TokenStore) => Promise<void>): Promise<Record<string, number>> {
        const columns = 'seq_scan, n_tup_upd, n_tup_hot_upd'
        const counts = async () => {
          const text = `select ${columns} from pg_stat_user_tables where relname = 'latchkey_tokens'`
          const [row = {}] = await query(text, url)
          return Object.entries(row).map(([name, count]) => [name, Number(count)] as const)
        }
        const before = new Map(await counts())
        const store = await openTokenStore(url)
        await work(store)
        await store.close()
        // A connection reports its counts when it ends.
        const open = `select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`
        await until(async () => (await query(`${open} and backend_type = 'client backend'`, url)).length === 0)
        return Object.fromEntries((await counts()).map(([name, count]) => [name, count - (before.get(name) ?? 0)]))
      }

      const { seq_scan } = await counted(async () => {})
      const counts = await counted(async store => {
        for (let i = 1; i <= 1000; i += 10) {
          const refs = Array.from({ length: 10 }, (_, j) => ({ ...ref, id: `token${i + j}` }))
          expect(await store.touch(refs, start + 1, null)).to.not.include(null)
          expect(await store.look(refs, start + 1, null)).to.not.include(null)
          expect(await store.findByUser(`user${i}`, start)).to.have.lengthOf(1)
        }
      })
      expect(counts).to.deep.equal({ seq_scan, n_tup_upd: 1000, n_tup_hot_upd: 1000 })

      const others = await counted(async tokens => {
        const { ref, token } = await insertedToken({ tokens })
        const userId = token.userId as string
        await tokens.renew(ref, newHash(), lineage, start)
        await tokens.explain(ref, start, null)
        await tokens.raiseFloor(userId, 2, ref.id)
        await tokens.deleteById(ref.id, start, null)
      })
      expect(others).to.include({ seq_scan })
    })

    it('keeps to the limit of a user, whatever the default isolation level of the database', async () => {
      const options = encodeURIComponent('-c default_transaction_isolation=repeatable\\ read')
      const url = `${await freshDatabase()}?options=${options}`
      const stores = await Promise.all([openTokenStore(url), openTokenStore(url)])
      const userId = randomUUID()
      const insert = (i: number) => {
        const { ref, token } = newToken({ userId, createdAt: start + i })
        return (stores[i % 2] as TokenStore).insert(ref, token, { perUser: 5, total: Infinity }, start)
      }
      // Five at a time, because each waits for the one before: on a busy machine forty would miss the deadline.
      for (let first = 0; first < 40; first += 5) {
        const outcomes = await Promise.all(Array.from({ length: 5 }, (_, i) => insert(first + i)))
        expect(new Set(outcomes)).to.deep.equal(new Set(['inserted']))
      }
      expect(await stores[0].findByUser(userId, start)).to.have.lengthOf(5)
      await Promise.all(stores.map(store => store.close()))
    })

    it('has enough time to count its tokens when a store opens', async () => {
      const url = await freshDatabase()
      await (await openTokenStore(url)).close()
      const isWaiting = `select 1 from pg_locks where relation = 'latchkey_tokens'::regclass and not granted`
      let opening: Promise<TokenStore> | undefined
      await insideTransaction('lock table latchkey_tokens', url, async sameConnection => {
        opening = openTokenStore(url)
        await until(async () => (await sameConnection(isWaiting)).length > 0)
        await sleep(1300) // longer than the deadline of a call
      })
      await (await opening)?.close()
    })

    it('can be opened while other clients drop schemas in the same database', async () => {
      const url = await freshDatabase()
      let isOver = false
      const others = Array.from({ length: 4 }, async (_, i) => {
        const columns = Array.from({ length: 50 }, (_, column) => `c${column} int`).join()
        const table = `create table other_${i}.busy (${columns})`
        while (!isOver) {
          await query(`create schema other_${i}; ${table}`, url)
          await query(`drop schema other_${i} cascade`, url)
        }
      })
      try {
        for (let i = 0; i < 20; i += 1) {
          await query(`create schema own_${i}`, url)
          const own = `${url}?options=${encodeURIComponent(`-c search_path=own_${i}`)}`
          await (await openTokenStore(own)).close()
        }
      } finally {
        isOver = true
        await Promise.all(others)
      }
    })

    it('has no deadlock between overlapping batches, whatever else happens to their tokens', async () => {
      const url = await freshDatabase()
      const patient = `${url}?options=${encodeURIComponent('-c deadlock_timeout=20ms')}`
      const stores = await openStores(patient)
      const more = await openTokenStore(patient) // a third store opens more connections
      const touched = await Promise.all(Array.from({ length: 25 }, () => insertedToken(stores)))
      const victimIds: string[] = Array.from({ length: 5 }, () => randomUUID())
      const random = (n: number) => Math.floor(Math.random() * n)
      const victims = await Promise.all(
        Array.from({ length: 25 }, (_, i) => insertedToken(stores, { userId: victimIds[i % 5] as string })),
      )
      const versions = new Map(victimIds.map(id => [id, 1]))
      const touches = new Map(touched.map(({ token }) => [token.id, 0]))

      async function touch(tokens: TokenStore): Promise<void> {
        const all = [...touched, ...victims].sort(() => Math.random() - 0.5).slice(0, 1 + random(50))
        const answers = await tokens.touch(
          all.map(({ ref }) => ref),
          start,
          null,
        )
        for (const token of answered(answers)) {
          const count = touches.get(token?.id ?? '')
          if (token !== null && count !== undefined) touches.set(token.id, count + 1)
        }
      }

      async function disturb(tokens: TokenStore): Promise<void> {
        const i = random(25)
        const { ref, token } = victims[i] as (typeof victims)[0]
        const userId = token.userId as string
        const what = random(5)
        if (what === 0) await tokens.renew(ref, newHash(), lineage, start)
        if (what === 1) await tokens.deleteById(ref.id, start, null)
        if (what === 2) {
          const version = (versions.get(userId) ?? 0) + 1
          versions.set(userId, version)
          await tokens.raiseFloor(userId, version, random(2) ? ref.id : null)
        }
        if (what === 3) await tokens.deleteExpired(start, 10)
        if (what === 4) {
          victims[i] = newToken({ userId, credentialVersion: versions.get(userId) as number })
          await tokens.insert(victims[i].ref, victims[i].token, { perUser: 5, total: Infinity }, start)
        }
      }

      let left = 1000
      const work = async (tokens: TokenStore) => {
        for (; left > 0; left--) await (random(2) ? touch(tokens) : disturb(tokens))
      }
      await Promise.all(Array.from({ length: 8 }, (_, i) => work(i % 2 ? stores.tokens : more)))
      const found = await more.look(
        touched.map(({ ref }) => ref),
        start,
        null,
      )
      expect(answered(found).map(token => token?.refreshCount)).to.deep.equal([...touches.values()])
      await Promise.all([stores.close(), more.close()])
      const [{ deadlocks } = {}] = await cluster.query(
        `select deadlocks::int from pg_stat_database where datname = '${url.split('/').at(-1)}'`,
      )
      expect(deadlocks).to.equal(0)
    })
  })
})
