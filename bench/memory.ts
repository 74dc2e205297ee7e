// npm run bench:memory: the memory store with 1 and 10 million live tokens, compared with a Map of objects. Each
// measurement runs in its own process, so that no measurement affects another.
import { spawnSync } from 'node:child_process'
import { hash, randomBytes } from 'node:crypto'
import { rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { readArguments, readCount, readCounts } from '../commands/arguments.ts'
import { openSnapshotStore } from '../services/auth/stores/memory/snapshot.ts'
import { openTokenStore } from '../services/auth/stores/memory/tokenStore.ts'
import { noAuthority, type TokenRecord, type TokenRef, type TokenStore } from '../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../services/auth/tokens/format.ts'
import { createSweeper } from '../services/auth/tokens/sweeper.ts'
import { createProgress, saveResults } from './progress.ts'
import { about, asJson, checkJsonOption, jsonOption, saveOption, writeJson } from './result.ts'

const usage = `Usage: npm run bench:memory -- [options]

Fills the memory store with live tokens and measures bytes per token, touches, a sweep and a snapshot, and compares them with a Map
of objects. Ten million take about 4 GB of memory and ten minutes.

  --counts LIST   numbers of tokens, with a column for each (1000000,10000000)
  --json FILE     write the result to a file: results[count][measurement]
  --save          replace bench/results/memory.json, which docs/benchmarks.md quotes`

const options = readArguments(usage, {
  counts: { type: 'string', default: '1000000,10000000' },
  ...jsonOption,
  ...saveOption,
  // Internal: this file starts itself again, in a new process for each measurement.
  measure: { type: 'string' },
  count: { type: 'string', default: '1' },
})
checkJsonOption(usage, options)
const tokensPerUser = 100 // the default limit
const unlimited = { perUser: Infinity, total: Infinity }
const now = Date.UTC(2027)
const hour = 3_600_000
const year = 365 * 24 * hour

type Figures = Record<string, number>

/** `users` share the tokens by turns, so that the tokens of a user are far apart, as if issued over months. */
function newToken(i: number, users: number, expiresAt: number): { ref: TokenRef; token: TokenRecord } {
  const user = i % users
  const userId = `00000000-0000-4000-8000-${user.toString(16).padStart(12, '0')}` // as long as the ids that Auth draws
  // Issue times are spread over a year, as in real use; a single second does not have enough different ids for all tokens.
  const createdAt = now - (i % 31_536_000) * 1000
  const id = drawTokenId(userId, createdAt)
  const token: TokenRecord = {
    id,
    kind: 'sliding',
    purpose: null,
    userId,
    username: `user-${user}@example.com`,
    credentialVersion: 1,
    createdAt,
    loginId: id,
    lastUsedAt: createdAt,
    expiresAt,
    absoluteExpiresAt: createdAt + 2 * year,
    ttlMs: hour,
    refreshCount: 0,
    scope: null,
    paused: false,
    rate: null,
    usesLeft: null,
    name: null,
    parent: null,
    authority: noAuthority,
  }
  return { ref: refOf(id), token }
}

const refOf = (id: string): TokenRef => ({ id, hash: hash('sha256', id, 'base64url') })

interface Filling {
  count: number
  perUser?: number
  expiresAt?: number
}

const switches = () => process.resourceUsage().involuntaryContextSwitches

/**
 * Fills a store and keeps every 100th id. `slowest` is the slowest single insert, in milliseconds; `slowestAlone` is the
 * slowest one near which the system did not give the core to another process.
 */
async function fill(
  store: Pick<TokenStore, 'insert'>,
  { count, perUser = tokensPerUser, expiresAt = now + hour }: Filling,
) {
  const ids: string[] = []
  let [slowest, slowestAlone, switchesBefore] = [0, 0, switches()]
  for (let i = 0; i < count; i++) {
    const { ref, token } = newToken(i, Math.ceil(count / perUser), expiresAt)
    if (i % 100 === 0) ids.push(ref.id)
    const startedAt = performance.now()
    await store.insert(ref, token, unlimited, now)
    const ms = performance.now() - startedAt
    slowest = Math.max(slowest, ms)
    if (ms > slowestAlone && switches() === switchesBefore) slowestAlone = ms
    if (i % 20 === 0) switchesBefore = switches()
  }
  return { ids, slowest, slowestAlone }
}

/** The memory of the process in bytes after garbage collection. Some of what was freed stays in the process: up to 30 MB. */
function residentBytes(): number {
  // This kind of collection also gives back the memory by which the heap grew while the tokens were made.
  for (let i = 0; i < 3; i++) globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' })
  return process.memoryUsage().rss
}

async function measureFill(count: number, perUser: number): Promise<Figures> {
  const store = await openTokenStore()
  await fill(store, { count: 1000 })
  const before = { resident: residentBytes(), arrays: process.memoryUsage().arrayBuffers }
  const { ids, slowest, slowestAlone } = await fill(store, { count, perUser })
  const figures: Figures = {
    'bytes per token': (residentBytes() - before.resident) / count, // the store is used below, so it has not been collected
    'bytes per token, typed arrays alone': (process.memoryUsage().arrayBuffers - before.arrays) / count,
    'slowest insert, ms': slowest,
    'slowest insert without a context switch, ms': slowestAlone,
  }
  const refs = ids.map(refOf)
  for (const batch of [1, 64]) {
    const rounds = Math.floor(500_000 / batch)
    const batches = Array.from({ length: 1000 }, () =>
      Array.from({ length: batch }, () => refs[randomBytes(4).readUInt32LE() % refs.length] as TokenRef),
    )
    for (let i = 0; i < rounds / 4; i++) await store.touch(batches[i % 1000] as TokenRef[], now, null)
    const startedAt = performance.now()
    for (let i = 0; i < rounds; i++) await store.touch(batches[i % 1000] as TokenRef[], now, null)
    figures[`touches per second, batches of ${batch}`] = (rounds * batch) / ((performance.now() - startedAt) / 1000)
  }
  return figures
}

/** For comparison, the usual way: a Map with one object per token, by hash. */
async function measureMap(count: number): Promise<Figures> {
  const tokens = new Map<string, TokenRecord>()
  async function insert({ hash }: TokenRef, token: TokenRecord) {
    tokens.set(hash, { ...token })
    return 'inserted' as const
  }
  const before = residentBytes()
  const { slowest } = await fill({ insert }, { count })
  const bytes = (residentBytes() - before) / count
  if (tokens.size !== count) throw new Error('the Map is gone')
  return { 'bytes per token': bytes, 'slowest insert, ms': slowest }
}

/** Sweeps a million dead tokens among `count` live ones, and touches 64 live tokens, as one batch, in every turn. */
async function measureSweep(count: number): Promise<Figures> {
  const store = await openTokenStore()
  const { ids } = await fill(store, { count })
  await fill(store, { count: 1_000_000, expiresAt: now })
  const batch = ids.slice(0, 64).map(refOf)
  let busy = true
  const load = async () => {
    while (busy) {
      await store.touch(batch, now, null)
      await new Promise(setImmediate)
    }
  }
  async function delay(work: () => Promise<unknown>): Promise<{ p99: number; max: number }> {
    globalThis.gc?.()
    await sleep(200)
    const histogram = monitorEventLoopDelay({ resolution: 1 })
    histogram.enable()
    await work()
    histogram.disable()
    return { p99: histogram.percentile(99) / 1e6, max: histogram.max / 1e6 }
  }
  const loading = load()
  const idle = await delay(() => sleep(1500))
  let removed = 0
  let sweepMs = 0
  const monotonicNow = () => performance.now()
  const sweeper = createSweeper({
    ...{ store, intervalMs: hour, now: () => now, isSteady: () => true, monotonicNow },
    emit: () => {},
  })
  const sweeping = await delay(async () => {
    const startedAt = performance.now()
    removed = await sweeper.sweep()
    sweepMs = performance.now() - startedAt
  })
  busy = false
  await loading
  if (removed !== 1_000_000) throw new Error(`swept ${removed}`)
  return {
    'sweep of a million, ms': sweepMs,
    'event-loop delay idle, p99 ms': idle.p99,
    'event-loop delay idle, max ms': idle.max,
    'event-loop delay sweeping, p99 ms': sweeping.p99,
    'event-loop delay sweeping, max ms': sweeping.max,
  }
}

async function measureSnapshot(count: number): Promise<Figures> {
  const file = join(tmpdir(), `latchkey-bench-${process.pid}`)
  const open = () =>
    openSnapshotStore({
      file,
      key: 'bench',
      ownerOf: async () => ({ credentialVersion: 1, authority: noAuthority }),
      now: () => now,
    })
  const { store } = await open()
  await fill(store, { count })
  const written = await timed(() => store.close())
  const megabytes = statSync(file).size / 1e6
  const loaded = await timed(open)
  rmSync(file, { force: true })
  if (loaded.result.restored?.tokens !== count) throw new Error(`restored ${loaded.result.restored?.tokens}`)
  return {
    'snapshot written, s': written.seconds,
    'event-loop delay while written, max ms': written.maxDelayMs,
    'snapshot, MB': megabytes,
    'snapshot loaded, s': loaded.seconds,
    'event-loop delay while loaded, max ms': loaded.maxDelayMs,
  }
}

async function timed<T>(work: () => Promise<T>) {
  const histogram = monitorEventLoopDelay({ resolution: 1 })
  histogram.enable()
  await sleep(50) // the first delay that it measures is not one of the work
  histogram.reset()
  const startedAt = performance.now()
  const result = await work()
  const seconds = (performance.now() - startedAt) / 1000
  histogram.disable()
  return { result, seconds, maxDelayMs: histogram.max / 1e6 }
}

const measurements: Record<string, (count: number) => Promise<Figures>> = {
  'typed arrays': count => measureFill(count, tokensPerUser),
  'typed arrays, one token a user': count => measureFill(count, 1),
  'Map of objects': measureMap,
  sweep: measureSweep,
  snapshot: measureSnapshot,
}

if (options.measure) {
  const measure = measurements[options.measure] as (count: number) => Promise<Figures>
  process.stdout.write(JSON.stringify(await measure(readCount(usage, 'count', options.count))))
} else {
  const counts = readCounts(usage, 'counts', options.counts)
  const progress = createProgress(counts.length * Object.keys(measurements).length, 30)
  const results: Record<string, Record<string, Figures>> = {}
  for (const count of counts) {
    for (const name of Object.keys(measurements)) {
      progress.step(`${count.toLocaleString('en')} tokens: ${name}`)
      const args = [
        '--expose-gc',
        '--max-old-space-size=16000',
        'bench/memory.ts',
        '--measure',
        name,
        '--count',
        `${count}`,
      ]
      const { stdout, status } = spawnSync(process.execPath, args, {
        stdio: ['ignore', 'pipe', 'inherit'],
        encoding: 'utf8',
      })
      if (status !== 0) throw new Error(`${name} at ${count} failed`)
      results[count] = { ...results[count], [name]: JSON.parse(stdout) as Figures }
    }
  }
  progress.end()
  const report = { ...about(`npm run bench:memory -- --counts ${counts}`), results }
  const columns = counts.map(count => `${count / 1e6} million`)
  const lines = [`| live tokens | ${columns.join(' | ')} |`, `|---|${counts.map(() => '--:|').join('')}`]
  for (const name of Object.keys(measurements)) {
    for (const figure of Object.keys(results[counts[0] as number]?.[name] ?? {})) {
      const cells = counts.map(count => {
        const value = results[count]?.[name]?.[figure] ?? 0
        return value >= 1000 ? Math.round(value).toLocaleString('en') : value.toFixed(value < 20 ? 2 : 0)
      })
      lines.push(`| ${name}: ${figure} | ${cells.join(' | ')} |`)
    }
  }
  console.log(`${report.machine}, ${report.date}\n${report.command}\n\n${lines.join('\n')}`)
  writeJson(options, report)
  saveResults(options.save, { 'memory.json': asJson(report) })
}
