// npm run keys: the operator's command for API keys and delegated tokens, through a running Auth.
import { refuseUsage } from '../arguments.ts'
import { openBackend } from './accounts.ts'
import { type Command, parseCommand } from './commandLine.ts'
import type { OperatorClient, ShownKey } from './operatorClient.ts'
import { rateOf } from './rights.ts'
import { readSettings } from './settings.ts'
import { prompt } from './terminal.ts'
import { columns, describeError, escaped, instant, printable } from './text.ts'

const usage = `Usage: npm run keys -- <command>

  add <username> <name> [--scope <names>] [--expires <date>] [--per-minute <n>] [--burst <n>]
                           creates a key of a user or a service account, and prints its id and its secret, which is shown only
                           once; <names> are separated by spaces, <date> is such as 2027-12-31
  list [--user <username>] [--json]
                           lists the keys and delegated tokens of all users, or of one; with --json, one object per line
  usage <id> [--by minute] [--json]
                           shows how often the key was used, by the hour or by the minute of UTC; needs KEY_USAGE_DAYS at Auth; with
                           --json, one object per line
  pause <id>               refuses the key and what was delegated from it; nothing ends
  resume <id>              the same key works again
  end <id> [--yes]         ends the key and what was delegated from it; --yes skips the confirmation

The command calls the running Auth at AUTH_INTERNAL_URL, with ADMIN_KEY; it reads the same settings as ./startServer.
Exit codes: 0 done, 1 not done, 2 wrong usage.`

const commands: Record<string, Command> = {
  add: { takes: ['<username>', '<name>'], options: ['scope=', 'expires=', 'per-minute=', 'burst='], run: add },
  list: { takes: [], options: ['user=', 'json'], run: list },
  usage: { takes: ['<id>'], options: ['by=', 'json'], run: showUsage },
  pause: { takes: ['<id>'], options: [], run: pause },
  resume: { takes: ['<id>'], options: [], run: resume },
  end: { takes: ['<id>'], options: ['yes'], run: end },
}

const widths = [14, 14, 24, 24, 8, 24, 24] as const
const head = ['ID', 'FROM', 'EXPIRES', 'LAST USED', 'USES', 'SCOPE', 'USER', 'NAME'].map(
  (title, i) => [title, widths[i] ?? 0] as const,
)

const { command, args, isSet, textOf } = parseCommand(usage, commands, process.argv.slice(2))
try {
  await command.run(...args)
} catch (error) {
  console.error(describeError(error))
  process.exitCode = 1
}

function operator(): OperatorClient {
  return openBackend(readSettings()).operator()
}

async function add(username: string, name: string): Promise<void> {
  const [scope, expires, perMinute, burst] = [textOf('scope'), textOf('expires'), textOf('per-minute'), textOf('burst')]
  if (burst !== null && perMinute === null) refuseUsage(usage, '--burst needs --per-minute.')
  const expiresAt = expires === null ? null : Date.parse(expires)
  if (Number.isNaN(expiresAt)) refuseUsage(usage, '--expires: expected a date such as 2027-12-31.')
  const rate = rateOf(perMinute, burst)
  const auth = operator()
  const { id, secret } = await auth.addKey({
    userId: await idOf(username, auth),
    name,
    ...(scope !== null && { scope }),
    ...(expiresAt !== null && { expiresAt }),
    ...(rate !== null && { rate }),
  })
  console.log(`${id} ${secret}`)
}

async function list(): Promise<void> {
  const auth = operator()
  const username = textOf('user')
  const userId = username === null ? null : await idOf(username, auth)
  if (!isSet('json')) console.log(columns(...head))
  for (let after: string | null = null; ; ) {
    const { keys, next } = await auth.listKeys(userId, after)
    for (const key of keys) console.log(isSet('json') ? printable(JSON.stringify(key)) : columns(...cellsOf(key)))
    if (next === null) return
    after = next
  }
}

async function showUsage(id: string): Promise<void> {
  const by = textOf('by') ?? 'hour'
  if (by !== 'hour' && by !== 'minute') refuseUsage(usage, '--by: expected hour or minute.')
  const buckets = await operator().readUsage(id, by)
  if (!isSet('json')) console.log(columns(['FROM', 24], ['USES', 12], ['DELEGATED', 0]))
  for (const bucket of buckets) {
    const { startsAt, count, delegatedCount } = bucket
    const line = columns([instant(startsAt), 24], [String(count), 12], [String(delegatedCount), 0])
    console.log(isSet('json') ? printable(JSON.stringify(bucket)) : line)
  }
}

async function pause(id: string): Promise<void> {
  if (!(await operator().pauseKey(id, true))) throw noSuchKey()
  console.log(`${escaped(id)} is paused.`)
}

async function resume(id: string): Promise<void> {
  if (!(await operator().pauseKey(id, false))) throw noSuchKey()
  console.log(`${escaped(id)} works again.`)
}

async function end(id: string): Promise<void> {
  if (!process.stdin.isTTY && !isSet('yes')) refuseUsage(usage, 'Without a terminal, end needs --yes.')
  const question = `End ${escaped(id)} and what was delegated from it? [y/N] `
  if (!isSet('yes') && (await prompt(question)).toLowerCase() !== 'y') throw new Error('Nothing was ended.')
  if (!(await operator().endKey(id))) throw noSuchKey()
  console.log(`${escaped(id)} has ended.`)
}

async function idOf(username: string, auth: OperatorClient): Promise<string> {
  const user = await auth.find(username)
  if (user === null) throw new Error(`There is no user ${escaped(username)}.`)
  return user.id
}

function noSuchKey(): Error {
  return new Error('There is no key with this id.')
}

/** One line of `list`. The name comes last because it may contain blanks. */
function cellsOf({ id, parentId, expiresAt, lastUsedAt, useCount, scope, username, name, paused }: ShownKey) {
  const texts = [
    id,
    parentId ?? '-',
    paused ? 'paused' : expiresAt === null ? 'never' : instant(expiresAt),
    lastUsedAt === null ? 'never' : instant(lastUsedAt),
    String(useCount),
    scope ?? 'all',
    username,
    name ?? '-',
  ]
  return texts.map((text, i) => [text, widths[i] ?? 0] as const)
}
