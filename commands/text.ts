// Text for the terminal. Escapes names that other people chose, because a terminal would obey an escape sequence in them.

export function printJson(value: unknown): void {
  console.log(printable(JSON.stringify(value)))
}

/** One line of a table. A text without a width is the last one. */
export function columns(widths: readonly number[], texts: readonly string[]): string {
  return texts.map((text, i) => escaped(text).padEnd(widths[i] ?? 0)).join('  ')
}

export function instant(at: number): string {
  return new Date(at).toISOString()
}

/** Escaped as in JSON, without the quotes. */
export function escaped(text: string): string {
  return printable(JSON.stringify(text).slice(1, -1))
}

/** Escapes control characters and characters that reorder text, as JSON does. */
export function printable(text: string): string {
  return text.replace(/[^\P{C}\n]|[\p{Zl}\p{Zp}]/gu, found =>
    [...Array(found.length).keys()].map(at => `\\u${found.charCodeAt(at).toString(16).padStart(4, '0')}`).join(''),
  )
}
