// npm run users: the operator adds, lists, disables, deletes and imports users in the stores that are configured, whether
// Auth runs or not. Hides where the sessions are that end with them: in a store, or in the memory of a running Auth.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { addAbortSignal, Writable } from 'node:stream'
import { parseArgs } from 'node:util'
import { readAuthConfig } from '../services/auth/config.ts'
import { listMigrations, openTokenStore, openUserStore } from '../services/auth/stores/index.ts'
import { createTokens, type Tokens } from '../services/auth/tokens/tokens.ts'
import { localClient, openPasswords } from '../services/auth/users/passwords.ts'
import { createUsers, type UserRecord, type Users, underWayMs } from '../services/auth/users/users.ts'
import { readBusinessConfig } from '../services/business/config.ts'
import { ConfigError } from '../shared/config.ts'
import { AppError } from '../shared/errors.ts'
import { type ImportCounts, importUsers, readLines, textOf } from './importUsers.ts'
import { storesOfHeroku } from './layout.ts'

const usage = `Usage: npm run users -- <command>

  add <username> [--password-stdin]   asks for the password, or reads a line from stdin; prints the id
  list [--json]                       every user; with --json an object a line
  disable <username>                  no log-in from now on, and every session ends
  enable <username>                   may log in again
  delete <username> [--yes]           ends every session and forgets the user; --yes does not ask first
  sessions <username> [--end]         shows the live sessions, or ends them all
  import <file|-> [--dry-run]         lines username:hash, as htpasswd -B makes them; --dry-run only checks

In the stores of USER_STORE_URL and TOKEN_STORE_URL, read as ./startServer reads them.`

const commands: Record<string, { takes: string | null; options: string[]; run(argument: string): Promise<void> }> = {
  add: { takes: '<username>', options: ['password-stdin'], run: add },
  list: { takes: null, options: ['json'], run: list },
  disable: { takes: '<username>', options: [], run: disable },
  enable: { takes: '<username>', options: [], run: enable },
  delete: { takes: '<username>', options: ['yes'], run: remove },
  sessions: { takes: '<username>', options: ['end'], run: sessions },
  import: { takes: '<file|->', options: ['dry-run'], run: importFile },
}

const usersPerPage = 200
const authAnswersWithinMs = 5000
const progressEveryMs = 100 // on a terminal
const progressEveryRows = 10_000 // elsewhere
const interruptedCode = 130 // what a shell makes of Ctrl-C

/** The sessions are in the memory of an Auth that is not there. A change is made all the same: Auth does the rest. */
const authIsAway = new AppError('unavailable', 'Auth is not there.')

process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
  if (code !== 'EPIPE') process.exitCode ||= 1 // `| head` has seen enough
  process.exit()
})
process.stderr.on('error', () => {})

const { command, argument, options } = parseArguments(process.argv.slice(2))
const { config, adminKey, authUrl } = readConfig()
const opened: { close(): Promise<void> }[] = []
try {
  await command.run(argument)
} catch (error) {
  console.error(sentence(error))
  process.exitCode ||= 1
} finally {
  for (const resource of opened) await resource.close()
}

function parseArguments([name = '', ...args]: string[]) {
  if (name === '--help' || args.includes('--help')) {
    console.log(usage)
    process.exit(0)
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (command === undefined) refuse(name === '' ? 'A command is missing.' : `There is no command ${shown(name)}.`)
  const known = Object.fromEntries(command.options.map(option => [option, { type: 'boolean' as const }]))
  try {
    const { values, positionals } = parseArgs({ args, options: known, allowPositionals: true })
    // Without what was given instead: it may be a password.
    if (positionals.length !== (command.takes ? 1 : 0)) refuse(`${name} takes ${command.takes ?? 'no argument'}.`)
    return { command, argument: positionals[0] ?? '', options: values as Record<string, boolean | undefined> }
  } catch (error) {
    refuse(printable((error as Error).message.replace(/\. .*/s, '.')))
  }
}

function refuse(problem: string): never {
  console.error(`${problem}\n\n${usage}`)
  process.exit(2)
}

async function add(username: string): Promise<void> {
  const { isTTY } = process.stdin
  if (!isTTY && !options['password-stdin']) refuse('Without a terminal add needs --password-stdin.')
  const users = await openUsers({ mayMakeStore: true })
  const password = isTTY ? await askForPassword() : await readPassword()
  users.requireGoodCredentials({ username, password })
  const user = await users.insert({ username, passwordHash: await users.hash({ username, password }, localClient) })
  if (user === null) throw new AppError('conflict', 'This username is taken.')
  console.log(user.id)
}

async function list(): Promise<void> {
  const users = await openUsers()
  if (!options['json']) console.log(columns(['ID', 36], ['CREATED', 24], ['STATE', 13], ['USERNAME', 0]))
  for (let after: string | null = null; ; ) {
    const page: UserRecord[] = await users.list(after, usersPerPage)
    const text = page.map(options['json'] ? jsonLine : tableLine).join('')
    if (!process.stdout.write(text)) await once(process.stdout, 'drain')
    if (page.length < usersPerPage) return
    after = (page.at(-1) as UserRecord).id
  }
}

function jsonLine(user: UserRecord): string {
  const { id, username, createdAt } = user
  return `${printable(JSON.stringify({ id, username, createdAt, state: stateOf(user) }))}\n`
}

/** The username last: nobody knows how wide the next one is. */
function tableLine(user: UserRecord): string {
  return `${columns([user.id, 36], [instant(user.createdAt), 24], [stateOf(user), 13], [user.username, 0])}\n`
}

async function disable(username: string): Promise<void> {
  const { users, user } = await find(username)
  await finished(users.disable(user.id))
  console.log(`${shown(user.username)} may not log in from now on.`)
}

async function enable(username: string): Promise<void> {
  const { users, user } = await find(username)
  await finished(users.enable(user.id))
  console.log(`${shown(user.username)} may log in again.`)
}

async function remove(username: string): Promise<void> {
  const { isTTY } = process.stdin
  if (!isTTY && !options['yes']) refuse('Without a terminal delete needs --yes.')
  const { users, user } = await find(username)
  if (!options['yes'] && (await ask(`Delete ${shown(user.username)} for ever? [y/N] `)).toLowerCase() !== 'y') {
    throw new Error('Nothing was deleted.')
  }
  await finished(users.remove(user.id), ' The name is free once Auth has done that, or has started.')
  console.log(`${shown(user.username)} is deleted.`)
}

async function sessions(username: string): Promise<void> {
  const { users, user } = await find(username)
  if (options['end']) {
    await finished(users.endSessions(user.id))
    console.log(`Every session of ${shown(user.username)} has ended.`)
    return
  }
  if (isMemory(config.tokenStoreUrl)) {
    throw new Error('The sessions are in the memory of Auth (TOKEN_STORE_URL) and cannot be listed from here.')
  }
  const live = await (await openTokens()).sessionsOf(user.id)
  console.log(columns(['ID', 14], ['CREATED', 24], ['LAST USED', 24], ['EXPIRES', 24], ['REFRESHES', 0]))
  for (const { id, createdAt, lastUsedAt, expiresAt, refreshCount } of live) {
    const instants = [createdAt, lastUsedAt, expiresAt].map(at => [instant(at), 24] as const)
    console.log(columns([id, 14], ...instants, [String(refreshCount), 0]))
  }
}

async function importFile(file: string): Promise<void> {
  const dryRun = options['dry-run'] === true
  const interrupt = new AbortController()
  // Once: the second Ctrl-C ends the process as ever.
  for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => interrupt.abort())
  const { signal } = interrupt
  const input = addAbortSignal(signal, file === '-' ? process.stdin : (await open(file)).createReadStream())
  const users = await openUsers({ mayMakeStore: !dryRun })
  const progress = createProgress()
  const tellProblem = (line: number, problem: string) => progress.tell(`line ${line}: ${problem}`)
  const counts: ImportCounts = { imported: 0, present: 0, refused: 0, line: 0 }
  try {
    await importUsers({ input, users, dryRun, tellProblem, tellProgress: progress.show, signal }, counts)
  } catch (error) {
    progress.tell(`Stopped after line ${counts.line}. The same command passes over what is there and goes on.`)
    if (!signal.aborted) throw error
    process.exitCode = interruptedCode
  } finally {
    progress.clear()
    const { imported, present, refused } = counts
    console.log(`${imported} ${dryRun ? 'would be ' : ''}imported, ${present} already there, ${refused} refused`)
    if (refused > 0) process.exitCode ||= 1
  }
}

/** Ends the process where the settings are unusable. Null where there is no ADMIN_KEY. */
function readConfig() {
  try {
    const { env } = process
    // As completeEnvironment reads it, but no key is made: it would be none that a running Auth knows.
    if ((!env['NODE_ENV'] || env['NODE_ENV'] === 'development') && existsSync('.env')) process.loadEnvFile('.env')
    const missing = ['SERVICE_KEY', 'ADMIN_KEY'].filter(key => !env[key] && !env[`${key}_FILE`])
    const unused = Object.fromEntries(missing.map(key => [key, randomBytes(32).toString('hex')]))
    const stores = storesOfHeroku(env, () => {})
    const config = readAuthConfig({ ...stores, ...unused, TOKEN_FORMAT: 'opaque' }) // nothing is signed here
    if (isMemory(config.userStoreUrl)) {
      throw new Error(
        'USER_STORE_URL: users in memory live and die with the process of Auth. Set it to sqlite:path or postgres://…, there and here.',
      )
    }
    const defaultUrl = `http://127.0.0.1:${config.internalPort}`
    const { authUrl } = readBusinessConfig({ AUTH_INTERNAL_URL: defaultUrl, ...env, ...unused })
    return { config, authUrl, adminKey: missing.includes('ADMIN_KEY') ? null : config.adminKey }
  } catch (error) {
    console.error(sentence(error))
    process.exit(1)
  }
}

function isMemory(url: string): boolean {
  return url.startsWith('memory:')
}

/** `mayMakeStore`: otherwise nothing is left behind where there is no store yet; there is nobody to be found. */
async function openUsers({ mayMakeStore = false } = {}): Promise<Users> {
  const { userStoreUrl, passwordRules: rules, passwordHashCost: cost, addressesOnly } = config
  const store = keep(await openUserStore(mayMakeStore ? userStoreUrl : await urlIfMade(userStoreUrl)))
  const passwords = keep(await openPasswords({ cost, workers: 1, maxQueue: 1, maxPerAccount: 2 }))
  return createUsers({ store, passwords, rules, addressesOnly, endTokens, now: Date.now, observe: () => {} })

  async function endTokens(...of: Parameters<Tokens['endUser']>): Promise<void> {
    try {
      if (!isMemory(config.tokenStoreUrl)) return await (await openTokens()).endUser(...of)
      const known = await tellAuth(of[0])
      // Auth may have taken up the deletion by itself meanwhile.
      if (!known && (await store.findById(of[0])))
        throw new Error(`Auth at ${authUrl} has other users: is its USER_STORE_URL the same?`)
    } catch (error) {
      if (error === authIsAway) throw error
      throw new Error(
        `${sentence(error)}\nThe user is changed; the sessions are not ended yet: Auth tries again by itself.`,
      )
    }
  }
}

async function urlIfMade(url: string): Promise<string> {
  const { applied, pending } = (await listMigrations('USER_STORE_URL', url)) ?? { applied: [], pending: [] }
  if (pending.length === 0) return url
  if (applied.length > 0) throw new Error('USER_STORE_URL: an older Latchkey made this database; start Auth first.')
  console.error('USER_STORE_URL: there is no store yet, hence nobody in it.')
  return 'memory:'
}

async function openTokens(): Promise<Tokens> {
  const { tokenStoreUrl, ttlMs, absoluteTtlMs, tokenLimits: limits } = config
  const store = keep(await openTokenStore(tokenStoreUrl))
  return createTokens({ store, now: Date.now, ttlMs, absoluteTtlMs, limits, observe: () => {} })
}

/** Auth ends the sessions that are in its memory. False where it does not know this user. */
async function tellAuth(userId: string): Promise<boolean> {
  if (adminKey === null) throw authIsAway
  const answer = await fetch(`${authUrl}/admin/users/${encodeURIComponent(userId)}/sessions`, {
    method: 'DELETE',
    headers: { authorization: `Bearer ${adminKey}`, connection: 'close' },
    redirect: 'error',
    signal: AbortSignal.timeout(authAnswersWithinMs),
  }).catch(error => {
    const { code, message } = error.cause ?? error
    throw code === 'ECONNREFUSED' ? authIsAway : new Error(`Auth at ${authUrl} cannot be reached (${code ?? message}).`)
  })
  await answer.body?.cancel()
  if (answer.status === 401) throw new Error(`Auth at ${authUrl} refuses this ADMIN_KEY.`)
  if (!answer.ok && answer.status !== 404) throw new Error(`Auth at ${authUrl} answers ${answer.status}.`)
  return answer.ok
}

async function find(username: string): Promise<{ users: Users; user: UserRecord }> {
  const users = await openUsers()
  const user = await users.findByUsername(username)
  if (user === null) throw new Error(`There is no user ${shown(username)}.`)
  return { users, user }
}

/** Where Auth is away this part of the change is left to it: it looks for what is unfinished. */
async function finished(change: Promise<boolean>, consequence = ''): Promise<void> {
  try {
    if (!(await change)) throw new Error('This user was deleted at this moment.')
  } catch (error) {
    if (error !== authIsAway) throw error
    const why = adminKey === null ? 'ADMIN_KEY is not set' : `nothing listens at ${authUrl}`
    const within = `within ${(config.sweepIntervalMs + underWayMs) / 1000} seconds`
    console.error(
      `The sessions are in the memory of Auth, and ${why}: where it runs it ends them ${within}, where it does not they are gone with it.${consequence}`,
    )
  }
}

function keep<T extends { close(): Promise<void> }>(resource: T): T {
  opened.push(resource)
  return resource
}

async function askForPassword(): Promise<string> {
  const password = await ask('Password: ', { hidden: true })
  if (password !== (await ask('Once more: ', { hidden: true }))) throw new Error('These are two different passwords.')
  return password
}

function ask(question: string, { hidden = false } = {}): Promise<string> {
  const output = hidden ? new Writable({ write: (_chunk, _encoding, done) => done() }) : process.stderr
  const terminal = createInterface({ input: process.stdin, output, terminal: true, historySize: 0 })
  return new Promise(resolve => {
    process.stderr.write(question) // not before: until now the terminal has echoed
    terminal.once('close', () => process.exit(interruptedCode)) // Ctrl-C, Ctrl-D
    terminal.question('', answer => {
      terminal.removeAllListeners('close').close()
      if (hidden) process.stderr.write('\n')
      resolve(answer)
    })
  })
}

async function readPassword(): Promise<string> {
  for await (const line of readLines(process.stdin)) {
    const text = textOf(line)
    if (typeof text === 'object') throw new Error(`The password is ${text.problem}.`)
    return text
  }
  throw new Error('There is no password on stdin.')
}

function createProgress() {
  const { isTTY } = process.stderr
  const startedAt = performance.now()
  let shownAt = startedAt
  const clear = () => void (isTTY && process.stderr.write('\r\x1b[K'))
  return {
    clear,

    show(rows: number): void {
      const at = performance.now()
      if (isTTY ? at < shownAt + progressEveryMs : rows % progressEveryRows !== 0) return
      shownAt = at
      clear()
      process.stderr.write(`${rows} rows, ${Math.round((rows * 1000) / (at - startedAt))}/s${isTTY ? '' : '\n'}`)
    },

    tell(message: string): void {
      clear()
      process.stderr.write(`${message}\n`)
    },
  }
}

function stateOf({ deletedAt, disabledAt, confirmedAt }: UserRecord): string {
  if (deletedAt !== null) return 'being deleted'
  if (disabledAt !== null) return 'disabled'
  return confirmedAt === null ? 'unconfirmed' : 'active'
}

function instant(at: number): string {
  return new Date(at).toISOString()
}

function columns(...cells: (readonly [text: string, width: number])[]): string {
  return cells.map(([text, width]) => shown(text).padEnd(width)).join('  ')
}

/** Somebody else's text between ours: as in JSON, without the quotes. */
function shown(text: string): string {
  return printable(JSON.stringify(text).slice(1, -1))
}

/** What a terminal would obey, or show elsewhere than it stands, is written as JSON does. */
function printable(text: string): string {
  return text.replace(/[^\P{C}\n]|[\p{Zl}\p{Zp}]/gu, found =>
    [...Array(found.length).keys()].map(at => `\\u${found.charCodeAt(at).toString(16).padStart(4, '0')}`).join(''),
  )
}

function sentence(error: unknown): string {
  if (error instanceof ConfigError) return ['The configuration is not usable:', ...error.problems].join('\n  ')
  const { message, cause } = error as Error
  const why = error instanceof AppError && cause instanceof Error ? ` (${cause.message})` : ''
  return printable(message + why)
}
