// The changelog at a release: `npm version` dates the section *Unreleased* (see CONTRIBUTING.md), and the workflow release.yml
// publishes a section as notes.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { readArguments } from '../commands/arguments.ts'

const file = 'CHANGELOG.md'
const unreleased = '## [Unreleased]'
const nothing = 'Nothing since the last release.'
const usage = `Usage: npm run changelog -- [--date YYYY-MM-DD] | --notes

Renames the section "Unreleased" of ${file} to the version in package.json, and begins a new one.

  --date    of the release; today by default
  --notes   print the section of the version in package.json, and change nothing`

/** `version` is not in the changelog yet, and the section "Unreleased" has entries; otherwise throws an error that says which. */
export function released(changelog: string, version: string, date: string): string {
  if (notesOf(changelog, version) !== null) throw new Error(`${file} has a section for ${version} already.`)
  const entries = notesOf(changelog, 'Unreleased')
  if (entries === null || entries === nothing) throw new Error(`The section "Unreleased" of ${file} has no entries.`)
  return changelog.replace(unreleased, `${unreleased}\n\n${nothing}\n\n## [${version}] - ${date}`)
}

/** The text of a section without its heading; null if there is none. */
export function notesOf(changelog: string, version: string): string | null {
  const [, ...sections] = changelog.split(/^## /m)
  const section = sections.find(text => text.startsWith(`[${version}]`))
  return section === undefined ? null : section.slice(section.indexOf('\n')).trim()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { date, notes } = readArguments(usage, { date: { type: 'string' }, notes: { type: 'boolean' } })
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
  const changelog = readFileSync(file, 'utf8')
  try {
    if (notes) console.log(notesOf(changelog, version) ?? fail(`${file} has no section for ${version}.`))
    else writeFileSync(file, released(changelog, version, date ?? new Date().toISOString().slice(0, 10)))
  } catch (error) {
    fail((error as Error).message)
  }
}

function fail(problem: string): never {
  console.error(problem)
  process.exit(1)
}
