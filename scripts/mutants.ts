// Breaks a scratch copy of the code in each way of mutantList.ts, one at a time, and shows which test catches it.
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { readArguments } from './arguments.ts'
import { type Mutant, mutants } from './mutantList.ts'

const usage = `Usage: npm run mutants -- [--only <text>]

Plants one fault after another in a copy of the code and runs the tests that must catch it. Ends with one line:
N caught, N survived. Fails where one survived, or where the code that it changes is no longer there exactly once.

--only <text>   those with this text in their name or file`

const copied = ['services', 'shared', 'tests', 'scripts', 'package.json', 'tsconfig.json', '.mocharc.json']
const mostMs = 60_000 // for the tests of one fault: some of them make a loop endless

const { only } = readArguments(usage, { only: { type: 'string', default: '' } })
const chosen = mutants.filter(({ name, file }) => name.includes(only) || file.includes(only))
if (chosen.length === 0) {
  console.log(`No fault has ${JSON.stringify(only)} in its name or file.`)
  process.exit(1)
}

const root = process.cwd()
const scratch = mkdtempSync(join(tmpdir(), 'latchkey-mutants-'))
process.on('exit', () => rmSync(scratch, { recursive: true, force: true }))
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1))

for (const path of copied) cpSync(join(root, path), join(scratch, path), { recursive: true })
// Each package by itself: were the folder one link, an `npm ci` in the copy would empty the real one.
mkdirSync(join(scratch, 'node_modules'))
for (const name of readdirSync(join(root, 'node_modules'))) {
  symlinkSync(join(root, 'node_modules', name), join(scratch, 'node_modules', name))
}

// Where the tests fail as it is, they would catch everything.
const fault = await firstFailure([...new Set(chosen.flatMap(({ tests }) => tests))])
if (fault !== null) {
  console.log(`Nothing is planted yet, and the tests fail: ${fault}`)
  process.exit(1)
}

let survived = 0
for (const [i, mutant] of chosen.entries()) {
  process.stdout.write(`${String(i + 1).padStart(3)}/${chosen.length} ${mutant.file}: ${mutant.name} ... `)
  const verdict = await verdictOn(mutant)
  if (!verdict.startsWith('caught')) survived++
  console.log(verdict)
}
console.log(`${chosen.length - survived} caught, ${survived} survived`)
process.exit(survived === 0 ? 0 : 1)

async function verdictOn({ file, find, replace, tests }: Mutant): Promise<string> {
  const path = join(scratch, file)
  const source = readFileSync(path, 'utf8')
  const parts = source.split(find)
  if (parts.length !== 2) return `NOT PLANTED: the text is there ${parts.length - 1} times`
  writeFileSync(path, parts.join(replace))
  try {
    const title = await firstFailure(tests)
    return title === null ? 'SURVIVED' : `caught by "${title}"`
  } catch (error) {
    return `SURVIVED: ${(error as Error).message}`
  } finally {
    writeFileSync(path, source)
  }
}

/** The title of the first test that fails; null where none does. Rejects where no test could say so. */
async function firstFailure(tests: string[]): Promise<string | null> {
  const report = join(scratch, 'report.json')
  rmSync(report, { force: true })
  const binaries = join(scratch, 'node_modules', '.bin')
  // This process's own Node first: an older one on the PATH cannot run what this starts.
  const PATH = [dirname(process.execPath), binaries, process.env['PATH']].join(':')
  // --exit: what a fault leaves running would keep mocha waiting.
  const args = ['--bail', '--exit', '--reporter', 'json', '--reporter-option', `output=${report}`, ...tests]
  const env = { ...process.env, PATH, NODE_ENV: 'test' }
  const settings = { cwd: scratch, env, timeout: mostMs, killSignal: 'SIGKILL', maxBuffer: 1 << 26 } as const
  const ended = await promisify(execFile)(join(binaries, 'mocha'), args, settings).catch((error: Ended) => error)
  if ('killed' in ended && ended.killed) throw new Error(`the tests did not end within ${mostMs / 1000} s`)
  const [failure] = readReport(report, ended.stderr)
  if (failure === undefined) return null
  // Neither says that a rule was broken: the planted text is no program.
  const typo = /(Syntax|Reference)Error.*/.exec(failure.err.stack ?? '')
  if (typo) throw new Error(`${failure.fullTitle}: ${typo[0]}`)
  if (failure.fullTitle.includes('" hook')) throw new Error(`no test failed, but ${failure.fullTitle}`)
  return failure.fullTitle
}

interface Ended extends Error {
  killed: boolean
  stdout: string
  stderr: string
}

interface Failure {
  fullTitle: string
  err: { stack?: string }
}

function readReport(file: string, stderr: string): Failure[] {
  let report: { stats: { tests: number }; failures: Failure[] }
  try {
    report = JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    throw new Error(`the tests did not run: ${/^\S*Error.*$/m.exec(stderr)?.[0] ?? 'no report'}`)
  }
  if (report.stats.tests + report.failures.length === 0) throw new Error('there were no tests')
  return report.failures
}
