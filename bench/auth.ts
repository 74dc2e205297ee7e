// npm run bench:auth: what verdicts cost Auth: by the size of a call, by the number of services that ask, and behind several
// processes of Business. Ends with tables; --save keeps them in bench/results/.
import { readArguments, readCount, refuseUsage } from '../commands/arguments.ts'
import { startWorkers } from '../commands/start/workers.ts'
import { authTables, verdictBars } from './authTables.ts'
import { barChart } from './chart.ts'
import { compareResults } from './compare.ts'
import { type FanInLoad, openFanIn } from './fanIn.ts'
import { callsWith, loadTool, withTokens } from './load.ts'
import {
  countVerdictCalls,
  logIn,
  serviceKey,
  settingsOfBusiness,
  startAuth,
  stopAll,
  withChildren,
} from './processes.ts'
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
import { measureRounds, overHttp, type Row, type Summary } from './rounds.ts'
import { whole } from './table.ts'

const batchSizes = [1, 8, 64, 255]
const serviceCounts = [1, 4, 16, 64]
const workerCounts = [1, 2, 4]
const fanInLoads: FanInLoad[] = [{ perSecond: 4000 }, { waiting: 256 }, { waiting: 1024 }]
const connections = 8
const workerConnections = 64
const parts = ['calls', 'fan-in', 'workers'] as const
type Part = (typeof parts)[number]

const usage = `Usage: npm run bench:auth -- [options]

Measures what a verdict costs Auth:
  calls      /validateToken driven directly, with ${batchSizes.join(', ')} tokens in a call
  fan-in     ${serviceCounts.join(', ')} services that ask one Auth: at 4,000 verdicts a second together, and at saturation,
             with 256 and with 1,024 requests of all services together that wait at any time
  workers    /data of ${workerCounts.join(', ')} processes of Business with one Auth

  --parts LIST     some of ${parts.join(', ')} (all)
  --rounds N       number of rounds; the result is their median (3)
  --seconds N      for each measurement (3)
  --json FILE      write the result to a file: results[load][row]
  --compare FILE   compare with an earlier result of --json
  --save           replace bench/results/auth.json, auth.svg and the tables in the documents`

const options = readArguments(usage, {
  parts: { type: 'string', default: parts.join(',') },
  rounds: { type: 'string', default: '3' },
  seconds: { type: 'string', default: '3' },
  ...jsonOption,
  ...compareOption,
  ...saveOption,
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
const chosen = options.parts.split(',') as Part[]
const unknown = chosen.filter(part => !parts.includes(part))
if (unknown.length > 0) refuseUsage(usage, `--parts: there is no part ${unknown.join(', ')}.`)
if (options.save && chosen.length < parts.length) refuseUsage(usage, '--save: expected all parts, without --parts.')
checkJsonOption(usage, options)
const keys: Record<Part, string[]> = {
  calls: ['calls'],
  'fan-in': fanInLoads.map(keyOfFanIn),
  workers: ['workers'],
}
const names = [
  ...batchSizes.map(size => inTokens(size)),
  ...serviceCounts.map(inServices),
  ...workerCounts.map(count => inWorkers(count)),
]
const earlier = readCompareOption(
  usage,
  options,
  chosen.flatMap(part => keys[part]),
  names,
)

createProgress(0, 0).say('Starting the servers')
const auth = await startAuth({ PASSWORD_HASH_COST: '4' })
const tokens: string[] = []
for (let i = 0; i < 255; i++) tokens.push(await logIn(`${auth.addresses['auth']}`))
const counts = async () => ({ callsPerRequest: await countVerdictCalls(auth) })

const results: Record<string, Record<string, Summary>> = {}
if (chosen.includes('calls')) await measureCalls()
if (chosen.includes('fan-in')) await measureFanIn()
if (chosen.includes('workers')) await measureWorkers()
stopAll()
const report = {
  ...about(`npm run bench:auth -- --parts ${chosen} --rounds ${rounds} --seconds ${seconds}`),
  loadTool,
  rounds,
  seconds,
  results,
}
console.log(`${report.machine}, ${report.date}\n${report.command}\n\n${authTables(report)}`)
writeJson(options, report)
if (earlier) console.log(`\n${compareResults(earlier, report)}`)
const title = 'Verdicts per second that one core of Auth gives'
const chart = barChart(title, `${report.machine}, ${report.date}`, verdictBars(report))
saveResults(options.save, { 'auth.json': asJson(report), 'auth.svg': chart })
process.exit()

async function measureCalls(): Promise<void> {
  const url = `${auth.addresses['authInternal']}/validateToken`
  const rows = batchSizes.map(
    (size): Row => ({
      ...overHttp(inTokens(size), url, callsWith(tokens, size, serviceKey)),
      pids: () => [auth.pid],
    }),
  )
  const measured = await measureRounds(rows, { rounds, seconds, loads: [connections], warmUpLoad: connections })
  results['calls'] = measured[connections] ?? {}
}

async function measureFanIn(): Promise<void> {
  const rows: Row<FanInLoad>[] = []
  for (const count of serviceCounts) rows.push(await openFanIn(count, inServices(count), auth, tokens, counts))
  const warmUpLoad = { waiting: 256 }
  const loads = fanInLoads
  Object.assign(results, await measureRounds(rows, { rounds, seconds, loads, warmUpLoad, keyOf: keyOfFanIn }))
}

async function measureWorkers(): Promise<void> {
  const rows: Row[] = []
  for (const count of workerCounts) {
    const before = withChildren(process.pid)
    const fail = (reason: string) => {
      throw new Error(`${inWorkers(count)}: ${reason}`)
    }
    const { addresses } = await startWorkers({
      name: 'Business',
      path: 'services/business/main.ts',
      env: { ...process.env, ...settingsOfBusiness(auth) },
      count,
      output: 'inherit',
      onStop: fail,
      onRestart: ({ reason }) => fail(reason),
      onEnd: fail,
    })
    const workers = withChildren(process.pid).filter(pid => !before.includes(pid))
    const pids = () => [auth.pid, ...workers]
    rows.push({
      ...overHttp(inWorkers(count), `${addresses['business']}/data`, withTokens(tokens.slice(0, 64))),
      pids,
      counts,
    })
  }
  const measured = await measureRounds(rows, {
    rounds,
    seconds,
    loads: [workerConnections],
    warmUpLoad: workerConnections,
  })
  results['workers'] = measured[workerConnections] ?? {}
}

function keyOfFanIn(load: FanInLoad): string {
  return 'perSecond' in load ? `fan-in, ${whole(load.perSecond)}/s` : `fan-in, ${whole(load.waiting)} waiting`
}

function inTokens(size: number): string {
  return `${size} token${size === 1 ? '' : 's'} a call`
}

function inServices(count: number): string {
  return `${count} service${count === 1 ? '' : 's'}`
}

function inWorkers(count: number): string {
  return `${count} process${count === 1 ? '' : 'es'} of Business`
}
