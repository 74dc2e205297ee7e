// The API keys and delegated tokens that this page knows, in its memory only: create, list, delegate, get data, pause, end. Hides what an
// answer means for a token and for those delegated from it.
import { useState } from 'preact/hooks'
import { isPast, now } from './clock.ts'
import type { ExchangeRequest, Exchanges, Outcome } from './exchanges.ts'
import { type Session, type Sessions, urlAt } from './sessions.ts'
import type { ConsoleSettings } from './settings.ts'
import { announce, counted } from './ui.ts'

/** An API key, or a delegated token if it has a parent. */
export interface Key {
  id: string
  username: string
  /** Null for a delegated token without a name. */
  name: string | null
  /** The id of the session or key that it was delegated from. */
  parentId: string | null
  /** Null if this page did not create it. */
  secret: string | null
  isSecretShown: boolean
  scope: string | null
  isCanary: boolean
  createdAt: number
  /** Null if it never expires. */
  expiresAt: number | null
  paused: boolean
  useCount: number
  lastUsedAt: number | null
  /** Null if any number is left, or if this page does not know it. */
  usesLeft: number | null
  /** How it ended by itself; null if this page knows of no end. */
  end: 'ended' | 'expired' | 'used up' | null
  isBusy: boolean
  /** The status of the last *Get data*, or of a later refusal; null if there was none since the last change. */
  lastStatus: number | null
  /** The last answer, in words. */
  message: string | null
}

/** What this page knows about a token and its parent; `refused` if only Auth knows why. */
export type Standing = 'live' | 'paused' | 'refused' | 'ended' | 'expired' | 'used up'

export interface DelegationTerms {
  name: string
  /** Empty for the scope of the parent. */
  scope: string
  ttlSeconds: number
  /** Null for as many as the parent has. */
  uses: number | null
}

export interface Keys {
  /** The newest first. */
  list: Key[]
  /** A live session of this user, which may change the user's keys. */
  sessionOf(username: string): Session | null
  /** The id of the session or key whose form for delegating is open. */
  formOf: string | null
  openForm(parentId: string | null): void
  /** Resolves to null, or to the reason why no key was created. */
  create(session: Session, terms: { name: string; scope: string }): Promise<string | null>
  /** Reads the keys of the session's user. */
  read(session: Session): Promise<void>
  /** Resolves like `create`. */
  delegate(parent: Session | Key, terms: DelegationTerms): Promise<string | null>
  getData(key: Key): Promise<void>
  setPaused(session: Session, key: Key, paused: boolean): Promise<void>
  end(session: Session, key: Key): Promise<void>
  hideSecret(key: Key): void
  /** Forgets a key or a session's delegated tokens, with everything that was delegated from it. */
  remove(id: string): void
  /** The sessions of this user were all ended, and the keys with them. */
  noteAllEnded(username: string): void
  /** Marks the tokens whose time is over as expired. */
  expire(): void
  standingOf(key: Key): Standing
}

export function useKeys({ businessUrl }: ConsoleSettings, exchanges: Exchanges, sessions: Sessions): Keys {
  const [list, setList] = useState<Key[]>([])
  const [formOf, openForm] = useState<string | null>(null)

  function update(isMeant: (key: Key) => boolean, change: (key: Key) => Partial<Key>): void {
    setList(list => list.map(key => (isMeant(key) ? { ...key, ...change(key) } : key)))
  }

  /** After a change, what the last request showed of the key and of its delegated tokens no longer holds. */
  function change({ id }: Key, changes: Partial<Key>): void {
    update(
      key => key.id === id || key.parentId === id,
      () => ({ lastStatus: null, message: null }),
    )
    update(
      key => key.id === id,
      () => changes,
    )
  }

  async function sendAs(session: Session, request: ExchangeRequest): Promise<Outcome> {
    const sentAt = now()
    const outcome = await exchanges.send({ ...request, token: session.token })
    const { status, problem } = outcome
    sessions.noteAnswer(session, isGood(status) ? 200 : status, sentAt, status === 401 ? problem?.detail : null)
    return outcome
  }

  async function create(session: Session, { name, scope }: { name: string; scope: string }) {
    const request = { title: `Create the key ${name}`, method: 'POST', url: 'keys' }
    const terms = { name, ...(scope !== '' && { scope }) }
    const { status, body, problem } = await sendAs(session, { ...request, body: terms })
    if (status !== 201) return problem?.detail ?? 'The key could not be created.'
    setList(list => [keyOf(session.username, body as ListedKey), ...list])
    announce(`The key ${name} was created. Its secret is shown only now.`)
    return null
  }

  async function read(session: Session): Promise<void> {
    const { username } = session
    const askedAt = now()
    const request = { title: `List the keys of ${username}`, method: 'GET', url: 'keys' }
    const { status, body } = await sendAs(session, request)
    if (status !== 200) return
    const { keys } = body as { keys: ListedKey[] }
    setList(list => merge(list, keys, username, askedAt))
    announce(`${counted(keys.length, 'key or delegated token', 'keys and delegated tokens')} of ${username}.`)
  }

  async function delegate(parent: Session | Key, { name, scope, ttlSeconds, uses }: DelegationTerms) {
    const terms = { name, ttlSeconds, ...(scope !== '' && { scope }), ...(uses !== null && { uses }) }
    const request = { title: `Delegate ${name}`, method: 'POST', url: 'tokens/delegate', body: terms }
    const { status, body, problem } = await ('token' in parent ? sendAs(parent, request) : sendWith(parent, request))
    if (status !== 201) return problem?.detail ?? 'The token could not be delegated.'
    const { token, tokenId, ...delegated } = body as ListedKey & { token: string; tokenId: string }
    setList(list => [keyOf(parent.username, { ...delegated, id: tokenId, secret: token }), ...list])
    announce(`The token ${name} was delegated, and lives ${ttlSeconds} seconds.`)
    return null
  }

  /** A request with the key itself, which is a use of it. */
  async function sendWith({ id, secret }: Key, request: ExchangeRequest): Promise<Outcome> {
    const sentAt = now()
    const outcome = await exchanges.send({ ...request, ...(secret !== null && { token: secret }) })
    update(
      key => key.id === id,
      key => afterUse(key, outcome, sentAt),
    )
    return outcome
  }

  async function getData(key: Key): Promise<void> {
    const isThis = ({ id }: Key) => id === key.id
    update(isThis, () => ({ isBusy: true }))
    const request = { title: `Get data with ${nameOf(key)}`, method: 'GET', url: urlAt(businessUrl, 'data') }
    const { status, body, problem } = await sendWith(key, { ...request, flow: 3 })
    const message = status === 200 ? String((body as { data: unknown }).data) : (problem?.detail ?? null)
    update(isThis, () => ({ isBusy: false, lastStatus: status, message }))
    announce(`${status === 200 ? '200' : status === 401 ? 'Refused, 401' : 'Failed'}: ${message}`)
  }

  async function setPaused(session: Session, key: Key, paused: boolean): Promise<void> {
    const title = `${paused ? 'Pause' : 'Resume'} ${nameOf(key)}`
    const request = { title, method: 'PATCH', url: `keys/${key.id}`, body: { paused } }
    const { status } = await sendAs(session, request)
    if (status === 200) change(key, { paused })
    if (status === 404) change(key, { end: 'ended' })
    announce(status === 200 ? `${nameOf(key)} ${paused ? 'is paused' : 'works again'}.` : `${title}: failed.`)
  }

  async function end(session: Session, key: Key): Promise<void> {
    const request = { title: `End ${nameOf(key)}`, method: 'DELETE', url: `keys/${key.id}` }
    const { status } = await sendAs(session, request)
    const hasEnded = status === 204 || status === 404
    if (hasEnded) change(key, { end: 'ended' })
    const withIt = list.filter(({ parentId }) => parentId === key.id).length
    const others = withIt === 0 ? '' : `, with ${counted(withIt, 'delegated token')}`
    announce(hasEnded ? `${nameOf(key)} has ended${others}.` : `${nameOf(key)} could not be ended.`)
  }

  function expire(): void {
    const isOver = ({ end, expiresAt }: Key) => end === null && expiresAt !== null && isPast(expiresAt)
    const expired = list.filter(isOver)
    for (const key of expired) announce(`${nameOf(key)} has expired.`)
    if (expired.length > 0) update(isOver, () => ({ end: 'expired' }))
  }

  return {
    list,
    formOf,
    openForm,
    sessionOf: username =>
      sessions.list.find(({ state, username: name }) => state === 'live' && name === username) ?? null,
    create,
    read,
    delegate,
    getData,
    setPaused,
    end,
    hideSecret: ({ id }) =>
      update(
        key => key.id === id,
        () => ({ isSecretShown: false }),
      ),
    remove: id => setList(list => list.filter(key => key.id !== id && key.parentId !== id)),
    noteAllEnded: username =>
      update(
        key => key.username === username && key.end === null,
        () => ({ end: 'ended' }),
      ),
    expire,
    standingOf: key => standingOf(key, parentStandingOf(key, list, sessions.list)),
  }
}

/** A key in the answers of Auth. Some have fewer members. */
type ListedKey = Pick<Key, 'id' | 'name' | 'scope' | 'createdAt' | 'expiresAt'> &
  Partial<Pick<Key, 'parentId' | 'secret' | 'paused' | 'lastUsedAt' | 'useCount' | 'usesLeft'>> & { canary?: boolean }

function keyOf(username: string, listed: ListedKey): Key {
  const { id, name, scope, createdAt, expiresAt, canary = false, parentId = null, secret = null } = listed
  const { paused = false, useCount = 0, lastUsedAt = null, usesLeft = null } = listed
  return {
    ...{ id, username, name, parentId, secret, scope, createdAt, expiresAt, paused, useCount, lastUsedAt, usesLeft },
    isSecretShown: secret !== null && parentId === null,
    isCanary: canary,
    end: null,
    isBusy: false,
    lastStatus: null,
    message: null,
  }
}

/** What was not listed has ended, unless it is newer than the list. */
function merge(known: Key[], listed: ListedKey[], username: string, askedAt: number): Key[] {
  const unknown = new Map(listed.map(key => [key.id, key]))
  const updated = known.map((key): Key => {
    const { name, scope, expiresAt, paused = false, lastUsedAt = null, useCount = 0 } = unknown.get(key.id) ?? key
    const isListed = unknown.delete(key.id)
    if (isListed) return { ...key, name, scope, expiresAt, paused, lastUsedAt, useCount }
    const hasEnded = key.username === username && key.end === null && key.createdAt < askedAt
    return hasEnded ? { ...key, end: 'ended' } : key
  })
  const added = [...unknown.values()].map(key => keyOf(username, key))
  return [...updated, ...added].sort((a, b) => b.createdAt - a.createdAt)
}

function afterUse(key: Key, { status, problem }: Outcome, sentAt: number): Partial<Key> {
  if (status === 401) return { lastStatus: status, message: problem?.detail ?? null }
  if (!isGood(status)) return {}
  const usesLeft = key.usesLeft === null ? null : key.usesLeft - 1
  const use = { lastUsedAt: sentAt, useCount: key.useCount + 1, usesLeft }
  return usesLeft === 0 ? { ...use, end: 'used up' } : use
}

function standingOf({ end, paused, lastStatus }: Key, parent: Standing): Standing {
  if (end !== null) return end
  if (parent === 'ended' || parent === 'expired') return 'ended'
  if (paused || parent === 'paused') return 'paused'
  return lastStatus === 401 || parent === 'refused' ? 'refused' : 'live'
}

/** `live` if the token has no parent, or if this page does not know it. */
function parentStandingOf({ parentId }: Key, keys: Key[], sessions: Session[]): Standing {
  const key = keys.find(({ id }) => id === parentId)
  if (key !== undefined) return standingOf(key, 'live')
  const session = sessions.find(({ tokenId }) => tokenId === parentId)
  return session === undefined ? 'live' : (session.cause ?? session.state)
}

export function nameOf({ name, id }: Key): string {
  return name ?? id
}

function isGood(status: number): boolean {
  return status >= 200 && status < 300
}
