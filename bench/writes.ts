// npm run bench:writes: what a validation writes in each store, and how many a store answers a second, by the number of
// tokens in a call. Calls the stores directly, one call after another. Uses redis-servers and a SQLite file of its own.
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createClient } from '@redis/client'
import pg from 'pg'
import { readArguments, readCount, readCounts } from '../commands/arguments.ts'
import { openTokenStore } from '../services/auth/stores/index.ts'
import type { TokenRef, TokenStore } from '../services/auth/stores/tokenPort.ts'
import { newTokenAt } from '../tests/support/storeFixtures.ts'
import { freshPlace, postgresUrl } from '../tests/support/stores.ts'
import { median } from './load.ts'
import { startRedis, startRedisCluster } from './ownServers.ts'
import { stopAll } from './processes.ts'
import { createProgress, saveResults } from './progress.ts'
import { about, asJson, checkJsonOption, jsonOption, saveOption, writeJson } from './result.ts'
import { type Writes, writesTable } from './writesTable.ts'

const usage = `Usage: npm run bench:writes -- [options]

Measures what validations write: to SQLite's files, to PostgreSQL's write-ahead log, and to Redis's append-only file, which is
synced every second. The Redis cluster has three masters on this machine. Uses the PostgreSQL of the tests: TEST_POSTGRES_URL, or 127.0.0.1. Nothing else may write to it meanwhile.

  --tokens N     how many live tokens, ten for each user (10000)
  --batch LIST   numbers of tokens in a call (1,16,64,255)
  --rounds N     number of rounds; the result is their median (3)
  --seconds N    for each measurement (2)
  --json FILE    write the result to a file
  --save         replace bench/results/writes.json, which the documents quote`

const options = readArguments(usage, {
  tokens: { type: 'string', default: '10000' },
  batch: { type: 'string', default: '1,16,64,255' },
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '2' },
  ...jsonOption,
  ...saveOption,
})
const tokenCount = readCount(usage, 'tokens', options.tokens)
const batches = readCounts(usage, 'batch', options.batch)
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
checkJsonOption(usage, options)

interface Place {
  name: string
  store: TokenStore
  refs: TokenRef[]
  /** Bytes written so far. */
  written(): Promise<number>
  close(): Promise<void>
}

/** Adds live tokens, ten for each user. */
async function fill(store: TokenStore): Promise<TokenRef[]> {
  const refs: TokenRef[] = []
  const now = Date.now()
  const hour = 3_600_000
  const times = { expiresAt: now + hour, absoluteExpiresAt: now + 12 * hour, ttlMs: hour }
  for (let i = 0; i < tokenCount; i += 10) {
    const owner = { userId: randomUUID(), username: `user-${i}@example.com` }
    for (let j = 0; j < 10; j++) {
      const { ref, token } = newTokenAt(now, { ...owner, ...times })
      await store.insert(ref, token, { perUser: Infinity, total: Infinity }, now)
      refs.push(ref)
    }
  }
  return refs
}

async function openSqlite(): Promise<Place> {
  const { url, remove } = await freshPlace('sqlite')
  const store = await openTokenStore(url)
  return {
    name: 'SQLite',
    store,
    refs: await fill(store),
    written: async () => Number(/^wchar: (\d+)/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]),
    close: () => store.close().then(remove),
  }
}

async function openPostgres(): Promise<Place> {
  const { url, remove } = await freshPlace('postgres', { isDurable: true })
  const store = await openTokenStore(url)
  const client = new pg.Client(postgresUrl)
  await client.connect()
  const refs = await fill(store)
  await client.query('analyze') // as autovacuum does within a minute; without it the planner takes the table for empty
  return {
    name: 'PostgreSQL',
    store,
    refs,
    written: async () => Number((await client.query(`select pg_current_wal_lsn() - '0/0' as bytes`)).rows[0].bytes),
    async close() {
      await Promise.all([store.close(), client.end()])
      await remove()
    },
  }
}

async function openRedis(): Promise<Place> {
  const { url } = await startRedis({ isDurable: true })
  return openRedisPlace('Redis', url, [url])
}

async function openRedisCluster(): Promise<Place> {
  const { url, urls } = await startRedisCluster({ isDurable: true })
  return openRedisPlace('Redis Cluster', url, urls)
}

/** `servers`: the URL of each redis-server that holds a part of the tokens. */
async function openRedisPlace(name: string, url: string, servers: string[]): Promise<Place> {
  const store = await openTokenStore(url)
  const clients = await Promise.all(servers.map(url => createClient({ url }).connect()))
  const writtenTo = async (client: (typeof clients)[number]) =>
    Number(/aof_current_size:(\d+)/.exec(await client.info('persistence'))?.[1])
  return {
    name,
    store,
    refs: await fill(store),
    written: async () => (await Promise.all(clients.map(writtenTo))).reduce((sum, bytes) => sum + bytes),
    async close() {
      await store.close()
      for (const client of clients) client.destroy()
    },
  }
}

async function measure({ store, refs, written }: Place, batch: number): Promise<Writes> {
  const before = await written()
  const startedAt = performance.now()
  let validations = 0
  while (performance.now() - startedAt < seconds * 1000) {
    const asked = Array.from({ length: batch }, (_, i) => refs[(validations + i) % refs.length] as TokenRef)
    const found = await store.touch(asked, Date.now(), null)
    if (found.includes(null)) throw new Error('a live token was refused')
    validations += batch
  }
  const perSecond = validations / ((performance.now() - startedAt) / 1000)
  return { perSecond, bytesPerValidation: ((await written()) - before) / validations }
}

const openings = [openSqlite, openPostgres, openRedis, openRedisCluster]
const progress = createProgress(openings.length * batches.length * rounds, seconds)
progress.say('Filling the stores')
const places: Place[] = []
try {
  for (const open of openings) places.push(await open())
  const measured = new Map<string, Writes[]>()
  for (let round = 0; round < rounds; round++) {
    for (const place of places) {
      for (const batch of batches) {
        progress.step(`round ${round + 1} of ${rounds}: ${place.name}, ${batch} in a call`)
        const key = `${place.name}, ${batch} in a call`
        measured.set(key, [...(measured.get(key) ?? []), await measure(place, batch)])
      }
    }
  }
  progress.end()
  const results = [...measured].map(([name, all]): [string, Writes] => [
    name,
    {
      perSecond: median(all.map(({ perSecond }) => perSecond)),
      bytesPerValidation: median(all.map(({ bytesPerValidation }) => bytesPerValidation)),
    },
  ])
  const command = `npm run bench:writes -- --tokens ${tokenCount} --batch ${batches} --rounds ${rounds} --seconds ${seconds}`
  const report = { ...about(command), results: Object.fromEntries(results) }
  console.log(`${report.machine}, ${report.date}\n${command}\n\n${writesTable(report)}`)
  writeJson(options, report)
  saveResults(options.save, { 'writes.json': asJson(report) })
} finally {
  for (const place of places) await place.close()
  stopAll()
}
process.exit()
