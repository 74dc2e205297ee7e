// npm run bench:accounts: log-ins per second against bcrypt's own speed on one core, and registrations per second on each
// store, measured one after the other in one run. Ends with a table; --save keeps it in bench/results/.
import bcrypt from 'bcryptjs'
import { Pool } from 'undici'
import { readArguments, readCount } from '../commands/arguments.ts'
import { freshPlace } from '../tests/support/stores.ts'
import { median } from './load.ts'
import { describeMachine, startAuth, stopAll } from './processes.ts'
import { createProgress, saveResults } from './progress.ts'
import { asJson, checkJsonOption, jsonOption, saveOption, writeJson } from './result.ts'

const usage = `Usage: npm run bench:accounts -- [options]

Measures log-ins and registrations per second with users and tokens in memory, SQLite and PostgreSQL, beside bcrypt's own
speed on one core. Uses the PostgreSQL of the tests, TEST_POSTGRES_URL or 127.0.0.1:5432.

  --rounds N    number of rounds; the result is their median (3)
  --seconds N   for each measurement (5)
  --json FILE   write the result to a file
  --save        replace bench/results/accounts.json, which the documents quote`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '5' },
  ...jsonOption,
  ...saveOption,
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
checkJsonOption(usage, options)
const clients = 8
const schemes = ['memory', 'sqlite', 'postgres']

/** Hashes per second of one otherwise idle thread. */
function measureBcrypt(): number {
  const hash = bcrypt.hashSync('postman', 10)
  const startedAt = performance.now()
  let count = 0
  while (performance.now() - startedAt < seconds * 1000) {
    bcrypt.compareSync('postman', hash)
    count++
  }
  return count / ((performance.now() - startedAt) / 1000)
}

/** Answers per second to several clients, each of which sends its next request as soon as it gets an answer. */
async function measureRequests(
  url: string,
  path: string,
  expected: number,
  body: (n: number) => object,
): Promise<number> {
  const pool = new Pool(url, { connections: clients })
  const startedAt = performance.now()
  let [sent, answered] = [0, 0]
  async function ask(): Promise<void> {
    while (performance.now() - startedAt < seconds * 1000) {
      const headers = { 'content-type': 'application/json' }
      const answer = await pool.request({ method: 'POST', path, headers, body: JSON.stringify(body(sent++)) })
      const text = await answer.body.text()
      if (answer.statusCode !== expected) throw new Error(`${path}: ${answer.statusCode} ${text}`)
      answered++
    }
  }
  await Promise.all(Array.from({ length: clients }, ask))
  const perSecond = answered / ((performance.now() - startedAt) / 1000)
  await pool.close()
  return perSecond
}

const progress = createProgress(rounds * (1 + schemes.length), 2 * seconds)
try {
  const results: Record<string, { logins: number[]; registrations: number[] }> = {}
  const bcryptAlone: number[] = []
  for (let round = 0; round < rounds; round++) {
    progress.step(`round ${round + 1} of ${rounds}: bcrypt alone`)
    bcryptAlone.push(measureBcrypt())
    for (const scheme of schemes) {
      progress.step(`round ${round + 1} of ${rounds}: ${scheme}`)
      const place = await freshPlace(scheme, { isDurable: true })
      const stores = { USER_STORE_URL: place.url, TOKEN_STORE_URL: place.url }
      const limits = { LOGIN_LIMIT_PER_ADDRESS: '1000000', REGISTRATION_LIMIT_PER_ADDRESS: '1000000' }
      const auth = await startAuth({ ...stores, ...limits })
      const url = `${auth.addresses['auth']}`
      results[scheme] ??= { logins: [], registrations: [] }
      const demo = { username: 'demo@example.com', password: 'postman' }
      results[scheme].logins.push(await measureRequests(url, '/login', 200, () => demo))
      const someone = (n: number) => ({
        username: `user-${n}@example.com`,
        password: `walrus tundra gherkin plinth ${n}`,
      })
      results[scheme].registrations.push(await measureRequests(url, '/users', 201, someone))
      stopAll()
      await place.remove()
    }
  }
  progress.end()
  const bcryptPerSecond = median(bcryptAlone)
  const table = Object.entries(results).map(([store, { logins, registrations }]) => ({
    store,
    loginsPerSecond: Number(median(logins).toFixed(1)),
    loginsToBcrypt: Number((median(logins) / bcryptPerSecond).toFixed(2)),
    registrationsPerSecond: Number(median(registrations).toFixed(1)),
  }))
  console.table(table)
  console.log(
    `bcryptjs alone, one thread, cost 10: ${bcryptPerSecond.toFixed(1)} per second; Auth hashes on one thread here`,
  )
  const report = {
    machine: describeMachine(),
    date: new Date().toISOString(),
    rounds,
    seconds,
    bcryptPerSecond,
    stores: table,
  }
  writeJson(options, report)
  saveResults(options.save, { 'accounts.json': asJson(report) })
} finally {
  stopAll()
}
