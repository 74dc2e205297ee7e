// npm run bench:fairness: how long the log-in of one user takes while another network keeps Auth busy. See --help
import { setTimeout as sleep } from 'node:timers/promises'
import { Pool } from 'undici'
import { readArguments, readCount } from '../commands/arguments.ts'
import { startHashThreads } from '../services/auth/users/hashThreads.ts'
import { openPasswords } from '../services/auth/users/passwords.ts'
import { median } from './load.ts'
import { startAuth, stopAll } from './processes.ts'
import { createProgress } from './progress.ts'
import { about, checkJsonOption, jsonOption, writeJson } from './result.ts'
import { markdownTable } from './table.ts'

const usage = `Usage: npm run -s bench:fairness -- [options]

Starts Auth. During each attack it logs one user in repeatedly, from another address, and prints how long a log-in takes, how
many hashes were computed meanwhile (including its own), and how many log-ins were refused, compared with the same without
an attack. Then it compares failed log-ins of users whose hash has a lower cost than PASSWORD_HASH_COST with those of unknown
users.

  --seconds N   duration of each measurement, 10 by default
  --clients N   number of clients in each attack, 64 by default
  --json FILE   write the result to a file
  --help        show this`

const options = readArguments(usage, {
  seconds: { type: 'string', default: '10' },
  clients: { type: 'string', default: '64' },
  ...jsonOption,
})
const seconds = readCount(usage, 'seconds', options.seconds)
const clients = readCount(usage, 'clients', options.clients)

checkJsonOption(usage, options)
const password = 'a bright new phrase 77'
const attacker = '203.0.113.66'
const victimAddress = '192.0.2.1'
const progress = createProgress(6, seconds + 1)
progress.say('Starting Auth, and creating users')
const auth = await startAuth({ TRUSTED_PROXIES: '1', REGISTRATION_LIMIT_PER_ADDRESS: '1000', LOG_LEVEL: 'error' })
const pool = new Pool(`${auth.addresses['auth']}`, { connections: clients + 8 })

async function ask(method: 'POST' | 'PATCH', path: string, from: string, body: unknown, bearer = '') {
  const headers: Record<string, string> = { 'content-type': 'application/json', 'x-forwarded-for': from }
  if (bearer !== '') headers['authorization'] = `Bearer ${bearer}`
  const answer = await pool.request({ method, path, headers, body: JSON.stringify(body) })
  const text = await answer.body.text()
  return { status: answer.statusCode, body: JSON.parse(text) as Record<string, string> }
}

const register = (username: string) => ask('POST', '/users', attacker, { username, password })
const logIn = (username: string, from: string, typed = password) =>
  ask('POST', '/login', from, { username, password: typed })

interface Attack {
  name: string
  /** One request of client `i`. */
  send: (i: number) => Promise<unknown>
}

async function prepareAttacks(): Promise<Attack[]> {
  for (let i = 0; i < 12; i++) {
    await register(`own ${i}`)
    await logIn(`own ${i}`, attacker)
  }
  await register('sessions')
  const tokens: string[] = []
  for (let i = 0; i < 20; i++) tokens.push((await logIn('sessions', attacker)).body['token'] as string)
  const guess = { currentPassword: 'wrong', password: `${password} more` }
  let made = 0
  return [
    { name: 'one address, 12 accounts of its own', send: i => logIn(`own ${i % 12}`, attacker) },
    {
      name: 'one account, 20 sessions, wrong current password',
      send: i => ask('PATCH', '/users/me', attacker, guess, tokens[i % 20]),
    },
    { name: 'one address logs in with one account', send: () => logIn('demo@example.com', attacker, 'postman') },
    { name: 'one address guesses with made-up names', send: () => logIn(`made up ${made++}`, attacker, 'wrong') },
  ]
}

interface Measured {
  p50: number
  max: number
  /** The largest number of hashes computed between a request and its answer. It does not depend on the machine. */
  maxHashes: number
  count: number
  refused: number
  /** Requests of the attack that were answered per second. */
  perSecond: number
}

async function hashesSoFar(): Promise<number> {
  const metrics = await (await fetch(`${auth.addresses['authInternal']}/metrics`)).text()
  return Number(/^latchkey_hashes_total (\d+)/m.exec(metrics)?.[1])
}

async function measure(attack: Attack | null): Promise<Measured> {
  let isOver = false
  let sent = 0
  const attacks = Array.from({ length: attack ? clients : 0 }, async (_, i) => {
    for (; !isOver; sent++) await attack?.send(i)
  })
  await sleep(1000)
  const latencies: number[] = []
  let refused = 0
  let maxHashes = 0
  const startedAt = performance.now()
  while (performance.now() - startedAt < seconds * 1000) {
    const before = await hashesSoFar()
    const askedAt = performance.now()
    const { status } = await logIn('victim', victimAddress)
    latencies.push(performance.now() - askedAt)
    maxHashes = Math.max(maxHashes, (await hashesSoFar()) - before)
    if (status !== 200) refused++
    await sleep(100)
  }
  const perSecond = sent / (seconds + 1)
  isOver = true
  await Promise.all(attacks)
  return { p50: median(latencies), max: Math.max(...latencies), maxHashes, count: latencies.length, refused, perSecond }
}

/** Median times of a failed log-in, measured in turn: for an unknown user, and for a user whose hash has a lower cost. */
async function compareCosts(cost: number, storedCost: number): Promise<[number, number]> {
  const limits = { threads: startHashThreads(1), maxQueue: 10, maxPerAccount: 10 }
  const owner = { address: victimAddress, account: 'somebody' }
  const [older, passwords] = [
    await openPasswords({ cost: storedCost, ...limits }),
    await openPasswords({ cost, ...limits }),
  ]
  const stored = await older.hash(password, owner)
  older.close()
  const time = async (row: string | null) => {
    const startedAt = performance.now()
    await passwords.verify('wrong', row, owner)
    return performance.now() - startedAt
  }
  const [unknown, existing]: [number[], number[]] = [[], []]
  for (let i = 0; i < 21; i++) {
    unknown.push(await time(null))
    existing.push(await time(stored))
  }
  passwords.close()
  return [median(unknown), median(existing)]
}

await register('victim')
await logIn('victim', victimAddress)
const attacks = await prepareAttacks()
const attacksMeasured: Record<string, Measured> = {}
for (const attack of [null, ...attacks]) {
  const name = attack?.name ?? 'calm'
  progress.step(name)
  attacksMeasured[name] = await measure(attack)
}
await pool.close()
stopAll()
progress.step('failed log-ins at two hash costs')
const [unknown, existing] = await compareCosts(12, 10)
progress.end()
const report = {
  ...about(`npm run bench:fairness -- --seconds ${seconds} --clients ${clients}`),
  attacks: attacksMeasured,
  failedLogInMs: { unknownUser: unknown, lowerHashCost: existing },
}
const columns = [
  { title: 'log-in p50 ms', cell: ({ p50 }: Measured) => p50.toFixed(0) },
  { title: 'max ms', cell: ({ max }: Measured) => max.toFixed(0) },
  { title: 'max hashes', cell: ({ maxHashes }: Measured) => maxHashes.toFixed(0) },
  { title: 'refused', cell: ({ refused, count }: Measured) => `${refused} of ${count}` },
  { title: 'requests/s of the attack', cell: ({ perSecond }: Measured) => perSecond.toFixed(0) },
]
console.log(`${report.machine}, ${report.date}
${report.command}

${markdownTable(`${clients} clients without pause from another network`, columns, Object.entries(report.attacks))}

A failed log-in at cost 12: ${unknown.toFixed(0)} ms for an unknown user, ${existing.toFixed(0)} ms for a hash of cost 10.`)
writeJson(options, report)
process.exit()
