// What each command for users does.
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { addAbortSignal, type Readable } from 'node:stream'
import { hasNoPassword } from '../../services/auth/routes/choiceProblems.ts'
import { isMemoryUrl } from '../../services/auth/stores/index.ts'
import { normalise } from '../../services/auth/users/usernames.ts'
import type { Invocation } from '../commandLine.ts'
import {
  type Accounts,
  type Backend,
  deletedMeanwhile,
  finishChange,
  requireDurableUsers,
} from '../operator/accounts.ts'
import { noSuchUser, type OperatorClient, type ShownUser } from '../operator/operatorClient.ts'
import { attributesFrom, emailFrom, namesIn, rateOf, rolesOf } from '../operator/rights.ts'
import { withBackend } from '../operator/withBackend.ts'
import {
  confirm,
  createProgress,
  interruptedCode,
  promptForPassword,
  readPassword,
  requireTerminalOrYes,
} from '../terminal.ts'
import { columns, escaped, instant, printJson } from '../text.ts'
import { type ImportCounts, importUsers } from './importUsers.ts'
import { jsonLine, tableHead, tableLine } from './userLines.ts'

const usersPerPage = 200
const sessionWidths = [14, 24, 24, 24]

export const add = withBackend(async ({ backend, ...invocation }) => {
  const { isSet, textOf, refuse } = invocation
  const [username = ''] = invocation.args
  const isService = isSet('service')
  if (isService && isSet('passwordStdin')) refuse('add takes --service or --password-stdin.')
  if (!isService) requirePasswordSource('add', invocation)
  const roles = rolesOf(textOf('role') ?? '')
  const accounts = await backend.accounts({ canCreate: true })
  const secret = isService ? { serviceAccount: true as const } : { password: await askForPassword() }
  const user = await accounts.add({ username, roles, ...secret })
  if (isSet('json')) process.stdout.write(jsonLine(user))
  else console.log(user.id)
})

export const passwd = withBackend(async ({ backend, config, ...invocation }) => {
  requirePasswordSource('passwd', invocation)
  const { accounts, user } = await find(invocation.args[0] ?? '', backend)
  if (user.serviceAccount) throw hasNoPassword() // before it asks for a password
  await finishChange(accounts.setPassword(user.id, await askForPassword()), config)
  console.log(`${escaped(user.username)} has a new password.`)
})

function requirePasswordSource(command: string, { isSet, refuse }: Pick<Invocation, 'isSet' | 'refuse'>): void {
  if (process.stdin.isTTY || isSet('passwordStdin')) return
  refuse(`Without a terminal, ${command} needs --password-stdin.`)
}

function askForPassword(): Promise<string> {
  return process.stdin.isTTY ? promptForPassword() : readPassword()
}

export const roles = withBackend(async ({ args: [username = ''], isSet, textOf, refuse, backend, config }) => {
  const { set, add, remove } = { set: textOf('set'), add: textOf('add'), remove: textOf('remove') }
  if (set !== null && (add ?? remove) !== null) refuse('roles takes --set, or --add and --remove.')
  const { accounts, user } = await find(username, backend)
  let now = user.roles
  if ((set ?? add ?? remove) !== null) {
    const taken = namesIn(remove ?? '')
    const kept = now.filter(role => !taken.includes(role))
    now = rolesOf(set ?? [...new Set([...kept, ...namesIn(add ?? '')])].join())
    await finishChange(accounts.change(user.id, { roles: now }), config)
  }
  if (isSet('json')) printJson({ username: user.username, roles: now })
  else console.log(`${escaped(user.username)}: ${now.join(', ') || 'no roles'}`)
})

export const attributes = withBackend(async ({ args: [username = ''], textOf, backend }) => {
  const given = textOf('set')
  const chosen = given === null ? null : attributesFrom(given)
  const { accounts, user } = await find(username, backend)
  if (chosen !== null && !(await accounts.setAttributes(user.id, chosen))) throw deletedMeanwhile()
  const { user: now } = chosen === null ? { user } : await find(username, backend)
  printJson(now.attributes)
})

export const email = withBackend(async ({ args: [username = ''], isSet, textOf, refuse, backend, config }) => {
  const given = textOf('set')
  if (given !== null && isSet('none')) refuse('email takes --set or --none.')
  const chosen = given === null ? null : emailFrom(given)
  const { accounts, user } = await find(username, backend)
  const isChange = chosen !== null || isSet('none')
  if (isChange) await finishChange(accounts.setEmail(user.id, chosen), config)
  console.log(`${escaped(user.username)}: ${escaped((isChange ? chosen : user.email) ?? 'no e-mail address')}`)
})

export const rename = withBackend(async ({ args: [username = '', newUsername = ''], backend, config }) => {
  const { accounts, user } = await find(username, backend)
  await finishChange(accounts.rename(user.id, newUsername), config)
  console.log(`${escaped(user.username)} is now ${escaped(normalise(newUsername))}.`)
})

export const rate = withBackend(async ({ args: [username = ''], isSet, textOf, refuse, backend, config }) => {
  const [perMinute, burst] = [textOf('perMinute'), textOf('burst')]
  const isChange = isSet('none') || perMinute !== null
  if ((isSet('none') && (perMinute ?? burst) !== null) || (burst !== null && perMinute === null)) {
    refuse('rate takes --per-minute, with --burst or without, or --none.')
  }
  const { accounts, user } = await find(username, backend)
  const now = isChange ? rateOf(perMinute, burst) : user.rate
  if (isChange) await finishChange(accounts.change(user.id, { rate: now }), config)
  if (isSet('json')) printJson({ username: user.username, rate: now })
  else console.log(`${escaped(user.username)}: ${now ? `${now.perMinute} a minute, ${now.burst} at once` : 'no limit'}`)
})

export const pause = withBackend(async ({ args: [username = ''], backend, config }) => {
  const { accounts, user } = await find(username, backend)
  await finishChange(accounts.change(user.id, { paused: true }), config)
  console.log(`${escaped(user.username)} is paused.`)
})

export const resume = withBackend(async ({ args: [username = ''], backend, config }) => {
  const { accounts, user } = await find(username, backend)
  await finishChange(accounts.change(user.id, { paused: false }), config)
  console.log(`${escaped(user.username)} is no longer paused.`)
})

export const list = withBackend(async ({ isSet, backend }) => {
  const accounts = await backend.accounts({ canCreate: false })
  if (!isSet('json')) console.log(tableHead)
  for (let after: string | null = null; ; ) {
    const page: ShownUser[] = await accounts.list(after, usersPerPage)
    const text = page.map(isSet('json') ? jsonLine : tableLine).join('')
    if (!process.stdout.write(text)) await once(process.stdout, 'drain')
    if (page.length < usersPerPage) return
    after = (page.at(-1) as ShownUser).id
  }
})

export const disable = withBackend(async ({ args: [username = ''], backend, config }) => {
  const { accounts, user } = await find(username, backend)
  await finishChange(accounts.disable(user.id), config)
  console.log(`${escaped(user.username)} can no longer log in.`)
})

export const enable = withBackend(async ({ args: [username = ''], backend, config }) => {
  const { accounts, user } = await find(username, backend)
  await finishChange(accounts.enable(user.id), config)
  console.log(`${escaped(user.username)} can log in again.`)
})

export const remove = withBackend(async ({ backend, config, ...invocation }) => {
  requireTerminalOrYes('delete', invocation)
  const { accounts, user } = await find(invocation.args[0] ?? '', backend)
  const question = `Delete ${escaped(user.username)} permanently?`
  if (!(await confirm(question, invocation))) throw new Error('Nothing was deleted.')
  await finishChange(accounts.remove(user.id), config, ' The username stays taken until then, or until Auth starts.')
  console.log(`${escaped(user.username)} is deleted.`)
})

export const sessions = withBackend(async ({ args: [username = ''], isSet, backend, config }) => {
  const { accounts, user } = await find(username, backend)
  if (isSet('end')) {
    await finishChange(accounts.revokeSessions(user.id), config)
    console.log(`Every session of ${escaped(user.username)} has ended.`)
    return
  }
  if (isMemoryUrl(config.tokenStoreUrl)) {
    throw new Error('The sessions are in the memory of Auth (TOKEN_STORE_URL), so this command cannot list them.')
  }
  const live = await (await backend.tokens()).listSessions(user.id)
  if (isSet('json')) {
    for (const session of live) printJson(session)
    return
  }
  console.log(columns(sessionWidths, ['ID', 'CREATED', 'LAST USED', 'EXPIRES', 'REFRESHES']))
  for (const { id, createdAt, lastUsedAt, expiresAt, refreshCount } of live) {
    const instants = [createdAt, lastUsedAt, expiresAt].map(instant)
    console.log(columns(sessionWidths, [id, ...instants, String(refreshCount)]))
  }
})

export const unlock = withBackend(async ({ args: [username = ''], backend }) => {
  const { operator, user } = await findThroughAuth(username, backend)
  if (!(await operator.unlock(user.id))) throw deletedMeanwhile()
  console.log(`${escaped(user.username)} can try passwords again.`)
})

export const reset = withBackend(async ({ args: [username = ''], isSet, backend }) => {
  const { operator, user } = await findThroughAuth(username, backend)
  const offer = await operator.reset(user.id)
  if (offer === null) throw deletedMeanwhile()
  if (isSet('json')) printJson(offer)
  else if (offer.sent) console.log(`A link to choose a new password is on its way to ${escaped(user.username)}.`)
  else {
    console.error(
      `${escaped(user.username)} cannot receive mail. Pass on this link, which works once, until ${instant(offer.expiresAt)}:`,
    )
    console.log(escaped(offer.link))
  }
})

export const importFile = withBackend(async ({ args: [file = ''], isSet, backend, config }) => {
  requireDurableUsers(config)
  const dryRun = isSet('dryRun')
  const interrupt = new AbortController()
  // The first Ctrl-C stops the import cleanly; a second one ends the process immediately.
  for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => interrupt.abort())
  const { signal } = interrupt
  const { stream, bytes } = await openInput(file)
  const input = addAbortSignal(signal, stream)
  const users = await backend.users({ canCreate: !dryRun })
  const progress = createProgress()
  const onProgress = (rows: number) => progress.show(rows, bytes === null ? null : stream.bytesRead / bytes)
  const onProblem = (line: number, problem: string) => progress.print(`line ${line}: ${problem}`)
  const counts: ImportCounts = { imported: 0, present: 0, refused: 0, line: 0 }
  try {
    await importUsers({ input, users, dryRun, onProblem, onProgress, signal }, counts)
  } catch (error) {
    progress.print(`Stopped after line ${counts.line}. Run the same command to continue; it skips the users imported.`)
    if (!signal.aborted) throw error
    process.exitCode = interruptedCode
  } finally {
    progress.clear()
    const { imported, present, refused } = counts
    if (isSet('json')) printJson({ dryRun, imported, present, refused })
    else console.log(`${imported} ${dryRun ? 'would be ' : ''}imported, ${present} already there, ${refused} refused`)
    if (refused > 0) process.exitCode ||= 1
  }
})

/** `bytes` is null if the length is not known. */
async function openInput(file: string): Promise<{ stream: Readable & { bytesRead: number }; bytes: number | null }> {
  if (file === '-') return { stream: process.stdin, bytes: null }
  const handle = await open(file)
  const stats = await handle.stat()
  return { stream: handle.createReadStream(), bytes: stats.isFile() ? stats.size : null }
}

async function find(username: string, backend: Backend): Promise<{ accounts: Accounts; user: ShownUser }> {
  const accounts = await backend.accounts({ canCreate: false })
  const user = await accounts.find(username)
  if (user === null) throw noSuchUser(username)
  return { accounts, user }
}

/** Finds the user through a running Auth, for commands that only Auth can carry out. */
async function findThroughAuth(
  username: string,
  backend: Backend,
): Promise<{ operator: OperatorClient; user: ShownUser }> {
  const operator = backend.operator()
  const user = await operator.find(username)
  if (user === null) throw noSuchUser(username)
  return { operator, user }
}
