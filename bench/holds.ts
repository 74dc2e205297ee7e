// npm run bench:holds: what held tokens cost the client and Auth while no requests come, and how long after a revocation a
// connection ends. This process is the client.
import { setTimeout as sleep } from 'node:timers/promises'
import { Pool } from 'undici'
import { readArguments, readCount } from '../commands/arguments.ts'
import { openAuthClient } from '../packages/client/authClient.ts'
import { median } from './load.ts'
import { adminKey, countVerdictCalls, cpuMicros, serviceKey, startAuth, stopAll } from './processes.ts'
import { createProgress } from './progress.ts'
import { about, checkJsonOption, jsonOption, writeJson } from './result.ts'
import { markdownTable, whole } from './table.ts'

const usage = `Usage: npm run -s bench:holds -- [options]

Starts Auth, holds tokens with one client, and prints the calls to Auth, the CPU time of the client and of Auth per second, and how
long after its revocation a token's connection ends. The row 0 is what both use when nothing is held.

  --tokens LIST  numbers of held tokens (0,1000,10000)
  --seconds N    duration of each measurement (10)
  --json FILE    write the result to a file
  --help         show this`

const options = readArguments(usage, {
  tokens: { type: 'string', default: '0,1000,10000' },
  seconds: { type: 'string', default: '10' },
  ...jsonOption,
})
const sizes = options.tokens.split(',').map(size => (size === '0' ? 0 : readCount(usage, 'tokens', size)))
const seconds = readCount(usage, 'seconds', options.seconds)
checkJsonOption(usage, options)
const revocations = 100

interface Row {
  tokens: number
  callsPerSecond: number
  clientCpuMsPerSecond: number
  authCpuMsPerSecond: number
  /** From the answer to the revocation to `onEnd`; null without tokens. */
  endMs: { p50: number; max: number } | null
}

interface Issued {
  token: string
  tokenId: string
}

const progress = createProgress(sizes.length, seconds + 6)
progress.say('Starting Auth')
const auth = await startAuth()
const url = `${auth.addresses['authInternal']}`
const operator = new Pool(url, { connections: 16 })
const ofOperator = { authorization: `Bearer ${adminKey}` }
const headers = { ...ofOperator, 'content-type': 'application/json' }
const body = JSON.stringify({ kind: 'fixed', ttlSeconds: 86_400 })

async function issue(): Promise<Issued> {
  const answer = await operator.request({ method: 'POST', path: '/tokens', headers, body })
  if (answer.statusCode !== 201) throw new Error(`POST /tokens answered ${answer.statusCode}`)
  return (await answer.body.json()) as Issued
}

async function issueAll(count: number): Promise<Issued[]> {
  const issued: Issued[] = []
  const work = Array.from({ length: 16 }, async (_, i) => {
    for (let made = i; made < count; made += 16) issued.push(await issue())
  })
  await Promise.all(work)
  return issued
}

/** Revokes the token at some moment within two seconds; resolves to the milliseconds until its hold has ended. */
async function timeEnd(tokenId: string, endedAt: Map<string, number>): Promise<number> {
  await sleep(Math.random() * 2000)
  const answer = await operator.request({ method: 'DELETE', path: `/tokens/${tokenId}`, headers: ofOperator })
  await answer.body.dump()
  const revokedAt = performance.now()
  while (!endedAt.has(tokenId)) await sleep(1)
  return (endedAt.get(tokenId) as number) - revokedAt
}

async function measure(tokens: number): Promise<Row> {
  const issued = await issueAll(tokens)
  const log = { info: () => {}, warn: console.error }
  const client = openAuthClient({ url, key: serviceKey, log, monotonicNow: () => performance.now() })
  const endedAt = new Map<string, number>()
  for (const { token, tokenId } of issued) {
    client.hold(token, { onEnd: () => void endedAt.set(tokenId, performance.now()) })
  }
  await sleep(3000) // the first looks are over, and the code is compiled

  const before = { calls: await countVerdictCalls(auth), own: process.cpuUsage(), auth: cpuMicros([auth.pid]) }
  const startedAt = performance.now()
  await sleep(seconds * 1000)
  const measured = (performance.now() - startedAt) / 1000
  const own = process.cpuUsage(before.own)
  const authCpu = cpuMicros([auth.pid]) - before.auth
  const calls = (await countVerdictCalls(auth)) - before.calls

  const endMs = await Promise.all(issued.slice(0, revocations).map(({ tokenId }) => timeEnd(tokenId, endedAt)))
  await client.close()
  return {
    tokens,
    callsPerSecond: calls / measured,
    clientCpuMsPerSecond: (own.user + own.system) / 1000 / measured,
    authCpuMsPerSecond: authCpu / 1000 / measured,
    endMs: tokens === 0 ? null : { p50: median(endMs), max: Math.max(...endMs) },
  }
}

const rows: Row[] = []
for (const tokens of sizes) {
  progress.step(`${tokens} held tokens`)
  rows.push(await measure(tokens))
}
progress.end()
stopAll()

const report = { ...about(`npm run bench:holds -- --tokens ${options.tokens} --seconds ${seconds}`), rows }
const table = markdownTable<Row>(
  'held tokens',
  [
    { title: 'calls/s', cell: row => row.callsPerSecond.toFixed(1) },
    { title: 'client CPU ms/s', cell: row => row.clientCpuMsPerSecond.toFixed(1) },
    { title: 'Auth CPU ms/s', cell: row => row.authCpuMsPerSecond.toFixed(1) },
    {
      title: 'ms from revocation to end: p50, max',
      cell: ({ endMs }) => (endMs ? `${whole(endMs.p50)}, ${whole(endMs.max)}` : ''),
    },
  ],
  rows.map(row => [whole(row.tokens), row]),
)
console.log(`${report.machine}, ${report.date}\n${report.command}\n\n${table}`)
writeJson(options, report)
process.exit()
