// npm run bench:log: the cost of ACCESS_LOG=all relative to ACCESS_LOG=errors, measured in turn in one run. The server
// checks no token, so that logging takes the largest possible share of the time.
import { readArguments, readCount } from '../commands/arguments.ts'
import { compareResults } from './compare.ts'
import { loadTool } from './load.ts'
import { startBusinessWithCheck, stopAll } from './processes.ts'
import { createProgress } from './progress.ts'
import { about, checkJsonOption, compareOption, jsonOption, readCompareOption, writeJson } from './result.ts'
import { measureRounds, overHttp, type Row } from './rounds.ts'
import { inConnections, markdownTable, whole } from './table.ts'

const usage = `Usage: npm run bench:log -- [options]

Measures the cost of ACCESS_LOG=all compared with ACCESS_LOG=errors, in alternating rounds. No tokens are checked, so that
logging takes the largest possible share of the time.

  --rounds N        number of rounds; the result is their median (5)
  --seconds N       length of a round (2)
  --connections N   clients (64)
  --json FILE       write the result to a file: results[connections][row]
  --compare FILE    compare with an earlier result of --json`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '5' },
  seconds: { type: 'string', default: '2' },
  connections: { type: 'string', default: '64' },
  ...jsonOption,
  ...compareOption,
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
const connections = readCount(usage, 'connections', options.connections)
const modes = ['errors', 'all']
checkJsonOption(usage, options)
const earlier = readCompareOption(usage, options, [connections], modes)

createProgress(0, 0).say('Starting the servers')
const rows: Row[] = []
for (const mode of modes) {
  const server = await startBusinessWithCheck({ VARIANT: 'no check', ACCESS_LOG: mode, LOG_LEVEL: 'info' }, 'pipe')
  let bytes = 0
  server.process.stdout?.on('data', (chunk: Buffer) => {
    bytes += chunk.length
  })
  rows.push({
    ...overHttp(mode, `${server.addresses['business']}/data`, [{ headers: {} }]),
    pids: () => [server.pid],
    counts: async () => ({ logBytesPerRequest: bytes }),
  })
}
const results = await measureRounds(rows, { rounds, seconds, loads: [connections], warmUpLoad: connections })
stopAll()

const report = {
  ...about(`npm run bench:log -- --rounds ${rounds} --seconds ${seconds} --connections ${connections}`),
  loadTool,
  rounds,
  seconds,
  results,
}
const measured = results[connections] ?? {}
const base = measured['errors']
const columns = [
  { title: 'requests/s', cell: (row: string) => whole(measured[row]?.perSecond ?? 0) },
  {
    title: 'of errors',
    cell: (row: string) => ((measured[row]?.perSecond ?? 0) / (base?.perSecond ?? 0)).toFixed(3),
  },
  { title: 'CPU µs/request', cell: (row: string) => (measured[row]?.cpuPerRequest ?? 0).toFixed(1) },
  {
    title: 'of errors',
    cell: (row: string) => ((measured[row]?.cpuPerRequest ?? 0) / (base?.cpuPerRequest ?? 0)).toFixed(3),
  },
  { title: 'bytes/request', cell: (row: string) => whole(measured[row]?.logBytesPerRequest ?? 0) },
]
console.log(`${report.machine}, ${report.date}\n${report.command}\n
${markdownTable(
  `ACCESS_LOG, ${inConnections(connections)}`,
  columns,
  modes.map((mode): [string, string] => [mode, mode]),
)}`)
writeJson(options, report)
if (earlier) console.log(`\n${compareResults(earlier, report)}`)
