// npm run bench: /data with both services running, compared with the same server using other checks, measured in turn in one
// run. Ends with a table; --save keeps it in bench/results/.
import { readArguments, readCount, readCounts, refuseUsage } from '../commands/arguments.ts'
import { barChart } from './chart.ts'
import { compareResults } from './compare.ts'
import { dataTable } from './dataTables.ts'
import { loadTool } from './load.ts'
import { stopAll } from './processes.ts'
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
import { measureRounds } from './rounds.ts'
import { openRows, rowNames } from './rows.ts'
import { inConnections } from './table.ts'

const usage = `Usage: npm run bench -- [options]

Compares requests per second of /data: Latchkey, the same Business with other checks (none, JWTs verified locally, one call
to Auth for each request), the same checks in bare Koa, and node:http without a check. Needs nothing but this repository; uses wrk if it is installed.

  --rounds N           number of rounds; the result is their median (3)
  --seconds N          for each measurement (3)
  --connections LIST   numbers of connections, with a table for each (1,64,256,1000)
  --only TEXT          only the rows with this text in their name; may be given more than once
  --json FILE          write the result to a file: results[connections][row]
  --compare FILE       compare with an earlier result of --json
  --save               replace bench/results/data.json, data.svg and the tables in the documents`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '3' },
  connections: { type: 'string', default: '1,64,256,1000' },
  only: { type: 'string', multiple: true, default: [''] },
  ...jsonOption,
  ...compareOption,
  ...saveOption,
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
const connectionCounts = readCounts(usage, 'connections', options.connections)
checkJsonOption(usage, options)
const names = rowNames.filter(name => options.only.some(text => name.includes(text)))
if (names.length === 0)
  refuseUsage(usage, `--only: no row has ${JSON.stringify(options.only.join(' or '))} in its name.`)
if (options.save && names.length < rowNames.length) refuseUsage(usage, '--save: expected all rows, without --only.')
const earlier = readCompareOption(usage, options, connectionCounts, names)

createProgress(0, 0).say('Starting the servers')
const rows = await openRows(names)
const results = await measureRounds(rows, { rounds, seconds, loads: connectionCounts, warmUpLoad: 64 })
stopAll()

const only = options.only.map(text => (text === '' ? '' : ` --only '${text}'`)).join('')
const report = {
  ...about(`npm run bench -- --rounds ${rounds} --seconds ${seconds} --connections ${connectionCounts}${only}`),
  loadTool,
  rounds,
  seconds,
  results,
}
const tables = connectionCounts.map(connections => dataTable(report, connections))
console.log(
  `${report.machine}, all processes and ${loadTool} on the same cores, ${report.date}\n${report.command}\n\n${tables.join('\n\n')}`,
)
writeJson(options, report)
if (earlier) console.log(`\n${compareResults(earlier, report)}`)
saveResults(options.save, { 'data.json': asJson(report), 'data.svg': chart() })

function chart(): string {
  const connections = connectionCounts.includes(64) ? 64 : Number(connectionCounts[0])
  const bars = Object.entries(results[connections] ?? {}).map(([label, { perSecond }]) => ({
    label,
    value: perSecond,
    ours: label === 'Latchkey',
  }))
  const title = `GET /data, requests per second, ${inConnections(connections)}`
  return barChart(title, `${report.machine}, ${report.date}`, bars)
}
