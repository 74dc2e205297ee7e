// The requests that the page sends and their outcomes: timed, kept in memory, and written as curl commands. Hides fetch.
import { useState } from 'preact/hooks'

const maxKept = 60

export interface ExchangeRequest {
  /** What the request is for, in words. */
  title: string
  method: string
  url: string
  /** A user's token, sent as a bearer. */
  token?: string
  /** An operator's key, sent as a bearer. It never appears in a curl command. */
  key?: string
  /** Sent as JSON. */
  body?: unknown
  /** Replaces the body in the curl command, where a password must not appear. */
  curlBody?: string
  /** The step at which the request enters the picture of the six steps, if it belongs there. */
  flow?: 1 | 3
}

/** From the Server-Timing header of Business. */
export interface Timing {
  /** How long Auth took. */
  authMs: number
  /** The id of the call to Auth. */
  call: string
  /** How many requests shared that call. */
  shared: number
}

export interface Problem {
  title: string
  status: number
  detail: string
  error: string
  requestId: string
}

export interface Outcome {
  /** Null while there is no outcome yet. */
  durationMs: number | null
  /** 0 if there was no answer. */
  status: number
  body: unknown
  problem: Problem | null
  timing: Timing | null
}

export interface Exchange extends Outcome {
  id: number
  request: ExchangeRequest
  curl: string
}

export interface Exchanges {
  /** The newest first. */
  list: Exchange[]
  /** Never rejects: an outcome with status 0 means that there was no answer. */
  send(request: ExchangeRequest): Promise<Outcome>
  /** Like `send`, but the request does not appear in the list. */
  sendUnlisted(request: ExchangeRequest): Promise<Outcome>
  /** Like `send`, but passes the text of a good answer to `onText` as it arrives, until it ends or `signal` is aborted. */
  stream(request: ExchangeRequest, signal: AbortSignal, onText: (text: string) => void): Promise<Outcome>
  /** Adds an exchange to the list, which the caller must `finish`. Returns its id. */
  begin(request: ExchangeRequest, curl?: string): number
  finish(id: number, outcome: Partial<Outcome>): void
}

const pending: Outcome = { durationMs: null, status: 0, body: null, problem: null, timing: null }
let lastId = 0

/** `explainNoAnswer` returns the detail of the problem if there is no answer from `url`. */
export function useExchanges(explainNoAnswer: (url: string) => string): Exchanges {
  const [list, setList] = useState<Exchange[]>([])

  function begin(request: ExchangeRequest, curl = curlOf(request)): number {
    const id = ++lastId
    setList(list => [{ ...pending, id, request, curl }, ...list].slice(0, maxKept))
    return id
  }

  function finish(id: number, outcome: Partial<Outcome>): void {
    setList(list => list.map(exchange => (exchange.id === id ? { ...exchange, ...outcome } : exchange)))
  }

  async function send(request: ExchangeRequest): Promise<Outcome> {
    const id = begin(request)
    const outcome = await sendUnlisted(request)
    finish(id, outcome)
    return outcome
  }

  async function sendUnlisted(request: ExchangeRequest): Promise<Outcome> {
    const startedAt = performance.now()
    try {
      return await outcomeOf(await fetch(request.url, fetchOptionsOf(request)), startedAt)
    } catch {
      return noAnswer(request, startedAt)
    }
  }

  function noAnswer({ url }: ExchangeRequest, startedAt: number): Outcome {
    const detail = explainNoAnswer(url)
    const problem = { title: 'No answer', status: 0, detail, error: 'no_answer', requestId: '–' }
    return { ...pending, durationMs: performance.now() - startedAt, problem }
  }

  async function stream(request: ExchangeRequest, signal: AbortSignal, onText: (text: string) => void) {
    const id = begin(request)
    const startedAt = performance.now()
    let outcome: Outcome
    try {
      const answer = await fetch(request.url, { ...fetchOptionsOf(request), signal })
      if (answer.ok && answer.body !== null) {
        outcome = { ...pending, status: answer.status, timing: readTiming(answer.headers.get('Server-Timing')) }
        finish(id, outcome)
        await readText(answer.body, onText).catch(() => {}) // the connection broke, or was aborted
        outcome.durationMs = performance.now() - startedAt
      } else outcome = await outcomeOf(answer, startedAt)
    } catch {
      outcome = noAnswer(request, startedAt)
    }
    finish(id, outcome)
    return outcome
  }

  return { list, send, sendUnlisted, stream, begin, finish }
}

async function outcomeOf(answer: Response, startedAt: number): Promise<Outcome> {
  const body = parse(await answer.text())
  return {
    durationMs: performance.now() - startedAt,
    status: answer.status,
    body,
    problem: answer.ok ? null : problemOf(answer, body),
    timing: readTiming(answer.headers.get('Server-Timing')),
  }
}

async function readText(body: ReadableStream<Uint8Array>, onText: (text: string) => void): Promise<void> {
  const decoder = new TextDecoder()
  const reader = body.getReader()
  for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
    onText(decoder.decode(chunk.value, { stream: true }))
  }
}

function readTiming(header: string | null): Timing | null {
  const [, dur, call = '', shared] = /\bauth;dur=([\d.]+);desc="call (\w+) shared by (\d+)"/.exec(header ?? '') ?? []
  return dur === undefined ? null : { authMs: Number(dur), call, shared: Number(shared) }
}

function fetchOptionsOf({ method, token, key, body }: ExchangeRequest): RequestInit {
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

function curlOf({ method, url, token, key, body, curlBody }: ExchangeRequest): string {
  const parts = ['curl -i']
  if (method !== 'GET' && (method !== 'POST' || body === undefined)) parts.push(`-X ${method}`)
  parts.push(shellQuote(new URL(url, document.baseURI).href))
  if (token !== undefined) parts.push(`-H ${shellQuote(`Authorization: Bearer ${token}`)}`)
  if (key !== undefined) parts.push('-H "Authorization: Bearer $ADMIN_KEY"')
  if (body !== undefined) {
    parts.push("-H 'content-type: application/json'", `-d ${curlBody ?? shellQuote(JSON.stringify(body))}`)
  }
  return parts.join(' ')
}

export function shellQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text === '' ? null : text
  }
}

function problemOf({ status, statusText, headers }: Response, body: unknown): Problem {
  if (/^application\/problem\+json/.test(headers.get('Content-Type') ?? '')) return body as Problem
  return { title: statusText || 'Error', status, detail: `Answered ${status}.`, error: 'unknown', requestId: '–' }
}
