// Compares a result with an earlier one, row by row.
import type { Figures, Result } from './result.ts'
import { type Column, describeLoad, markdownTable, whole } from './table.ts'

/** Its change is that of the machine, more or less: nothing of ours takes part in it. */
export const referenceRow = 'bare Koa, no check'

interface Pair {
  before: Figures
  now: Figures
  reference: { before: Figures; now: Figures } | null
}

/** Tables of the rows that both results have. */
export function compareResults(before: Result, now: Result): string {
  const tables: string[] = []
  for (const [load, rowsNow] of Object.entries(now.results)) {
    const rowsBefore = before.results[load] ?? {}
    const pairs = Object.keys(rowsNow).flatMap((name): [string, Pair][] => {
      const [figuresBefore, figuresNow] = [rowsBefore[name], rowsNow[name]]
      const [referenceBefore, referenceNow] = [rowsBefore[referenceRow], rowsNow[referenceRow]]
      if (!figuresBefore || !figuresNow) return []
      const reference = referenceBefore && referenceNow ? { before: referenceBefore, now: referenceNow } : null
      return [[name, { before: figuresBefore, now: figuresNow, reference }]]
    })
    if (pairs.length > 0) tables.push(markdownTable(describeLoad(load), columns, pairs))
  }
  return `Before: ${before.machine}, ${before.date}, ${before.command}
Now:    ${now.machine}, ${now.date}, ${now.command}
"x" is now / before; "relative" is x divided by the x of "${referenceRow}", which shows how much the machine has changed.

${tables.join('\n\n')}`
}

const ratioOf = ({ before, now }: Pick<Pair, 'before' | 'now'>, member: 'perSecond' | 'cpuPerRequest') =>
  now[member] / before[member]

function columnsOf(
  member: 'perSecond' | 'cpuPerRequest',
  title: string,
  show: (value: number) => string,
): Column<Pair>[] {
  return [
    { title: `${title} before`, cell: ({ before }) => show(before[member]) },
    { title: 'now', cell: ({ now }) => show(now[member]) },
    { title: 'x', cell: pair => ratioOf(pair, member).toFixed(2) },
    {
      title: 'relative',
      cell: pair => (pair.reference ? (ratioOf(pair, member) / ratioOf(pair.reference, member)).toFixed(2) : '–'),
    },
  ]
}

const columns = [
  ...columnsOf('perSecond', 'requests/s', whole),
  ...columnsOf('cpuPerRequest', 'CPU µs/request', value => value.toFixed(1)),
]
