// The keys and delegated tokens that the operator has listed, of one user or of all, kept up to date by events. Hides the pages of the
// list and what an event means for a key. The state is mutable, because up to 5,000 events a second arrive.
import { useState } from 'preact/hooks'
import type { StreamEvent, StreamedRate } from '../../observability/streamEvents.ts'
import { isPast } from './clock.ts'
import { announce, counted, useRedraw } from './ui.ts'
import type { Send } from './user.ts'

/** A key in the answer of GET /keys. */
interface ListedKey {
  id: string
  /** Null for a delegated token without a name. */
  name: string | null
  /** The id of the session or key that it was delegated from; null for an API key. */
  parentId: string | null
  userId: string
  username: string
  scope: string | null
  rate: StreamedRate | null
  paused: boolean
  canary: boolean
  createdAt: number
  /** Null if it never expires. */
  expiresAt: number | null
  useCount: number
  lastUsedAt: number | null
}

export interface WatchedKey extends ListedKey {
  /** Ended by a request, with its parent, or with its last use. */
  hasEnded: boolean
}

export interface WatchedKeys {
  /** The newest keys first, each followed by what was delegated from it. Null before the first list. */
  list(): WatchedKey[] | null
  /** Why the last list failed; null if it did not. */
  problem: string | null
  hasMore: boolean
  /** Lists the keys of the user with this name or id; of all users if it is empty. */
  read(nameOrId: string): Promise<void>
  readMore(): Promise<void>
  setPaused(key: WatchedKey, paused: boolean): Promise<void>
  end(key: WatchedKey): Promise<void>
  standingOf(key: WatchedKey): 'live' | 'paused' | 'expired' | 'ended'
  childrenOf(id: string): WatchedKey[]
  apply(event: StreamEvent): void
}

const pageLength = 100
const maxPagesAtOnce = 5 // a page may have no key although more pages follow
const maxKeys = 500
const foreverMs = 90 * 365 * 86_400_000 // a key that never expires is issued for a hundred years

export function useWatchedKeys(send: Send): WatchedKeys {
  const redraw = useRedraw()
  const [keys] = useState(() => createWatchedKeys(send, redraw))
  return keys
}

function createWatchedKeys(send: Send, redraw: () => void): WatchedKeys {
  const known = new Map<string, WatchedKey>()
  /** Sessions and keys that are paused. */
  const paused = new Set<string>()
  let isListed = false
  /** Null for all users. */
  let userId: string | null = null
  let next: string | null = null

  async function read(nameOrId: string): Promise<void> {
    const found = nameOrId === '' ? null : await findUser(nameOrId)
    if (found === undefined) return fail('Auth does not answer.')
    userId = nameOrId === '' ? null : (found ?? nameOrId)
    next = null
    known.clear()
    paused.clear()
    await readPages()
    if (isListed && nameOrId !== '' && found === null && known.size === 0) fail('There is no such user.')
  }

  /** Null if there is no user with this name, undefined if Auth does not answer. */
  async function findUser(username: string): Promise<string | null | undefined> {
    const url = `admin/users?username=${encodeURIComponent(username)}`
    const { status, body } = await send('GET', url, `Find ${username}`)
    return status === 200 ? ((body as { users: { id: string }[] }).users[0]?.id ?? null) : undefined
  }

  async function readPages(): Promise<void> {
    const before = known.size
    for (let pages = 0; pages < maxPagesAtOnce; pages++) {
      const query = new URLSearchParams({
        ...(userId === null ? { limit: String(pageLength) } : { userId }),
        ...(next !== null && { after: next }),
      })
      const { status, body, problem } = await send('GET', `keys?${query}`, 'List keys')
      if (status !== 200) return fail(problem?.detail ?? 'The keys could not be listed.')
      const page = body as { keys: ListedKey[]; next: string | null }
      for (const key of page.keys) add({ ...key, hasEnded: false })
      next = page.next
      if (next === null || known.size - before >= pageLength) break
    }
    isListed = true
    keys.hasMore = next !== null
    fail(null)
    announce(`${counted(known.size, 'key or delegated token', 'keys and delegated tokens')}.`)
  }

  function fail(problem: string | null): void {
    keys.problem = problem
    redraw()
  }

  function add(key: WatchedKey): void {
    known.set(key.id, key)
    if (key.paused) paused.add(key.id)
    for (const oldest of known.keys()) if (known.size > maxKeys) known.delete(oldest)
  }

  async function setPaused(key: WatchedKey, isPaused: boolean): Promise<void> {
    const name = labelOf(key)
    const title = `${isPaused ? 'Pause' : 'Resume'} ${name}`
    const { status } = await send('PATCH', `keys/${key.id}`, title, { paused: isPaused })
    if (status === 200) note(key.id, isPaused)
    announce(status === 200 ? `${name} ${isPaused ? 'is paused' : 'works again'}.` : `${name} could not be changed.`)
    redraw()
  }

  async function end(key: WatchedKey): Promise<void> {
    const name = labelOf(key)
    const { status } = await send('DELETE', `keys/${key.id}`, `End ${name}`)
    if (status === 204 || status === 404) endWhere(other => other.id === key.id || other.parentId === key.id)
    announce(status === 204 || status === 404 ? `${name} has ended.` : `${name} could not be ended.`)
    redraw()
  }

  function note(id: string, isPaused: boolean): void {
    const key = known.get(id)
    if (key !== undefined) key.paused = isPaused
    if (isPaused) paused.add(id)
    else paused.delete(id)
  }

  function endWhere(isMeant: (key: WatchedKey) => boolean): void {
    for (const key of known.values()) if (isMeant(key)) key.hasEnded = true
  }

  function apply({ name, data }: StreamEvent): void {
    if (!isListed) return
    if (name === 'sessions_revoked') endWhere(({ userId, id }) => userId === data.userId && id !== data.keep)
    if (name === 'revoked' || name === 'expired' || name === 'consumed') {
      endWhere(({ id, parentId }) => id === data.tokenId || parentId === data.tokenId)
    }
    if (name === 'issued' && data.userId !== null && (userId === null || userId === data.userId)) {
      const { tokenId: id, userId: owner, purpose, expiresAt, scope, parentId, at } = data
      const fresh = { useCount: 0, lastUsedAt: null, rate: null, paused: false, hasEnded: false, createdAt: at }
      const terms = { id, name: data.name, parentId, scope, canary: purpose !== null } // no other key has a purpose
      const shownEnd = expiresAt - at > foreverMs ? null : expiresAt
      if (data.name !== null || parentId !== null)
        add({ ...fresh, ...terms, expiresAt: shownEnd, userId: owner, username: owner })
    }
    if (name === 'changed') {
      note(data.tokenId, data.paused)
      const key = known.get(data.tokenId)
      if (key !== undefined) Object.assign(key, { name: data.name, scope: data.scope, rate: data.rate })
    }
    if (name === 'slid' || name === 'consumed' || name === 'canary_used') noteUse(data.tokenId, data.at, data.count)
  }

  function noteUse(id: string, at: number, count: number): void {
    const key = known.get(id)
    if (key !== undefined) Object.assign(key, { useCount: key.useCount + count, lastUsedAt: at })
  }

  function childrenOf(id: string): WatchedKey[] {
    return [...known.values()].filter(({ parentId }) => parentId === id).sort(newestFirst)
  }

  const keys: WatchedKeys = {
    problem: null,
    hasMore: false,
    read,
    readMore: readPages,
    setPaused,
    end,
    childrenOf,
    apply,
    list() {
      if (!isListed) return null
      const top = [...known.values()].filter(({ parentId }) => parentId === null || !known.has(parentId))
      return top.sort(newestFirst).flatMap(key => [key, ...childrenOf(key.id)])
    },
    standingOf({ hasEnded, expiresAt, parentId, paused: isPaused }) {
      if (hasEnded) return 'ended'
      if (expiresAt !== null && isPast(expiresAt)) return 'expired'
      return isPaused || (parentId !== null && paused.has(parentId)) ? 'paused' : 'live'
    },
  }
  return keys
}

function newestFirst(a: WatchedKey, b: WatchedKey): number {
  return b.createdAt - a.createdAt
}

/** What a key is called. */
export function labelOf({ name, id }: WatchedKey): string {
  return name ?? id
}
