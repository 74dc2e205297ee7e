// The table of npm run bench:writes, from its result.
import { markdownTable, whole } from './table.ts'

export interface Writes {
  perSecond: number
  bytesPerValidation: number
}

/** `results`: the name of a row -> its figures. */
export interface WritesResult {
  machine: string
  date: string
  command: string
  results: Record<string, Writes>
}

export function writesTable({ results }: WritesResult): string {
  const columns = [
    { title: 'validations/s', cell: ({ perSecond }: Writes) => whole(perSecond) },
    { title: 'bytes written per validation', cell: (figures: Writes) => whole(figures.bytesPerValidation) },
  ]
  return markdownTable('tokens in', columns, Object.entries(results))
}
