// npm run bench:stores: /data with the tokens in each store, batched and with one call per request, compared with the
// same server verifying JWTs, measured in turn in one run. Ends with a table; --save keeps it in bench/results/.
import { readArguments, readCount, refuseUsage } from '../commands/arguments.ts'
import { freshPlace, type Place } from '../tests/support/stores.ts'
import { compareResults } from './compare.ts'
import { loadTool } from './load.ts'
import { startAuth, stopAll } from './processes.ts'
import { createProgress, saveResults } from './progress.ts'
import {
  about,
  asJson,
  checkJsonOption,
  compareOption,
  jsonOption,
  readCompareOption,
  saveOption,
  writeJson,
} from './result.ts'
import { measureRounds, type Row } from './rounds.ts'
import { openRows } from './rows.ts'
import { jwtRow, singleRow, storesTable } from './storesTable.ts'

const known = ['memory', 'sqlite', 'postgres', 'redis']
const usage = `Usage: npm run bench:stores -- [options]

Measures requests per second of /data with the tokens in each store, batched and with one call to Auth for each request.
Uses the PostgreSQL and the Redis of the tests: TEST_POSTGRES_URL and TEST_REDIS_URL, or 127.0.0.1.

  --rounds N        number of rounds; the result is their median (3)
  --seconds N       for each measurement (3)
  --connections N   how many connections (64)
  --stores LIST     some of ${known.join(', ')} (all)
  --json FILE       write the result to a file: results[connections][row]
  --compare FILE    compare with an earlier result of --json
  --save            replace bench/results/stores.json and the table in the documents`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '3' },
  connections: { type: 'string', default: '64' },
  stores: { type: 'string', default: known.join(',') },
  ...jsonOption,
  ...compareOption,
  ...saveOption,
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
const connections = readCount(usage, 'connections', options.connections)
const schemes = options.stores.split(',')
const unknown = schemes.filter(scheme => !known.includes(scheme))
if (unknown.length > 0) refuseUsage(usage, `--stores: there is no store ${unknown.join(', ')}.`)
if (options.save && schemes.length < known.length) refuseUsage(usage, '--save: expected all stores, without --stores.')
checkJsonOption(usage, options)
const names = [jwtRow, ...schemes.flatMap(scheme => [scheme, `${scheme}, ${singleRow}`])]
const earlier = readCompareOption(usage, options, [connections], names)

const places: Place[] = []
try {
  createProgress(0, 0).say('Starting the servers')
  const rows: Row[] = await openRows([jwtRow])
  for (const scheme of schemes) {
    const place = await freshPlace(scheme, { isDurable: true })
    places.push(place)
    const auth = await startAuth({ TOKEN_STORE_URL: place.url })
    const [batched, single] = (await openRows(['Latchkey', singleRow], auth)) as [Row, Row]
    rows.push({ ...batched, name: scheme }, { ...single, name: `${scheme}, ${singleRow}` })
  }
  const results = await measureRounds(rows, { rounds, seconds, loads: [connections], warmUpLoad: connections })
  const report = {
    ...about(
      `npm run bench:stores -- --rounds ${rounds} --seconds ${seconds} --connections ${connections} --stores ${schemes}`,
    ),
    loadTool,
    rounds,
    seconds,
    results,
  }
  console.log(`${report.machine}, ${report.date}\n${report.command}\n\n${storesTable(report)}`)
  writeJson(options, report)
  if (earlier) console.log(`\n${compareResults(earlier, report)}`)
  saveResults(options.save, { 'stores.json': asJson(report) })
} finally {
  stopAll()
  const keepAlive = setInterval(() => {}, 1000) // the Redis client of the tests does not keep the process running
  for (const place of places) await place.remove().catch(() => {})
  clearInterval(keepAlive)
}
