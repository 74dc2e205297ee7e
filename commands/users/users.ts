// npm run users: the operator's command for users. Hides where the users are, and the sessions that end with them: in a
// store, which is opened here, or in the memory of a running Auth, which is asked.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { addAbortSignal, Writable } from 'node:stream'
import { parseArgs } from 'node:util'
import { readAuthConfig } from '../../services/auth/config.ts'
import { instrument } from '../../services/auth/observability/instrument.ts'
import { choiceError } from '../../services/auth/routes/choiceProblems.ts'
import { listMigrations, openTokenStore, openUserStore } from '../../services/auth/stores/index.ts'
import { createTokens, type Tokens } from '../../services/auth/tokens/tokens.ts'
import { underWayMs } from '../../services/auth/users/credentialVersions.ts'
import { localClient, openPasswords } from '../../services/auth/users/passwords.ts'
import { type Credentials, createUsers, type Users } from '../../services/auth/users/users.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { ConfigError } from '../../shared/config/readSettings.ts'
import { AppError } from '../../shared/http/errors.ts'
import { storesOfHeroku } from '../start/layout.ts'
import { type ImportCounts, importUsers, readLines, textOf } from './importUsers.ts'
import { AuthIsAway, createOperatorClient, type OperatorClient, type ShownUser } from './operatorClient.ts'

const usage = `Usage: npm run users -- <command>

  add <username> [--password-stdin]   asks for the password, or reads a line from stdin; prints the id
  list [--json]                       every user; with --json an object a line
  disable <username>                  no log-in from now on, and every session ends
  enable <username>                   may log in again
  delete <username> [--yes]           ends every session and forgets the user; --yes does not ask first
  sessions <username> [--end]         shows the live sessions, or ends them all
  unlock <username>                   may try passwords again from anywhere; needs a running Auth
  reset <username>                    mails a link to choose a new password, or prints it; needs a running Auth
  import <file|-> [--dry-run]         lines username:hash, as htpasswd -B makes them; --dry-run only checks

In the stores of USER_STORE_URL and TOKEN_STORE_URL, read as ./startServer reads them. With USER_STORE_URL=memory:, which is
the default, through a running Auth: at AUTH_INTERNAL_URL, with ADMIN_KEY.
Exit codes: 0 done, 1 not done, 2 wrong usage.`

const commands: Record<string, { takes: string | null; options: string[]; run(argument: string): Promise<void> }> = {
  add: { takes: '<username>', options: ['password-stdin'], run: add },
  list: { takes: null, options: ['json'], run: list },
  disable: { takes: '<username>', options: [], run: disable },
  enable: { takes: '<username>', options: [], run: enable },
  delete: { takes: '<username>', options: ['yes'], run: remove },
  sessions: { takes: '<username>', options: ['end'], run: sessions },
  unlock: { takes: '<username>', options: [], run: unlock },
  reset: { takes: '<username>', options: [], run: reset },
  import: { takes: '<file|->', options: ['dry-run'], run: importFile },
}

const usersPerPage = 200
const progressEveryMs = 100 // on a terminal
const progressEveryRows = 10_000 // elsewhere
const interruptedCode = 130 // what a shell makes of Ctrl-C

/** What the commands do with users, wherever these are. False: there is no such user any more. */
interface Accounts {
  add(credentials: Credentials): Promise<ShownUser>
  find(username: string): Promise<ShownUser | null>
  /** By their ids, at most `limit`, after `afterId`. */
  list(afterId: string | null, limit: number): Promise<ShownUser[]>
  disable(id: string): Promise<boolean>
  enable(id: string): Promise<boolean>
  remove(id: string): Promise<boolean>
  endSessions(id: string): Promise<boolean>
}

/** The sessions are in the memory of an Auth that cannot be asked. The change is made, and Auth completes it by itself. */
class LeftToAuth extends Error {}

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
  const accounts = await openAccounts({ mayMakeStore: true })
  const password = isTTY ? await askForPassword() : await readPassword()
  console.log((await accounts.add({ username, password })).id)
}

async function list(): Promise<void> {
  const accounts = await openAccounts()
  if (!options['json']) console.log(columns(['ID', 36], ['CREATED', 24], ['STATE', 13], ['USERNAME', 0]))
  for (let after: string | null = null; ; ) {
    const page: ShownUser[] = await accounts.list(after, usersPerPage)
    const text = page.map(options['json'] ? jsonLine : tableLine).join('')
    if (!process.stdout.write(text)) await once(process.stdout, 'drain')
    if (page.length < usersPerPage) return
    after = (page.at(-1) as ShownUser).id
  }
}

function jsonLine(user: ShownUser): string {
  const { id, username, createdAt } = user
  return `${printable(JSON.stringify({ id, username, createdAt, state: stateOf(user) }))}\n`
}

/** The username last, because it may be of any width. */
function tableLine(user: ShownUser): string {
  return `${columns([user.id, 36], [instant(user.createdAt), 24], [stateOf(user), 13], [user.username, 0])}\n`
}

async function disable(username: string): Promise<void> {
  const { accounts, user } = await find(username)
  await finished(accounts.disable(user.id))
  console.log(`${shown(user.username)} may not log in from now on.`)
}

async function enable(username: string): Promise<void> {
  const { accounts, user } = await find(username)
  await finished(accounts.enable(user.id))
  console.log(`${shown(user.username)} may log in again.`)
}

async function remove(username: string): Promise<void> {
  const { isTTY } = process.stdin
  if (!isTTY && !options['yes']) refuse('Without a terminal delete needs --yes.')
  const { accounts, user } = await find(username)
  if (!options['yes'] && (await ask(`Delete ${shown(user.username)} for ever? [y/N] `)).toLowerCase() !== 'y') {
    throw new Error('Nothing was deleted.')
  }
  await finished(accounts.remove(user.id), ' The name is free once Auth has done that, or has started.')
  console.log(`${shown(user.username)} is deleted.`)
}

async function sessions(username: string): Promise<void> {
  const { accounts, user } = await find(username)
  if (options['end']) {
    await finished(accounts.endSessions(user.id))
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

async function unlock(username: string): Promise<void> {
  const { operator, user } = await findThroughAuth(username)
  if (!(await operator.unlock(user.id))) throw deletedMeanwhile()
  console.log(`${shown(user.username)} may try passwords again.`)
}

async function reset(username: string): Promise<void> {
  const { operator, user } = await findThroughAuth(username)
  const offer = await operator.reset(user.id)
  if (offer === null) throw deletedMeanwhile()
  if (offer.sent) console.log(`A link to choose a new password goes to ${shown(user.username)}.`)
  else {
    console.error(
      `No mail can go to ${shown(user.username)}. Hand this link over; it is good once, until ${instant(offer.expiresAt)}:`,
    )
    console.log(shown(offer.link))
  }
}

async function importFile(file: string): Promise<void> {
  if (isMemory(config.userStoreUrl)) {
    throw new Error(
      'USER_STORE_URL: users in memory are gone with the process of Auth. To import, set it to sqlite:path or postgres://…, there and here.',
    )
  }
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

/** Ends the process if the settings are unusable. `adminKey` is null if there is none. */
function readConfig() {
  try {
    const { env } = process
    // As completeEnvironment reads it, but no key is made: it would be none that a running Auth knows.
    if ((!env['NODE_ENV'] || env['NODE_ENV'] === 'development') && existsSync('.env')) process.loadEnvFile('.env')
    const missing = ['SERVICE_KEY', 'ADMIN_KEY'].filter(key => !env[key] && !env[`${key}_FILE`])
    const unused = Object.fromEntries(missing.map(key => [key, randomBytes(32).toString('hex')]))
    const stores = storesOfHeroku(env, () => {})
    const config = readAuthConfig({ ...stores, ...unused, TOKEN_FORMAT: 'opaque' }) // nothing is signed here
    if (isMemory(config.userStoreUrl) && missing.includes('ADMIN_KEY')) {
      throw new Error(
        'USER_STORE_URL: users in memory are reached through a running Auth, and ADMIN_KEY is not set. Start ./startServer in this folder, or set USER_STORE_URL to sqlite:path or postgres://…, there and here.',
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

async function openAccounts({ mayMakeStore = false } = {}): Promise<Accounts> {
  if (isMemory(config.userStoreUrl)) return inMemoryOf(operatorOf())
  const users = await openUsers({ mayMakeStore })
  return {
    ...users,
    find: users.findByUsername,
    async add({ username, password }) {
      const problem = users.problemWithUsername(username) ?? users.problemWithPassword({ username, password })
      if (problem !== null) throw choiceError(problem)
      const user = await users.insert({ username, passwordHash: await users.hash({ username, password }, localClient) })
      if (user === null) throw new AppError('conflict', 'This username is taken.')
      return user
    },
  }
}

/** The same, with a sentence about the store when nothing listens: the operator may not know where the users are. */
function inMemoryOf(operator: OperatorClient): Accounts {
  const explained = <Args extends unknown[], T>(call: (...args: Args) => Promise<T>) => {
    return (...args: Args) =>
      call(...args).catch(error => {
        if (!(error instanceof AuthIsAway)) throw error
        throw new Error(
          `USER_STORE_URL: users are in the memory of Auth, and nothing listens at ${authUrl}. Start ./startServer first, or set USER_STORE_URL to sqlite:path or postgres://…, there and here.`,
        )
      })
  }
  return {
    add: explained(operator.add),
    find: explained(operator.find),
    list: explained(operator.list),
    disable: explained(operator.disable),
    enable: explained(operator.enable),
    remove: explained(operator.remove),
    endSessions: explained(operator.endSessions),
  }
}

function operatorOf(): OperatorClient {
  if (adminKey === null) throw new Error('ADMIN_KEY is not set; a running Auth is asked with it.')
  return createOperatorClient({ url: authUrl, key: adminKey })
}

/** For what only a running Auth can do. */
async function findThroughAuth(username: string): Promise<{ operator: OperatorClient; user: ShownUser }> {
  const operator = operatorOf()
  const user = await operator.find(username)
  if (user === null) throw noSuchUser(username)
  return { operator, user }
}

/** Without `mayMakeStore` nothing is created: if there is no store yet, it is taken for an empty one. */
async function openUsers({ mayMakeStore }: { mayMakeStore: boolean }): Promise<Users> {
  const { userStoreUrl, passwordRules: rules, passwordHashCost: cost, addressesOnly } = config
  const opened = await openUserStore(mayMakeStore ? userStoreUrl : await urlIfMade(userStoreUrl))
  const store = keep(instrument(opened, 'users', null))
  const passwords = keep(await openPasswords({ cost, workers: 1, maxQueue: 1, maxPerAccount: 2 }))
  return createUsers({ store, passwords, rules, addressesOnly, endTokens, now: Date.now, observe: () => {} })

  async function endTokens(...of: Parameters<Tokens['endUser']>): Promise<void> {
    const [userId] = of
    try {
      if (!isMemory(config.tokenStoreUrl)) return await (await openTokens()).endUser(...of)
      if (adminKey === null) throw new LeftToAuth('ADMIN_KEY is not set')
      if (await createOperatorClient({ url: authUrl, key: adminKey }).endSessions(userId)) return
    } catch (error) {
      if (error instanceof AuthIsAway) throw new LeftToAuth(`nothing listens at ${authUrl}`)
      if (error instanceof LeftToAuth) throw error
      throw new Error(
        `${sentence(error)}\nThe user is changed; the sessions are not ended yet: Auth tries again by itself.`,
      )
    }
    // Auth does not know the user. It may have completed a deletion by itself meanwhile.
    if ((await store.findById(userId)) === null) return
    throw new Error(
      `The user is changed in the store of USER_STORE_URL, but Auth at ${authUrl} has another one and ended no sessions. Set USER_STORE_URL or AUTH_INTERNAL_URL to those of the Auth that this user belongs to; that Auth ends the sessions by itself.`,
    )
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
  const store = keep(instrument(await openTokenStore(tokenStoreUrl), 'tokens', null))
  return createTokens({ store, now: Date.now, ttlMs, absoluteTtlMs, limits, observe: () => {} })
}

async function find(username: string): Promise<{ accounts: Accounts; user: ShownUser }> {
  const accounts = await openAccounts()
  const user = await accounts.find(username)
  if (user === null) throw noSuchUser(username)
  return { accounts, user }
}

function noSuchUser(username: string): Error {
  return new Error(`There is no user ${shown(username)}.`)
}

function deletedMeanwhile(): Error {
  return new Error('This user was deleted at this moment.')
}

/** If Auth cannot be asked, this part of the change is left to it: it looks for what is unfinished. */
async function finished(change: Promise<boolean>, consequence = ''): Promise<void> {
  try {
    if (!(await change)) throw deletedMeanwhile()
  } catch (error) {
    if (!(error instanceof LeftToAuth)) throw error
    const within = `within ${(config.sweepIntervalMs + underWayMs) / 1000} seconds`
    console.error(
      `The sessions are in the memory of Auth, and ${error.message}: if Auth runs it ends them ${within}, if not they are gone with it.${consequence}`,
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

function stateOf({ deletedAt, disabledAt, confirmedAt }: ShownUser): string {
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
