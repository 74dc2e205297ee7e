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
import { measureRounds, type Summary } from './rounds.ts'
import { openRows } from './rows.ts'
import { markdownTable } from './table.ts'

const usage = `Usage: npm run bench:gate -- [options]

Measures a few rows of npm run bench and compares the CPU time of a request, as ratios between rows, with earlier figures.
Exits with 1 if a ratio has risen by more than the tolerance: after one attempt, after two and after three together. Takes one
to four minutes.

  --rounds N        number of rounds of an attempt; the median of the ratios within each round counts (15)
  --seconds N       for each measurement (1)
  --tolerance N     per cent by which a ratio may rise (10)
  --against FILE    the earlier figures, a result of --json (bench/results/gate.json)
  --json FILE       write the result to a file
  --save            replace bench/results/gate.json by three attempts, without comparing`

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

const progress = createProgress(0, 0)
const costs: Costs = {}
let ratios: Ratio[] = []
let results: Record<string, Record<string, Summary>> = {}
for (let attempt = 1; attempt <= attempts; attempt++) {
  // New processes for each attempt, because what V8 makes of the same code differs from process to process.
  progress.say(`Attempt ${attempt} of at most ${attempts}: starting the servers`)
  const rows = await openRows(ratioRows)
  results = await measureRounds(rows, { rounds, seconds, loads: [connections], warmUpLoad: connections })
  stopAll()
  for (const [name, { cpuPerRound }] of Object.entries(results[connections] ?? {})) {
    costs[name] = [...(costs[name] ?? []), ...cpuPerRound]
  }
  ratios = compareRatios(costsOf(earlier), costs, tolerance)
  if (earlier !== null && ratios.every(({ isWorse }) => !isWorse)) break
}
for (const [name, cpuPerRound] of Object.entries(costs))
  Object.assign(results[connections]?.[name] ?? {}, { cpuPerRound })

const report = { ...about(`npm run bench:gate -- --rounds ${rounds} --seconds ${seconds}`), rounds, seconds, results }
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
    const missing = ratioRows.filter(name => !costs[name]?.length)
    if (missing.length > 0) throw new Error(`${options.against} lacks cpuPerRound of ${missing.join('; ')}.`)
    return earlier
  } catch (error) {
    return refuseUsage(usage, `--against: ${(error as Error).message}`)
  }
}

function costsOf(result: Result | null): Costs {
  const rows = Object.entries(result?.results[connections] ?? {})
  return Object.fromEntries(rows.map(([name, { cpuPerRound }]) => [name, cpuPerRound ?? []]))
}

function inPerCent({ before, now }: Ratio): string {
  const share = now / before - 1
  return `${share < 0 ? '' : '+'}${(100 * share).toFixed(1)} %`
}
