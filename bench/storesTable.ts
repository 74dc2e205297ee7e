// The table of npm run bench:stores, from its result. The rows are named `<store>` and `<store>, one call per request`.
import type { Result } from './result.ts'
import { inConnections, markdownTable, pick, whole } from './table.ts'

export const jwtRow = 'jose HS256'
export const singleRow = 'one call per request'

export function storesTable({ results }: Result): string {
  const [[connections, rows] = ['', {}]] = Object.entries(results)
  const perSecond = (row: string) => rows[row]?.perSecond ?? Number.NaN
  const columns = [
    { title: 'requests/s, batched', cell: (store: string) => whole(perSecond(store)) },
    { title: `requests/s, ${singleRow}`, cell: (store: string) => whole(perSecond(`${store}, ${singleRow}`)) },
    {
      title: 'batched / single',
      cell: (store: string) => (perSecond(store) / perSecond(`${store}, ${singleRow}`)).toFixed(1),
    },
    { title: `batched / ${jwtRow}`, cell: (store: string) => (perSecond(store) / perSecond(jwtRow)).toFixed(2) },
    { title: 'p50 ms', cell: (store: string) => (rows[store]?.p50 ?? Number.NaN).toFixed(2) },
    { title: 'p99 ms', cell: (store: string) => (rows[store]?.p99 ?? Number.NaN).toFixed(2) },
  ]
  const stores = Object.keys(rows).filter(name => rows[`${name}, ${singleRow}`])
  return `${markdownTable(`tokens in, ${inConnections(connections)}`, columns, stores.map(pick))}

${jwtRow} in the same server: ${whole(perSecond(jwtRow))} requests/s.`
}
