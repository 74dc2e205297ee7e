// The tables of npm run bench:profile, from its result.
import type { Profile } from './samples.ts'
import { markdownTable } from './table.ts'

export interface ProfileOfLoad extends Profile {
  /** A system call -> how often it was made per request. */
  callsPerRequest: Record<string, number>
}

/** `results`: the name of a load -> its profile. */
export interface ProfileResult {
  machine: string
  date: string
  command: string
  results: Record<string, ProfileOfLoad>
}

const functionsShown = 6
const leastShown = 0.01 // of the CPU time, and calls per request

export function profileTables({ results }: ProfileResult): string {
  const loads = Object.entries(results)
  const shares = figureTable('share of the CPU time, %', loads, ({ groups }) => groups, inPerCent)
  const calls = figureTable('system calls per request', loads, load => load.callsPerRequest, inCalls)
  return [shares, calls, loads.map(functionList).join('\n')].join('\n\n')
}

/** A row for each name that is not negligible in all of the loads, the largest first. */
function figureTable(
  title: string,
  loads: [string, ProfileOfLoad][],
  figuresOf: (load: ProfileOfLoad) => Record<string, number>,
  format: (figure: number) => string,
): string {
  const figureOf = (name: string) => loads.map(([, load]) => figuresOf(load)[name] ?? 0)
  const names = new Set(loads.flatMap(([, load]) => Object.keys(figuresOf(load))))
  const sum = (name: string) => figureOf(name).reduce((sum, figure) => sum + figure)
  const rows = [...names]
    .filter(name => Math.max(...figureOf(name)) >= leastShown)
    .sort((a, b) => sum(b) - sum(a))
    .map((name): [string, string] => [name, name])
  const columns = loads.map(([title, load]) => ({ title, cell: (name: string) => format(figuresOf(load)[name] ?? 0) }))
  return markdownTable(title, columns, rows)
}

function functionList([title, { functions }]: [string, ProfileOfLoad]): string {
  const shown = Object.entries(functions).slice(0, functionsShown)
  return `* ${title}: ${shown.map(([name, share]) => `${name} ${inPerCent(share)} %`).join('; ')}`
}

const inPerCent = (share: number) => (100 * share).toFixed(1)
const inCalls = (calls: number) => calls.toFixed(2)
