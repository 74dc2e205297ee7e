// npm run bench:log: the cost of ACCESS_LOG=all relative to ACCESS_LOG=errors, measured in turn in one run. The server
// checks no token, so that logging takes the largest possible share of the time. With --against <folder> it also measures
// another checkout, whose bench/server.ts must know ACCESS_LOG.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { readArguments, readCount } from '../commands/arguments.ts'
import type { ServiceMessage } from '../shared/service.ts'
import { drive, median } from './load.ts'
import { cpuMicros, describeMachine, serviceKey } from './processes.ts'

const usage = `Usage: npm run bench:log -- [options]

Measures the cost of ACCESS_LOG=all compared with ACCESS_LOG=errors, in alternating rounds. No tokens are checked, so that
logging takes the largest possible share of the time.

  --rounds N        number of rounds; the result is their median (5)
  --seconds N       length of a round (2)
  --connections N   clients (64)
  --against FOLDER  measure another checkout beside this one; its bench/server.ts must know ACCESS_LOG`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '2' },
  connections: { type: 'string', default: '64' },
  against: { type: 'string', default: '' },
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
const connections = readCount(usage, 'connections', options.connections)
const folders = [process.cwd(), ...(options.against === '' ? [] : [options.against])]

interface Row {
  name: string
  child: ChildProcess
  url: string
  bytes: number
  requests: number
  perSecond: number[]
  cpu: number[]
}

/** Starts a server whose log this process reads through a pipe. */
async function open(folder: string, accessLog: string): Promise<Row> {
  const env = { ...process.env, VARIANT: 'no check', CHASSIS: 'ours', SERVICE_KEY: serviceKey, ACCESS_LOG: accessLog }
  const child = spawn(process.execPath, [join(folder, 'bench/server.ts')], {
    env,
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  })
  const [message] = (await once(child, 'message')) as [ServiceMessage]
  const url = message.type === 'ready' ? `${message.addresses['business']}/data` : ''
  const row: Row = { name: `${folder} ${accessLog}`, child, url, bytes: 0, requests: 0, perSecond: [], cpu: [] }
  child.stdout?.on('data', (chunk: Buffer) => {
    row.bytes += chunk.length
  })
  return row
}

async function measure(row: Row, seconds: number): Promise<void> {
  const running = { process: row.child, addresses: {} }
  const before = cpuMicros(running)
  const load = { url: row.url, connections, seconds, tokens: ['a'] }
  const { requests, perSecond } = await drive(load)
  row.requests += requests
  row.perSecond.push(perSecond)
  row.cpu.push((cpuMicros(running) - before) / requests)
}

const rows: Row[] = []
for (const folder of folders) for (const accessLog of ['errors', 'all']) rows.push(await open(folder, accessLog))
for (const row of rows) {
  await measure(row, 1)
  Object.assign(row, { bytes: 0, requests: 0, perSecond: [], cpu: [] })
}
for (let round = 0; round < rounds; round++) {
  for (const row of rows) await measure(row, seconds)
}
console.log(describeMachine())
for (const [i, { name, bytes, requests, perSecond, cpu }] of rows.entries()) {
  const base = rows[i - (i % 2)] as Row
  const figures = [
    `${Math.round(median(perSecond))} requests/s (${(median(perSecond) / median(base.perSecond)).toFixed(3)} of errors)`,
    `${median(cpu).toFixed(1)} µs CPU a request (${(median(cpu) / median(base.cpu)).toFixed(3)})`,
    `${Math.round(bytes / requests)} bytes a request`,
  ]
  console.log(`${name}: ${figures.join(', ')}`)
}
for (const { child } of rows) child.kill('SIGKILL')
