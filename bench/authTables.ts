// The tables of npm run bench:auth, from its result.
import type { Figures, Result } from './result.ts'
import { markdownTable, whole } from './table.ts'

const perSecond = (title: string) => ({ title, cell: (row: Figures) => whole(row.perSecond) })
const latencies = [
  { title: 'p50 ms', cell: ({ p50 }: Figures) => p50.toFixed(2) },
  { title: 'p99 ms', cell: ({ p99 }: Figures) => p99.toFixed(2) },
]
const tokensPerCall = {
  title: 'tokens/call',
  cell: ({ callsPerRequest = 0 }: Figures) => (1 / callsPerRequest).toFixed(2),
}

/** Whether the key of a load belongs to fan-in. */
const isFanIn = (key: string) => key.startsWith('fan-in')

/** The tables of all parts that the result has. */
export function authTables(result: Result): string {
  const keys = Object.keys(result.results)
  const tables = [
    ...(keys.includes('calls') ? [callsTable(result)] : []),
    ...keys.filter(isFanIn).map(key => fanInTable(result, key)),
    ...(keys.includes('workers') ? [workersTable(result)] : []),
  ]
  return tables.join('\n\n')
}

/** The rows begin with the number of tokens in a call. */
function cpuPerVerdict([name, { cpuPerRequest }]: [string, Figures]): number {
  return cpuPerRequest / Number.parseInt(name, 10)
}

export function callsTable({ results }: Result): string {
  const rows = Object.entries(results['calls'] ?? {}).map((row): [string, Figures & { cpu: number }] => [
    row[0],
    { ...row[1], cpu: cpuPerVerdict(row) },
  ])
  const columns = [
    perSecond('calls/s'),
    ...latencies,
    { title: 'CPU µs/call', cell: ({ cpuPerRequest }: Figures) => cpuPerRequest.toFixed(0) },
    { title: 'CPU µs/verdict', cell: ({ cpu }: { cpu: number }) => cpu.toFixed(1) },
    { title: 'verdicts/s per core', cell: ({ cpu }: { cpu: number }) => whole(1e6 / cpu) },
  ]
  return markdownTable('calls to Auth, 8 connections', columns, rows)
}

function fanInTable({ results }: Result, key: string): string {
  const columns = [
    perSecond('verdicts/s'),
    ...latencies,
    tokensPerCall,
    { title: 'CPU µs/verdict of Auth', cell: ({ cpuPerRequest }: Figures) => cpuPerRequest.toFixed(1) },
    { title: 'verdicts/s per core', cell: ({ cpuPerRequest }: Figures) => whole(1e6 / cpuPerRequest) },
  ]
  return markdownTable(key, columns, Object.entries(results[key] ?? {}))
}

export const fanInTables = (result: Result) =>
  Object.keys(result.results)
    .filter(isFanIn)
    .map(key => fanInTable(result, key))
    .join('\n\n')

export function workersTable({ results }: Result): string {
  const columns = [
    perSecond('requests/s'),
    ...latencies,
    { title: 'CPU µs/request', cell: ({ cpuPerRequest }: Figures) => cpuPerRequest.toFixed(1) },
    tokensPerCall,
  ]
  return markdownTable('Business with one Auth, 64 connections', columns, Object.entries(results['workers'] ?? {}))
}

/** The bars of a chart: verdicts per second that a core of Auth gives. */
export function verdictBars({ results }: Result): { label: string; value: number; ours: boolean }[] {
  const calls = Object.entries(results['calls'] ?? {}).map(row => ({
    label: row[0],
    value: 1e6 / cpuPerVerdict(row),
    ours: false,
  }))
  const fanIn = Object.entries(results)
    .filter(([key]) => isFanIn(key))
    .flatMap(([key, rows]) =>
      Object.entries(rows).map(([name, { cpuPerRequest }]) => ({
        label: `${name}, ${key.replace('fan-in, ', '')}`,
        value: 1e6 / cpuPerRequest,
        ours: true,
      })),
    )
  return [...calls, ...fanIn]
}
