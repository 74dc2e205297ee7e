// The tables of npm run bench, from its result.
import type { Figures, Result } from './result.ts'
import { inConnections, markdownTable, pick, whole } from './table.ts'

type Rows = Record<string, Figures>

const isBare = (name: string) => /^bare Koa, /.test(name)

const columns = [
  { title: 'requests/s', cell: ({ perSecond }: Figures) => whole(perSecond) },
  { title: 'p50 ms', cell: ({ p50 }: Figures) => p50.toFixed(2) },
  { title: 'p99 ms', cell: ({ p99 }: Figures) => p99.toFixed(2) },
  { title: 'CPU µs/request', cell: ({ cpuPerRequest }: Figures) => cpuPerRequest.toFixed(1) },
  { title: 'calls to Auth/request', cell: ({ callsPerRequest = 0 }: Figures) => callsPerRequest.toFixed(3) },
]

export function dataTable({ results }: Result, connections: number | string): string {
  return markdownTable(inConnections(connections), columns, Object.entries(results[connections] ?? {}))
}

/** For the README. */
export function shortDataTable({ results }: Result): string {
  const rows = Object.entries(results[64] ?? {}).filter(([name]) => !isBare(name) && name !== 'jose EdDSA')
  return markdownTable(inConnections(64), columns, rows)
}

/** How many times as many requests Latchkey serves, and what share of the CPU time a request takes. */
export function ratioTable({ results }: Result): string {
  const loads = Object.keys(results)
  const rows = Object.keys(results[64] ?? {}).filter(name => name !== 'Latchkey' && !isBare(name))
  const ratio = (load: string, name: string, member: 'perSecond' | 'cpuPerRequest') => {
    const { Latchkey: ours, [name]: other } = results[load] as Rows
    return ours && other ? (ours[member] / other[member]).toFixed(2) : '–'
  }
  const ratioColumns = [
    ...loads.map(load => ({
      title: `requests/s, ${inConnections(load)}`,
      cell: (name: string) => ratio(load, name, 'perSecond'),
    })),
    { title: `CPU time, ${inConnections(64)}`, cell: (name: string) => ratio('64', name, 'cpuPerRequest') },
  ]
  return markdownTable('Latchkey divided by', ratioColumns, rows.map(pick))
}

/** What each layer adds to the CPU time of a request. */
export function costTable({ results }: Result): string {
  const rows = results[64] as Rows
  const cost = (name: string) => rows[name]?.cpuPerRequest ?? Number.NaN
  const authCost = rows['Latchkey']?.authCpuPerRequest ?? 0
  const layers: [string, number][] = [
    ['node:http', cost('node:http, no check')],
    ['the rest of Business: routes, limits, metrics, request id', cost('no check') - cost('node:http, no check')],
    ['the check, in Business', cost('Latchkey') - authCost - cost('no check')],
    ['the check, in Auth', authCost],
  ]
  const share = (value: number) => `${Math.round((100 * value) / cost('Latchkey'))} %`
  return markdownTable(
    `CPU time of a request with Latchkey, ${inConnections(64)}`,
    [
      { title: 'µs', cell: (value: number) => value.toFixed(1) },
      { title: 'share', cell: share },
    ],
    [...layers, ['together', cost('Latchkey')]],
  )
}

/** For a sentence about a client that is alone. */
export function loneLatency({ results }: Result): string {
  const { Latchkey: ours, 'no check': unchecked } = results[1] as Rows
  return `${ours?.p50.toFixed(2)} ms instead of ${unchecked?.p50.toFixed(2)} ms`
}
