// The table of npm run bench:peers, from its result.
import type { Figures, Result } from './result.ts'
import { inConnections, markdownTable, pick, whole } from './table.ts'

export interface PeersResult extends Result {
  /** How long a peer accepts a revoked session, or why it did not run. */
  revocation: Record<string, string>
}

export function peersTable({ results, revocation }: PeersResult): string {
  const [[connections, rows] = ['', {}]] = Object.entries(results)
  const show = (text: (row: Figures) => string) => (name: string) => (rows[name] ? text(rows[name]) : '–')
  const columns = [
    { title: 'requests/s', cell: show(({ perSecond }) => whole(perSecond)) },
    { title: 'p50 ms', cell: show(({ p50 }) => p50.toFixed(2)) },
    { title: 'p99 ms', cell: show(({ p99 }) => p99.toFixed(2)) },
    { title: 'CPU µs/request', cell: show(({ cpuPerRequest }) => cpuPerRequest.toFixed(0)) },
    { title: 'a revoked session is accepted for', cell: (name: string) => revocation[name] ?? '–' },
  ]
  return markdownTable(inConnections(connections), columns, Object.keys(revocation).map(pick))
}
