// Everything that must pass: format and lint, types, tests, and coverage in CI. Ends with one line that counts it all.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, statfsSync, statSync, watch } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { readWithPositionals } from '../commands/arguments.ts'

const usage = `Usage: ./runTests [files] [options]

Checks format, lint and types, runs every test, and ends with one line: N passed, N failed, N skipped.
With arguments that choose tests only those run: ./runTests tests/auth/tokens/tokens.test.ts, ./runTests -g slides

      --coverage       measures coverage too, and fails below its limits
      --unit           only the tests of use cases and rules: stores in memory, no other processes, a few seconds
      --watch          run the chosen tests, and again whenever a source or test file changes
  -g, --grep TEXT      only tests whose title matches this regular expression
  -f, --fgrep TEXT     only tests whose title contains this text
  -i, --invert         all tests except those that -g or -f chooses
  -b, --bail           stop at the first failure
  -t, --timeout MS     for each test (180000)

With CI=1 coverage is measured, and a skipped test is a failure. A test that fails runs once more, and is named if it then passes.`

/** How the paths of the slowest files begin. These files start first, because a slow file that starts last would run alone. */
const slowest = [
  'tests/auth/pages/console',
  'prove/tests/prove',
  'tests/commands/workers',
  'tests/commands/startServer',
  'tests/auth/stores/contracts',
  'tests/auth/stores/postgres',
  'tests/auth/stores/redis',
  'tests/shared/http/slowClients',
  'tests/commands/',
  'tests/shared/log/logReaders',
  'tests/shared/http/openapi',
  'tests/deploy/',
  'tests/auth/defence/',
  'tests/auth/stores/',
  'tests/tools/',
  'tests/auth/users/mail',
  'tests/docs/',
  'tests/client/python',
  'tests/client/conformance',
  'tests/auth/users/unfinishedChanges',
  'tests/auth/dialects/dialectPairs',
  'tests/auth/routes/',
  'tests/business/',
  'tests/shared/http/',
  'tests/auth/',
]

/** The folders of the fast tier. A file there that starts a process or needs a store on disk or a mail server is left out. */
const unitFolders = ['tests', 'tests/bench', 'tests/auth/tokens', 'tests/auth/users', 'tests/shared/config']
const notUnit = /node:child_process|support\/(stores|mailServer|redis|postgres|processes|browser)\.ts|mailSetup\.ts/
/** Runs on memory alone with TEST_STORES=memory. */
const contracts = 'tests/auth/stores/contracts.test.ts'

const { values } = readWithPositionals(usage, {
  coverage: { type: 'boolean' },
  unit: { type: 'boolean' },
  watch: { type: 'boolean' },
  grep: { type: 'string', short: 'g' },
  fgrep: { type: 'string', short: 'f' },
  invert: { type: 'boolean', short: 'i' },
  bail: { type: 'boolean', short: 'b' },
  timeout: { type: 'string', short: 't' },
})

const args = process.argv.slice(2).filter(arg => !['--coverage', '--unit', '--watch'].includes(arg))
const isWhole = args.length === 0 && !values.unit && !values.watch
const hasCoverage = values.coverage === true || (isWhole && Boolean(process.env['CI']))
const scratch = mkdtempSync(join(tmpdir(), 'latchkey-tests-'))
process.once('exit', () => rmSync(scratch, { recursive: true }))
const countsFile = join(scratch, 'counts.json')
const binaries = join(process.cwd(), 'node_modules', '.bin')
/** The cache of compiled code without types. It saves each process a third of its start. */
const compileCache = join(process.cwd(), 'node_modules', '.cache', 'compiled')
/** Where SQLite files of tests need not wait for a disk. */
const memoryDisk = '/dev/shm'
const counts = { passed: 0, failed: 0, skipped: 0 }

if (isWhole) {
  await Promise.all([
    check('format and lint', 'biome', ['ci', '--error-on-warnings', '--reporter=summary']),
    check('types', 'tsc', ['--noEmit']),
    check('types of the console', 'tsc', ['--noEmit', '--project', 'services/auth/pages/console']),
    check('types of the documentation site', 'tsc', ['--noEmit', '--project', 'docs/.vitepress']),
  ])
}
test()
if (!values.watch) finish()

function finish(): never {
  if (process.env['CI'] && counts.skipped > 0) {
    console.log('CI is set, so skipped tests count as failed.')
    counts.failed += counts.skipped
  }
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  process.exit(counts.failed === 0 ? 0 : 1)
}

function run(binary: string, args: string[], env = process.env): boolean {
  const { status } = spawnSync(join(binaries, binary), args, { stdio: 'inherit', env: withOwnNode(env) })
  return status === 0
}

/** Puts this process's own Node first, because an older one on the PATH cannot run the child processes. */
function withOwnNode(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...env, PATH: [dirname(process.execPath), binaries, process.env['PATH']].join(':') }
}

function slowestFirst(): string[] {
  const rankOf = (file: string) => {
    const rank = slowest.findIndex(beginning => file.startsWith(beginning))
    return rank < 0 ? slowest.length : rank
  }
  const files = globSync('{tests,prove}/**/*.test.ts').sort()
  return files.sort((a, b) => rankOf(a) - rankOf(b))
}

/** Containers often limit /dev/shm to 64 MB, which is too little. */
function hasMemoryDisk(): boolean {
  if (process.env['TMPDIR'] !== undefined || !existsSync(memoryDisk)) return false
  const { bavail, bsize } = statfsSync(memoryDisk)
  return bavail * bsize > 2e9
}

function unitFiles(): string[] {
  const files = unitFolders.flatMap(folder => globSync(`${folder}/*.test.ts`)).sort()
  return [contracts, ...files.filter(file => !notUnit.test(readFileSync(file, 'utf8')))]
}

/** Prints the output when the check has ended, because other checks run at the same time. */
async function check(title: string, binary: string, args: string[]): Promise<void> {
  const child = spawn(join(binaries, binary), args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: withOwnNode(process.env),
  })
  const [output, errors, [status]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  const passed = status === 0
  console.log(`${output}${errors}${passed ? '✔' : '✘'} ${title}`)
  counts[passed ? 'passed' : 'failed']++
}

/** Uses neither mocha's --watch, which cannot load an ES module again, nor Node's, which sends its own messages to workers. */
function watchAndRun(runAll: () => void): void {
  process.once('SIGINT', () => process.exit(130)) // so that the scratch folder is removed
  let startedAt = 0
  const runNow = () => {
    startedAt = Date.now()
    runAll()
    console.log('Waiting for a change of a file.')
  }
  runNow()
  for (const folder of ['packages', 'services', 'shared', 'commands', 'tools', 'tests', 'prove']) {
    watch(folder, { recursive: true }, (_event, file) => {
      if (file === null || !file.endsWith('.ts')) return
      // One save causes several events.
      const changedAt = statSync(join(folder, file), { throwIfNoEntry: false })?.mtimeMs ?? 0
      if (changedAt > startedAt) runNow()
    })
  }
}

function test(): void {
  const env = { ...process.env, TEST_COUNTS_FILE: countsFile, TEST_COMPILE_CACHE: compileCache, NODE_ENV: 'test' }
  if (hasMemoryDisk()) Object.assign(env, { TMPDIR: memoryDisk })
  if (values.unit) Object.assign(env, { TEST_STORES: 'memory' })
  // V8 counts coverage only for code that it compiles itself, so if coverage is measured, only children.ts sets the
  // cache, for the processes that tests start.
  if (!hasCoverage) Object.assign(env, { NODE_COMPILE_CACHE: compileCache })
  const files = args.some(arg => arg.endsWith('.ts')) ? [] : values.unit ? unitFiles() : slowestFirst()
  // Run four files at a time even on two cores, because tests spend much of their time waiting.
  const parallel =
    args.length > 0 || values.watch ? [] : ['--parallel', '--jobs', String(Math.max(4, availableParallelism()))]
  const required = ['--require', './tests/support/children.ts']
  // A complete run on a shared machine takes minutes, and one pause of that machine fails whatever has a limit of time just then.
  const retries = process.env['CI'] ? ['--retries', '1'] : []
  const mocha = ['--reporter', 'tests/support/reporter.ts', ...required, ...parallel, ...retries, ...files, ...args]
  if (values.watch) {
    watchAndRun(() => run('mocha', mocha, env))
    return
  }
  const passed = hasCoverage ? run('c8', ['mocha', ...mocha], env) : run('mocha', mocha, env)
  try {
    const tests = JSON.parse(readFileSync(countsFile, 'utf8')) as typeof counts
    for (const outcome of ['passed', 'failed', 'skipped'] as const) counts[outcome] += tests[outcome]
    if (!passed && tests.failed === 0) counts.failed++ // coverage below its limits
  } catch {
    console.log('✘ the tests did not finish')
    counts.failed++
  }
}
