// The sessions of this page, in its memory only: log in, get data, burst, end. Hides what an answer means for a session.
import { useState } from 'preact/hooks'
import { isPast, now } from './clock.ts'
import { type ExchangeRequest, type Exchanges, type Problem, shellQuote } from './exchanges.ts'
import type { ConsoleSettings } from './settings.ts'
import { announce, counted } from './ui.ts'

export interface Session {
  id: number
  tokenId: string
  token: string
  username: string
  expiresAt: number
  absoluteExpiresAt: number
  /** How often this page has extended the session. */
  slides: number
  state: 'live' | 'expired' | 'ended' | 'refused'
  /** Why the session was refused; null if this page does not know. */
  cause: 'expired' | 'ended' | null
  isBusy: boolean
  /** When this page ended it, by `performance.now()`. */
  endedAt: number | null
  /** The last answer, in words. */
  message: string | null
}

export interface Burst {
  requests: number
  answered: number
  /** Call id -> how many requests of this burst shared that call. */
  calls: Map<string, number>
  refused: number
  failed: number
  /** Null until all requests are answered. */
  durationMs: number | null
}

export interface Credentials {
  username: string
  password: string
}

export interface Sessions {
  list: Session[]
  /** The last burst. */
  burst: Burst | null
  /** Resolves to null, or to the reason why the log-in failed. */
  logIn(credentials: Credentials): Promise<string | null>
  /** Registers a user with a random name and password, and logs in. Resolves like `logIn`. */
  logInAsNewUser(): Promise<string | null>
  getData(session: Session): Promise<void>
  sendBurst(session: Session): Promise<void>
  /** Shows the answer to a request of the session that was sent at `sentAt`, and what it means for the session. */
  noteAnswer(session: Session, status: number, sentAt: number, message?: string | null): void
  end(session: Session): Promise<void>
  /** Ends all sessions and keys of the user. Resolves to true if they have ended. */
  endAll(session: Session): Promise<boolean>
  remove(session: Session): void
  /** Marks the sessions whose time is over as expired. */
  expire(): void
}

const burstSize = 200
/** A redraw after each answer of a burst would keep the browser from sending the other requests. */
const answersPerRedraw = 20
let lastId = 0

export function useSessions({ ttlMs, businessUrl, shownDemoUser }: ConsoleSettings, exchanges: Exchanges): Sessions {
  const [list, setList] = useState<Session[]>([])
  const [burst, setBurst] = useState<Burst | null>(null)
  const dataUrl = urlAt(businessUrl, 'data')
  const ttlSeconds = Math.round(ttlMs / 1000)

  function update(isMeant: (session: Session) => boolean, change: (session: Session) => Partial<Session>): void {
    setList(list => list.map(session => (isMeant(session) ? { ...session, ...change(session) } : session)))
  }
  async function logIn({ username, password }: Credentials): Promise<string | null> {
    const isPublic = shownDemoUser?.password === password
    const { status, body, problem } = await exchanges.send({
      title: `Log in ${username}`,
      method: 'POST',
      url: 'login',
      body: { username, password },
      ...(!isPublic && {
        curlBody: `${shellQuote(`{"username":${JSON.stringify(username)},"password":"`)}"$PASSWORD"'"}'`,
      }),
      flow: 1,
    })
    if (status !== 200) return problem?.detail ?? 'The log-in failed.'
    const session = sessionOf(username, body as NewSession)
    setList(list => [session, ...list])
    announce(`${username} is logged in. The session lives ${ttlSeconds} seconds.`)
    return null
  }

  async function logInAsNewUser(): Promise<string | null> {
    const credentials = randomCredentials()
    const title = `Register ${credentials.username}`
    const { problem } = await exchanges.send({ title, method: 'POST', url: 'users', body: credentials })
    return problem === null ? logIn(credentials) : problem.detail
  }

  async function getData(session: Session): Promise<void> {
    update(only(session), () => ({ isBusy: true }))
    const sentAt = now()
    const { status, body, problem } = await exchanges.send({
      title: 'Get data',
      method: 'GET',
      url: dataUrl,
      token: session.token,
      flow: 3,
    })
    const message = status === 200 ? String((body as { data: unknown }).data) : (problem?.detail ?? null)
    update(only(session), () => ({ isBusy: false }))
    noteAnswer(session, status, sentAt, message)
    if (status === 200) announce(`${message} The session lives ${ttlSeconds} seconds more.`)
    else announce(status === 401 ? `Refused: ${message}` : `Failed: ${message}`)
  }

  function noteAnswer(session: Session, status: number, sentAt: number, message: string | null = null): void {
    update(only(session), current => ({ ...afterAnswer(current, status, sentAt, ttlMs), message }))
  }

  /** Sends all requests at once; the browser chooses the number of connections. */
  async function sendBurst(session: Session): Promise<void> {
    const request: ExchangeRequest = {
      title: `A burst of ${burstSize}`,
      method: 'GET',
      url: dataUrl,
      token: session.token,
    }
    const id = exchanges.begin(request, curlOfBurst(dataUrl, session.token))
    const burst = newBurst()
    let problem: Problem | null = null
    let statusOfAll = 0
    let unshown: number[] = []
    const sentAt = now()
    const startedAt = performance.now()

    function show(isBusy: boolean): void {
      const statuses = unshown
      unshown = []
      setBurst({ ...burst, calls: new Map(burst.calls) })
      update(only(session), current => {
        const next = { ...current, isBusy }
        for (const status of statuses) Object.assign(next, afterAnswer(next, status, sentAt, ttlMs))
        return next
      })
    }

    show(true)
    await Promise.all(
      Array.from({ length: burstSize }, async () => {
        const outcome = await exchanges.sendUnlisted(request)
        const { status, timing } = outcome
        if (timing) burst.calls.set(timing.call, (burst.calls.get(timing.call) ?? 0) + 1)
        if (status === 401) burst.refused++
        else if (status !== 200) burst.failed++
        if (statusOfAll !== 200 && status !== 0) statusOfAll = status
        problem = outcome.problem ?? problem
        unshown.push(status)
        if (++burst.answered % answersPerRedraw === 0) show(true)
      }),
    )
    burst.durationMs = performance.now() - startedAt
    show(false)
    exchanges.finish(id, { durationMs: burst.durationMs, status: statusOfAll, problem })
    announce(summaryOf(burst))
  }

  async function end(session: Session): Promise<void> {
    const request = { title: 'End this session', method: 'POST', url: 'logout', token: session.token }
    const sentAt = performance.now()
    const { status } = await exchanges.send(request)
    if (status === 204) markEnded(only(session), sentAt)
  }

  async function endAll(session: Session): Promise<boolean> {
    const { username, token } = session
    const request = { title: `End all of ${username}`, method: 'DELETE', url: 'sessions', token }
    const sentAt = performance.now()
    const { status } = await exchanges.send(request)
    if (status === 204) markEnded(other => other.username === username, sentAt)
    else update(only(session), current => afterAnswer(current, status, 0, ttlMs))
    return status === 204
  }

  function markEnded(isMeant: (session: Session) => boolean, endedAt: number): void {
    const isEnded = (session: Session) => session.state === 'live' && isMeant(session)
    announce(`${counted(list.filter(isEnded).length, 'session has', 'sessions have')} ended.`)
    update(isEnded, () => ({ state: 'ended', message: null, endedAt }))
  }

  function remove({ id }: Session): void {
    setList(list => list.filter(session => session.id !== id))
  }

  function expire(): void {
    const isExpired = ({ state, expiresAt }: Session) => state === 'live' && isPast(expiresAt)
    const expired = list.filter(isExpired)
    for (const { username } of expired) announce(`A session of ${username} has expired.`)
    if (expired.length > 0) update(isExpired, () => ({ state: 'expired', message: null }))
  }

  return { list, burst, logIn, logInAsNewUser, getData, sendBurst, noteAnswer, end, endAll, remove, expire }
}

const only =
  ({ id }: Session) =>
  (session: Session) =>
    session.id === id

interface NewSession {
  token: string
  expiresAt: number
  absoluteExpiresAt: number
}

function sessionOf(username: string, { token, expiresAt, absoluteExpiresAt }: NewSession): Session {
  return {
    id: ++lastId,
    tokenId: tokenIdOf(token),
    token,
    username,
    expiresAt,
    absoluteExpiresAt,
    slides: 0,
    state: 'live',
    cause: null,
    isBusy: false,
    endedAt: null,
    message: null,
  }
}

function randomCredentials(): Credentials {
  const letters = Array.from(
    crypto.getRandomValues(new Uint8Array(24)),
    byte => 'abcdefghijkmnpqrstuvwxyz23456789'[byte % 32],
  )
  return { username: `${letters.slice(0, 6).join('')}@example.com`, password: letters.slice(6).join('') }
}

function newBurst(): Burst {
  return { requests: burstSize, answered: 0, calls: new Map(), refused: 0, failed: 0, durationMs: null }
}

/** What changes in a session that sent a request at `sentAt` and got `status`. */
function afterAnswer(session: Session, status: number, sentAt: number, ttlMs: number): Partial<Session> {
  if (status === 200) {
    // Auth extended the session after the request was sent, so the session expires no earlier than this.
    const expiresAt = Math.min(Math.max(session.expiresAt, sentAt + ttlMs), session.absoluteExpiresAt)
    return { state: 'live', slides: session.slides + 1, expiresAt }
  }
  if (status !== 401 || session.state === 'refused') return {}
  return { state: 'refused', cause: session.state === 'live' ? null : session.state }
}

export function summaryOf({ requests, calls, refused, failed }: Burst): string {
  if (calls.size === 0) return `${requests} requests: ${refused} refused, ${failed} without an answer.`
  const shared = [...calls.values()].reduce((sum, count) => sum + count, 0)
  const rest = refused + failed > 0 ? ` ${refused} refused, ${failed} without an answer.` : ''
  return `${shared} requests took ${counted(calls.size, 'call')} to Auth: ${(shared / calls.size).toFixed(1)} requests a call.${rest}`
}

/** Where Business serves `path`. It serves this page too if `businessUrl` is empty. */
export function urlAt(businessUrl: string | null, path: string): string {
  return businessUrl === '' ? path : `${businessUrl}/${path}`
}

/** The public name of a token: the part after `lk_`, or the `jti` of a JWT. */
function tokenIdOf(token: string): string {
  if (token.startsWith('lk_')) return token.slice(3, 17)
  try {
    return String(JSON.parse(atob((token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/'))).jti)
  } catch {
    return 'token'
  }
}

/** Opens one connection per request, which no browser does. */
function curlOfBurst(url: string, token: string): string {
  const target = shellQuote(`${new URL(url, document.baseURI).href}?[1-${burstSize}]`)
  const options = `-s -o /dev/null -w '%header{server-timing}\\n' --parallel --parallel-immediate --parallel-max ${burstSize}`
  return `curl ${options} -H ${shellQuote(`Authorization: Bearer ${token}`)} ${target} | sort | uniq -c`
}
