// Finds tokens by their scope and by how their id or username begins, and pauses or resumes those with a scope. Stores have no
// index for this, so both functions walk through the live tokens, page by page.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { isHeldByProgram } from '../stores/tokenPort.ts'
import { normalise } from '../users/usernames.ts'
import type { TokenRecord, Tokens } from './tokens.ts'

const pagesPerSearch = 20
const pageLength = 500 // while every token is examined
const changesAtOnce = 16 // so that requests keep the connections of the store

/** What is undefined matches every token. */
export interface Selection {
  /** One name in the token's scope. */
  scope?: string | undefined
  /** How the token's id or username begins. */
  search?: string | undefined
}

export function isSelected(token: TokenRecord, { scope, search }: Selection): boolean {
  if (scope !== undefined && !token.scope?.split(' ').includes(scope)) return false
  return search === undefined || token.id.startsWith(search) || !!token.username?.startsWith(normalise(search))
}

/**
 * Like `Tokens.list`, restricted to the selection: fewer than `limit` tokens, or none, if the next 20 pages have no more. There
 * may be more as long as `next` is not null.
 */
export function listSelected(
  tokens: Pick<Tokens, 'list'>,
  selection: Selection,
  after: string | null,
  limit: number,
): Promise<Page> {
  const isWhole = selection.scope === undefined && selection.search === undefined
  return isWhole ? tokens.list(after, limit) : listSome(tokens, token => isSelected(token, selection), after, limit)
}

/** The same for the tokens that programs hold for users. */
export function listHeldByPrograms(tokens: Pick<Tokens, 'list'>, after: string | null, limit: number): Promise<Page> {
  return listSome(tokens, isHeldByProgram, after, limit)
}

interface Page {
  tokens: TokenRecord[]
  next: string | null
}

async function listSome(
  tokens: Pick<Tokens, 'list'>,
  isWanted: (token: TokenRecord) => boolean,
  after: string | null,
  limit: number,
): Promise<Page> {
  const found: TokenRecord[] = []
  let next = after
  for (let pages = pagesPerSearch; pages > 0; pages--) {
    const page = await tokens.list(next, limit)
    found.push(...page.tokens.filter(isWanted))
    next = page.next
    if (next === null || found.length >= limit) break
  }
  return { tokens: found, next }
}

/**
 * Pauses or resumes every token whose scope contains this name, and returns how many. Once resolved, every token that was live
 * with this name from the call until then obeys at the next validation. Rejects with `unavailable` if the store does; some
 * tokens may have changed then, and repeating the call changes the others.
 */
export async function pauseByScope(tokens: Pick<Tokens, 'list' | 'change'>, scope: string, paused: boolean) {
  const changed = new Set<string>() // by id, because a token can be on two pages
  let next: string | null = null
  do {
    const page = await tokens.list(next, pageLength)
    // Tokens that are paused already are not left out: an earlier call may have written this without the store confirming it.
    const ids = page.tokens.filter(token => isSelected(token, { scope })).map(({ id }) => id)
    while (ids.length > 0) {
      const changes = ids.splice(0, changesAtOnce).map(id => tokens.change(id, { paused }))
      for (const token of await Promise.all(changes)) if (token !== null) changed.add(token.id)
    }
    next = page.next
    await nextTurn() // the memory store answers at once, and other requests must not wait for the whole walk
  } while (next !== null)
  return changed.size
}
