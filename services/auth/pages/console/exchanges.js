// What the page sends, and what became of it: timed, kept in memory, and as a curl command that does the same. Hides fetch.
const kept = 60

/**
 * @typedef {object} Asked
 * @property {string} title What it is for, in words.
 * @property {string} method
 * @property {string} url
 * @property {string} [token] A user's, as a bearer.
 * @property {string} [key] An operator's; never in a curl command.
 * @property {unknown} [body] JSON.
 * @property {string} [curlBody] What a curl command has instead: a password is nothing to paste.
 * @property {1 | 3 | null} [flow] The step at which it enters the picture; null where it is no part of it.
 */

/**
 * @typedef {object} Timing As Business says in Server-Timing.
 * @property {number} authMs How long Auth took.
 * @property {string} call
 * @property {number} shared How many requests had this call in common.
 */

/**
 * @typedef {object} Exchange
 * @property {number} id
 * @property {Asked} asked
 * @property {Date} at
 * @property {number | null} durationMs Null while it is under way.
 * @property {number} status 0: no answer.
 * @property {unknown} body
 * @property {Problem | null} problem
 * @property {Timing | null} timing
 * @property {string} curl
 */

/** @typedef {{ title: string, status: number, detail: string, error: string, requestId: string }} Problem */

/** @param {{ onChange: () => void, whyNoAnswer: (url: string) => string }} options */
export function createExchanges({ onChange, whyNoAnswer }) {
  /** @type {Exchange[]} The newest first. */
  const list = []
  let count = 0

  /** @param {Exchange} exchange */
  function keep(exchange) {
    list.unshift(exchange)
    list.length = Math.min(list.length, kept)
    onChange()
  }

  /**
   * @param {Asked} asked
   * @param {{ isKept?: boolean }} [options]
   * @returns {Promise<Exchange>} Never rejects: no answer is an answer here.
   */
  async function send(asked, { isKept = true } = {}) {
    /** @type {Exchange} */
    const exchange = {
      id: ++count,
      asked,
      at: new Date(),
      durationMs: null,
      status: 0,
      body: null,
      problem: null,
      timing: null,
      curl: curlOf(asked),
    }
    if (isKept) keep(exchange)
    const startedAt = performance.now()
    try {
      const answer = await fetch(asked.url, requestOf(asked))
      const text = await answer.text()
      exchange.durationMs = performance.now() - startedAt
      exchange.status = answer.status
      exchange.body = parsed(text)
      exchange.timing = readTiming(answer.headers.get('Server-Timing'))
      if (!answer.ok) exchange.problem = problemOf(answer, exchange.body)
    } catch {
      exchange.durationMs = performance.now() - startedAt
      const detail = whyNoAnswer(asked.url)
      exchange.problem = { title: 'No answer', status: 0, detail, error: 'no_answer', requestId: '–' }
    }
    if (isKept) onChange() // of a burst each would draw the page again, and keep the browser from sending
    return exchange
  }

  return { list, send, keep, draw: () => ++count }
}

/** @param {string | null} header @returns {Timing | null} */
export function readTiming(header) {
  const [, dur, call = '', shared] = /\bauth;dur=([\d.]+);desc="call (\w+) shared by (\d+)"/.exec(header ?? '') ?? []
  return dur === undefined ? null : { authMs: Number(dur), call, shared: Number(shared) }
}

/** @param {Asked} asked @returns {RequestInit} */
function requestOf({ method, token, key, body }) {
  const bearer = token ?? key
  return {
    method,
    headers: {
      ...(bearer !== undefined && { Authorization: `Bearer ${bearer}` }),
      ...(body !== undefined && { 'Content-Type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
    cache: 'no-store',
    credentials: 'omit',
    referrerPolicy: 'no-referrer',
  }
}

/** @param {Asked} asked */
export function curlOf({ method, url, token, key, body, curlBody }) {
  const parts = ['curl -i']
  if (method !== 'GET' && (method !== 'POST' || body === undefined)) parts.push(`-X ${method}`)
  parts.push(quoted(new URL(url, document.baseURI).href))
  if (token !== undefined) parts.push(`-H ${quoted(`Authorization: Bearer ${token}`)}`)
  if (key !== undefined) parts.push('-H "Authorization: Bearer $ADMIN_KEY"')
  if (body !== undefined) {
    parts.push("-H 'content-type: application/json'", `-d ${curlBody ?? quoted(JSON.stringify(body))}`)
  }
  return parts.join(' ')
}

/** @param {string} text For a shell. */
export function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return text === '' ? null : text
  }
}

/** @param {Response} answer @param {unknown} body @returns {Problem} */
function problemOf(answer, body) {
  if (/^application\/problem\+json/.test(answer.headers.get('Content-Type') ?? '')) return /** @type {Problem} */ (body)
  const { status, statusText } = answer
  return { title: statusText || 'An error', status, detail: `Answered ${status}.`, error: 'unknown', requestId: '–' }
}
