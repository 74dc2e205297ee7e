// npm run bench: /data with both services running, compared with the same server using other checks, measured in turn in one
// run. Ends with a table; --save keeps it in bench/results/.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readArguments, readCount, readCounts, refuseUsage } from '../commands/arguments.ts'
import { barChart } from './chart.ts'
import { signTokens } from './jwt.ts'
import { drive, type LoadResult, loadTool, median } from './load.ts'
import { cpuMicros, describeMachine, logIn, type Running, start, startAuth, stopAll } from './processes.ts'
import { createProgress, saveResults } from './progress.ts'

const usage = `Usage: npm run bench -- [options]

Compares requests per second of /data: Latchkey, the same server with other checks (none, JWTs verified locally, one call
to Auth for each request), and the same checks in bare Koa. Needs nothing but this repository; uses wrk if it is installed.

  --rounds N           number of rounds; the result is their median (3)
  --seconds N          for each measurement (3)
  --connections LIST   numbers of connections, with a table for each (1,64,256,1000)
  --only TEXT          only the rows with this text in their name
  --save               replace bench/results/data.json and data.svg, which the README quotes`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '3' },
  connections: { type: 'string', default: '1,64,256,1000' },
  only: { type: 'string', default: '' },
  save: { type: 'boolean', default: false },
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
const connectionCounts = readCounts(usage, 'connections', options.connections)
const tokenCount = 64

interface Row {
  name: string
  tokens: string[]
  server: Running
  /** Present if the server asks Auth. */
  auth: Running | null
}

interface Measurement extends LoadResult {
  cpuPerRequest: number
  callsPerRequest: number
}

const jwtSecret = randomBytes(32).toString('hex')
const edKeys = generateKeyPairSync('ed25519')

async function openRows(): Promise<Row[]> {
  const auth = await startAuth()
  const tokens: string[] = []
  for (let i = 0; i < tokenCount; i++) tokens.push(await logIn(`${auth.addresses['auth']}`))
  const hs256 = await signTokens(tokenCount, 'HS256', new TextEncoder().encode(jwtSecret))
  const edDsa = await signTokens(tokenCount, 'EdDSA', edKeys.privateKey)
  const env = {
    AUTH_INTERNAL_URL: `${auth.addresses['authInternal']}`,
    BUSINESS_PORT: '0',
    BUSINESS_INTERNAL_PORT: '0',
    JWT_SECRET: jwtSecret,
    JWT_PUBLIC_KEY: edKeys.publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  }
  const preload = ['--import', './bench/countCalls.ts']
  const variants: [string, string[], Running | null][] = [
    ['no check', tokens, null],
    ['batched', tokens, auth],
    ['one call per request', tokens, auth],
    ['fast-jwt HS256', hs256, null],
    ['fast-jwt HS256, cached', hs256, null],
    ['jose HS256', hs256, null],
    ['jose EdDSA', edDsa, null],
  ]
  const rows: Row[] = []
  const add = async (
    name: string,
    tokens: string[],
    auth: Running | null,
    file: string,
    more: Record<string, string>,
  ) => {
    if (name.includes(options.only))
      rows.push({ name, tokens, auth, server: await start(file, { ...env, ...more }, preload) })
  }
  await add('Latchkey', tokens, auth, 'services/business/main.ts', {})
  for (const CHASSIS of ['ours', 'bare']) {
    for (const [VARIANT, tokens, auth] of variants) {
      // Our own server with batched calls is the real Business, added above.
      if (VARIANT === 'batched' && CHASSIS === 'ours') continue
      const name = CHASSIS === 'ours' ? VARIANT : `bare Koa, ${VARIANT}`
      await add(name, tokens, auth, 'bench/server.ts', { VARIANT, CHASSIS })
    }
  }
  return rows
}

async function countCalls({ server }: Row): Promise<number> {
  server.process.send('calls')
  const [{ calls }] = (await once(server.process, 'message')) as [{ calls: number }]
  return calls
}

async function measure(row: Row, connections: number, seconds: number): Promise<Measurement> {
  const processes = row.auth ? [row.server, row.auth] : [row.server]
  const cpuSoFar = () => processes.reduce((sum, running) => sum + cpuMicros(running), 0)
  const [cpuBefore, callsBefore] = [cpuSoFar(), await countCalls(row)]
  const url = `${row.server.addresses['business']}/data`
  const result = await drive({ url, connections, seconds, tokens: row.tokens })
  if (result.errors > 0) console.error(`\n${row.name}: ${result.errors} errors at ${connections} connections`)
  return {
    ...result,
    cpuPerRequest: (cpuSoFar() - cpuBefore) / result.requests,
    callsPerRequest: ((await countCalls(row)) - callsBefore) / result.requests,
  }
}

function summarise(measurements: Measurement[]): Measurement {
  const of = (member: keyof Measurement) => median(measurements.map(measurement => measurement[member]))
  return {
    requests: of('requests'),
    perSecond: of('perSecond'),
    p50: of('p50'),
    p99: of('p99'),
    max: of('max'),
    errors: of('errors'),
    cpuPerRequest: of('cpuPerRequest'),
    callsPerRequest: of('callsPerRequest'),
  }
}

function table(connections: number, results: Map<string, Measurement>): string {
  const lines = [
    `| ${connections} connection${connections === 1 ? '' : 's'} | requests/s | p50 ms | p99 ms | CPU µs/request | calls to Auth/request |`,
    '|---|--:|--:|--:|--:|--:|',
  ]
  for (const [name, { perSecond, p50, p99, cpuPerRequest, callsPerRequest }] of results) {
    const cells = [Math.round(perSecond).toLocaleString('en'), p50.toFixed(2), p99.toFixed(2), cpuPerRequest.toFixed(1)]
    lines.push(`| ${name} | ${cells.join(' | ')} | ${callsPerRequest.toFixed(3)} |`)
  }
  return lines.join('\n')
}

createProgress(0, 0).say('Starting the servers')
const rows = await openRows()
if (rows.length === 0) {
  stopAll()
  refuseUsage(usage, `--only: no row has ${JSON.stringify(options.only)} in its name.`)
}
const progress = createProgress((1 + rounds * connectionCounts.length) * rows.length, seconds)
const results: Record<string, Record<string, Measurement>> = {}
const tables: string[] = []

for (const row of rows) {
  progress.step(`warm-up: ${row.name}`)
  await measure(row, 64, 1)
}
for (const connections of connectionCounts) {
  const measured = new Map<string, Measurement[]>(rows.map(({ name }) => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const row of rows) {
      progress.step(`${connections} connections, round ${round + 1} of ${rounds}: ${row.name}`)
      measured.get(row.name)?.push(await measure(row, connections, seconds))
    }
  }
  const medians = new Map([...measured].map(([name, measurements]) => [name, summarise(measurements)]))
  results[connections] = Object.fromEntries(medians)
  tables.push(table(connections, medians))
}
progress.end()
stopAll()

const machine = describeMachine()
const date = new Date().toISOString().slice(0, 10)
const command = `npm run bench -- --rounds ${rounds} --seconds ${seconds} --connections ${connectionCounts}`
console.log(
  `${machine}, all processes and ${loadTool} on the same cores, ${date}\n${command}\n\n${tables.join('\n\n')}`,
)
const shown = results[64] ?? Object.values(results)[0] ?? {}
const bars = Object.entries(shown).map(([label, { perSecond }]) => ({
  label,
  value: perSecond,
  ours: label === 'Latchkey',
}))
saveResults(options.save, {
  'data.json': `${JSON.stringify({ machine, date, command, loadTool, rounds, seconds, tokenCount, results }, null, 2)}\n`,
  'data.svg': barChart('GET /data, requests per second, 64 connections', `${machine}, ${date}`, bars),
})
