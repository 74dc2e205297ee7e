// npm run bench:gate: whether a change made a request dearer, from a short run and the committed figures. CPU times are
// compared as ratios of rows of the same run, because machines and their load differ.
import { readArguments, readCount, refuseUsage } from '../commands/arguments.ts'
import { type Costs, compareRatios, type Ratio, ratioRows } from './gateRatios.ts'
import { stopAll } from './processes.ts'
import { createProgress, saveResults } from './progress.ts'
import {
  about,
  asJson,
  checkJsonOption,
  jsonOption,
  type Result,
  readEarlier,
  saveOption,
  writeJson,
} from './result.ts'
import { measureRounds } from './rounds.ts'
import { openRows } from './rows.ts'
import { markdownTable } from './table.ts'

const usage = `Usage: npm run bench:gate -- [options]

Measures a few rows of npm run bench and compares the CPU time of a request, as ratios between rows, with earlier figures.
Exits with 1 if a ratio has risen by more than the tolerance in each of three attempts. Takes one to four minutes.

  --rounds N        number of rounds of an attempt; the cheapest counts, as other work on the machine adds CPU time (15)
  --seconds N       for each measurement (1)
  --tolerance N     per cent by which a ratio may rise (10)
  --against FILE    the earlier figures, a result of --json (bench/results/gate.json)
  --json FILE       write the result to a file
  --save            replace bench/results/gate.json by this run, without comparing`

const options = readArguments(usage, {
  rounds: { type: 'string', default: '15' },
  seconds: { type: 'string', default: '1' },
  tolerance: { type: 'string', default: '10' },
  against: { type: 'string', default: 'bench/results/gate.json' },
  ...jsonOption,
  ...saveOption,
})
const rounds = readCount(usage, 'rounds', options.rounds)
const seconds = readCount(usage, 'seconds', options.seconds)
const tolerance = readCount(usage, 'tolerance', options.tolerance) / 100
const attempts = 3
const connections = 64
checkJsonOption(usage, options)
const earlier = options.save ? null : readAgainst()

createProgress(0, 0).say('Starting the servers')
const rows = await openRows(ratioRows)
const costs: Costs = {}
let ratios: Ratio[] = []
const report = {
  ...about(`npm run bench:gate -- --rounds ${rounds} --seconds ${seconds}`),
  rounds,
  seconds,
  results: {} as Result['results'],
}
for (let attempt = 1; attempt <= attempts; attempt++) {
  const measured = await measureRounds(rows, { rounds, seconds, loads: [connections], warmUpLoad: connections })
  report.results = measured
  for (const [name, { leastCpuPerRequest }] of Object.entries(measured[connections] ?? {})) {
    costs[name] = Math.min(costs[name] ?? Infinity, leastCpuPerRequest)
  }
  ratios = compareRatios(costsOf(earlier), costs, tolerance)
  if (earlier === null || ratios.every(({ isWorse }) => !isWorse)) break
}
stopAll()

writeJson(options, report)
if (earlier === null) {
  saveResults(true, { 'gate.json': asJson(report) })
  process.exit()
}
const columns = [
  { title: 'before', cell: ({ before }: Ratio) => before.toFixed(2) },
  { title: 'now', cell: ({ now }: Ratio) => now.toFixed(2) },
  { title: 'change', cell: inPerCent },
]
console.log(`Before: ${earlier.machine}, ${earlier.date}, ${earlier.command}
Now:    ${report.machine}, ${report.date}, ${report.command}

${markdownTable(
  'CPU time per request',
  columns,
  ratios.map(ratio => [ratio.name, ratio]),
)}
`)
const worse = ratios.filter(({ isWorse }) => isWorse)
if (worse.length === 0) console.log(`No ratio has risen by more than ${options.tolerance} %.`)
else {
  const list = worse.map(ratio => `${ratio.name} by ${inPerCent(ratio)}`).join(', ')
  console.error(`Too dear, in ${attempts} attempts: ${list}. Up to +${options.tolerance} % would have passed.`)
}
process.exit(worse.length === 0 ? 0 : 1)

function readAgainst(): Result {
  try {
    const earlier = readEarlier(options.against, [connections], ratioRows)
    const costs = costsOf(earlier)
    const missing = ratioRows.filter(name => !Number.isFinite(costs[name]))
    if (missing.length > 0) throw new Error(`${options.against} lacks leastCpuPerRequest of ${missing.join('; ')}.`)
    return earlier
  } catch (error) {
    return refuseUsage(usage, `--against: ${(error as Error).message}`)
  }
}

function costsOf(result: Result | null): Costs {
  const rows = Object.entries(result?.results[connections] ?? {})
  return Object.fromEntries(rows.map(([name, figures]) => [name, Number(figures['leastCpuPerRequest'])]))
}

function inPerCent({ before, now }: Ratio): string {
  const share = now / before - 1
  return `${share < 0 ? '' : '+'}${(100 * share).toFixed(1)} %`
}
