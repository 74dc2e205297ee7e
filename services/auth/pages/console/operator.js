// The page of /console on the internal listener, put together. It asks for the admin key, and keeps it in memory only.
import { setClock } from './clock.ts'
import { openEvents } from './eventStream.js'
import { createExchanges } from './exchanges.js'
import { exchangeList } from './exchangeView.js'
import { createFigures } from './figures.js'
import { charts, eventLog, issuePanel, keyPanel, streamLine, tokenTable } from './operatorView.js'
import { createTokens } from './tokens.js'
import { announce, counted, html, openScreen, prefersStillness } from './ui.js'
import { createUserFilter } from './userFilter.js'

const mostNamesAtOnce = 5
const mostUnknown = 100

const state = {
  /** @type {string | null} */
  key: null,
  /** @type {string | null} Why the key was not taken. */
  problem: null,
  /** @type {import('./eventStream.js').StreamState} */
  stream: { name: 'connecting' },
  /** @type {{ id: number, tokenId: string, token: string, kind: string } | null} */
  issued: null,
  /** @type {string | null} */
  issueProblem: null,
}
const draw = openScreen(page)
const exchanges = createExchanges({ onChange: draw, whyNoAnswer: () => 'Nothing was heard from Auth.' })
let tokens = createTokens({ onUnknownUser: learnSoon, onChange: draw })
let figures = createFigures()
const userFilter = createUserFilter({ learn: learnUser, onChange: draw })
let endStream = () => {}
/** @type {Set<string>} Users whose name is not known yet. */
const unknown = new Set()
/** @type {Set<string>} One who has no token any more stays an id. */
const askedFor = new Set()

/** @param {string} method @param {string} url @param {string} title @param {unknown} [body] @param {string} [curlBody] */
function send(method, url, title, body, curlBody) {
  return exchanges.send({
    title,
    method,
    url,
    key: state.key ?? '',
    ...(body !== undefined && { body }),
    ...(curlBody !== undefined && { curlBody }),
  })
}

/** @param {string} key */
function connect(key) {
  Object.assign(state, { key, problem: null, issued: null, issueProblem: null })
  tokens = createTokens({ onUnknownUser: learnSoon, onChange: draw })
  figures = createFigures()
  askedFor.clear()
  unknown.clear()
  endStream = openEvents({
    key,
    onEvent: event => tokens.hear(event),
    onState(stream) {
      if (stream.name === 'refused') {
        leave()
        state.problem = stream.why ?? null
        draw()
        return
      }
      if (stream.name !== state.stream.name && stream.name !== 'connecting') announce(`Events: ${stream.name}.`)
      state.stream = stream
      if (stream.name === 'live') void learnAll().then(userFilter.ask)
      draw()
    },
  })
  draw()
}

function leave() {
  endStream()
  state.key = null
  state.issued = null
  exchanges.list.length = 0
  draw()
}

/** What there is, and what time it is there: whatever happened while nobody listened. */
async function learnAll() {
  const startedAt = performance.now()
  const answer = await fetch('console/settings.json', { cache: 'no-store' }).catch(() => null)
  if (answer?.ok) setClock((await answer.json()).now, startedAt)
  const askedAt = performance.now()
  const page = await listTokens('limit=200')
  if (page) tokens.state.isWhole = page.next === null
  if (page?.next === null) tokens.learnAll(page.tokens, askedAt)
  else for (const token of page?.tokens ?? []) tokens.learn(token, askedAt)
  draw()
}

/** @param {string} query @returns {Promise<{ tokens: object[], next: string | null } | null>} */
function listTokens(query) {
  return look(`tokens?${query}`)
}

/** What nobody pressed a button for, and is not shown as sent. @param {string} url @returns {Promise<any>} Null: no answer. */
async function look(url) {
  if (state.key === null) return null
  const asked = { title: 'Look', method: 'GET', url, key: state.key }
  const { body, status } = await exchanges.send(asked, { isKept: false })
  return status === 200 ? body : null
}

/** @param {string} text His whole name or his id. @returns {Promise<string | null | undefined>} As `createUserFilter` has it. */
async function learnUser(text) {
  const found = await look(`admin/users?username=${encodeURIComponent(text)}`)
  if (found === null) return undefined
  const userId = /** @type {{ users: { id: string }[] }} */ (found).users[0]?.id
  const askedAt = performance.now()
  const page = await listTokens(`userId=${encodeURIComponent(userId ?? text)}`)
  if (page === null) return undefined
  tokens.learnAll(page.tokens, askedAt, userId ?? text)
  announce(`${counted(page.tokens.length, 'token')} of ${text}.`)
  return userId ?? (page.tokens.length > 0 ? text : null)
}

/**
 * An event has a user's id; the list of his tokens has his name. A few at a time: each look is in the log of Auth.
 * @param {string} userId
 */
function learnSoon(userId) {
  if (askedFor.has(userId) || unknown.size >= mostUnknown) return
  askedFor.add(userId)
  unknown.add(userId)
  if (unknown.size === 1) setTimeout(learnSome, 300)
}

async function learnSome() {
  for (const userId of [...unknown].slice(0, mostNamesAtOnce)) {
    unknown.delete(userId)
    const askedAt = performance.now()
    const page = await listTokens(`userId=${encodeURIComponent(userId)}`)
    for (const token of page?.tokens ?? []) tokens.learn(token, askedAt)
  }
  draw()
  if (unknown.size > 0) setTimeout(learnSome, 1000)
}

/** @type {import('./operatorView.js').Actions} */
const actions = {
  filter: userFilter.type,

  async sweep() {
    const { status, body } = await send('DELETE', 'tokens/expired', 'Sweep now')
    if (status === 200)
      announce(`${counted(Number(/** @type {{ removed: number }} */ (body).removed), 'token')} removed.`)
  },

  /** @param {string} id */
  async endToken(id) {
    const { status } = await send('DELETE', `tokens/${id}`, 'End a token')
    announce(status === 204 ? 'The token has ended.' : 'It did not work.')
  },

  /** @param {string} id @param {string} name */
  async endUser(id, name) {
    const { status } = await send('DELETE', `admin/users/${encodeURIComponent(id)}/sessions`, `End all of ${name}`)
    announce(status === 204 ? `Every token of ${name} has ended.` : 'It did not work.')
  },

  /** @param {{ kind: string, ttlSeconds: number, username: string }} terms */
  async issue({ kind, ttlSeconds, username }) {
    state.issued = null
    const userId = username === '' ? null : await findUser(username)
    state.issueProblem = userId === undefined ? 'There is no such user.' : null
    if (userId !== undefined) {
      const body = { kind, ttlSeconds, ...(userId !== null && { userId }) }
      const answer = await send('POST', 'tokens', `Issue a ${kind} token`, body)
      state.issueProblem = answer.problem?.detail ?? null
      if (answer.status === 201) {
        const { token, tokenId } = /** @type {{ token: string, tokenId: string }} */ (answer.body)
        state.issued = { id: answer.id, tokenId, token, kind }
        announce('Issued.')
      }
    }
    draw()
  },

  /** @param {string} token */
  async validate(token) {
    const { body, problem } = await send('POST', 'validateToken', 'Validate a token', { token })
    const isAdmitted = /** @type {{ authenticated?: boolean } | null} */ (body)?.authenticated
    announce(problem?.detail ?? (isAdmitted ? 'It is admitted.' : 'It is refused.'))
  },
}

/** Undefined where there is none of this name. @param {string} username @returns {Promise<string | undefined>} */
async function findUser(username) {
  const { body, status } = await send('GET', `admin/users?username=${encodeURIComponent(username)}`, `Find ${username}`)
  return status === 200 ? /** @type {{ users: { id: string }[] }} */ (body).users[0]?.id : undefined
}

let isReading = false
setInterval(async () => {
  if (state.key === null || isReading) return
  isReading = true
  try {
    const answer = await fetch('metrics', { cache: 'no-store' })
    if (answer.ok) figures.hear(await answer.text(), performance.now())
  } catch {
    // The stream says so.
  }
  isReading = false
  draw()
}, 1000)
let tickedAt = 0
setInterval(() => {
  if (state.key === null || (prefersStillness.matches && performance.now() - tickedAt < 990)) return
  tickedAt = performance.now()
  tokens.tick(userFilter.filter)
  draw()
}, 250)

function page() {
  const { key, problem, stream, issued, issueProblem } = state
  return html`
    <a class="skip" href="#main">Skip to the tokens</a>
    <header class="top">
      <img src="console/icon.svg" alt="" width="32" height="32" />
      <div>
        <h1>Latchkey, the operator’s view</h1>
        <p>What Auth knows of its tokens, as it happens. Ids only: no secret is ever shown twice.</p>
      </div>
      <nav aria-label="Documents"><a href="docs">API</a></nav>
    </header>
    <main id="main" tabindex="-1">
      ${
        key === null
          ? keyPanel({ problem, connect })
          : html`
              ${streamLine({ stream, dropped: tokens.state.dropped, leave })}
              ${charts(figures.samples)}
              <div class="columns operator">
                <div class="aside">${issuePanel({ issued, problem: issueProblem, actions, draw })}</div>
                <div class="wide">
                  ${tokenTable({ tokens, filter: userFilter.filter, actions })}
                  ${eventLog({ tokens })}
                  ${exchangeList({ list: exchanges.list, draw })}
                </div>
              </div>
            `
      }
    </main>
  `
}
