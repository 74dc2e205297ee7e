// The tokens that an operator sees: a part of the tokens in the store, kept up to date by events. Hides what each event
// means for a token. The state is mutable, because up to 5,000 events a second arrive; the caller redraws.
import type { TokenKind } from '../../../../packages/client/contract.ts'
import type { StreamEvent, StreamedRate } from '../../observability/streamEvents.ts'
import { isPast, now } from './clock.ts'

export interface WatchedToken {
  id: string
  kind: TokenKind
  purpose: string | null
  userId: string | null
  /** When the token was last in an event, by `performance.now()`; 0 if never. */
  changedAt: number
  /** When the token was issued; if that is unknown, the time of its first event. */
  createdAt: number
  expiresAt: number
  /** Time from the last extension, or else from the issue, to the expiry; null if unknown. */
  wholeMs: number | null
  uses: number
  state: 'live' | 'expired' | 'swept' | 'revoked' | 'consumed'
  diedAt: number
  refusals: number
  /** Why the token was last refused. */
  reason: string | null
  scope: string | null
  paused: boolean
  rate: StreamedRate | null
  usesLeft: number | null
  /** When an event last had the scope, the pause and the limits, by `performance.now()`; 0 if none did. */
  termsAt: number
}

/** A token in the answer of GET /tokens. */
export interface ListedToken {
  id: string
  kind: TokenKind
  purpose: string | null
  userId: string | null
  username: string | null
  createdAt: number
  lastUsedAt: number
  expiresAt: number
  refreshCount: number
  scope: string | null
  paused: boolean
  rate: StreamedRate | null
  usesLeft: number | null
}

export interface TokenFilter {
  text: string
  /** The id of the user whose name or id is `text`, if Auth knows one. */
  userId: string | null
}

export type LoggedEvent = StreamEvent & { id: number }

export interface Tokens {
  /** The newest events, the newest first. */
  log: LoggedEvent[]
  /** How many events Auth did not send. */
  dropped: number
  /** Whether this list has every token that is in the store. */
  isComplete: boolean
  /** Adds tokens that Auth listed; `askedAt` is by `performance.now()`, and later events are newer than the list. */
  addListed(listed: ListedToken[], askedAt: number): void
  /** Removes live tokens that a complete list, optionally of one user, does not contain. */
  removeUnlisted(listed: ListedToken[], askedAt: number, userId?: string): void
  apply(event: StreamEvent): void
  /**
   * Marks tokens whose time is over as expired. Forgets dead tokens after a minute. If there are too many tokens, forgets
   * the oldest.
   */
  tick(filter: TokenFilter): void
  /** The newest first. */
  matching(filter: TokenFilter): WatchedToken[]
  /** The username if it is known, otherwise the id. */
  nameOf(userId: string | null): string | null
}

const maxTokens = 300
const keepDeadMs = 60_000
const maxLogged = 100

/** `onUnknownUser` is called for the first event of a user whose name is not known. */
export function createTokens(onUnknownUser: (userId: string) => void): Tokens {
  /** In the order in which the tokens became known. */
  const all = new Map<string, WatchedToken>()
  const usernames = new Map<string, string>()
  const log: LoggedEvent[] = []
  let eventCount = 0

  function addListed(listed: ListedToken[], askedAt: number): void {
    for (const { id, username, lastUsedAt, refreshCount, ...of } of listed) {
      const { kind, purpose, userId, createdAt, expiresAt, scope, paused, rate, usesLeft } = of
      if (userId !== null && username !== null) usernames.set(userId, username)
      const token = all.get(id) ?? newToken(id, 0)
      all.set(id, token)
      Object.assign(token, { kind, purpose, userId, createdAt })
      if (token.termsAt < askedAt) Object.assign(token, { scope, paused, rate, usesLeft })
      if (token.changedAt >= askedAt) continue
      token.expiresAt = expiresAt
      token.wholeMs = expiresAt - (kind === 'sliding' ? lastUsedAt : createdAt)
      token.uses = refreshCount
    }
  }

  function removeUnlisted(listed: ListedToken[], askedAt: number, userId?: string): void {
    const ids = new Set(listed.map(({ id }) => id))
    for (const token of all.values()) {
      const belongs = userId === undefined || token.userId === userId
      if (belongs && token.state === 'live' && token.changedAt < askedAt && !ids.has(token.id)) all.delete(token.id)
    }
  }

  function apply(event: StreamEvent): void {
    if (event.name === 'hello') return
    log.unshift({ ...event, id: ++eventCount })
    log.length = Math.min(log.length, maxLogged)
    if (event.name === 'dropped') tokens.dropped += event.data.count
    if (event.name === 'swept') {
      // A sweep removes every token that died before it.
      for (const token of all.values()) {
        if (token.state === 'expired' && token.diedAt < event.data.at) token.state = 'swept'
      }
    }
    if (event.name === 'sessions_revoked') {
      const { userId, keep, at } = event.data
      for (const token of all.values()) if (token.userId === userId && token.id !== keep) die(token, 'revoked', at)
    }
    applyToToken(event)
  }

  function applyToToken(event: StreamEvent): void {
    const id = 'tokenId' in event.data ? event.data.tokenId : null
    // A refused token that is not known is most likely from a scanner, and appears in the log only.
    const isRefusal = event.name === 'refused' || event.name === 'canary_used'
    if (id === null || (isRefusal && !all.has(id))) return
    const token = all.get(id) ?? newToken(id, performance.now())
    token.changedAt = performance.now()
    if (!all.has(id)) {
      all.set(id, token)
      token.userId = ('userId' in event.data && event.data.userId) || null
      if (token.userId !== null && !usernames.has(token.userId)) onUnknownUser(token.userId)
    }
    switch (event.name) {
      case 'issued': {
        const { kind, purpose, expiresAt, at, scope } = event.data
        Object.assign(token, { kind, purpose, expiresAt, wholeMs: expiresAt - at, scope, termsAt: token.changedAt })
        break
      }
      case 'changed': {
        const { scope, paused, rate, usesLeft } = event.data
        Object.assign(token, { scope, paused, rate, usesLeft, termsAt: token.changedAt })
        break
      }
      case 'slid': {
        const { kind, expiresAt, at, count } = event.data
        Object.assign(token, { kind, expiresAt, state: 'live' })
        if (kind === 'sliding' || token.wholeMs === null) token.wholeMs = expiresAt - at
        token.uses += count
        if (token.usesLeft !== null) token.usesLeft -= count
        break
      }
      case 'renewed': {
        const { expiresAt, at } = event.data
        Object.assign(token, { expiresAt, wholeMs: expiresAt - at, state: 'live' })
        break
      }
      case 'refused':
        token.refusals += event.data.count
        token.reason = event.data.reason
        break
      case 'canary_used':
        token.uses = event.data.useCount
        break
      case 'consumed':
        token.uses += event.data.count
        die(token, 'consumed', event.data.at)
        break
      case 'revoked':
      case 'expired':
        die(token, event.name, event.data.at)
    }
  }

  function tick(filter: TokenFilter): void {
    const at = now()
    for (const token of all.values()) {
      if (isPast(token.expiresAt)) die(token, 'expired', token.expiresAt)
      if (token.state !== 'live' && at - token.diedAt > keepDeadMs) all.delete(token.id)
    }
    if (all.size <= maxTokens) return
    const shown = [...all.values()].filter(token => isMatch(token, filter))
    const hidden = [...all.values()].filter(token => !isMatch(token, filter))
    for (const { id, state } of [...hidden, ...shown].slice(0, -maxTokens)) {
      all.delete(id)
      if (state === 'live') tokens.isComplete = false
    }
  }

  function isMatch({ id, userId }: WatchedToken, filter: TokenFilter): boolean {
    const text = filter.text.trim().toLowerCase()
    if (text === '' || (userId !== null && userId === filter.userId)) return true
    return [id, userId, nameOf(userId)].some(word => word?.toLowerCase().includes(text))
  }

  function nameOf(userId: string | null): string | null {
    return userId === null ? null : (usernames.get(userId) ?? userId)
  }

  const tokens: Tokens = {
    log,
    dropped: 0,
    isComplete: true,
    addListed,
    removeUnlisted,
    apply,
    tick,
    nameOf,
    matching(filter) {
      return [...all.values()].filter(token => isMatch(token, filter)).sort((a, b) => b.createdAt - a.createdAt)
    },
  }
  return tokens
}

function die(token: WatchedToken, state: 'revoked' | 'consumed' | 'expired', at: number): void {
  if (token.state !== 'live') return
  token.state = state
  token.diedAt = at
}

function newToken(id: string, changedAt: number): WatchedToken {
  return {
    id,
    kind: 'sliding',
    purpose: null,
    userId: null,
    changedAt,
    createdAt: now(),
    expiresAt: 0,
    wholeMs: null,
    uses: 0,
    state: 'live',
    diedAt: 0,
    refusals: 0,
    reason: null,
    scope: null,
    paused: false,
    rate: null,
    usesLeft: null,
    termsAt: 0,
  }
}
