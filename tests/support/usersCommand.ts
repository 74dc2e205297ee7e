// Runs `npm run users` as an operator does: a real process on real stores.
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import bcrypt from 'bcryptjs'
import { expect } from 'chai'
import type { Verdict } from '../../packages/client/contract.ts'
import { openUserStore } from '../../services/auth/stores/index.ts'
import type { UserRecord } from '../../services/auth/stores/userPort.ts'
import { searchForSecrets } from '../support/canaries.ts'
import { commandCoverage } from '../support/childEnvironment.ts'
import { validate } from '../support/factories.ts'
import type { Ended } from '../support/manyCommands.ts'
import { testMode } from '../support/processes.ts'
import { closeServers } from '../support/servers.ts'
import { newUserAt } from '../support/storeFixtures.ts'
import { freshPlace, type Place } from '../support/stores.ts'

export type Settings = Record<string, string | undefined>

export const latchkey = join(process.cwd(), 'commands/latchkey.ts')
const manyCommands = join(process.cwd(), 'tests/support/manyCommands.ts')
export const password = 'CANARY horse battery staple'
export const bcryptHash = bcrypt.hashSync(password, 4)
export const escapeCharacter = '\x1b'
const places: Place[] = []
const folders: string[] = []

export async function fresh(scheme: string): Promise<string> {
  const place = await freshPlace(scheme)
  places.push(place)
  return place.url
}

export function freshFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
  folders.push(folder)
  return folder
}

export function fileOf(content: string | Buffer): string {
  const file = join(freshFolder(), 'htpasswd')
  writeFileSync(file, content)
  return file
}

export const environmentOf = (settings: Settings) => ({
  ...process.env,
  ...commandCoverage(),
  ...testMode(settings),
  ...settings,
})

interface RunOptions {
  /** `users` by default. */
  command?: string
  input?: string | Buffer
  cwd?: string
  /** The only secret that the command may print. */
  secret?: RegExp
  /** Called with the process and everything it has written to stderr, each time it writes. */
  watch?: (child: ChildProcess, stderr: string) => void
}

export async function run(
  settings: Settings,
  args: string[],
  { command = 'users', input = '', cwd = tmpdir(), secret = /$^/, watch }: RunOptions = {},
) {
  const env = environmentOf(settings)
  const child = spawn(process.execPath, [latchkey, command, ...args], { env, cwd })
  let [stdout, stderr] = ['', '']
  child.stdout.on('data', chunk => {
    stdout += chunk
  })
  child.stderr.on('data', chunk => {
    stderr += chunk
    watch?.(child, stderr)
  })
  child.stdin.on('error', () => {}) // not every command reads stdin
  if (!watch) child.stdin.end(input)
  else child.stdin.write(input)
  const [code] = await once(child, 'close')
  searchForSecrets((stdout + stderr).replace(secret, ''), `what ${args.join(' ')} printed`)
  expect(stdout + stderr, args.join(' ')).to.not.match(/\n\s+at .*:\d+:\d+|Warning/)
  return { code, stdout, stderr }
}

/** Like `run`, in one process, for commands that end while they read their arguments. */
export async function runTogether(settings: Settings, lines: string[][]): Promise<Ended[]> {
  const child = spawn(process.execPath, [manyCommands], { env: environmentOf(settings), cwd: tmpdir() })
  child.stdin.end(JSON.stringify(lines.map(args => [latchkey, 'users', ...args])))
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  expect(stderr).to.equal('')
  searchForSecrets(stdout, 'what the commands printed')
  expect(stdout).to.not.match(/\\n\s+at .*:\d+:\d+|Warning/)
  return JSON.parse(stdout) as Ended[]
}

/** Looks like a bcrypt hash, but belongs to no password. */
export function anyHash(): string {
  return `$2y$10$${randomBytes(40).toString('base64').replaceAll('+', '.').replaceAll('=', '').slice(0, 53)}`
}

/** Writes users to the store directly, as Auth or an attacker with write access could. */
export async function plant(url: string, users: Partial<UserRecord>[]): Promise<void> {
  const store = await openUserStore(url)
  for (const user of users) {
    await store.insert(newUserAt(1_800_000_000_000, { passwordHash: bcryptHash, confirmedAt: 1, ...user }))
  }
  await store.close()
}

export async function usersOf(url: string): Promise<UserRecord[]> {
  const store = await openUserStore(url)
  const users = await store.list(null, 10_000)
  await store.close()
  return users
}

export async function isLive(internalUrl: string, token: string): Promise<boolean> {
  return (await verdictOn(internalUrl, token)).authenticated
}

/** The roles that a service sees; null if the token is refused. */
export async function rolesOf(internalUrl: string, token: string): Promise<string[] | null> {
  const verdict = await verdictOn(internalUrl, token)
  return verdict.authenticated ? verdict.roles : null
}

async function verdictOn(internalUrl: string, token: string): Promise<Verdict> {
  return (await validate<Verdict>(internalUrl, { token, touch: false })).body
}

export const linesOf = (text: string) => text.split('\n').filter(line => line !== '')

/** Runs a test on SQLite and PostgreSQL at the same time. */
export const onBoth = (test: (scheme: string) => Promise<void>) => async () => {
  await Promise.all(['sqlite', 'postgres'].map(test))
}

export async function removeLeftovers(): Promise<void> {
  await closeServers()
  for (const place of places.splice(0)) await place.remove()
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true })
}

/** Runs a command on a terminal, and answers each question when it appears. */
export async function onTerminal(url: string, command: string, questions: string[] = [], answers: string[] = []) {
  const child = spawn('script', ['-qec', `'${process.execPath}' '${latchkey}' users ${command}`, '/dev/null'], {
    env: environmentOf({ USER_STORE_URL: url }),
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  let screen = ''
  let next = 0
  child.stdout.on('data', chunk => {
    screen += chunk
    if (next < questions.length && screen.includes(questions[next] as string))
      child.stdin.write(answers[next++] as string)
  })
  const [code] = await once(child, 'close')
  return { code, screen }
}
