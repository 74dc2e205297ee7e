// What each command for API keys and delegated tokens does, through a running Auth.
import type { OperatorClient, ShownKey } from '../users/operatorClient.ts'
import { rateOf } from '../users/rights.ts'
import { prompt } from '../users/terminal.ts'
import { columns, escaped, instant, printJson } from '../users/text.ts'
import { withBackend } from '../users/withBackend.ts'

const widths = [14, 14, 24, 24, 8, 24, 24] as const
const head = ['ID', 'FROM', 'EXPIRES', 'LAST USED', 'USES', 'SCOPE', 'USER', 'NAME'].map(
  (title, i) => [title, widths[i] ?? 0] as const,
)

export const add = withBackend(async ({ args: [username = '', name = ''], isSet, textOf, refuse, backend }) => {
  const [scope, expires, perMinute, burst] = [textOf('scope'), textOf('expires'), textOf('perMinute'), textOf('burst')]
  if (burst !== null && perMinute === null) refuse('--burst needs --per-minute.')
  const expiresAt = expires === null ? null : Date.parse(expires)
  if (Number.isNaN(expiresAt)) refuse('--expires: expected a date such as 2027-12-31.')
  const rate = rateOf(perMinute, burst)
  const auth = backend.operator()
  const { id, secret } = await auth.addKey({
    userId: await idOf(username, auth),
    name,
    ...(scope !== null && { scope }),
    ...(expiresAt !== null && { expiresAt }),
    ...(rate !== null && { rate }),
  })
  if (isSet('json')) printJson({ id, secret })
  else console.log(`${id} ${secret}`)
})

export const list = withBackend(async ({ isSet, textOf, backend }) => {
  const auth = backend.operator()
  const username = textOf('user')
  const userId = username === null ? null : await idOf(username, auth)
  if (!isSet('json')) console.log(columns(...head))
  for (let after: string | null = null; ; ) {
    const { keys, next } = await auth.listKeys(userId, after)
    for (const key of keys) {
      if (isSet('json')) printJson(key)
      else console.log(columns(...cellsOf(key)))
    }
    if (next === null) return
    after = next
  }
})

export const showUsage = withBackend(async ({ args: [id = ''], isSet, textOf, refuse, backend }) => {
  const by = textOf('by') ?? ''
  if (by !== 'hour' && by !== 'minute') refuse('--by: expected hour or minute.')
  const buckets = await backend.operator().readUsage(id, by)
  if (!isSet('json')) console.log(columns(['FROM', 24], ['USES', 12], ['DELEGATED', 0]))
  for (const bucket of buckets) {
    const { startsAt, count, delegatedCount } = bucket
    if (isSet('json')) printJson(bucket)
    else console.log(columns([instant(startsAt), 24], [String(count), 12], [String(delegatedCount), 0]))
  }
})

export const pause = withBackend(async ({ args: [id = ''], backend }) => {
  if (!(await backend.operator().pauseKey(id, true))) throw noSuchKey()
  console.log(`${escaped(id)} is paused.`)
})

export const resume = withBackend(async ({ args: [id = ''], backend }) => {
  if (!(await backend.operator().pauseKey(id, false))) throw noSuchKey()
  console.log(`${escaped(id)} works again.`)
})

export const end = withBackend(async ({ args: [id = ''], isSet, refuse, backend }) => {
  if (!process.stdin.isTTY && !isSet('yes')) refuse('Without a terminal, end needs --yes.')
  const question = `End ${escaped(id)} and what was delegated from it? [y/N] `
  if (!isSet('yes') && (await prompt(question)).toLowerCase() !== 'y') throw new Error('Nothing was ended.')
  if (!(await backend.operator().endKey(id))) throw noSuchKey()
  console.log(`${escaped(id)} has ended.`)
})

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
