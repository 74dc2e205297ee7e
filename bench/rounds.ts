// Measures several rows in turn, in rounds, so that what else the machine does affects all of them alike.
import { drive, type LoadRequest, type LoadResult, median } from './load.ts'
import { cpuMicros } from './processes.ts'
import { createProgress } from './progress.ts'
import { describeLoad } from './table.ts'

/** Its load is a number of connections, unless the benchmark has another kind. */
export interface Row<Load = number> {
  name: string
  drive: (load: Load, seconds: number) => Promise<LoadResult>
  /** Throws if the row does not work: under load the answers are not read. */
  check: () => Promise<void>
  /** Runs before each measurement, whose CPU time does not include it. */
  prepare?: () => Promise<void>
  /** The processes whose CPU time counts. */
  pids: () => number[] | Promise<number[]>
  /** Auth, if its part of the CPU time is wanted too. */
  authPid?: number
  /** Further counts so far; each becomes a figure per request. */
  counts?: () => Promise<Counts>
}

interface Counts {
  callsPerRequest?: number
  logBytesPerRequest?: number
}

/** The members of a row that answers HTTP requests. */
export function overHttp(name: string, url: string, requests: LoadRequest[]): Pick<Row, 'name' | 'drive' | 'check'> {
  return {
    name,
    drive: (connections, seconds) => drive({ url, connections, seconds, requests }),
    async check() {
      const { method = 'GET', headers, body = null } = requests[0] as LoadRequest
      const answer = await fetch(url, { method, headers, body })
      const text = await answer.text()
      if (answer.status !== 200) throw new Error(`${name}: ${method} ${url} was answered ${answer.status} ${text}`)
    },
  }
}

type Measurement = LoadResult & Counts & { cpuPerRequest: number; authCpuPerRequest?: number }

/** Medians of all rounds. */
export type Summary = Measurement & { cpuPerRound: number[] }

export interface RoundsOptions<Load> {
  rounds: number
  seconds: number
  loads: Load[]
  warmUpLoad: Load
  /** The key of a load in the results. */
  keyOf?: (load: Load) => string
  /** Called when a row fails, which then takes no further part. Without it the whole run fails. */
  onFailure?: (name: string, error: Error) => void
  /** Receives the progress; stderr by default. */
  print?: (text: string) => void
}

/** The medians of all rounds: `results[load][row]`. */
export async function measureRounds<Load = number>(rows: Row<Load>[], options: RoundsOptions<Load>) {
  const { rounds, seconds, loads, warmUpLoad, keyOf = String, onFailure, print } = options
  const steps = (1 + rounds * loads.length) * rows.length
  const totalSeconds = (1 + seconds * rounds * loads.length) * rows.length
  const progress = createProgress(steps, seconds, { totalSeconds, ...(print && { print }) })
  const results: Record<string, Record<string, Summary>> = {}
  const failed = new Set<string>()

  async function measureOrFail(row: Row<Load>, load: Load, seconds: number): Promise<Measurement | null> {
    if (failed.has(row.name)) return null
    try {
      return await measure(row, load, seconds)
    } catch (error) {
      if (onFailure === undefined) throw error
      failed.add(row.name)
      onFailure(row.name, error as Error)
      return null
    }
  }

  for (const row of rows) {
    progress.step(`warm-up: ${row.name}`, 1)
    await row.check()
    await measureOrFail(row, warmUpLoad, 1)
  }
  for (const load of loads) {
    const measured = new Map<string, Measurement[]>(rows.map(({ name }) => [name, []]))
    for (let round = 0; round < rounds; round++) {
      for (const row of rows) {
        progress.step(`${describeLoad(keyOf(load))}, round ${round + 1} of ${rounds}: ${row.name}`)
        const measurement = await measureOrFail(row, load, seconds)
        if (measurement) measured.get(row.name)?.push(measurement)
      }
    }
    const complete = [...measured].filter(([name]) => !failed.has(name))
    results[keyOf(load)] = Object.fromEntries(complete.map(([name, list]) => [name, summarise(list)]))
  }
  progress.end()
  return results
}

async function measure<Load>(row: Row<Load>, load: Load, seconds: number): Promise<Measurement> {
  await row.prepare?.()
  const countsBefore = await row.counts?.()
  const pids = await row.pids()
  const authPids = row.authPid === undefined ? [] : [row.authPid]
  const [cpuBefore, authCpuBefore] = [cpuMicros(pids), cpuMicros(authPids)]
  const result = await row.drive(load, seconds)
  const [cpu, authCpu] = [cpuMicros(pids) - cpuBefore, cpuMicros(authPids) - authCpuBefore]
  if (result.errors > 0) console.error(`\n${row.name}: ${result.errors} errors`)
  const measurement: Measurement = { ...result, cpuPerRequest: cpu / result.requests }
  if (row.authPid !== undefined) measurement.authCpuPerRequest = authCpu / result.requests
  const countsAfter = (await row.counts?.()) ?? {}
  for (const name of Object.keys(countsAfter) as (keyof Counts)[]) {
    measurement[name] = ((countsAfter[name] ?? 0) - (countsBefore?.[name] ?? 0)) / result.requests
  }
  return measurement
}

function summarise(list: Measurement[]): Summary {
  const names = Object.keys(list[0] as Measurement) as (keyof Measurement)[]
  const medians = Object.fromEntries(names.map(name => [name, median(list.map(one => one[name] ?? 0))]))
  return { ...(medians as unknown as Measurement), cpuPerRound: list.map(({ cpuPerRequest }) => cpuPerRequest) }
}
