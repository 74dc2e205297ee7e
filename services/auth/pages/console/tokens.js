// The tokens that an operator sees: a page of the store's, kept up to date by events. Hides which event means what for them.
import { isPast, now } from './clock.ts'

/**
 * @typedef {object} WatchedToken
 * @property {string} id
 * @property {string} kind
 * @property {string | null} purpose
 * @property {string | null} userId
 * @property {number} heardAt When something was heard of it last, of `performance.now()`.
 * @property {number} createdAt Or when it was first heard of.
 * @property {number} expiresAt
 * @property {number} wholeMs From the last extension, or from the issue, to the end.
 * @property {number} uses
 * @property {'live' | 'expired' | 'swept' | 'revoked' | 'consumed'} state
 * @property {number} diedAt
 * @property {number} refusals
 * @property {string | null} reason Of the last refusal.
 */

/** @typedef {import('./eventStream.js').AuthEvent} AuthEvent */
/** @typedef {import('./userFilter.js').UserFilter} UserFilter */

const mostTokens = 300
const keptDeadMs = 60_000
const loggedEvents = 100

/** @param {{ onUnknownUser: (userId: string) => void, onChange: () => void }} options */
export function createTokens({ onUnknownUser, onChange }) {
  /** @type {Map<string, WatchedToken>} In the order in which they were heard of. */
  const tokens = new Map()
  /** @type {Map<string, string>} */
  const usernames = new Map()
  /** @type {(AuthEvent & { id: number })[]} The newest first. */
  const log = []
  const state = {
    dropped: 0,
    lastSweep: /** @type {AuthEvent | null} */ (null),
    /** Whether every token of the store is here. */
    isWhole: true,
  }
  let count = 0

  /**
   * @param {Record<string, any>} shown Of `GET /tokens`.
   * @param {number} askedAt Of `performance.now()`: what events have told since then is newer.
   */
  function learn(shown, askedAt) {
    const { id, kind, purpose, userId, username, createdAt, lastUsedAt, expiresAt, refreshCount } = shown
    if (userId !== null && username !== null) usernames.set(userId, username)
    const token = tokens.get(id) ?? { ...fresh(id), heardAt: 0 }
    tokens.set(id, token)
    Object.assign(token, { kind, purpose, userId, createdAt })
    if (token.heardAt >= askedAt) return
    const wholeMs = expiresAt - (kind === 'sliding' ? lastUsedAt : createdAt)
    Object.assign(token, { expiresAt, wholeMs, uses: refreshCount })
  }

  /**
   * What was live and is not there any more ended while nobody listened.
   * @param {Record<string, any>[]} all Of a list that is whole.
   * @param {number} askedAt
   * @param {string} [ofUser] Whose list it is; without: everybody's.
   */
  function learnAll(all, askedAt, ofUser) {
    const ids = new Set(all.map(({ id }) => id))
    for (const { id, userId, state, heardAt } of tokens.values()) {
      const isListed = ofUser === undefined || userId === ofUser
      if (isListed && state === 'live' && heardAt < askedAt && !ids.has(id)) tokens.delete(id)
    }
    for (const shown of all) learn(shown, askedAt)
  }

  /** @param {string} id @returns {WatchedToken} */
  function fresh(id) {
    return {
      id,
      kind: 'sliding',
      purpose: null,
      userId: null,
      heardAt: performance.now(),
      createdAt: now(),
      expiresAt: 0,
      wholeMs: 1,
      uses: 0,
      state: 'live',
      diedAt: 0,
      refusals: 0,
      reason: null,
    }
  }

  /** @param {AuthEvent} event */
  function hear(event) {
    const { name, data } = event
    const { at, count: times = 1 } = data
    if (name === 'hello') return
    log.unshift({ ...event, id: ++count })
    log.length = Math.min(log.length, loggedEvents)
    if (name === 'dropped') state.dropped += times
    if (name === 'swept') {
      state.lastSweep = event
      // A sweep removes all that died before it.
      for (const token of tokens.values()) if (token.state === 'expired' && token.diedAt < at) token.state = 'swept'
    }
    if (name === 'sessions_revoked') {
      for (const token of tokens.values()) {
        if (token.userId === data['userId'] && token.id !== data['keep']) die(token, 'revoked', at)
      }
    }
    if (typeof data['tokenId'] === 'string') hearOfToken(name, data['tokenId'], data, at, times)
    onChange()
  }

  /** @param {string} name @param {string} id @param {Record<string, any>} data @param {number} at @param {number} times */
  function hearOfToken(name, id, data, at, times) {
    // What scanners send is in the log, and no token.
    const token = tokens.get(id) ?? (name === 'refused' ? null : fresh(id))
    if (token === null) return
    token.heardAt = performance.now()
    if (!tokens.has(id)) {
      tokens.set(id, token)
      token.userId = data['userId'] ?? null
      if (token.userId !== null && !usernames.has(token.userId)) onUnknownUser(token.userId)
    }
    if (name === 'issued')
      Object.assign(token, { kind: data['kind'], purpose: data['purpose'], expiresAt: data['expiresAt'] })
    if (name === 'issued') token.wholeMs = token.expiresAt - at
    if (name === 'slid') {
      Object.assign(token, { kind: data['kind'], expiresAt: data['expiresAt'], state: 'live' })
      if (token.kind === 'sliding' || token.wholeMs === 1) token.wholeMs = token.expiresAt - at
      token.uses += times
    }
    if (name === 'renewed') {
      Object.assign(token, { expiresAt: data['expiresAt'], wholeMs: data['expiresAt'] - at, state: 'live' })
    }
    if (name === 'refused') {
      token.refusals += times
      token.reason = data['reason']
    }
    if (name === 'consumed') token.uses += times
    if (name === 'revoked' || name === 'consumed' || name === 'expired') die(token, name, at)
  }

  /** @param {WatchedToken} token @param {'revoked' | 'consumed' | 'expired'} state @param {number} at */
  function die(token, state, at) {
    if (token.state !== 'live') return
    token.state = state
    token.diedAt = at
  }

  /**
   * Those whose time is over are dead, also where the stream is down; those long dead are let go, and of too many the
   * oldest, first those that are not shown.
   * @param {UserFilter} filter
   */
  function tick(filter) {
    const at = now()
    for (const token of tokens.values()) {
      if (isPast(token.expiresAt)) die(token, 'expired', token.expiresAt)
      const isLongDead = token.state !== 'live' && at - token.diedAt > keptDeadMs
      if (isLongDead) tokens.delete(token.id)
    }
    if (tokens.size <= mostTokens) return
    const all = [...tokens.values()]
    const inOrder = [...all.filter(token => !isIn(token, filter)), ...all.filter(token => isIn(token, filter))]
    for (const { id, state: was } of inOrder.slice(0, -mostTokens)) {
      tokens.delete(id)
      if (was === 'live') state.isWhole = false
    }
  }

  /**
   * Of the user who was found, or the text is in the token's id or its user's name or id.
   * @param {WatchedToken} token
   * @param {UserFilter} filter
   */
  function isIn({ id, userId }, filter) {
    const text = filter.text.trim().toLowerCase()
    if (text === '' || (userId !== null && userId === filter.userId)) return true
    return [id, userId, nameOf(userId)].some(word => word?.toLowerCase().includes(text))
  }

  /** The newest first. @param {UserFilter} filter */
  function shown(filter) {
    return [...tokens.values()].filter(token => isIn(token, filter)).sort((a, b) => b.createdAt - a.createdAt)
  }

  /** @param {unknown} userId */
  const nameOf = userId => (typeof userId === 'string' ? (usernames.get(userId) ?? userId) : null)

  return { state, log, learn, learnAll, hear, tick, shown, nameOf }
}
