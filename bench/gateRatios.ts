// The ratios that npm run bench:gate compares.
import { referenceRow } from './compare.ts'

const pairs = [
  ['Latchkey', 'no check'],
  ['Latchkey', referenceRow],
  ['Latchkey', 'fast-jwt HS256, cached'],
  ['no check', referenceRow],
] as const

/** The rows that take part, each once. */
export const ratioRows: string[] = [...new Set(pairs.flat())]

/** CPU time of a request, by row. */
export type Costs = Record<string, number>

export interface Ratio {
  name: string
  before: number
  now: number
  isWorse: boolean
}

/** A ratio is worse if it has risen by more than `tolerance`, a share of the earlier ratio. */
export function compareRatios(before: Costs, now: Costs, tolerance: number): Ratio[] {
  return pairs.map(([row, base]) => {
    const ratioOf = (costs: Costs) => (costs[row] ?? Number.NaN) / (costs[base] ?? Number.NaN)
    const ratio = { before: ratioOf(before), now: ratioOf(now) }
    return { name: `${row} / ${base}`, ...ratio, isWorse: !(ratio.now / ratio.before <= 1 + tolerance) }
  })
}
