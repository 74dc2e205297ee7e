// Measures several servers in turn, in rounds, so that what else the machine does affects all of them alike.
import { drive, type LoadRequest, type LoadResult, median } from './load.ts'
import { cpuMicros } from './processes.ts'
import { createProgress } from './progress.ts'

export interface Row {
  name: string
  url: string
  requests: LoadRequest[]
  /** The processes that take part. */
  pids: () => number[] | Promise<number[]>
  /** Further counts so far; each becomes a figure per request. */
  counts?: () => Promise<Record<string, number>>
}

export type Measurement = LoadResult & { cpuPerRequest: number } & Record<string, number>

export interface RoundsOptions {
  rounds: number
  seconds: number
  connectionCounts: number[]
}

/** The medians of all rounds: `results[connections][row]`. */
export async function measureRounds(rows: Row[], { rounds, seconds, connectionCounts }: RoundsOptions) {
  const steps = (1 + rounds * connectionCounts.length) * rows.length
  const totalSeconds = (1 + seconds * rounds * connectionCounts.length) * rows.length
  const progress = createProgress(steps, seconds, { totalSeconds })
  const results: Record<string, Record<string, Measurement>> = {}
  for (const row of rows) {
    progress.step(`warm-up: ${row.name}`, 1)
    await requireAnswer(row)
    await measure(row, 64, 1)
  }
  for (const connections of connectionCounts) {
    const measured = new Map<string, Measurement[]>(rows.map(({ name }) => [name, []]))
    for (let round = 0; round < rounds; round++) {
      for (const row of rows) {
        const title = `${connections} connection${connections === 1 ? '' : 's'}`
        progress.step(`${title}, round ${round + 1} of ${rounds}: ${row.name}`)
        measured.get(row.name)?.push(await measure(row, connections, seconds))
      }
    }
    results[connections] = Object.fromEntries([...measured].map(([name, list]) => [name, medians(list)]))
  }
  progress.end()
  return results
}

/** Answers are not read under load, so a server that refuses every request must be noticed before. */
async function requireAnswer({ name, url, requests: [first] }: Row): Promise<void> {
  const { method = 'GET', headers, body } = first as LoadRequest
  const answer = await fetch(url, { method, headers, body: body ?? null })
  const text = await answer.text()
  if (answer.status !== 200) throw new Error(`${name}: ${method} ${url} was answered ${answer.status} ${text}`)
}

async function measure(row: Row, connections: number, seconds: number): Promise<Measurement> {
  const countsBefore = await row.counts?.()
  const pids = await row.pids()
  const cpuBefore = cpuMicros(pids)
  const result = await drive({ url: row.url, connections, seconds, requests: row.requests })
  const cpu = cpuMicros(pids) - cpuBefore
  if (result.errors > 0) console.error(`\n${row.name}: ${result.errors} errors at ${connections} connections`)
  const measurement: Measurement = { ...result, cpuPerRequest: cpu / result.requests }
  for (const [name, count] of Object.entries((await row.counts?.()) ?? {})) {
    measurement[name] = (count - (countsBefore?.[name] ?? 0)) / result.requests
  }
  return measurement
}

function medians(list: Measurement[]): Measurement {
  const names = Object.keys(list[0] as Measurement)
  return Object.fromEntries(names.map(name => [name, median(list.map(one => one[name] ?? 0))])) as Measurement
}
