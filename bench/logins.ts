// npm run bench:logins: how long a validation takes while clients log in without a pause, compared with the time without
// log-ins. Validations arrive at a steady rate; phases with and without log-ins alternate in one run.
import { setTimeout as sleep } from 'node:timers/promises'
import { Pool } from 'undici'
import { readArguments, readCount } from '../commands/arguments.ts'
import { median } from './load.ts'
import { logIn, serviceKey, startAuth, stopAll } from './processes.ts'
import { createProgress } from './progress.ts'
import { about, checkJsonOption, jsonOption, writeJson } from './result.ts'

const usage = `Usage: npm run bench:logins -- [options]

Measures how long a verdict takes while 16 clients log in without a pause, compared with the time without log-ins.

  --rounds N    number of rounds; the result is their median (5)
  --seconds N   for each measurement (6)
  --json FILE   write the result to a file`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '6' },
  ...jsonOption,
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
checkJsonOption(usage, options)
const clients = 16
const perSecond = 200

interface Latencies {
  p50: number
  p99: number
  max: number
}

const progress = createProgress(1 + 2 * rounds, seconds)
progress.say('Starting Auth')
const auth = await startAuth()
const token = await logIn(`${auth.addresses['auth']}`)
const internal = new Pool(`${auth.addresses['authInternal']}`, { connections: 8 })
const external = new Pool(`${auth.addresses['auth']}`, { connections: clients })
const headers = { authorization: `Bearer ${serviceKey}`, 'content-type': 'application/json' }

async function validate(): Promise<number> {
  const startedAt = performance.now()
  const answer = await internal.request({
    method: 'POST',
    path: '/validateToken',
    headers,
    body: JSON.stringify({ token }),
  })
  const text = await answer.body.text()
  if (!text.includes('"authenticated":true')) throw new Error(`${answer.statusCode} ${text}`)
  return performance.now() - startedAt
}

async function measure(): Promise<Latencies> {
  const pending: Promise<number>[] = []
  const startedAt = performance.now()
  for (let i = 0; i < seconds * perSecond; i++) {
    const wait = startedAt + (i * 1000) / perSecond - performance.now()
    if (wait > 0) await sleep(wait)
    pending.push(validate())
  }
  const sorted = (await Promise.all(pending)).sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] as number
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}

let storming = false
let logins = 0
async function logInWithoutPause(): Promise<void> {
  while (storming) {
    const body = JSON.stringify({ username: 'demo@example.com', password: 'postman' })
    const answer = await external.request({
      method: 'POST',
      path: '/login',
      headers: { 'content-type': 'application/json' },
      body,
    })
    await answer.body.dump()
    if (answer.statusCode === 200) logins++
  }
}

progress.step('warm-up')
await measure()
const calm: Latencies[] = []
const storm: Latencies[] = []
for (let round = 1; round <= rounds; round++) {
  progress.step(`round ${round} of ${rounds}, calm`)
  calm.push(await measure())
  progress.step(`round ${round} of ${rounds}, storm`)
  storming = true
  const storms = Array.from({ length: clients }, logInWithoutPause)
  await sleep(500)
  storm.push(await measure())
  storming = false
  await Promise.all(storms)
}
progress.end()
stopAll()

const medians = (rows: Latencies[]) => {
  const of = (member: keyof Latencies) => median(rows.map(row => row[member]))
  return { p50: of('p50'), p99: of('p99'), max: of('max') }
}
const report = {
  ...about(`npm run bench:logins -- --rounds ${rounds} --seconds ${seconds}`),
  validationsPerSecond: perSecond,
  loginsPerSecond: logins / (rounds * (seconds + 0.5)),
  calm: medians(calm),
  storm: medians(storm),
}
const line = (name: string, { p50, p99, max }: Latencies) =>
  `| ${name} | ${p50.toFixed(2)} | ${p99.toFixed(2)} | ${max.toFixed(2)} |`
console.log(`${report.machine}, ${report.date}
${report.command}

| ${perSecond} validations/s | p50 ms | p99 ms | max ms |
|---|--:|--:|--:|
${line('calm', report.calm)}
${line(`${clients} clients log in without pause (${report.loginsPerSecond.toFixed(1)} logins/s)`, report.storm)}

p99 in the storm is ${(report.storm.p99 / report.calm.p99).toFixed(1)} times that of the calm.`)
writeJson(options, report)
process.exit()
