// What each command for tokens does, through a running Auth.
import type { Invocation } from '../commandLine.ts'
import type { NewToken, OperatorClient, ShownToken } from '../users/operatorClient.ts'
import { rateOf } from '../users/rights.ts'
import { prompt } from '../users/terminal.ts'
import { columns, escaped, instant, printJson } from '../users/text.ts'
import { withBackend } from '../users/withBackend.ts'

const widths = [14, 10, 12, 24, 24, 24] as const
const head = columnsOf(['ID', 'KIND', 'PURPOSE', 'EXPIRES', 'LAST USED', 'SCOPE', 'USER'])
const secondsPerUnit: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 }

export const list = withBackend(async ({ isSet, textOf, backend }) => {
  const auth = backend.operator()
  const [username, scope, search] = [textOf('user'), textOf('scope'), textOf('search')]
  const selection = {
    ...(username !== null && { userId: await idOf(username, auth) }),
    ...(scope !== null && { scope }),
    ...(search !== null && { search }),
  }
  if (!isSet('json')) console.log(head)
  for (let after: string | null = null; ; ) {
    const { tokens, next } = await auth.listTokens(selection, after)
    for (const token of tokens) {
      if (isSet('json')) printJson(token)
      else console.log(columnsOf(cellsOf(token)))
    }
    if (next === null) return
    after = next
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
    console.log(columns([name, 17], [name.endsWith('At') ? instant(Number(value)) : text, 0]))
  }
})

export const issue = withBackend(async ({ isSet, textOf, refuse, backend }) => {
  const [absoluteTtl, username, purpose] = [textOf('absoluteTtl'), textOf('user'), textOf('purpose')]
  const [scope, uses, perMinute, burst] = [textOf('scope'), textOf('uses'), textOf('perMinute'), textOf('burst')]
  if (burst !== null && perMinute === null) refuse('--burst needs --per-minute.')
  const terms: NewToken = {
    kind: textOf('kind') ?? '',
    ttlSeconds: secondsOf('--ttl', textOf('ttl') ?? '', refuse),
    ...(absoluteTtl !== null && { absoluteTtlSeconds: secondsOf('--absolute-ttl', absoluteTtl, refuse) }),
    ...(purpose !== null && { purpose }),
    ...(scope !== null && { scope }),
    ...(uses !== null && { uses: countOf('--uses', uses, refuse) }),
  }
  const rate = rateOf(perMinute, burst)
  const auth = backend.operator()
  const issued = await auth.issueToken({
    ...terms,
    ...(rate !== null && { rate }),
    ...(username !== null && { userId: await idOf(username, auth) }),
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

export const revoke = withBackend(async ({ args: [id = ''], isSet, refuse, backend }) => {
  if (!process.stdin.isTTY && !isSet('yes')) refuse('Without a terminal, revoke needs --yes.')
  const question = `Revoke ${escaped(id)} and what was delegated from it? [y/N] `
  if (!isSet('yes') && (await prompt(question)).toLowerCase() !== 'y') throw new Error('Nothing was revoked.')
  if (!(await backend.operator().revokeToken(id))) throw noSuchToken()
  console.log(`${escaped(id)} is revoked.`)
})

/** The route lists tokens whose id begins with `id`, and then few or none besides the one with exactly this id. */
async function find(id: string, auth: OperatorClient): Promise<ShownToken> {
  for (let after: string | null = null; id !== ''; ) {
    const { tokens, next } = await auth.listTokens({ search: id }, after)
    const token = tokens.find(token => token.id === id)
    if (token !== undefined) return token
    if (next === null) break
    after = next
  }
  throw noSuchToken()
}

async function idOf(username: string, auth: OperatorClient): Promise<string> {
  const user = await auth.find(username)
  if (user === null) throw new Error(`There is no user ${escaped(username)}.`)
  return user.id
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

function cellsOf({ id, kind, purpose, expiresAt, lastUsedAt, scope, username, paused }: ShownToken): string[] {
  const expires = paused ? 'paused' : instant(expiresAt)
  return [id, kind, purpose ?? '-', expires, instant(lastUsedAt), scope ?? 'all', username ?? '-']
}

/** The username comes last because it may contain blanks. */
function columnsOf(texts: string[]): string {
  return columns(...texts.map((text, i) => [text, widths[i] ?? 0] as const))
}
