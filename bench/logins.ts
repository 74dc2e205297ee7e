// npm run bench:logins: how long a validation takes while clients log in without a pause, compared with the time without
// log-ins. Validations arrive at a steady rate; phases with and without log-ins alternate in one run.
import { setTimeout as sleep } from 'node:timers/promises'
import { Pool } from 'undici'
import { readArguments, readCount } from '../commands/arguments.ts'
import { median } from './load.ts'
import { describeMachine, logIn, serviceKey, startAuth, stopAll } from './processes.ts'
import { createProgress } from './progress.ts'

const usage = `Usage: npm run bench:logins -- [options]

Measures how long a verdict takes while 16 clients log in without a pause, compared with the time without log-ins.

  --rounds N    number of rounds; the result is their median (5)
  --seconds N   for each measurement (6)`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '6' },
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
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

const line = (name: string, rows: Latencies[]) => {
  const of = (member: keyof Latencies) => median(rows.map(row => row[member])).toFixed(2)
  return `| ${name} | ${of('p50')} | ${of('p99')} | ${of('max')} |`
}
const ratio = median(storm.map(({ p99 }) => p99)) / median(calm.map(({ p99 }) => p99))
const perSecondLoggedIn = logins / (rounds * (seconds + 0.5))
console.log(`${describeMachine()}, ${new Date().toISOString().slice(0, 10)}
npm run bench:logins -- --rounds ${rounds} --seconds ${seconds}

| ${perSecond} validations/s | p50 ms | p99 ms | max ms |
|---|--:|--:|--:|
${line('calm', calm)}
${line(`${clients} clients log in without pause (${perSecondLoggedIn.toFixed(1)} logins/s)`, storm)}

p99 in the storm is ${ratio.toFixed(1)} times that of the calm.`)
process.exit()
