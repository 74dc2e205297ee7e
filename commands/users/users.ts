// npm run users: the operator's command for users.
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { addAbortSignal } from 'node:stream'
import { hasNoPassword } from '../../services/auth/routes/choiceProblems.ts'
import { isMemoryUrl } from '../../services/auth/stores/index.ts'
import { normalise } from '../../services/auth/users/usernames.ts'
import { refuseUsage } from '../arguments.ts'
import { type Accounts, deletedMeanwhile, finishChange, openBackend, requireDurableUsers } from './accounts.ts'
import { type Command, parseCommand } from './commandLine.ts'
import { type ImportCounts, importUsers } from './importUsers.ts'
import type { OperatorClient, ShownUser } from './operatorClient.ts'
import { attributesFrom, emailFrom, namesIn, rateOf, rolesOf } from './rights.ts'
import { readSettings } from './settings.ts'
import { createProgress, interruptedCode, prompt, promptForPassword, readPassword } from './terminal.ts'
import { columns, describeError, escaped, instant, jsonLine, printable, tableHead, tableLine } from './text.ts'

const usage = `Usage: npm run users -- <command>

  add <username> [--role <roles>] [--password-stdin | --service]
                                      prompts for the password, or reads it from the first line of stdin; prints the id;
                                      --service adds a service account: a user without a password, for a program
  list [--json]                       lists all users; with --json, one object per line
  roles <username> [--set <roles>] [--add <roles>] [--remove <roles>]
                                      shows or changes the roles; <roles> is a list such as admin,editor, and --set "" takes all
  attributes <username> [--set <json>]
                                      shows the attributes, or replaces all but the profile, which belongs to the user
  email <username> [--set <address>] [--none]
                                      shows, sets or removes the address for mails; a change ends every session
  rename <username> <new username>    ends every session
  rate <username> [--per-minute <n>] [--burst <n>] [--none]
                                      shows, sets or removes how many requests pass in a minute, and how many at once
  pause <username>                    refuses every token and log-in of the user; nothing ends
  resume <username>                   the same tokens work again
  passwd <username> [--password-stdin]
                                      sets a password, and ends every session
  disable <username>                  ends every session; the user can no longer log in
  enable <username>                   the user can log in again
  delete <username> [--yes]           ends every session and deletes the user; --yes skips the confirmation
  sessions <username> [--end]         lists the live sessions, or ends them all
  unlock <username>                   lifts the limits after wrong passwords; needs a running Auth
  reset <username>                    mails or prints a link to choose a new password; needs a running Auth
  import <file|-> [--dry-run]         imports lines of username:hash, as written by htpasswd -B; --dry-run only checks them

Users and tokens are in the stores of USER_STORE_URL and TOKEN_STORE_URL; the command reads the same settings as ./startServer.
With USER_STORE_URL=memory:, the default, it calls the running Auth at AUTH_INTERNAL_URL, with ADMIN_KEY.
Exit codes: 0 done, 1 not done, 2 wrong usage.`

const commands: Record<string, Command> = {
  add: { takes: ['<username>'], options: ['role=', 'password-stdin', 'service'], run: add },
  list: { takes: [], options: ['json'], run: list },
  roles: { takes: ['<username>'], options: ['set=', 'add=', 'remove='], run: roles },
  attributes: { takes: ['<username>'], options: ['set='], run: attributes },
  email: { takes: ['<username>'], options: ['set=', 'none'], run: email },
  rename: { takes: ['<username>', '<new username>'], options: [], run: rename },
  rate: { takes: ['<username>'], options: ['per-minute=', 'burst=', 'none'], run: rate },
  pause: { takes: ['<username>'], options: [], run: pause },
  resume: { takes: ['<username>'], options: [], run: resume },
  passwd: { takes: ['<username>'], options: ['password-stdin'], run: passwd },
  disable: { takes: ['<username>'], options: [], run: disable },
  enable: { takes: ['<username>'], options: [], run: enable },
  delete: { takes: ['<username>'], options: ['yes'], run: remove },
  sessions: { takes: ['<username>'], options: ['end'], run: sessions },
  unlock: { takes: ['<username>'], options: [], run: unlock },
  reset: { takes: ['<username>'], options: [], run: reset },
  import: { takes: ['<file|->'], options: ['dry-run'], run: importFile },
}

const usersPerPage = 200

process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
  if (code !== 'EPIPE') process.exitCode ||= 1 // EPIPE: `| head` has read enough
  process.exit()
})
process.stderr.on('error', () => {})

const { command, args, isSet, textOf } = parseCommand(usage, commands, process.argv.slice(2))
const settings = readSettingsOrExit()
const { config } = settings
const backend = openBackend(settings)
try {
  await command.run(...args)
} catch (error) {
  console.error(describeError(error))
  process.exitCode ||= 1
} finally {
  await backend.close()
}

function readSettingsOrExit() {
  try {
    return readSettings()
  } catch (error) {
    console.error(describeError(error))
    process.exit(1)
  }
}

async function add(username: string): Promise<void> {
  const isService = isSet('service')
  if (isService && isSet('password-stdin')) refuseUsage(usage, 'add takes --service or --password-stdin.')
  if (!isService) requirePasswordSource('add')
  const roles = rolesOf(textOf('role') ?? '')
  const accounts = await backend.accounts({ canCreate: true })
  const secret = isService ? { serviceAccount: true as const } : { password: await askForPassword() }
  console.log((await accounts.add({ username, roles, ...secret })).id)
}

async function passwd(username: string): Promise<void> {
  requirePasswordSource('passwd')
  const { accounts, user } = await find(username)
  if (user.serviceAccount) throw hasNoPassword() // before it asks for a password
  await finishChange(accounts.setPassword(user.id, await askForPassword()), config)
  console.log(`${escaped(user.username)} has a new password.`)
}

function requirePasswordSource(command: string): void {
  if (process.stdin.isTTY || isSet('password-stdin')) return
  refuseUsage(usage, `Without a terminal, ${command} needs --password-stdin.`)
}

function askForPassword(): Promise<string> {
  return process.stdin.isTTY ? promptForPassword() : readPassword()
}

async function roles(username: string): Promise<void> {
  const { set, add, remove } = { set: textOf('set'), add: textOf('add'), remove: textOf('remove') }
  if (set !== null && (add ?? remove) !== null) refuseUsage(usage, 'roles takes --set, or --add and --remove.')
  const { accounts, user } = await find(username)
  let now = user.roles
  if ((set ?? add ?? remove) !== null) {
    const taken = namesIn(remove ?? '')
    const kept = now.filter(role => !taken.includes(role))
    now = rolesOf(set ?? [...new Set([...kept, ...namesIn(add ?? '')])].join())
    await finishChange(accounts.change(user.id, { roles: now }), config)
  }
  console.log(`${escaped(user.username)}: ${now.join(', ') || 'no roles'}`)
}

async function attributes(username: string): Promise<void> {
  const given = textOf('set')
  const chosen = given === null ? null : attributesFrom(given)
  const { accounts, user } = await find(username)
  if (chosen !== null && !(await accounts.setAttributes(user.id, chosen))) throw deletedMeanwhile()
  const { user: now } = chosen === null ? { user } : await find(username)
  console.log(printable(JSON.stringify(now.attributes)))
}

async function email(username: string): Promise<void> {
  const given = textOf('set')
  if (given !== null && isSet('none')) refuseUsage(usage, 'email takes --set or --none.')
  const chosen = given === null ? null : emailFrom(given)
  const { accounts, user } = await find(username)
  const isChange = chosen !== null || isSet('none')
  if (isChange) await finishChange(accounts.setEmail(user.id, chosen), config)
  console.log(`${escaped(user.username)}: ${escaped((isChange ? chosen : user.email) ?? 'no e-mail address')}`)
}

async function rename(username: string, newUsername: string): Promise<void> {
  const { accounts, user } = await find(username)
  await finishChange(accounts.rename(user.id, newUsername), config)
  console.log(`${escaped(user.username)} is now ${escaped(normalise(newUsername))}.`)
}

async function rate(username: string): Promise<void> {
  const [perMinute, burst] = [textOf('per-minute'), textOf('burst')]
  const isChange = isSet('none') || perMinute !== null
  if ((isSet('none') && (perMinute ?? burst) !== null) || (burst !== null && perMinute === null)) {
    refuseUsage(usage, 'rate takes --per-minute, with --burst or without, or --none.')
  }
  const { accounts, user } = await find(username)
  const now = isChange ? rateOf(perMinute, burst) : user.rate
  if (isChange) await finishChange(accounts.change(user.id, { rate: now }), config)
  console.log(`${escaped(user.username)}: ${now ? `${now.perMinute} a minute, ${now.burst} at once` : 'no limit'}`)
}

async function pause(username: string): Promise<void> {
  const { accounts, user } = await find(username)
  await finishChange(accounts.change(user.id, { paused: true }), config)
  console.log(`${escaped(user.username)} is paused.`)
}

async function resume(username: string): Promise<void> {
  const { accounts, user } = await find(username)
  await finishChange(accounts.change(user.id, { paused: false }), config)
  console.log(`${escaped(user.username)} is no longer paused.`)
}

async function list(): Promise<void> {
  const accounts = await backend.accounts({ canCreate: false })
  if (!isSet('json')) console.log(tableHead)
  for (let after: string | null = null; ; ) {
    const page: ShownUser[] = await accounts.list(after, usersPerPage)
    const text = page.map(isSet('json') ? jsonLine : tableLine).join('')
    if (!process.stdout.write(text)) await once(process.stdout, 'drain')
    if (page.length < usersPerPage) return
    after = (page.at(-1) as ShownUser).id
  }
}

async function disable(username: string): Promise<void> {
  const { accounts, user } = await find(username)
  await finishChange(accounts.disable(user.id), config)
  console.log(`${escaped(user.username)} can no longer log in.`)
}

async function enable(username: string): Promise<void> {
  const { accounts, user } = await find(username)
  await finishChange(accounts.enable(user.id), config)
  console.log(`${escaped(user.username)} can log in again.`)
}

async function remove(username: string): Promise<void> {
  if (!process.stdin.isTTY && !isSet('yes')) refuseUsage(usage, 'Without a terminal, delete needs --yes.')
  const { accounts, user } = await find(username)
  const question = `Delete ${escaped(user.username)} permanently? [y/N] `
  if (!isSet('yes') && (await prompt(question)).toLowerCase() !== 'y') throw new Error('Nothing was deleted.')
  await finishChange(accounts.remove(user.id), config, ' The username stays taken until then, or until Auth starts.')
  console.log(`${escaped(user.username)} is deleted.`)
}

async function sessions(username: string): Promise<void> {
  const { accounts, user } = await find(username)
  if (isSet('end')) {
    await finishChange(accounts.revokeSessions(user.id), config)
    console.log(`Every session of ${escaped(user.username)} has ended.`)
    return
  }
  if (isMemoryUrl(config.tokenStoreUrl)) {
    throw new Error('The sessions are in the memory of Auth (TOKEN_STORE_URL), so this command cannot list them.')
  }
  const live = await (await backend.tokens()).listSessions(user.id)
  console.log(columns(['ID', 14], ['CREATED', 24], ['LAST USED', 24], ['EXPIRES', 24], ['REFRESHES', 0]))
  for (const { id, createdAt, lastUsedAt, expiresAt, refreshCount } of live) {
    const instants = [createdAt, lastUsedAt, expiresAt].map(at => [instant(at), 24] as const)
    console.log(columns([id, 14], ...instants, [String(refreshCount), 0]))
  }
}

async function unlock(username: string): Promise<void> {
  const { operator, user } = await findThroughAuth(username)
  if (!(await operator.unlock(user.id))) throw deletedMeanwhile()
  console.log(`${escaped(user.username)} can try passwords again.`)
}

async function reset(username: string): Promise<void> {
  const { operator, user } = await findThroughAuth(username)
  const offer = await operator.reset(user.id)
  if (offer === null) throw deletedMeanwhile()
  if (offer.sent) console.log(`A link to choose a new password is on its way to ${escaped(user.username)}.`)
  else {
    console.error(
      `${escaped(user.username)} cannot receive mail. Pass on this link, which works once, until ${instant(offer.expiresAt)}:`,
    )
    console.log(escaped(offer.link))
  }
}

async function importFile(file: string): Promise<void> {
  requireDurableUsers(config)
  const dryRun = isSet('dry-run')
  const interrupt = new AbortController()
  // The first Ctrl-C stops the import cleanly; a second one ends the process immediately.
  for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => interrupt.abort())
  const { signal } = interrupt
  const input = addAbortSignal(signal, file === '-' ? process.stdin : (await open(file)).createReadStream())
  const users = await backend.users({ canCreate: !dryRun })
  const progress = createProgress()
  const onProblem = (line: number, problem: string) => progress.print(`line ${line}: ${problem}`)
  const counts: ImportCounts = { imported: 0, present: 0, refused: 0, line: 0 }
  try {
    await importUsers({ input, users, dryRun, onProblem, onProgress: progress.show, signal }, counts)
  } catch (error) {
    progress.print(`Stopped after line ${counts.line}. Run the same command to continue; it skips the users imported.`)
    if (!signal.aborted) throw error
    process.exitCode = interruptedCode
  } finally {
    progress.clear()
    const { imported, present, refused } = counts
    console.log(`${imported} ${dryRun ? 'would be ' : ''}imported, ${present} already there, ${refused} refused`)
    if (refused > 0) process.exitCode ||= 1
  }
}

async function find(username: string): Promise<{ accounts: Accounts; user: ShownUser }> {
  const accounts = await backend.accounts({ canCreate: false })
  const user = await accounts.find(username)
  if (user === null) throw noSuchUser(username)
  return { accounts, user }
}

/** Finds the user through a running Auth, for commands that only Auth can carry out. */
async function findThroughAuth(username: string): Promise<{ operator: OperatorClient; user: ShownUser }> {
  const operator = backend.operator()
  const user = await operator.find(username)
  if (user === null) throw noSuchUser(username)
  return { operator, user }
}

function noSuchUser(username: string): Error {
  return new Error(`There is no user ${escaped(username)}.`)
}
