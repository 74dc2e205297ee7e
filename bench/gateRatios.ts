// The ratios that npm run bench:gate compares.
import { referenceRow } from './compare.ts'
import { median } from './load.ts'

const pairs = [
  ['Latchkey', 'no check'],
  ['Latchkey', referenceRow],
  ['Latchkey', 'fast-jwt HS256, cached'],
  ['no check', referenceRow],
] as const

/** The rows that take part, each once. */
export const ratioRows: string[] = [...new Set(pairs.flat())]

/** CPU time of a request in each round, by row. */
export type Costs = Record<string, number[]>

export interface Ratio {
  name: string
  before: number
  now: number
  isWorse: boolean
}

/** A ratio is worse if it has risen by more than `tolerance`, a share of the earlier ratio. */
export function compareRatios(before: Costs, now: Costs, tolerance: number): Ratio[] {
  return pairs.map(([row, base]) => {
    const ratio = { before: ratioOf(before, row, base), now: ratioOf(now, row, base) }
    return { name: `${row} / ${base}`, ...ratio, isWorse: !(ratio.now / ratio.before <= 1 + tolerance) }
  })
}

/**
 * The median of the ratios within a round: other work on the machine makes a request up to twice as dear, for all rows that
 * are measured at about the same time.
 */
function ratioOf(costs: Costs, row: string, base: string): number {
  const baseCosts = costs[base] ?? []
  return median((costs[row] ?? []).map((cost, round) => cost / (baseCosts[round] ?? Number.NaN)))
}
