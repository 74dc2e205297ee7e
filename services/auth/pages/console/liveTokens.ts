// Connects the operator's tokens to Auth: applies the event stream, reads the list when the stream (re)connects, and looks
// up the names of users. Each request appears in Auth's log; hides which requests are sent and how their number is limited.
import { useEffect, useState } from 'preact/hooks'
import type { StreamEvent } from '../../observability/streamEvents.ts'
import { setClock } from './clock.ts'
import { openEventStream, type StreamState } from './eventStream.ts'
import type { ExchangeRequest, Outcome } from './exchanges.ts'
import { createTokens, type ListedToken, type Tokens } from './tokens.ts'
import { announce, counted, useRedraw } from './ui.ts'

const maxNamesAtOnce = 5
const maxUnknown = 100

export interface LiveTokensOptions {
  adminKey: string
  send: (request: ExchangeRequest) => Promise<Outcome>
  /** Called with each event, after it has been applied to the tokens. */
  onEvent: (event: StreamEvent) => void
  /** Called if Auth does not accept the key. */
  onRefused: () => void
}

export interface LiveTokens {
  tokens: Tokens
  stream: StreamState
  /** How often the stream has connected. */
  connections: number
  /**
   * Adds the tokens of the user with this name or id. Resolves to the user's id, to null if Auth knows no such user, and to
   * undefined if Auth does not answer.
   */
  addTokensOf(nameOrId: string): Promise<string | null | undefined>
}

export function useLiveTokens({ adminKey, send, onEvent, onRefused }: LiveTokensOptions): LiveTokens {
  const redraw = useRedraw()
  const [stream, setStream] = useState<StreamState>({ name: 'connecting' })
  const [connections, setConnections] = useState(0)
  const [reader] = useState(() => createTokenReader(adminKey, send, redraw))
  useEffect(() => {
    let last: StreamState['name'] = 'connecting'
    const closeStream = openEventStream({
      adminKey,
      onEvent(event) {
        reader.tokens.apply(event)
        onEvent(event)
        redraw()
      },
      onState(state) {
        if (state.name === 'refused') return onRefused()
        if (state.name !== last && state.name !== 'connecting') announce(`Events: ${state.name}.`)
        last = state.name
        setStream(state)
        if (state.name === 'live') void reader.readAll().then(() => setConnections(count => count + 1))
      },
    })
    return () => {
      closeStream()
      reader.close()
    }
  }, [])
  return { tokens: reader.tokens, stream, connections, addTokensOf: reader.addTokensOf }
}

interface TokenPage {
  tokens: ListedToken[]
  next: string | null
}

function createTokenReader(adminKey: string, send: LiveTokensOptions['send'], onChange: () => void) {
  const tokens = createTokens(lookUpName)
  const unknown = new Set<string>()
  /** Users who have no tokens any more keep their id as their name, so they are not looked up again. */
  const lookedUp = new Set<string>()
  let timer = 0

  /** Null unless the status is 200. */
  async function read<T>(url: string): Promise<T | null> {
    const { body, status } = await send({ title: 'Read', method: 'GET', url, key: adminKey })
    return status === 200 ? (body as T) : null
  }

  const pageOf = (userId: string) => read<TokenPage>(`tokens?userId=${encodeURIComponent(userId)}`)

  /** Reads Auth's clock and the newest tokens, to make up for what happened while there was no stream. */
  async function readAll(): Promise<void> {
    const startedAt = performance.now()
    const settings = await send({ title: 'Read', method: 'GET', url: 'console/settings.json' })
    if (settings.status === 200) setClock((settings.body as { now: number }).now, startedAt)
    const askedAt = performance.now()
    const page = await read<TokenPage>('tokens?limit=200')
    if (page === null) return
    tokens.isComplete = page.next === null
    if (tokens.isComplete) tokens.removeUnlisted(page.tokens, askedAt)
    tokens.addListed(page.tokens, askedAt)
    onChange()
  }

  async function addTokensOf(nameOrId: string): Promise<string | null | undefined> {
    const found = await read<{ users: { id: string }[] }>(`admin/users?username=${encodeURIComponent(nameOrId)}`)
    if (found === null) return undefined
    const foundId = found.users[0]?.id
    const userId = foundId ?? nameOrId
    const askedAt = performance.now()
    const page = await pageOf(userId)
    if (page === null) return undefined
    tokens.removeUnlisted(page.tokens, askedAt, userId)
    tokens.addListed(page.tokens, askedAt)
    announce(`${counted(page.tokens.length, 'token')} of ${nameOrId}.`)
    return foundId ?? (page.tokens.length > 0 ? userId : null)
  }

  /** Events contain a user's id only; the list of the user's tokens contains the name. */
  function lookUpName(userId: string): void {
    if (lookedUp.has(userId) || unknown.size >= maxUnknown) return
    lookedUp.add(userId)
    unknown.add(userId)
    if (unknown.size === 1) timer = setTimeout(lookUpNames, 300)
  }

  async function lookUpNames(): Promise<void> {
    for (const userId of [...unknown].slice(0, maxNamesAtOnce)) {
      unknown.delete(userId)
      const askedAt = performance.now()
      const page = await pageOf(userId)
      tokens.addListed(page?.tokens ?? [], askedAt)
    }
    onChange()
    if (unknown.size > 0) timer = setTimeout(lookUpNames, 1000)
  }

  return { tokens, readAll, addTokensOf, close: () => clearTimeout(timer) }
}
