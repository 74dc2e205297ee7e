// The result of a benchmark as JSON, and the options with which every benchmark writes it.
import { accessSync, constants, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { z } from 'zod'
import { refuseUsage } from '../commands/arguments.ts'
import { describeMachine } from './processes.ts'
import { describeLoad } from './table.ts'

const figures = z.object({
  perSecond: z.number(),
  p50: z.number(),
  p99: z.number(),
  cpuPerRequest: z.number(),
  cpuPerRound: z.array(z.number()).optional(),
  callsPerRequest: z.number().optional(),
  authCpuPerRequest: z.number().optional(),
})
const result = z.object({
  machine: z.string(),
  date: z.string(),
  command: z.string(),
  results: z.record(z.string(), z.record(z.string(), figures)),
})

/** One row: requests per second, milliseconds, and microseconds of CPU time of all processes of the row. */
export type Figures = z.infer<typeof figures>
/** `results[load][row]`; the load is a number of connections, unless the benchmark says otherwise. */
export type Result = z.infer<typeof result>

export function about(command: string): { machine: string; date: string; command: string } {
  return { machine: describeMachine(), date: new Date().toISOString().slice(0, 10), command }
}

/** Throws a message for the user if the file has no result of a benchmark that measures requests. */
function readResult(file: string): Result {
  if (!existsSync(file)) throw new Error(`there is no file ${file}.`)
  let content: unknown
  try {
    content = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new Error(`${file} cannot be read as JSON (${(error as Error).message}).`)
  }
  const parsed = result.safeParse(content)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const where = issue?.path.length ? `${issue.path.join(' > ')}: ${issue.message}` : issue?.message
  throw new Error(`${file} is not a result of --json (${where}).`)
}

export const jsonOption = { json: { type: 'string', default: '' } } as const
export const compareOption = { compare: { type: 'string', default: '' } } as const
export const saveOption = { save: { type: 'boolean', default: false } } as const

/** Refuses before the measurement what could not be written after it. */
export function checkJsonOption(usage: string, { json }: { json: string }): void {
  if (json === '') return
  try {
    accessSync(existsSync(json) ? json : dirname(json), constants.W_OK)
  } catch (error) {
    refuseUsage(usage, `--json: cannot write ${json} (${(error as NodeJS.ErrnoException).code}).`)
  }
}

/** Throws a message for the user if the file is no result, or has none of the planned rows. */
export function readEarlier(file: string, loads: (number | string)[], names: string[]): Result {
  const earlier = readResult(file)
  const hasRow = loads.some(load => names.some(name => earlier.results[load]?.[name]))
  if (hasRow) return earlier
  throw new Error(
    `${file} has none of the rows of this run (${names.join('; ')}, at ${loads.map(load => describeLoad(`${load}`)).join(', ')}). It has ${listRows(earlier)}.`,
  )
}

/** The earlier result to compare with; null without --compare. */
export function readCompareOption(
  usage: string,
  { compare }: { compare: string },
  loads: (number | string)[],
  names: string[],
): Result | null {
  if (compare === '') return null
  try {
    return readEarlier(compare, loads, names)
  } catch (error) {
    return refuseUsage(usage, `--compare: ${(error as Error).message}`)
  }
}

function listRows({ results }: Result): string {
  const rows = Object.entries(results).map(
    ([load, rows]) => `${Object.keys(rows).join('; ')} (at ${describeLoad(load)})`,
  )
  return rows.join(', ') || 'no row at all'
}

export function writeJson({ json }: { json: string }, report: object): void {
  if (json === '') return
  writeFileSync(json, asJson(report))
  console.log(`\nWrote ${json}.`)
}

export function asJson(report: object): string {
  return `${JSON.stringify(report, null, 2)}\n`
}
