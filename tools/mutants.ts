// Mutation testing: StrykerJS changes one place of the code after another and runs the tests that reach it. A change that no
// test notices is a survivor.
import { globSync } from 'node:fs'
import type { LogLevel } from '@stryker-mutator/api/core'
import { readWithPositionals } from '../commands/arguments.ts'
import { areas } from './mutationAreas.ts'
import type { MochaSettings } from './mutationRunner.ts'

/**
 * Tests that are left out: those of databases and of whole processes, which take seconds each and may need a server, and two
 * tests whose bursts of requests take too long in the instrumented code.
 */
const unsuited = /postgres|redis|sqlite|startServer|in a database|killed process|at most 255 tokens|each of 300/

const usage = `Usage: npm run mutants -- [area ...] [--file <path>] [--sample <percent> --seed <text>] [--force]

Changes the sources of each area in one place after another, in a copy, and runs the tests that reach that place. Prints
every change that no test noticed and the score: the share of the changes that a test noticed. Without an area: all.

Areas: ${Object.keys(areas).join(', ')}

--file <path>       only this file of its area; with a range of lines: services/auth/tokens/tokens.ts:100-150
--sample <percent>  only a part of the changes that a test reaches, drawn at random. The table counts the other
                    changes as errors. Read its "covered" column, because the total includes all changes that no test reaches
--seed <text>       draws another part
--force             also runs changes whose result is known. A result is kept in reports/mutants until the changed line or
                    a test that reaches it changes

reports/mutants/<area>.html shows each change in its source.`

const { values: options, positionals } = readWithPositionals(usage, {
  file: { type: 'string' },
  sample: { type: 'string' },
  seed: { type: 'string', default: '1' },
  force: { type: 'boolean', default: false },
})

process.env['NODE_ENV'] = 'test'
if (options.sample !== undefined) process.env['MUTANT_SAMPLE'] = `${percentOf(options.sample)} ${options.seed}`

const chosen = positionals.length > 0 ? positionals : Object.keys(areas)
let tested = 0
for (const name of chosen) {
  const area = areas[name]
  if (area === undefined) fail(`There is no area ${name}. Expected one of ${Object.keys(areas).join(', ')}.`)
  const mutate = filesOf(area.sources).flatMap(file => {
    if (options.file === undefined || options.file === file) return [file]
    return options.file.startsWith(`${file}:`) ? [options.file] : []
  })
  if (mutate.length === 0) continue
  tested++
  console.log(`\n${name}: ${mutate.join(', ')}`)
  await test(name, mutate, {
    files: filesOf(area.tests),
    titles: `^(?!.*(?:${unsuited.source})).*(?:${area.titles?.source ?? ''})`,
  })
}
if (tested === 0) fail(`${options.file} is in none of the areas: ${chosen.join(', ')}.`)

async function test(name: string, mutate: string[], mocha: MochaSettings): Promise<unknown> {
  const report = `reports/mutants/${name}`
  const { Stryker } = await import('@stryker-mutator/core') // only here, because loading it takes half a second
  return new Stryker({
    testRunner: 'mocha',
    plugins: ['./tools/mutationRunner.ts'],
    mocha,
    mutate,
    coverageAnalysis: 'perTest',
    concurrency: 1, // tests that measure time share the machine with nothing else
    timeoutMS: 5000,
    // A sample says nothing about the mutants that it leaves out.
    incremental: options.sample === undefined,
    incrementalFile: `${report}.incremental.json`,
    force: options.force,
    // Stryker rewrites tsconfig.json with a function that TypeScript 7 lacks. Nothing that runs here needs the file.
    ignorePatterns: ['tsconfig.json', 'reports'],
    disableTypeChecks: false,
    logLevel: 'warn' as LogLevel, // a const enum has no values at run time
    reporters: [process.stdout.isTTY ? 'progress' : 'progress-append-only', 'clear-text', 'html', 'json'],
    clearTextReporter: { allowColor: false, allowEmojis: false, reportTests: false, logTests: false },
    htmlReporter: { fileName: `${report}.html` },
    jsonReporter: { fileName: `${report}.json` },
  }).runMutationTest()
}

/** Each pattern must match, so that a renamed file does not drop out unnoticed. */
function filesOf(patterns: string[]): string[] {
  return patterns.flatMap(pattern => {
    const files = globSync(pattern)
    return files.length > 0 ? files : fail(`No file matches ${pattern}: adapt the areas in tools/mutants.ts.`)
  })
}

function percentOf(text: string): number {
  const percent = Number(text)
  return percent > 0 && percent <= 100 ? percent : fail(`--sample: expected a percentage from 1 to 100; got ${text}`)
}

function fail(message: string): never {
  console.error(message)
  process.exit(1)
}
