// The tables in the documents: written from bench/results/ by --save, so that no figure is copied by hand.
import { readFileSync, writeFileSync } from 'node:fs'
import { callsTable, fanInTables, workersTable } from './authTables.ts'
import { costTable, dataTable, loneLatency, ratioTable, shortDataTable } from './dataTables.ts'
import { type PeersResult, peersTable } from './peersTable.ts'
import { type ProfileResult, profileTables } from './profileTable.ts'
import type { Result } from './result.ts'
import { storesTable } from './storesTable.ts'
import { type WritesResult, writesTable } from './writesTable.ts'

export const documents = ['README.md', 'docs/benchmarks.md']

const read = <T extends About = Result>(name: string) =>
  JSON.parse(readFileSync(`bench/results/${name}.json`, 'utf8')) as T

type About = Pick<Result, 'machine' | 'date' | 'command'>

/** The command of a result, and where and when it ran. */
const source = ({ machine, date, command }: About) => `\`${command}\`; ${machine}, ${date}`

const blocks: Record<string, () => string> = {
  'data short': () => shortDataTable(read('data')),
  'data source': () => source(read('data')),
  data: () => {
    const data = read('data')
    return [source(data), ...Object.keys(data.results).map(connections => dataTable(data, connections))].join('\n\n')
  },
  ratios: () => ratioTable(read('data')),
  costs: () => costTable(read('data')),
  'lone latency': () => loneLatency(read('data')),
  peers: () => `${source(read('peers'))}\n\n${peersTable(read<PeersResult>('peers'))}`,
  'auth calls': () => `${source(read('auth'))}\n\n${callsTable(read('auth'))}`,
  'auth fan-in': () => `${source(read('auth'))}\n\n${fanInTables(read('auth'))}`,
  'auth workers': () => `${source(read('auth'))}\n\n${workersTable(read('auth'))}`,
  stores: () => `${source(read('stores'))}\n\n${storesTable(read('stores'))}`,
  profile: () => `${source(read('profile'))}\n\n${profileTables(read<ProfileResult>('profile'))}`,
  writes: () => `${source(read('writes'))}\n\n${writesTable(read<WritesResult>('writes'))}`,
}

/** The text with the current content of each block, `<!-- bench NAME -->…<!-- /bench -->`. Throws if a name is unknown. */
export function withBlocks(text: string): string {
  return text.replaceAll(/(<!-- bench ([\w -]+) -->)(\n?)[\s\S]*?(<!-- \/bench -->)/g, (_, begin, name, line, end) => {
    const block = blocks[name]
    if (!block) throw new Error(`there is no block ${name}`)
    return `${begin}${line}${block()}${line}${end}`
  })
}

export function updateDocuments(): void {
  for (const file of documents) writeFileSync(file, withBlocks(readFileSync(file, 'utf8')))
}
