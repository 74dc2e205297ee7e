// What each command for API keys and delegated tokens does, through a running Auth.

import type { ShownKey } from '../operator/operatorClient.ts'
import { readRate } from '../operator/rights.ts'
import { withBackend } from '../operator/withBackend.ts'
import { confirm, requireTerminalOrYes } from '../terminal.ts'
import { columns, escaped, instant, printJson } from '../text.ts'

const keyWidths = [14, 14, 24, 24, 8, 24, 24]
const keyHead = columns(keyWidths, ['ID', 'FROM', 'EXPIRES', 'LAST USED', 'USES', 'SCOPE', 'USER', 'NAME'])
const usageWidths = [24, 12]

export const add = withBackend(async ({ backend, ...invocation }) => {
  const { args, isSet, textOf, refuse } = invocation
  const [username = '', name = ''] = args
  const [scope, expires, rate] = [textOf('scope'), textOf('expires'), readRate(invocation)]
  const expiresAt = expires === null ? null : Date.parse(expires)
  if (Number.isNaN(expiresAt)) refuse('--expires: expected a date such as 2027-12-31.')
  const auth = backend.operator()
  const { id, secret } = await auth.addKey({
    userId: await auth.idOf(username),
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
  const userId = username === null ? null : await auth.idOf(username)
  if (!isSet('json')) console.log(keyHead)
  for await (const key of auth.listKeys(userId)) {
    if (isSet('json')) printJson(key)
    else console.log(lineOf(key))
  }
})

export const showUsage = withBackend(async ({ args: [id = ''], isSet, textOf, refuse, backend }) => {
  const by = textOf('by') ?? ''
  if (by !== 'hour' && by !== 'minute') refuse('--by: expected hour or minute.')
  const buckets = await backend.operator().readUsage(id, by)
  if (!isSet('json')) console.log(columns(usageWidths, ['FROM', 'USES', 'DELEGATED']))
  for (const bucket of buckets) {
    const { startsAt, count, delegatedCount } = bucket
    if (isSet('json')) printJson(bucket)
    else console.log(columns(usageWidths, [instant(startsAt), String(count), String(delegatedCount)]))
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

export const end = withBackend(async ({ backend, ...invocation }) => {
  const [id = ''] = invocation.args
  requireTerminalOrYes('end', invocation)
  const question = `End ${escaped(id)} and what was delegated from it?`
  if (!(await confirm(question, invocation))) throw new Error('Nothing was ended.')
  if (!(await backend.operator().endKey(id))) throw noSuchKey()
  console.log(`${escaped(id)} has ended.`)
})

function noSuchKey(): Error {
  return new Error('There is no key with this id.')
}

/** The name comes last because it may contain blanks. */
function lineOf({ id, parentId, expiresAt, lastUsedAt, useCount, scope, username, name, paused }: ShownKey): string {
  const expires = paused ? 'paused' : expiresAt === null ? 'never' : instant(expiresAt)
  const lastUsed = lastUsedAt === null ? 'never' : instant(lastUsedAt)
  return columns(keyWidths, [
    id,
    parentId ?? '-',
    expires,
    lastUsed,
    String(useCount),
    scope ?? 'all',
    username,
    name ?? '-',
  ])
}
