// The sessions of this page, in its memory only: log in, get data, burst, end. Knows what a press means, not how it looks.
import { isPast, now } from './clock.ts'
import { quoted } from './exchanges.js'
import { announce, counted } from './ui.js'

/** @typedef {import('./exchanges.js').Exchange} Exchange */

/**
 * @typedef {object} Settings As `console/settings.json` has them.
 * @property {string | null} businessUrl '' where Business is where this page is; null where nobody has said.
 * @property {string} publicUrl
 * @property {{ username: string, password: string } | null} shownDemoUser
 * @property {boolean} isRegistrationSimple
 * @property {boolean} hasApiDocs
 * @property {number} ttlMs
 * @property {number} now
 */

/**
 * @typedef {object} Session
 * @property {number} id
 * @property {string} tokenId
 * @property {string} token
 * @property {string} username
 * @property {number} expiresAt
 * @property {number} absoluteExpiresAt
 * @property {number} slides How often it was extended from here.
 * @property {'live' | 'expired' | 'ended' | 'refused'} state
 * @property {'expired' | 'ended' | null} cause Of a refusal, as far as this page knows.
 * @property {boolean} isBusy
 * @property {string | null} said What the last answer was, in words.
 */

/**
 * @typedef {object} Burst
 * @property {number} requests
 * @property {number} answered
 * @property {Map<string, number>} calls Call -> requests of this burst that shared it.
 * @property {number} refused
 * @property {number} failed
 * @property {number} durationMs
 * @property {boolean} isDone
 */

const burstSize = 200

/**
 * @param {object} options
 * @param {Settings} options.settings
 * @param {ReturnType<typeof import('./exchanges.js').createExchanges>} options.exchanges
 * @param {() => void} options.onChange
 */
export function createSessions({ settings, exchanges, onChange }) {
  const { ttlMs, businessUrl } = settings
  const dataUrl = businessUrl === '' ? 'data' : `${businessUrl}/data`
  const state = {
    /** @type {Session[]} */
    sessions: [],
    /** @type {Burst | null} */
    burst: null,
    /** @type {Exchange | null} The last one that is part of the picture. */
    shown: null,
    /** @type {string | null} Of the last log-in. */
    problem: null,
    isLoggingIn: false,
  }
  let count = 0

  /** @param {import('./exchanges.js').Asked} asked */
  function send(asked) {
    const sending = exchanges.send(asked)
    if (asked.flow) state.shown = exchanges.list[0] ?? null
    return sending
  }

  /** @param {{ username: string, password: string }} credentials */
  async function logIn({ username, password }) {
    state.isLoggingIn = true
    state.problem = null
    onChange()
    const isPublic = settings.shownDemoUser?.password === password
    const { status, body, problem } = await send({
      title: `Log in ${username}`,
      method: 'POST',
      url: 'login',
      body: { username, password },
      ...(!isPublic && {
        curlBody: `${quoted(`{"username":${JSON.stringify(username)},"password":"`)}"$PASSWORD"'"}'`,
      }),
      flow: 1,
    })
    state.isLoggingIn = false
    if (status === 200) {
      const { token, expiresAt, absoluteExpiresAt } =
        /** @type {{ token: string, expiresAt: number, absoluteExpiresAt: number }} */ (body)
      state.sessions.unshift({
        id: ++count,
        tokenId: tokenIdOf(token),
        token,
        username,
        expiresAt,
        absoluteExpiresAt,
        slides: 0,
        state: 'live',
        cause: null,
        isBusy: false,
        said: null,
      })
      announce(`${username} is logged in. The session lives ${Math.round(ttlMs / 1000)} seconds.`)
    } else {
      state.problem = problem?.detail ?? 'It did not work.'
    }
    onChange()
    return status === 200
  }

  /** A name and a password that nobody has to invent. */
  async function logInAsSomebodyNew() {
    const letters = Array.from(
      crypto.getRandomValues(new Uint8Array(24)),
      byte => 'abcdefghijkmnpqrstuvwxyz23456789'[byte % 32],
    )
    const credentials = {
      username: `${letters.slice(0, 6).join('')}@example.com`,
      password: letters.slice(6).join(''),
    }
    const { problem } = await send({
      title: `Register ${credentials.username}`,
      method: 'POST',
      url: 'users',
      body: credentials,
    })
    if (problem === null) return logIn(credentials)
    state.problem = problem.detail
    onChange()
    return false
  }

  /** @param {Session} session */
  async function getData(session) {
    session.isBusy = true
    const askedAt = now()
    const { status, body, problem } = await send({
      title: 'Get data',
      method: 'GET',
      url: dataUrl,
      token: session.token,
      flow: 3,
    })
    session.isBusy = false
    hearAnswer(session, status, askedAt)
    if (status === 200) {
      session.said = String(/** @type {{ data: unknown }} */ (body).data)
      announce(`${session.said} The session lives ${Math.round(ttlMs / 1000)} seconds more.`)
    } else {
      session.said = problem?.detail ?? null
      announce(status === 401 ? `Refused: ${session.said}` : `It did not work: ${session.said}`)
    }
    onChange()
  }

  /** @param {Session} session @param {number} status @param {number} askedAt */
  function hearAnswer(session, status, askedAt) {
    if (status === 200) {
      session.slides++
      session.state = 'live'
      // Not from the answer: from when it was asked it lives as long at least.
      session.expiresAt = Math.min(Math.max(session.expiresAt, askedAt + ttlMs), session.absoluteExpiresAt)
    } else if (status === 401 && session.state !== 'refused') {
      session.cause = session.state === 'live' ? null : session.state
      session.state = 'refused'
    }
  }

  /** All at once; how many connections they have is for the browser to say. @param {Session} session */
  async function sendBurst(session) {
    session.isBusy = true
    /** @type {Burst} */
    const burst = {
      requests: burstSize,
      answered: 0,
      calls: new Map(),
      refused: 0,
      failed: 0,
      durationMs: 0,
      isDone: false,
    }
    state.burst = burst
    const url = dataUrl
    const asked = { title: `A burst of ${burstSize}`, method: 'GET', url, token: session.token }
    /** @type {Exchange} */
    const whole = {
      id: exchanges.draw(),
      asked,
      at: new Date(),
      durationMs: null,
      status: 0,
      body: null,
      problem: null,
      timing: null,
      curl: curlOfBurst(url, session.token),
    }
    exchanges.keep(whole)
    onChange()
    const askedAt = now()
    const startedAt = performance.now()
    await Promise.all(
      Array.from({ length: burstSize }, async () => {
        const { status, timing, problem } = await exchanges.send(asked, { isKept: false })
        burst.answered++
        if (timing) burst.calls.set(timing.call, (burst.calls.get(timing.call) ?? 0) + 1)
        if (status === 401) burst.refused++
        else if (status !== 200) burst.failed++
        if (whole.status !== 200 && status !== 0) whole.status = status
        whole.problem = problem ?? whole.problem
        hearAnswer(session, status, askedAt)
      }),
    )
    burst.durationMs = performance.now() - startedAt
    burst.isDone = true
    whole.durationMs = burst.durationMs
    session.isBusy = false
    announce(saidOfBurst(burst))
    onChange()
  }

  /** @param {Session} session */
  async function end(session) {
    const { status } = await send({ title: 'End this session', method: 'POST', url: 'logout', token: session.token })
    if (status === 204) markEnded([session])
  }

  /** @param {Session} session Every one of its user. */
  async function endAll(session) {
    const { status } = await send({
      title: `End all of ${session.username}`,
      method: 'DELETE',
      url: 'sessions',
      token: session.token,
    })
    if (status === 204) markEnded(state.sessions.filter(({ username }) => username === session.username))
    else if (status === 401) {
      hearAnswer(session, 401, 0)
      onChange()
    }
  }

  /** @param {Session[]} sessions */
  function markEnded(sessions) {
    for (const session of sessions.filter(({ state }) => state === 'live')) {
      session.state = 'ended'
      session.said = null
    }
    announce(`${counted(sessions.length, 'session has', 'sessions have')} ended.`)
    onChange()
  }

  /** @param {Session} session */
  function forget(session) {
    state.sessions = state.sessions.filter(other => other !== session)
    onChange()
  }

  /** Those whose time is over are dead, whether anybody asks or not. */
  function tick() {
    if (!state.sessions.some(({ state }) => state === 'live')) return
    for (const session of state.sessions) {
      if (session.state !== 'live' || !isPast(session.expiresAt)) continue
      session.state = 'expired'
      session.said = null
      announce(`A session of ${session.username} has expired.`)
    }
    onChange()
  }

  return { state, logIn, logInAsSomebodyNew, getData, sendBurst, end, endAll, forget, tick }
}

/** @param {Burst} burst */
export function saidOfBurst({ requests, calls, refused, failed }) {
  if (calls.size === 0) return `${requests} requests: ${refused} refused, ${failed} without an answer.`
  const shared = [...calls.values()].reduce((sum, count) => sum + count, 0)
  const rest = refused + failed > 0 ? ` ${refused} refused, ${failed} without an answer.` : ''
  return `${shared} requests took ${counted(calls.size, 'call')} to Auth: ${(shared / calls.size).toFixed(1)} requests a call.${rest}`
}

/**
 * The public name of a token: what stands behind `lk_`, or the `jti` of a JWT.
 * @param {string} token
 */
export function tokenIdOf(token) {
  if (token.startsWith('lk_')) return token.slice(3, 17)
  try {
    return String(JSON.parse(atob((token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/'))).jti)
  } catch {
    return 'token'
  }
}

/** With as many connections as requests, which no browser opens. @param {string} url @param {string} token */
function curlOfBurst(url, token) {
  const target = quoted(`${new URL(url, document.baseURI).href}?[1-${burstSize}]`)
  const options = `-s -o /dev/null -w '%header{server-timing}\\n' --parallel --parallel-immediate --parallel-max ${burstSize}`
  return `curl ${options} -H ${quoted(`Authorization: Bearer ${token}`)} ${target} | sort | uniq -c`
}
