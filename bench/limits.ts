// npm run bench:limits: what the limits of tokens and users cost a token store.
import { readArguments, readCount } from '../commands/arguments.ts'
import { openTokenStore } from '../services/auth/stores/index.ts'
import { noAuthority, type TokenRecord, type TokenRef, type TokenStore } from '../services/auth/stores/tokenPort.ts'
import { newTokenAt, unlimited } from '../tests/support/storeFixtures.ts'
import { freshPlace } from '../tests/support/stores.ts'
import { median } from './load.ts'
import { startRedis } from './ownServers.ts'
import { stopAll } from './processes.ts'
import { createProgress } from './progress.ts'
import { about, checkJsonOption, jsonOption, writeJson } from './result.ts'
import { markdownTable } from './table.ts'

const usage = `Usage: npm run bench:limits -- [options]

Measures validations of memory, SQLite, PostgreSQL (TEST_POSTGRES_URL, or 127.0.0.1) and a redis-server of its own, in batches of 64
tokens: without limits, with a rate of each token, a number of uses of each token, and a rate of each user.

  --rounds N   number of rounds; the result is their median (9)
  --json FILE  write the result to a file`

const options = readArguments(usage, { rounds: { type: 'string', default: '9' }, ...jsonOption })
const rounds = readCount(usage, 'rounds', options.rounds)
checkJsonOption(usage, options)

const rate = { perMinute: 100_000, burst: 100_000 } // never reached
const limits = {
  none: {},
  'rate of the token': { rate },
  'uses of the token': { usesLeft: 1_000_000_000 },
  'rate of the user': { authority: { ...noAuthority, version: 1, rate } },
} satisfies Record<string, Partial<TokenRecord>>
type Limits = keyof typeof limits

const tokensPerBatch = 64
const tokensPerKind = 960
const msPerMeasurement = 150

interface Filled {
  store: TokenStore
  refs: Record<Limits, TokenRef[]>
}

async function fill(store: TokenStore): Promise<Filled> {
  const now = Date.now()
  const refs: Filled['refs'] = { none: [], 'rate of the token': [], 'uses of the token': [], 'rate of the user': [] }
  for (const [kind, members] of Object.entries(limits) as [Limits, Partial<TokenRecord>][]) {
    while (refs[kind].length < tokensPerKind) {
      const { ref, token } = newTokenAt(now, members)
      await store.insert(ref, token, unlimited, now)
      refs[kind].push(ref)
    }
  }
  return { store, refs }
}

/** Microseconds for each token. */
async function measure({ store, refs }: Filled, kind: Limits): Promise<number> {
  const startedAt = performance.now()
  let touched = 0
  while (performance.now() - startedAt < msPerMeasurement) {
    const from = touched % tokensPerKind
    await store.touch(refs[kind].slice(from, from + tokensPerBatch), Date.now(), null)
    touched += tokensPerBatch
  }
  return ((performance.now() - startedAt) * 1000) / touched
}

const kinds = Object.keys(limits) as Limits[]
const places = [await freshPlace('sqlite', { isDurable: true }), await freshPlace('postgres')]
const urls = { memory: 'memory:', SQLite: places[0]?.url, PostgreSQL: places[1]?.url, Redis: (await startRedis()).url }
const progress = createProgress(Object.keys(urls).length * rounds, (kinds.length * msPerMeasurement) / 1000)
progress.say('Filling the stores')
const stores: [string, Filled][] = []
try {
  for (const [name, url] of Object.entries(urls)) stores.push([name, await fill(await openTokenStore(url as string))])
  const rows = stores.map(([name]): [string, Record<Limits, number>[]] => [name, []])
  for (let round = 0; round < rounds; round++) {
    for (const [i, [name, filled]] of stores.entries()) {
      progress.step(`round ${round + 1} of ${rounds}: ${name}`)
      const figures = {} as Record<Limits, number>
      for (const kind of kinds) figures[kind] = await measure(filled, kind)
      rows[i]?.[1].push(figures)
    }
  }
  progress.end()
  const command = `npm run bench:limits -- --rounds ${rounds}`
  const ratio = (kind: Limits) => (all: Record<Limits, number>[]) =>
    median(all.map(figures => figures[kind] / figures.none)).toFixed(2)
  const columns = [
    {
      title: 'µs without limits',
      cell: (all: Record<Limits, number>[]) => median(all.map(one => one.none)).toFixed(1),
    },
    ...kinds.slice(1).map(kind => ({ title: `ratio with a limit: ${kind}`, cell: ratio(kind) })),
  ]
  const report = { ...about(command), results: Object.fromEntries(rows) }
  console.log(`${report.machine}, ${report.date}\n${command}\n\n${markdownTable('tokens in', columns, rows)}`)
  writeJson(options, report)
} finally {
  for (const [, { store }] of stores) await store.close()
  for (const place of places) await place.remove()
  stopAll()
}
process.exit()
