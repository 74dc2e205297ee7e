// SQL with its values kept apart: sql`select … where id = ${id}`. Statements may be nested. Hides the placeholders, which
// differ between databases.

export type SqlValue = string | number | null | string[] | number[]

export interface Sql {
  /** The text around the values: one part more than there are values. */
  parts: readonly string[]
  values: readonly SqlValue[]
}

export function sql(strings: TemplateStringsArray, ...inserted: (SqlValue | Sql)[]): Sql {
  const parts = [strings[0] as string]
  const values: SqlValue[] = []
  const append = (text: string) => {
    parts[parts.length - 1] += text
  }
  for (const [i, value] of inserted.entries()) {
    if (isSql(value)) {
      append(value.parts[0] as string)
      parts.push(...value.parts.slice(1))
      values.push(...value.values)
      append(strings[i + 1] as string)
    } else {
      values.push(value)
      parts.push(strings[i + 1] as string)
    }
  }
  return { parts, values }
}

/** SQL that is used as it is. Only for text of our own, such as column names, never for a value. */
export function raw(text: string): Sql {
  return { parts: [text], values: [] }
}

export function join(items: Sql[], separator: Sql): Sql {
  return items.reduce((all, item) => sql`${all}${separator}${item}`)
}

/** The text with `$1`, `$2`, … or with `?` in place of each value. */
export function textOf({ parts }: Sql, mark: '$' | '?'): string {
  return parts.reduce((text, part, i) => `${text}${mark === '$' ? `$${i}` : '?'}${part}`)
}

function isSql(value: SqlValue | Sql): value is Sql {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
