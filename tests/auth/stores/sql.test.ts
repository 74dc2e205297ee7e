// What is special to the SQL stores: databases that are away, hung, full, busy, damaged or too new, and several processes
// on one of them. What every store must do is in contracts/.
import { execFileSync, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { listMigrations, openTokenStore, openUserStore } from '../../../services/auth/stores/index.ts'
import {
  type TokenRecord,
  type TokenRef,
  type TokenStore,
  type UserRecord,
  type UserStore,
  usualLogin,
} from '../../../services/auth/stores/ports.ts'
import { migrationsFor } from '../../../services/auth/stores/sql/migrations.ts'
import { drawSecret, drawTokenId, refOf } from '../../../services/auth/tokens/format.ts'
import { binaries, type Cluster, startCluster } from '../../support/postgres.ts'
import { slackMs } from '../../support/slack.ts'
import { expectAllToReject, expectRecovery } from '../../support/storeFaults.ts'
import { freshPlace, type Place, query } from '../../support/stores.ts'
import { until } from '../../support/until.ts'

const lineage = Buffer.alloc(32, 7).toString('base64url') // of all renewals here
const minute = 60_000
const start = 1_800_000_000_000
const unlimited = { perUser: Infinity, total: Infinity }

interface Stores {
  tokens: TokenStore
  users: UserStore
}

async function openStores(url: string): Promise<Stores & { close(): Promise<void> }> {
  const tokens = await openTokenStore(url)
  const users = await openUserStore(url)
  return { tokens, users, close: async () => void (await Promise.all([tokens.close(), users.close()])) }
}

function newToken(members: Partial<TokenRecord> = {}): { ref: TokenRef; token: TokenRecord } {
  const { userId = randomUUID() } = members
  const id = drawTokenId(userId, start)
  const token: TokenRecord = {
    id,
    kind: 'sliding',
    purpose: null,
    userId,
    username: 'somebody@example.com',
    credentialVersion: 1,
    createdAt: start,
    loginId: null,
    lastUsedAt: start,
    expiresAt: start + minute,
    absoluteExpiresAt: start + 10 * minute,
    ttlMs: minute,
    refreshCount: 0,
    ...members,
  }
  if (members.loginId === undefined) token.loginId = usualLogin(token)
  return { ref: refOf(drawSecret(id)), token }
}

function newUser(members: Partial<UserRecord> = {}): UserRecord {
  return {
    id: randomUUID(),
    username: `${randomUUID()}@example.com`,
    passwordHash: 'a hash',
    credentialVersion: 1,
    endedVersion: 1,
    createdAt: start,
    confirmedAt: null,
    disabledAt: null,
    deletedAt: null,
    ...members,
  }
}

const toMessage = (error: Error): string => error.message

const newHash = () => newToken().ref.hash

async function insertedToken({ tokens }: Pick<Stores, 'tokens'>, members: Partial<TokenRecord> = {}) {
  const made = newToken(members)
  expect(await tokens.insert(made.ref, made.token, unlimited, start)).to.equal('inserted')
  return made
}

async function insertedUser({ users }: Pick<Stores, 'users'>, members: Partial<UserRecord> = {}): Promise<UserRecord> {
  const user = newUser(members)
  expect(await users.insert(user)).to.equal(true)
  return user
}

const writes = ({ tokens, users }: Stores) => ({
  insert: () => insertedToken({ tokens }),
  touch: () => tokens.touch([newToken().ref], start, null),
  renew: () => tokens.renew(newToken().ref, newHash(), lineage, start),
  delete: () => tokens.delete(newToken().ref, start),
  deleteById: () => tokens.deleteById(newToken().token.id, start, null),
  endUser: () => tokens.endUser(randomUUID(), 2, null),
  deleteExpired: () => tokens.deleteExpired(start, 10),
  'insert a user': () => users.insert(newUser()),
  'update a user': () => users.update(randomUUID(), 1, { confirmedAt: start }),
  'delete a user': () => users.delete(randomUUID()),
})

const reads = ({ tokens, users }: Stores) => ({
  look: () => tokens.look([newToken().ref], start, null),
  findByUser: () => tokens.findByUser(randomUUID(), start),
  explain: () => tokens.explain(newToken().ref, start, null),
  list: () => tokens.list(null, 10, start),
  counts: () => tokens.counts(),
  findByUsername: () => users.findByUsername('nobody'),
  findById: () => users.findById(randomUUID()),
  'list users': () => users.list(null, 10),
  findUnfinished: () => users.findUnfinished(10),
})

const everyCall = (stores: Stores) => ({ ...writes(stores), ...reads(stores) })

/** `n` of each, under names of their own. */
function repeated(n: number, calls: Record<string, () => Promise<unknown>>): typeof calls {
  const all = Array.from({ length: n }, (_, i) => Object.entries(calls).map(([name, call]) => [`${name} ${i}`, call]))
  return Object.fromEntries(all.flat())
}

/** Every call, and fifty more at the same time: most of them wait for a connection. */
function withCrowd(stores: Stores): Record<string, () => Promise<unknown>> {
  const { touch, findById } = everyCall(stores)
  return { ...everyCall(stores), ...repeated(25, { touch, findById }) }
}

/** Works with both stores until it is told to stop, and keeps account of what it was told and what it was not. */
function startWork(stores: Stores) {
  const { tokens, users } = stores
  const knownTokens = new Map<TokenRef, TokenRecord | null>()
  const knownUsers = new Map<string, UserRecord | null>()
  const doubtfulTokens: [TokenRef, TokenRef][] = [] // one of them opens
  const doubtfulUsers: [UserRecord, UserRecord][] = [] // it is one of them
  const slow: string[] = []
  let isOver = false
  let rejected = 0

  async function timed<T>(name: string, call: Promise<T>): Promise<T> {
    const startedAt = performance.now()
    try {
      return await call
    } finally {
      const ms = performance.now() - startedAt
      if (ms >= 1000 + slackMs) slow.push(`${name} took ${Math.round(ms)} ms`)
    }
  }

  async function useToken(turn: number): Promise<void> {
    const { ref, token } = newToken()
    const userId = token.userId as string
    expect(await timed('insert', tokens.insert(ref, token, unlimited, start))).to.equal('inserted')
    knownTokens.set(ref, token)
    const what = turn % 4
    if (what === 0) return
    knownTokens.delete(ref)
    if (what === 1) await timed('delete', tokens.delete(ref, start))
    if (what === 2) await timed('endUser', tokens.endUser(userId, 2, null))
    if (what === 3) {
      const renewed = { id: ref.id, hash: newHash() }
      const record = await timed('renew', tokens.renew(ref, renewed.hash, lineage, start)).catch(error => {
        doubtfulTokens.push([ref, renewed])
        throw error
      })
      expect(record).to.include({ refreshCount: 1 })
      knownTokens.set(renewed, record)
    }
    knownTokens.set(ref, null)
  }

  async function useUser(turn: number): Promise<void> {
    const user = newUser()
    expect(await timed('insert a user', users.insert(user))).to.equal(true)
    knownUsers.set(user.id, user)
    const changed = { ...user, passwordHash: 'another', credentialVersion: 2 }
    knownUsers.delete(user.id)
    const { passwordHash, credentialVersion } = changed
    const update = timed('update a user', users.update(user.id, 1, { passwordHash, credentialVersion }))
    const record = await update.catch(error => {
      doubtfulUsers.push([user, changed])
      throw error
    })
    expect(record).to.deep.equal(changed)
    if (turn % 2) await timed('delete a user', users.delete(user.id))
    knownUsers.set(user.id, turn % 2 ? null : changed)
  }

  async function work(use: (turn: number) => Promise<void>): Promise<void> {
    for (let turn = 0; !isOver; turn++) {
      try {
        await use(turn)
      } catch (error) {
        if ((error as Error).name === 'AssertionError') throw error
        rejected++
        await sleep(5)
      }
    }
  }

  const workers = Promise.all(Array.from({ length: 16 }, (_, i) => work(i % 2 ? useToken : useUser)))
  workers.catch(() => {}) // told of at `stop`

  return {
    rejected: () => rejected,
    /** Whatever was acknowledged is there, and what was not has happened wholly or not at all. */
    async stop(): Promise<void> {
      isOver = true
      await workers
      expect(slow).to.deep.equal([])
      const refs = [...knownTokens.keys()]
      expect(await tokens.look(refs, start, null)).to.deep.equal([...knownTokens.values()])
      for (const pair of doubtfulTokens) {
        const found = await tokens.look(pair, start, null)
        expect(found.filter(token => token !== null)).to.have.lengthOf(1)
      }
      for (const [id, user] of knownUsers) expect(await users.findById(id)).to.deep.equal(user)
      for (const pair of doubtfulUsers) expect(pair).to.deep.include(await users.findById(pair[0].id))
    },
  }
}

/** Of another process: as here, each call goes there and its answer comes back. */
interface Peer extends Stores {
  open(url: string): Promise<void>
  /** For `ms` it keeps so many inserts of tokens in flight. */
  press(like: TokenRecord, inFlight: number, ms: number): Promise<void>
  signal(name: 'SIGSTOP' | 'SIGCONT'): void
  end(): Promise<void>
}

const peerScript = `
  import { randomUUID } from 'node:crypto'
  import { openTokenStore, openUserStore } from '${import.meta.resolve('../../../services/auth/stores/index.ts')}'
  const open = async url => Object.assign(stores, { tokens: await openTokenStore(url), users: await openUserStore(url) })
  const press = async (like, inFlight, ms) => {
    const work = async until => {
      while (performance.now() < until) {
        const token = { ...like, id: randomUUID(), userId: randomUUID() }
        await stores.tokens.insert({ id: token.id, hash: 'a hash' }, token, { perUser: 5, total: Infinity }, like.createdAt)
      }
    }
    await Promise.all(Array.from({ length: inFlight }, () => work(performance.now() + ms)))
  }
  const stores = { own: { open: async url => void (await open(url)), press } }
  process.on('disconnect', () => process.exit())
  process.on('message', ({ id, store, method, args }) => {
    stores[store][method](...args).then(
      value => process.send({ id, value }),
      error => process.send({ id, error: error.message }),
    )
  })
  process.send('ready')
`

async function startPeer(owner: { uid?: number; gid?: number } = {}): Promise<Peer> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', peerScript], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced', // JSON has no Infinity
    ...owner,
  })
  const calls: PromiseWithResolvers<unknown>[] = []
  await once(child, 'message')
  child.on('message', ({ id, value, error }: { id: number; value?: unknown; error?: string }) => {
    if (error === undefined) calls[id]?.resolve(value)
    else calls[id]?.reject(new Error(error))
  })

  const call = (store: string, method: string, args: unknown[]): Promise<unknown> => {
    const answer = Promise.withResolvers<unknown>()
    child.send({ id: calls.push(answer) - 1, store, method, args })
    return answer.promise
  }
  const remote = <T extends object>(store: string): T =>
    new Proxy({} as T, {
      get:
        (_, method: string) =>
        (...args: unknown[]) =>
          call(store, method, args),
    })

  return {
    tokens: remote('tokens'),
    users: remote('users'),
    open: async url => void (await call('own', 'open', [url])),
    press: async (...args) => void (await call('own', 'press', args)),
    signal: name => void child.kill(name),
    async end() {
      child.kill('SIGKILL')
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    },
  }
}

describe('PostgreSQL of its own:', () => {
  let cluster: Cluster
  before(async function () {
    if (binaries === null) {
      console.log('  not tested: what becomes of the stores when PostgreSQL fails, for initdb and pg_ctl are not here')
      return this.skip()
    }
    cluster = await startCluster()
  })
  after(() => cluster?.remove())

  describe('a PostgreSQL that is away', () => {
    let stores: Awaited<ReturnType<typeof openStores>>
    beforeEach(async () => {
      stores = await openStores(cluster.url)
    })
    afterEach(async () => {
      cluster.resume()
      await cluster.start().catch(() => {}) // it runs already
      await stores.close()
    })

    const failures = {
      'was stopped': { fail: () => cluster.stop('fast'), mend: () => cluster.start() },
      'has crashed': { fail: () => cluster.stop('immediate'), mend: () => cluster.start() },
      'is hung': { fail: () => cluster.hang(), mend: () => cluster.resume() },
    }
    for (const [name, { fail, mend }] of Object.entries(failures)) {
      it(`${name}: every call rejects within a second, and succeeds within two of its return`, async () => {
        const { ref, token } = await insertedToken(stores)
        const user = await insertedUser(stores)
        await Promise.all(Object.values(withCrowd(stores)).map(call => call())) // all connections are open
        await fail()
        await expectAllToReject(withCrowd(stores))
        await expectAllToReject(withCrowd(stores))
        await mend()
        await expectRecovery(everyCall(stores), 2000)
        expect(await stores.tokens.look([ref], start, null)).to.deep.equal([token])
        expect(await stores.users.findById(user.id)).to.deep.equal(user)
      })

      it(`${name} at work: what was acknowledged is there afterwards, and nothing is half done`, async () => {
        const work = startWork(stores)
        await sleep(200) // of work
        await fail()
        await until(() => work.rejected() >= 16) // of each worker something
        await mend()
        await expectRecovery(everyCall(stores), 2000)
        await work.stop()
      })
    }

    const backends = `select pid from pg_stat_activity where application_name = 'latchkey'`
    const terminate = () => cluster.query(`select pg_terminate_backend(pid) from (${backends}) as them`)

    it('may end connections that are idle: the next calls have others', async () => {
      await Promise.all(Object.values(withCrowd(stores)).map(call => call()))
      await until(async () => (await cluster.query(backends)).length === 10)
      await terminate()
      await until(async () => (await cluster.query(backends)).length === 0)
      await expectRecovery(everyCall(stores), 2000)
    })

    it('may end connections that are in use, again and again', async () => {
      const work = startWork(stores)
      for (let i = 0; i < 10; i++) {
        await sleep(30) // of work
        await terminate()
      }
      expect(work.rejected()).to.be.above(0)
      await expectRecovery(everyCall(stores), 2000)
      await work.stop()
    })

    it('tells why it ended a connection: the operator hears of that, not of a rollback that failed', async () => {
      const { ref, token } = newToken()
      const key = `hashtextextended('${token.userId}', 0)`
      const isLocked = `select pid from pg_locks where locktype = 'advisory' and not granted`
      const lock = query(`select pg_advisory_lock(${key}), pg_sleep(0.5)`, cluster.url)
      await until(async () => (await cluster.query(`${isLocked.replace('not ', '')}`)).length > 0)
      const refused = stores.tokens.insert(ref, token, unlimited, start).then(() => 'inserted', toMessage)
      await until(async () => (await cluster.query(isLocked)).length > 0)
      await cluster.query(`select pg_terminate_backend(pid) from (${isLocked}) as them`)
      expect(await refused).to.equal('terminating connection due to administrator command')
      await lock
    })

    it('may lose one of its processes, and begin anew', async () => {
      const work = startWork(stores)
      await sleep(100) // of work
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

    it('waits no longer than three seconds for a process that stopped in the middle of a transaction', async () => {
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
        expect(performance.now() - stoppedAt).to.be.below(3000) // somebody may have waited for the same, and get it first
      } finally {
        await peer.end()
      }
    })

    it('answers again, on other connections, where no answer comes from those that are open', async () => {
      await Promise.all(Object.values(withCrowd(stores)).map(call => call()))
      await until(async () => (await cluster.query(backends)).length === 10)
      const pids = (await cluster.query(backends)).map(({ pid }) => Number(pid))
      for (const pid of pids) process.kill(pid, 'SIGSTOP')
      try {
        const startedAt = performance.now()
        const { insert, findById } = everyCall(stores)
        await expectAllToReject(repeated(5, { insert, findById })) // one for each connection
        await expectRecovery(everyCall(stores), 2000)
        expect(performance.now() - startedAt).to.be.below(1700 + slackMs) // not a second time-out for the rollbacks
      } finally {
        for (const pid of pids) process.kill(pid, 'SIGCONT')
      }
    })

    it('can be closed while it is hung', async () => {
      const crowd = withCrowd(stores)
      await Promise.all(Object.values(crowd).map(call => call()))
      cluster.hang()
      const calls = Promise.allSettled(Object.values(crowd).map(call => call()))
      const startedAt = performance.now()
      await stores.close()
      expect(performance.now() - startedAt).to.be.below(2500 + slackMs)
      await calls
    })

    it('is asked again and again while a table is locked, and no heap of connections waits for it', async () => {
      const isLocked = `select 1 from pg_locks where relation = 'latchkey_users'::regclass and mode = 'AccessExclusiveLock'`
      const lock = cluster.query('begin; lock table latchkey_tokens, latchkey_users; select pg_sleep(2); commit')
      await until(async () => (await cluster.query(isLocked)).length > 0)
      for (let i = 0; i < 2; i++) await expectAllToReject(writes(stores))
      expect(await cluster.query(backends)).to.have.lengthOf.at.most(10)
      await lock
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

    /** What the operator is told: the same by both stores, and never the password. */
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
      'nobody listens at its port': [
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
      'the database is not there': [
        () => withUser(`guarded:${encoded}`, 'missing'),
        () => `the database missing at ${at()} is not there`,
      ],
      'it offers no TLS': [
        () => withUser(`guarded:${encoded}`, 'postgres', '?sslmode=require'),
        () => `the database postgres at ${at()} cannot be reached (The server does not support SSL connections)`,
      ],
      'the user may not make tables': [
        () => withUser(`guarded:${encoded}`, 'bare'),
        () => `the database bare at ${at()} does not let this user make or use its tables`,
      ],
      'the user may not use the tables': [
        () => withUser('reader'),
        () => `the database postgres at ${at()} does not let this user make or use its tables`,
      ],
      'it is read-only and empty': [
        () => withUser('postgres', 'bare', '?options=-c%20default_transaction_read_only%3Don'),
        () => `the database bare at ${at()} is read-only`,
      ],
      'it is read-only and has our tables': [
        () => withUser('postgres', 'postgres', '?options=-c%20default_transaction_read_only%3Don'),
        () => `the database postgres at ${at()} is read-only`,
      ],
      'it takes no more connections': [
        () => withUser('crowd'),
        () => `the database postgres at ${at()} takes no more connections`,
      ],
      'its URL has a % too many': [
        () => `postgres://guarded:${encoded}@${at()}/100%`,
        () => `the database 100% at ${at()} cannot be reached (URI malformed)`,
      ],
      'its URL has no port where one should be': [
        () => `postgres://guarded:${encoded}@127.0.0.1:port/postgres`,
        () => 'the database of this URL cannot be reached (ERR_INVALID_URL)',
      ],
    }
    for (const [name, [url, sentence]] of Object.entries(cases)) {
      it(`${name}: the operator is told so in a sentence`, async () => {
        expect(await refusal(url())).to.equal(sentence())
      })
    }

    it('hangs: the operator is told within two seconds', async () => {
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

    it('has a certificate that nobody signed: verify-full refuses it, no-verify takes it', async () => {
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

  describe('a PostgreSQL at work', () => {
    /** A database that nobody has used, for what the server counts. */
    async function freshDatabase(): Promise<string> {
      const name = `test_${randomUUID().slice(0, 8)}`
      await cluster.query(`create database ${name}`)
      return cluster.url.replace(/postgres$/, name)
    }

    it('finds tokens by its indexes, and a touch writes none of them', async () => {
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

      /** What the server has counted of `work`, and of opening and closing a store. */
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
        // A connection leaves its counts behind when it ends.
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
        await tokens.endUser(userId, 2, ref.id)
        await tokens.deleteById(ref.id, start, null)
      })
      expect(others).to.include({ seq_scan })
    })

    it('keeps to the limit of a user whatever isolation the database has for a default', async () => {
      const options = encodeURIComponent('-c default_transaction_isolation=repeatable\\ read')
      const url = `${await freshDatabase()}?options=${options}`
      const stores = await Promise.all([openTokenStore(url), openTokenStore(url)])
      const userId = randomUUID()
      const inserts = Array.from({ length: 40 }, (_, i) => {
        const { ref, token } = newToken({ userId, createdAt: start + i })
        return (stores[i % 2] as TokenStore).insert(ref, token, { perUser: 5, total: Infinity }, start)
      })
      expect(new Set(await Promise.all(inserts))).to.deep.equal(new Set(['inserted']))
      expect(await stores[0].findByUser(userId, start)).to.have.lengthOf(5)
      await Promise.all(stores.map(store => store.close()))
    })

    it('has the time it needs to count its tokens before it is opened', async () => {
      const url = await freshDatabase()
      await (await openTokenStore(url)).close()
      const isLocked = `select 1 from pg_locks where relation = 'latchkey_tokens'::regclass and granted`
      const slow = query('begin; lock table latchkey_tokens; select pg_sleep(1.3); commit', url)
      await until(async () => (await query(isLocked, url)).length > 0)
      const store = await openTokenStore(url)
      await slow
      await store.close()
    })

    it('is opened while others drop schemas of theirs in the same database', async () => {
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

    it('never finds a deadlock between batches that overlap, whatever else is done to their tokens', async () => {
      const url = await freshDatabase()
      const patient = `${url}?options=${encodeURIComponent('-c deadlock_timeout=20ms')}`
      const stores = await openStores(patient)
      const more = await openTokenStore(patient) // connections
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
        for (const token of answers) {
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
          await tokens.endUser(userId, version, random(2) ? ref.id : null)
        }
        if (what === 3) await tokens.deleteExpired(start, 10)
        if (what === 4) {
          victims[i] = newToken({ userId, credentialVersion: versions.get(userId) as number })
          await tokens.insert(victims[i].ref, victims[i].token, { perUser: 5, total: Infinity }, start)
        }
      }

      let left = 2000
      const work = async (tokens: TokenStore) => {
        for (; left > 0; left--) await (random(2) ? touch(tokens) : disturb(tokens))
      }
      await Promise.all(Array.from({ length: 20 }, (_, i) => work(i % 2 ? stores.tokens : more)))
      const found = await more.look(
        touched.map(({ ref }) => ref),
        start,
        null,
      )
      expect(found.map(token => token?.refreshCount)).to.deep.equal([...touches.values()])
      await Promise.all([stores.close(), more.close()])
      const [{ deadlocks } = {}] = await cluster.query(
        `select deadlocks::int from pg_stat_database where datname = '${url.split('/').at(-1)}'`,
      )
      expect(deadlocks).to.equal(0)
    })
  })
})

/** Past the store. */
async function ask(url: string, text: string): Promise<Record<string, unknown>[]> {
  if (!url.startsWith('sqlite:')) return query(text, url)
  const file = new DatabaseSync(url.slice('sqlite:'.length))
  try {
    return file.prepare(text).all()
  } finally {
    file.close()
  }
}

for (const scheme of ['sqlite', 'postgres'] as const) {
  describe(`a database at ${scheme}`, () => {
    let place: Place
    beforeEach(async () => {
      place = await freshPlace(scheme)
    })
    afterEach(() => place.remove())

    const steps = Object.keys(migrationsFor(scheme))
    const tables = () => {
      const own = scheme === 'sqlite' ? 'sqlite_master' : 'pg_tables where schemaname = current_schema()'
      return ask(place.url, `select * from ${own}`)
    }

    it('is brought up to date once, by ten processes that start at the same moment', async () => {
      const peers = await Promise.all(Array.from({ length: 10 }, () => startPeer()))
      try {
        await Promise.all(peers.map(peer => peer.open(place.url)))
        const made = await ask(place.url, 'select name from latchkey_migrations order by name')
        expect(made.map(({ name }) => name)).to.deep.equal(steps)
        await Promise.all(peers.map(peer => insertedUser(peer)))
        expect(await peers[0]?.users.list(null, 100)).to.have.lengthOf(10)
      } finally {
        await Promise.all(peers.map(peer => peer.end()))
      }
    })

    it('is not changed by a look at the steps that are pending', async () => {
      expect(await listMigrations('USER_STORE_URL', place.url)).to.deep.equal({ applied: [], pending: steps })
      if (scheme === 'sqlite') expect(existsSync(place.url.slice('sqlite:'.length))).to.equal(false)
      expect(await tables()).to.deep.equal([])
      const { close } = await openStores(place.url)
      expect(await listMigrations('TOKEN_STORE_URL', place.url)).to.deep.equal({ applied: steps, pending: [] })
      await close()
      const before = await tables()
      expect(await listMigrations('TOKEN_STORE_URL', place.url)).to.deep.equal({ applied: steps, pending: [] })
      expect(await tables()).to.deep.equal(before)
      if (scheme === 'sqlite') {
        expect(readdirSync(dirname(place.url.slice('sqlite:'.length)))).to.deep.equal(['latchkey.db'])
      }
    })

    it('of a newer version is refused with a sentence', async () => {
      const { close } = await openStores(place.url)
      await close()
      await ask(
        place.url,
        `insert into latchkey_migrations values ('9999_from_the_future', '2050-01-01T00:00:00.000Z')`,
      )
      for (const open of [openTokenStore, openUserStore]) {
        const message = await open(place.url).then(() => 'opened', toMessage)
        expect(message).to.match(/^(TOKEN|USER)_STORE_URL: .* was made by a newer Latchkey; use that one with it$/)
      }
      const listed = await listMigrations('TOKEN_STORE_URL', place.url).then(() => 'listed', toMessage)
      expect(listed).to.match(/^TOKEN_STORE_URL: .* was made by a newer Latchkey/)
    })

    it('takes quotes, emoji and SQL in a name for what they are', async () => {
      const stores = await openStores(place.url)
      const names = [`o'neill"s`, '🗝️', `'; drop table latchkey_users; --`, '$1', '?', '%', '\\', '{"a":1}', ' ']
      for (const username of names) {
        const user = await insertedUser(stores, { username, id: username })
        expect(await stores.users.findByUsername(username)).to.deep.equal(user)
        const { ref, token } = await insertedToken(stores, { username, userId: username, purpose: username })
        expect(await stores.tokens.look([ref], start, username)).to.deep.equal([token])
        expect(await stores.tokens.findByUser(username, start)).to.deep.equal([token])
      }
      expect(await stores.users.list(null, 100)).to.have.lengthOf(names.length)
      await stores.close()
    })

    it('holds no secret of a token, whatever was done to it', async () => {
      const stores = await openStores(place.url)
      const secrets: string[] = []
      const refs: TokenRef[] = []
      const drawRef = (id: string) => {
        const secret = drawSecret(id)
        secrets.push(secret)
        refs.push(refOf(secret))
        return refOf(secret)
      }
      for (const kind of ['sliding', 'fixed', 'single-use'] as const) {
        for (const what of ['keep', 'touch', 'renew', 'delete', 'end']) {
          const { token } = newToken({ kind })
          const ref = drawRef(token.id)
          await stores.tokens.insert(ref, token, unlimited, start)
          if (what === 'touch') await stores.tokens.touch([ref], start, null)
          if (what === 'renew') await stores.tokens.renew(ref, drawRef(token.id).hash, lineage, start)
          if (what === 'delete') await stores.tokens.delete(ref, start)
          if (what === 'end') await stores.tokens.endUser(token.userId as string, 2, null)
        }
      }
      const rows = []
      for (const { name, tablename = name } of await tables()) {
        if (/^latchkey_[a-z]+$/.test(String(tablename)))
          rows.push(...(await ask(place.url, `select * from ${tablename}`)))
      }
      const dump = JSON.stringify(rows, (_, value) => (typeof value === 'bigint' ? Number(value) : value))
      expect(dump).to.include(refs[0]?.hash)
      for (const secret of secrets) {
        const { id } = refOf(secret)
        expect(dump).to.not.include(secret.slice(secret.indexOf(id) + id.length, -6)) // without the checksum
      }
      await stores.close()
    })
  })
}

for (const scheme of ['sqlite', 'postgres']) {
  describe(`processes that share a database at ${scheme}:`, () => {
    let place: Place
    let one: Peer
    let other: Peer
    before(async () => {
      place = await freshPlace(scheme)
      const peers = await Promise.all([startPeer(), startPeer()])
      one = peers[0]
      other = peers[1]
      await Promise.all(peers.map(peer => peer.open(place.url)))
    })
    after(async () => {
      await Promise.all([one?.end(), other?.end()])
      await place.remove()
    })

    const both = <T>(n: number, call: (peer: Peer, i: number) => Promise<T>): Promise<T[]> =>
      Promise.all(Array.from({ length: n }, (_, i) => call(i % 2 ? other : one, i)))

    it('consume a single-use token once', async () => {
      const issued = await both(20, peer => insertedToken(peer, { kind: 'single-use' }))
      const refs = issued.map(({ ref }) => ref)
      const answers = await both(200, ({ tokens: store }, i) =>
        store.touch(refs.slice((i >> 1) % 20).slice(0, 1), start, null),
      )
      expect(answers.flat().filter(token => token !== null)).to.have.lengthOf(20)
    })

    it('let one of two renewals win', async () => {
      for (let i = 0; i < 10; i++) {
        const { ref } = await insertedToken(one)
        const hashes = [newHash(), newHash()] as const
        const answers = await both(2, ({ tokens }, i) => tokens.renew(ref, hashes[i] as string, lineage, start))
        expect(answers.filter(token => token !== null)).to.have.lengthOf(1)
        const refs = [ref, ...hashes.map(hash => ({ ...ref, hash }))]
        const found = await other.tokens.look(refs, start, null)
        expect(found.map(token => token !== null)).to.deep.equal([false, ...answers.map(token => token !== null)])
      }
    })

    it('refuse from the very next touch on what the other has revoked', async () => {
      for (let i = 0; i < 10; i++) {
        const [from, to] = i % 2 ? [one, other] : [other, one]
        const { ref, token } = await insertedToken(from)
        expect(await to.tokens.touch([ref], start, null)).to.not.deep.equal([null])
        expect(await from.tokens.deleteById(token.id, start, null)).to.include({ id: token.id })
        expect(await to.tokens.touch([ref], start, null)).to.deep.equal([null])
      }
    })

    it('leave no token of a user alive that one ends while the other issues', async () => {
      for (let i = 0; i < 10; i++) {
        const userId = randomUUID()
        const issued = Array.from({ length: 20 }, () => newToken({ userId }))
        const inserts = issued.map(({ ref, token }) => one.tokens.insert(ref, token, unlimited, start))
        await inserts[i]
        await other.tokens.endUser(userId, 2, null)
        expect(await Promise.all(inserts)).to.include('inserted')
        const refs = issued.map(({ ref }) => ref)
        expect(await one.tokens.touch(refs, start, null)).to.deep.equal(refs.map(() => null))
        expect(await other.tokens.findByUser(userId, start)).to.deep.equal([])
      }
    })

    it('keep exactly to the limit of a user', async () => {
      const limits = { perUser: 5, total: Infinity }
      const insertBoth = (userId: string, kind: TokenRecord['kind']) =>
        both(60, ({ tokens }, i) => {
          const { ref, token } = newToken({ userId, kind, createdAt: start + i })
          return tokens.insert(ref, token, limits, start)
        })
      const [somebody, another] = [randomUUID(), randomUUID()]
      const outcomes = await insertBoth(somebody, 'fixed')
      expect(outcomes.filter(outcome => outcome === 'inserted')).to.have.lengthOf(5)
      expect(outcomes.filter(outcome => outcome === 'full')).to.have.lengthOf(55)
      expect(new Set(await insertBoth(another, 'sliding'))).to.deep.equal(new Set(['inserted']))
      for (const userId of [somebody, another]) {
        expect(await one.tokens.findByUser(userId, start)).to.have.lengthOf(5)
      }
    })

    it('sweep together: each dead token is removed once, and later forgotten', async () => {
      const later = start + minute
      const sweepAll = async ({ tokens }: Peer, now: number): Promise<number> => {
        for (let total = 0; ; ) {
          const { removed, done } = await tokens.deleteExpired(now, 7)
          total += removed
          if (done) return total
        }
      }
      await sweepAll(one, later)
      const [dead] = await both(300, peer => insertedToken(peer))
      const ref = dead?.ref as TokenRef
      const { ref: live } = await insertedToken(one, { expiresAt: later + 60 * minute })
      const removed = await both(4, peer => sweepAll(peer, later))
      expect(removed.reduce((sum, n) => sum + n)).to.equal(300)
      expect(await other.tokens.explain(ref, later, null)).to.deep.equal({ reason: 'expired', at: later })
      expect(await both(4, peer => sweepAll(peer, later + 30 * minute))).to.deep.equal([0, 0, 0, 0])
      expect(await one.tokens.explain(ref, later, null)).to.deep.equal({ reason: 'unknown' })
      expect(await one.tokens.look([live], later, null)).to.not.deep.equal([null])
    })

    it('write as much as they can, and nobody is kept out', async () => {
      await both(2, peer => peer.press(newToken().token, 20, 1500))
    })

    it('give a username to one of those who want it', async () => {
      for (let i = 0; i < 10; i++) {
        const username = randomUUID()
        const answers = await both(10, ({ users }) => users.insert(newUser({ username })))
        expect(answers.filter(isTaken => isTaken)).to.have.lengthOf(1)
      }
    })

    it('let one of many win that would raise the version of a user', async () => {
      const { id } = await insertedUser(one)
      for (let version = 1; version <= 10; version++) {
        const answers = await both(10, ({ users }, i) => {
          return users.update(id, version, { credentialVersion: version + 1, passwordHash: `of ${i}` })
        })
        const won = answers.filter(user => user !== null)
        expect(won).to.have.lengthOf(1)
        expect(await other.users.findById(id)).to.deep.equal(won[0])
      }
    })
  })
}

describe('a SQLite file', () => {
  let folder: string
  let opened: { close(): Promise<void> }[]
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
    opened = []
  })
  afterEach(async () => {
    await Promise.all(opened.map(stores => stores.close()))
    rmSync(folder, { recursive: true })
  })

  const path = () => join(folder, 'latchkey.db')

  async function open(): Promise<Stores> {
    const stores = await openStores(`sqlite:${path()}`)
    opened.push(stores)
    return stores
  }

  /** What the operator is told by both stores. */
  async function refusal(file = path()): Promise<string> {
    const open = [openTokenStore, openUserStore].map(open => open(`sqlite:${file}`).then(() => 'opened', toMessage))
    const [tokens = '', users = ''] = await Promise.all(open)
    expect(users.replace('USER_STORE_URL', 'TOKEN_STORE_URL')).to.equal(tokens)
    return tokens.replace('TOKEN_STORE_URL: ', '')
  }

  it('is readable for its owner only, and so are the files beside it', async () => {
    const mask = process.umask(0)
    try {
      await insertedToken(await open())
    } finally {
      process.umask(mask)
    }
    const modes = readdirSync(folder).map(name => [name, statSync(join(folder, name)).mode & 0o777])
    expect(modes).to.have.deep.members([
      ['latchkey.db', 0o600],
      ['latchkey.db-shm', 0o600],
      ['latchkey.db-wal', 0o600],
    ])
  })

  it('that every user of the machine may read is closed to them at the start, with the files beside it', async () => {
    const stores = await open()
    await insertedToken(stores)
    const names = readdirSync(folder)
    expect(names).to.have.length(3)
    for (const mode of [0o644, 0o666, 0o604]) {
      for (const name of names) chmodSync(join(folder, name), mode)
      const warnings: string[] = []
      const again = await openUserStore(`sqlite:${path()}`, warning => warnings.push(warning))
      await again.close()
      for (const name of names) expect(statSync(join(folder, name)).mode & 0o777, name).to.equal(0o600)
      expect(warnings).to.have.length(1)
      expect(warnings[0]).to.include(path()).and.include('mode is 600 now')
    }
  })

  it('that a group may read stays as it is', async () => {
    await insertedToken(await open())
    chmodSync(path(), 0o640)
    const warnings: string[] = []
    await (await openUserStore(`sqlite:${path()}`, warning => warnings.push(warning))).close()
    expect(statSync(path()).mode & 0o777).to.equal(0o640)
    expect(warnings).to.deep.equal([])
  })

  describe('that another process writes to', () => {
    let other: DatabaseSync
    let stores: Stores
    beforeEach(async () => {
      stores = await open()
      other = new DatabaseSync(path())
      other.exec('begin immediate')
    })
    afterEach(() => other.close())

    it('rejects a write within a second, goes on reading, and keeps nobody else waiting', async () => {
      let longestMs = 0
      let last = performance.now()
      const timer = setInterval(() => {
        longestMs = Math.max(longestMs, performance.now() - last)
        last = performance.now()
      }, 5)
      const rejected = expectAllToReject(repeated(5, writes(stores)))
      for (const read of Object.values(reads(stores))) await read()
      await rejected
      clearInterval(timer)
      expect(longestMs).to.be.below(200 + slackMs)
      other.exec('rollback')
      await expectRecovery(everyCall(stores), 2000)
    })

    it('writes when the other is done, if that is soon', async () => {
      const calls = Object.values(everyCall(stores)).map(call => call())
      await sleep(200) // of the other's work
      other.exec('commit')
      await Promise.all(calls)
    })
  })

  describe('that is damaged', () => {
    beforeEach(async () => {
      const stores = await openStores(`sqlite:${path()}`)
      for (let i = 0; i < 200; i++) {
        await insertedToken(stores)
        await insertedUser(stores)
      }
      await stores.close()
    })

    const damages: Record<string, [(bytes: Buffer) => Buffer, RegExp]> = {
      'has garbage for a header': [
        bytes => bytes.fill('garbage', 0, 100),
        /is no SQLite database; nothing was changed$/,
      ],
      'has garbage in the middle': [
        bytes => bytes.fill('garbage', bytes.length / 2, bytes.length / 2 + 8192),
        /is damaged; nothing was changed: restore a backup$/,
      ],
      'is cut in half': [
        bytes => bytes.subarray(0, bytes.length / 2),
        /is damaged; nothing was changed: restore a backup$/,
      ],
      'is cut to less than a page': [
        bytes => bytes.subarray(0, 1000),
        /is damaged; nothing was changed: restore a backup$/,
      ],
      'is cut to less than a header': [
        bytes => bytes.subarray(0, 50),
        /is damaged; nothing was changed: restore a backup$/,
      ],
    }
    for (const [name, [damage, sentence]] of Object.entries(damages)) {
      it(`${name}: is refused with a sentence, and left as it is`, async () => {
        const bytes = damage(readFileSync(path()))
        writeFileSync(path(), bytes)
        const message = await refusal()
        expect(message).to.match(sentence).and.to.include(`the file ${path()} `)
        expect(readFileSync(path()).equals(bytes)).to.equal(true)
        expect(readdirSync(folder)).to.deep.equal(['latchkey.db'])
      })
    }
  })

  it('in a folder that is not there is refused with a sentence, and the folder is not made', async () => {
    const file = join(folder, 'missing', 'latchkey.db')
    expect(await refusal(file)).to.equal(
      `the file ${file} cannot be opened: does its folder exist, and may this user write to it?`,
    )
    expect(existsSync(join(folder, 'missing'))).to.equal(false)
  })

  it('that is a folder is refused with a sentence', async () => {
    expect(await refusal(folder)).to.equal(
      `the file ${folder} cannot be opened: does its folder exist, and may this user write to it?`,
    )
  })

  describe('on a disk of its own', () => {
    const disks: string[] = []
    let asOther: Peer | undefined
    before(function () {
      if (!canMount()) {
        console.log('  not tested: SQLite on a full or read-only disk, for only root may mount one')
        this.skip()
      }
    })
    afterEach(async () => {
      await Promise.all(opened.splice(0).map(stores => stores.close()))
      await asOther?.end()
      for (const mountPoint of disks.splice(0)) execFileSync('umount', [mountPoint])
    })

    function mountMemory(size: string): void {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', folder])
      disks.push(folder)
    }

    /** Tokens and users for each kind of write, so that it has something to do. */
    async function prepare(stores: Stores) {
      const tokens = await Promise.all(Array.from({ length: 6 }, () => insertedToken(stores)))
      const users = await Promise.all(Array.from({ length: 2 }, () => insertedUser(stores)))
      const refs = tokens.map(({ ref }) => ref)
      const [touched, renewed, deleted, deletedById, ended] = refs as [TokenRef, TokenRef, TokenRef, TokenRef, TokenRef]
      const [updated, removed] = users as [UserRecord, UserRecord]
      const endedUser = tokens[4]?.token.userId as string
      return {
        writes: {
          insert: () => insertedToken(stores),
          touch: () => stores.tokens.touch([touched], start + 1, null),
          renew: () => stores.tokens.renew(renewed, newHash(), lineage, start),
          delete: () => stores.tokens.delete(deleted, start),
          deleteById: () => stores.tokens.deleteById(deletedById.id, start, null),
          endUser: () => stores.tokens.endUser(endedUser, 2, ended.id),
          deleteExpired: () => stores.tokens.deleteExpired(start + minute, 100),
          'insert a user': () => insertedUser(stores),
          'update a user': () => stores.users.update(updated.id, 1, { passwordHash: 'another', credentialVersion: 2 }),
          'delete a user': () => stores.users.delete(removed.id),
        },
        async expectUnchanged(now: Stores): Promise<void> {
          expect(await now.tokens.look(refs, start, null)).to.deep.equal(tokens.map(({ token }) => token))
          for (const user of users) expect(await now.users.findById(user.id)).to.deep.equal(user)
        },
      }
    }

    it('that is full: it rejects what it cannot write, goes on reading, and recovers with the room', async () => {
      mountMemory('512k')
      const stores = await open()
      const { writes, expectUnchanged } = await prepare(stores)
      const ballast = join(folder, 'ballast')
      const file = openSync(ballast, 'w')
      expect(() => {
        for (;;) writeSync(file, Buffer.alloc(1024))
      }).to.throw('ENOSPC')
      closeSync(file)
      for (let i = 0; i < 3; i++) {
        await expectAllToReject(writes)
        await expectUnchanged(stores)
        for (const read of Object.values(reads(stores))) await read()
      }
      expect(await writes.insert().catch(toMessage)).to.equal('database or disk is full')
      rmSync(ballast)
      await expectRecovery(everyCall(stores), 2000)
      await expectUnchanged(stores)
      await expectUnchanged(await open())
      for (const write of Object.values(writes)) await write()
    })

    it('that becomes read-only: it rejects every write, goes on reading, and nothing is lost', async function () {
      const image = `${folder}.img`
      try {
        writeFileSync(image, Buffer.alloc(4 * 1024 * 1024))
        try {
          execFileSync('mkfs.ext4', ['-q', image])
          execFileSync('mount', ['-o', 'loop,errors=remount-ro', image, folder], { stdio: 'pipe' })
        } catch {
          console.log('      not tested: SQLite on a disk that fails, for no ext4 can be mounted here')
          return this.skip()
        }
        disks.push(folder)
        const stores = await open()
        const { writes, expectUnchanged } = await prepare(stores)
        execFileSync('mount', ['-o', 'remount,abort', folder]) // what ext4 does when the disk fails
        for (let i = 0; i < 3; i++) {
          await expectAllToReject(writes)
          await expectUnchanged(stores)
        }
        expect(await refusal()).to.equal(`the file ${path()} is read-only for this user`)
      } finally {
        rmSync(image)
      }
    })

    it('that is read-only: it is refused with a sentence, and left as it is', async () => {
      mountMemory('1m')
      const stores = await openStores(`sqlite:${path()}`)
      await stores.close()
      const bytes = readFileSync(path())
      execFileSync('mount', ['-o', 'remount,ro', folder])
      expect(await refusal()).to.equal(
        `the file ${path()} cannot be opened: does its folder exist, and may this user write to it?`,
      )
      expect(readFileSync(path()).equals(bytes)).to.equal(true)
    })

    it('that may be read but not written by this user: it is refused with a sentence', async () => {
      mountMemory('1m')
      const stores = await openStores(`sqlite:${path()}`)
      await stores.close()
      chmodSync(path(), 0o644)
      asOther = await startPeer({ uid: 65534, gid: 65534 })
      for (const mode of [0o755, 0o777]) {
        chmodSync(folder, mode)
        const message = await asOther.open(`sqlite:${path()}`).then(() => 'opened', toMessage)
        expect(message).to.equal(`TOKEN_STORE_URL: the file ${path()} is read-only for this user`)
      }
    })
  })
})

function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', folder], { stdio: 'ignore' })
    execFileSync('umount', [folder])
    return true
  } catch {
    return false
  } finally {
    rmSync(folder, { recursive: true })
  }
}
