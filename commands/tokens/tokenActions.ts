// What each command for tokens does, through a running Auth.
import type { Invocation } from '../commandLine.ts'
import type { NewToken, OperatorClient, ShownToken } from '../operator/operatorClient.ts'
import { readRate } from '../operator/rights.ts'
import { withBackend } from '../operator/withBackend.ts'
import { confirm, requireTerminalOrYes } from '../terminal.ts'
import { columns, escaped, instant, printJson } from '../text.ts'

const widths = [14, 10, 12, 24, 24, 24]
const head = columns(widths, ['ID', 'KIND', 'PURPOSE', 'EXPIRES', 'LAST USED', 'SCOPE', 'USER'])
const secondsPerUnit: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 }

export const list = withBackend(async ({ isSet, textOf, backend }) => {
  const auth = backend.operator()
  const [username, scope, search] = [textOf('user'), textOf('scope'), textOf('search')]
  const selection = {
    ...(username !== null && { userId: await auth.idOf(username) }),
    ...(scope !== null && { scope }),
    ...(search !== null && { search }),
  }
  if (!isSet('json')) console.log(head)
  for await (const token of auth.listTokens(selection)) {
    if (isSet('json')) printJson(token)
    else console.log(lineOf(token))
  }
})

export const show = withBackend(async ({ args: [id = ''], isSet, backend }) => {
  const auth = backend.operator()
  const token = await find(id, auth)
  if (isSet('json')) {
    printJson(token)
    return
  }
  for (const [name, value] of Object.entries(token)) {
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    console.log(columns([17], [name, name.endsWith('At') ? instant(Number(value)) : text]))
  }
})

export const issue = withBackend(async ({ backend, ...invocation }) => {
  const { isSet, textOf, refuse } = invocation
  const [absoluteTtl, username, purpose] = [textOf('absoluteTtl'), textOf('user'), textOf('purpose')]
  const [scope, uses, rate] = [textOf('scope'), textOf('uses'), readRate(invocation)]
  const terms: NewToken = {
    kind: textOf('kind') ?? '',
    ttlSeconds: secondsOf('--ttl', textOf('ttl') ?? '', refuse),
    ...(absoluteTtl !== null && { absoluteTtlSeconds: secondsOf('--absolute-ttl', absoluteTtl, refuse) }),
    ...(purpose !== null && { purpose }),
    ...(scope !== null && { scope }),
    ...(uses !== null && { uses: countOf('--uses', uses, refuse) }),
    ...(rate !== null && { rate }),
  }
  const auth = backend.operator()
  const issued = await auth.issueToken({
    ...terms,
    ...(username !== null && { userId: await auth.idOf(username) }),
  })
  if (isSet('json')) printJson(issued)
  else console.log(`${issued.tokenId} ${issued.token}`)
})

export const pause = withBackend(async ({ args: [id = ''], backend }) => {
  if (!(await backend.operator().pauseToken(id, true))) throw noSuchToken()
  console.log(`${escaped(id)} is paused.`)
})

export const resume = withBackend(async ({ args: [id = ''], backend }) => {
  if (!(await backend.operator().pauseToken(id, false))) throw noSuchToken()
  console.log(`${escaped(id)} works again.`)
})

export const revoke = withBackend(async ({ backend, ...invocation }) => {
  const [id = ''] = invocation.args
  requireTerminalOrYes('revoke', invocation)
  const question = `Revoke ${escaped(id)} and what was delegated from it?`
  if (!(await confirm(question, invocation))) throw new Error('Nothing was revoked.')
  if (!(await backend.operator().revokeToken(id))) throw noSuchToken()
  console.log(`${escaped(id)} is revoked.`)
})

/** The route lists tokens whose id begins with `id`, and then few or none besides the one with exactly this id. */
async function find(id: string, auth: OperatorClient): Promise<ShownToken> {
  if (id === '') throw noSuchToken()
  for await (const token of auth.listTokens({ search: id })) if (token.id === id) return token
  throw noSuchToken()
}

function secondsOf(option: string, text: string, refuse: Invocation['refuse']): number {
  const [, count, unit = ''] = /^(\d{1,9})([smhd])$/.exec(text) ?? []
  if (count === undefined) return refuse(`${option}: expected a duration such as 90s, 15m, 12h or 30d.`)
  return Number(count) * (secondsPerUnit[unit] ?? 1)
}

function countOf(option: string, text: string, refuse: Invocation['refuse']): number {
  return /^[1-9]\d{0,8}$/.test(text) ? Number(text) : refuse(`${option}: expected a whole number above 0.`)
}

function noSuchToken(): Error {
  return new Error('There is no token with this id.')
}

/** The username comes last because it may contain blanks. */
function lineOf({ id, kind, purpose, expiresAt, lastUsedAt, scope, username, paused }: ShownToken): string {
  const expires = paused ? 'paused' : instant(expiresAt)
  const lastUsed = instant(lastUsedAt)
  return columns(widths, [id, kind, purpose ?? '-', expires, lastUsed, scope ?? 'all', username ?? '-'])
}
