// Turns a module of a page into JavaScript for browsers. Types become spaces, so that line and column numbers stay; the
// names of packages become the URLs that serve them.
import { stripTypeScriptTypes } from 'node:module'

/** Imports of other files need no change: the URL of a file ends in its name. */
export function toBrowserModule(source: string, packageUrls: Record<string, string> = {}): string {
  return stripTypes(source).replace(/(\bfrom\s*)(['"])([\w/-]+)\2/g, (text, from, quote, name) =>
    Object.hasOwn(packageUrls, name) ? `${from}${quote}${packageUrls[name]}${quote}` : text,
  )
}

/** Hides Node's warning that the function is experimental, because an operator can do nothing about that. */
function stripTypes(source: string): string {
  const { emitWarning } = process
  process.emitWarning = () => {}
  try {
    return stripTypeScriptTypes(source)
  } finally {
    process.emitWarning = emitWarning
  }
}
