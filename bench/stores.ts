// npm run bench:stores: /data with the tokens in each store, batched and with one call per request, compared with the
// same server verifying JWTs, measured in turn in one run. Ends with a table; --save keeps it in bench/results/.
import { randomBytes } from 'node:crypto'
import { readArguments, readCount, refuseUsage } from '../commands/arguments.ts'
import { freshPlace, type Place } from '../tests/support/stores.ts'
import { signTokens } from './jwt.ts'
import { drive, type LoadResult, loadTool, median } from './load.ts'
import { describeMachine, logIn, type Running, start, startAuth, stopAll } from './processes.ts'
import { createProgress, saveResults } from './progress.ts'

const known = ['memory', 'sqlite', 'postgres', 'redis']
const usage = `Usage: npm run bench:stores -- [options]

Measures requests per second of /data with the tokens in each store, batched and with one call to Auth for each request.
Uses the PostgreSQL and the Redis of the tests: TEST_POSTGRES_URL and TEST_REDIS_URL, or 127.0.0.1.

  --rounds N        number of rounds; the result is their median (3)
  --seconds N       for each measurement (3)
  --connections N   how many connections (64)
  --stores LIST     some of ${known.join(', ')} (all)
  --save            replace bench/results/stores.json, which the README quotes`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '3' },
  connections: { type: 'string', default: '64' },
  stores: { type: 'string', default: known.join(',') },
  save: { type: 'boolean', default: false },
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
const connections = readCount(usage, 'connections', options.connections)
const schemes = options.stores.split(',')
const unknown = schemes.filter(scheme => !known.includes(scheme))
if (unknown.length > 0) refuseUsage(usage, `--stores: there is no store ${unknown.join(', ')}.`)
const tokenCount = 64

interface Row {
  store: string
  name: string
  server: Running
  tokens: string[]
  results: LoadResult[]
}

const places: Place[] = []
const rows: Row[] = []

async function addStore(scheme: string): Promise<void> {
  const place = await freshPlace(scheme)
  places.push(place)
  const auth = await startAuth({ TOKEN_STORE_URL: place.url })
  const tokens: string[] = []
  for (let i = 0; i < tokenCount; i++) tokens.push(await logIn(`${auth.addresses['auth']}`))
  const env = {
    AUTH_INTERNAL_URL: `${auth.addresses['authInternal']}`,
    BUSINESS_PORT: '0',
    BUSINESS_INTERNAL_PORT: '0',
    CHASSIS: 'ours',
  }
  const add = async (name: string, file: string, more: Record<string, string> = {}) =>
    rows.push({ store: scheme, name, server: await start(file, { ...env, ...more }), tokens, results: [] })
  await add('batched', 'services/business/main.ts')
  await add('one call per request', 'bench/server.ts', { VARIANT: 'one call per request' })
}

async function addJwt(): Promise<void> {
  const secret = randomBytes(32).toString('hex')
  const env = { VARIANT: 'jose HS256', CHASSIS: 'ours', JWT_SECRET: secret, JWT_PUBLIC_KEY: '' }
  const tokens = await signTokens(tokenCount, 'HS256', new TextEncoder().encode(secret))
  rows.push({ store: 'none', name: 'jose HS256', server: await start('bench/server.ts', env), tokens, results: [] })
}

async function measure(row: Row, seconds: number): Promise<LoadResult> {
  const result = await drive({
    url: `${row.server.addresses['business']}/data`,
    connections,
    seconds,
    tokens: row.tokens,
  })
  if (result.errors > 0) throw new Error(`${row.store}, ${row.name}: ${result.errors} errors`)
  return result
}

const progress = createProgress((1 + rounds) * (2 * schemes.length + 1), seconds)
try {
  progress.say('Starting the servers')
  for (const scheme of schemes) await addStore(scheme)
  await addJwt()
  for (const row of rows) {
    progress.step(`warm-up: ${row.store}, ${row.name}`)
    await measure(row, 1)
  }
  for (let round = 0; round < rounds; round++) {
    for (const row of rows) {
      progress.step(`round ${round + 1} of ${rounds}: ${row.store}, ${row.name}`)
      row.results.push(await measure(row, seconds))
    }
  }
  progress.end()
  const of = (row: Row | undefined, value: 'perSecond' | 'p50' | 'p99') =>
    median((row?.results ?? []).map(result => result[value]))
  const find = (store: string, name: string) => rows.find(row => row.store === store && row.name === name)
  const jwt = of(find('none', 'jose HS256'), 'perSecond')
  const table = schemes.map(store => {
    const [batched, single] = [find(store, 'batched'), find(store, 'one call per request')]
    return {
      store,
      batchedPerSecond: Math.round(of(batched, 'perSecond')),
      singlePerSecond: Math.round(of(single, 'perSecond')),
      batchedToSingle: Number((of(batched, 'perSecond') / of(single, 'perSecond')).toFixed(2)),
      batchedToJose: Number((of(batched, 'perSecond') / jwt).toFixed(2)),
      p50Ms: Number(of(batched, 'p50').toFixed(2)),
      p99Ms: Number(of(batched, 'p99').toFixed(2)),
    }
  })
  const about = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    tool: loadTool,
    rounds,
    seconds,
    connections,
  }
  console.table(table)
  console.log(`jose HS256 in the same chassis: ${Math.round(jwt)} requests/s`)
  const report = { ...about, joseHs256PerSecond: Math.round(jwt), stores: table }
  saveResults(options.save, { 'stores.json': `${JSON.stringify(report, null, 2)}\n` })
} finally {
  stopAll()
  for (const place of places) await place.remove().catch(() => {})
}
