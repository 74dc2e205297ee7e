// Tables in Markdown.

export interface Column<T> {
  title: string
  cell: (row: T) => string
}

/** The first column is text and begins with the names of the rows; the others are aligned to the right. */
export function markdownTable<T>(title: string, columns: Column<T>[], rows: [string, T][]): string {
  const lines = [
    `| ${[title, ...columns.map(column => column.title)].join(' | ')} |`,
    `|---|${'--:|'.repeat(columns.length)}`,
  ]
  for (const [name, row] of rows) lines.push(`| ${[name, ...columns.map(({ cell }) => cell(row))].join(' | ')} |`)
  return lines.join('\n')
}

/** A row for `markdownTable` whose cells look up what they show by its name. */
export const pick = (name: string): [string, string] => [name, name]

export const whole = (value: number) => Math.round(value).toLocaleString('en')
export const inConnections = (count: number | string) => `${count} connection${Number(count) === 1 ? '' : 's'}`
/** Of a key of `results`. */
export const describeLoad = (key: string) => (/^\d+$/.test(key) ? inConnections(key) : key)
