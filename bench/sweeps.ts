import { readArguments, readCount } from '../commands/arguments.ts'
import { openTokenStore } from '../services/auth/stores/index.ts'
import type { TokenRef, TokenStore } from '../services/auth/stores/tokenPort.ts'
import { createSweeper } from '../services/auth/tokens/sweeper.ts'
import { askDatabase } from '../tests/support/sqlStores.ts'
import { newTokenAt } from '../tests/support/storeFixtures.ts'
import { freshPlace } from '../tests/support/stores.ts'
import { median } from './load.ts'
import { startRedis } from './ownServers.ts'
import { stopAll } from './processes.ts'
import { createProgress } from './progress.ts'
import { about, checkJsonOption, jsonOption, writeJson } from './result.ts'
import { markdownTable, whole } from './table.ts'

const usage = `Usage: npm run bench:sweeps -- [options]

Measures sweeps of SQLite, PostgreSQL (TEST_POSTGRES_URL, or 127.0.0.1) and a redis-server of its own, alone and beside validations
of four callers with 16 tokens in a call.

  --live N     how many live tokens (10000)
  --dead N     how many dead tokens in SQL, for each measurement (50000)
  --rounds N   number of rounds; the result is their median (5)
  --seconds N  for each measurement of validations (2)
  --json FILE  write the result to a file`

const options = readArguments(usage, {
  live: { type: 'string', default: '10000' },
  dead: { type: 'string', default: '50000' },
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '2' },
  ...jsonOption,
})
const liveCount = readCount(usage, 'live', options.live)
const deadCount = readCount(usage, 'dead', options.dead)
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
checkJsonOption(usage, options)

interface Place {
  name: string
  store: TokenStore
  refs: TokenRef[]
  addDead(): Promise<void>
  close(): Promise<void>
}

async function fill(store: TokenStore): Promise<TokenRef[]> {
  const now = Date.now()
  const times = { expiresAt: now + 36e5, absoluteExpiresAt: now + 36e6, ttlMs: 36e5 }
  const refs: TokenRef[] = []
  while (refs.length < liveCount) {
    const { ref, token } = newTokenAt(now, { username: 'ann', ...times })
    await store.insert(ref, token, { perUser: 1, total: Infinity }, now)
    refs.push(ref)
  }
  return refs
}

async function openSql(scheme: 'sqlite' | 'postgres'): Promise<Place> {
  const { url, remove } = await freshPlace(scheme, { isDurable: true })
  const store = await openTokenStore(url)
  const numbers =
    scheme === 'postgres'
      ? `n as (select generate_series(1, ${deadCount}) as i)`
      : `n(i) as (select 1 union all select i + 1 from n where i < ${deadCount})`
  const id = scheme === 'postgres' ? 'gen_random_uuid()::text' : 'hex(randomblob(16))'
  const copied =
    'hash, kind, user_id, username, credential_version, created_at, last_used_at, absolute_expires_at, ttl_ms'
  const place = {
    name: scheme === 'postgres' ? 'PostgreSQL' : 'SQLite',
    store,
    refs: await fill(store),
    async addDead() {
      await askDatabase(
        url,
        `with recursive t as (select ${copied} from latchkey_tokens limit 1), ${numbers}
          insert into latchkey_tokens (id, ${copied}, refresh_count, expires_at, sweep_at)
          select ${id}, ${copied}, 0, 1000 + i, 1000 + i from t, n`,
      )
      if (scheme === 'postgres') await askDatabase(url, 'vacuum analyze latchkey_tokens')
    },
    close: () => store.close().then(remove),
  }
  return place
}

async function openRedis(): Promise<Place> {
  const { url } = await startRedis({ isDurable: true })
  const store = await openTokenStore(url)
  return { name: 'Redis', store, refs: await fill(store), addDead: async () => {}, close: store.close }
}

const sweeperOf = (store: TokenStore) =>
  createSweeper({
    store,
    intervalMs: 1,
    now: Date.now,
    isSteady: () => true,
    monotonicNow: () => performance.now(),
    emit: () => {},
  })

async function validationsPerSecond({ store, refs }: Place): Promise<number> {
  const endsAt = performance.now() + seconds * 1000
  let validations = 0
  async function call(): Promise<void> {
    while (performance.now() < endsAt) {
      const asked = Array.from({ length: 16 }, () => refs[Math.floor(Math.random() * refs.length)] as TokenRef)
      await store.touch(asked, Date.now(), null)
      validations += asked.length
    }
  }
  await Promise.all(Array.from({ length: 4 }, call))
  return validations / seconds
}

interface Figures {
  /** Dead tokens in SQL, live tokens in Redis. */
  sweptPerSecond: number
  free: number
  sweeping: number
}

async function measure(place: Place): Promise<Figures> {
  await place.addDead()
  const startedAt = performance.now()
  const removed = await sweeperOf(place.store).sweep()
  const sweptPerSecond = (removed || place.refs.length) / ((performance.now() - startedAt) / 1000)
  const before = await validationsPerSecond(place)
  await place.addDead()
  const sweeper = sweeperOf(place.store)
  sweeper.start()
  const sweeping = await validationsPerSecond(place)
  await sweeper.stop()
  await sweeperOf(place.store).sweep()
  return { sweptPerSecond, free: (before + (await validationsPerSecond(place))) / 2, sweeping }
}

const openings = [() => openSql('sqlite'), () => openSql('postgres'), openRedis]
const progress = createProgress(openings.length * rounds, seconds * 4)
progress.say('Filling the stores')
const places: Place[] = []
try {
  for (const open of openings) places.push(await open())
  const rows: [string, Figures[]][] = places.map(({ name }) => [name, []])
  for (let round = 0; round < rounds; round++) {
    for (const [i, place] of places.entries()) {
      progress.step(`round ${round + 1} of ${rounds}: ${place.name}`)
      rows[i]?.[1].push(await measure(place))
    }
  }
  progress.end()
  const command = `npm run bench:sweeps -- --live ${liveCount} --dead ${deadCount} --rounds ${rounds} --seconds ${seconds}`
  const columns = [
    { title: 'tokens swept/s, alone', cell: (all: Figures[]) => whole(median(all.map(one => one.sweptPerSecond))) },
    { title: 'validations/s without a sweep', cell: (all: Figures[]) => whole(median(all.map(one => one.free))) },
    {
      title: 'ratio during a sweep',
      cell: (all: Figures[]) => median(all.map(({ free, sweeping }) => sweeping / free)).toFixed(2),
    },
  ]
  const report = { ...about(command), results: Object.fromEntries(rows) }
  console.log(`${report.machine}, ${report.date}\n${command}\n\n${markdownTable('tokens in', columns, rows)}`)
  writeJson(options, report)
} finally {
  for (const place of places) await place.close()
  stopAll()
}
process.exit()
