// Sends the requests of the clients and records each with its begin, its end and its outcome. Hides HTTP, the names that users
// and tokens have in a history, and how a response maps to an outcome.
import { Agent, errors } from 'undici'
import { drawSecret } from '../services/auth/tokens/format.ts'
import type { Fault, HistoryHeader, Operation } from './history.ts'
import { historyFormat, outcomeOf } from './history.ts'

export interface User {
  name: string
  username: string
  /** Known after registration. */
  id: string
  /** The user's live tokens, as far as the driver knows; all clients of the user share them. */
  tokens: Token[]
  /** Password number -> text. */
  passwordOf(number: number): string
  /** Passwords that may be valid, the likeliest first. */
  passwords: number[]
  /** Replaced passwords, which must no longer work. */
  formerPasswords: number[]
  nextPassword: number
  /** A change that was answered 503; sending it again completes it. */
  unfinished: { oldPassword: number; newPassword: number } | null
}

export interface Token {
  name: string
  secret: string
  id: string
  user: User | null
  /** The token is not used before this time, so that by then it has nearly expired or just expired. */
  restsUntilMs: number
}

export interface Answer {
  status: number | null
  body: Record<string, unknown>
  beginMs: number
  endMs: number
}

/** An operation whose outcome is not known yet. */
type Asked<O = Operation> = O extends Operation ? Omit<O, AnswerMembers> : never
type AnswerMembers = 'id' | 'beginMs' | 'endMs' | 'outcome' | 'status' | 'error'
/** A request that was not sent because the connection was refused. */
export interface Refusal {
  refusedBy: string
  beginMs: number
}
export type Recorder = ReturnType<typeof createRecorder>

/** The name of a Business, as a listener and in a history. */
export type BusinessName = 'business' | 'business-2'

export interface Request {
  /** The name of a listener. */
  listener: 'auth' | 'authInternal' | BusinessName
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  path: string
  bearer?: string
  body?: unknown
}

const answersWithinMs = 30_000 // longer than any fault: a process that hung still answers afterwards, even on a busy machine

export function createRecorder(addressOf: (listener: string) => string) {
  const startedAtMs = performance.now()
  const startedAt = new Date().toISOString()
  const agent = new Agent({
    connections: 256, // more than there are concurrent requests; otherwise waiting for a connection would count as slow
    pipelining: 1,
    // Less than half of the lame-duck time, so that the client closes unused connections first. A stopping service could
    // close a connection just as the next request is sent.
    keepAliveTimeout: 400,
    keepAliveMaxTimeout: 400,
    headersTimeout: answersWithinMs,
    bodyTimeout: answersWithinMs,
    connect: { timeout: answersWithinMs },
  })
  const operations: Operation[] = []
  const faults: Fault[] = []
  const listeners = new Set<(operation: Operation | Refusal) => void>()
  const userNames = new Map<string, string>()
  const tokenNames = new Map<string, string>()
  const secretNames = new Map<string, string>()
  let unsettled: Operation[] = []
  let nextId = 0

  const nowMs = () => performance.now() - startedAtMs

  /** Resolves to null if the connection was refused, and therefore nothing was requested. */
  async function send({ listener, method, path, bearer, body }: Request): Promise<Answer | null> {
    const origin = addressOf(listener)
    const beginMs = nowMs()
    const headers = {
      ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
    }
    try {
      const content = body === undefined ? null : JSON.stringify(body)
      const answer = await agent.request({ origin, path, method, headers, body: content })
      const text = await answer.body.text()
      return { status: answer.statusCode, body: text === '' ? {} : JSON.parse(text), beginMs, endMs: nowMs() }
    } catch (error) {
      const { code } = error as { code?: string }
      if (code === 'ECONNREFUSED' || error instanceof errors.ConnectTimeoutError) {
        for (const onOperation of listeners) onOperation({ refusedBy: listener, beginMs })
        return null
      }
      return { status: null, body: { error: null }, beginMs, endMs: nowMs() }
    }
  }

  /** Pass `outcome` if the status alone does not determine it. */
  function record(asked: Asked, { status, body, beginMs, endMs }: Answer, outcome = outcomeOf(status)): void {
    const error = outcome === 'ok' ? null : typeof body['error'] === 'string' ? body['error'] : null
    const operation = { ...asked, id: nextId++, beginMs, endMs, outcome, status, error } as Operation
    operations.push(operation)
    if (outcome === 'unknown') unsettled.push(operation)
    for (const onOperation of listeners) onOperation(operation)
  }

  return {
    nowMs,
    send,
    record,
    operations,
    faults,

    /** Operations that ended by `endedMs` without an outcome have taken effect by `settledMs`, or never will. */
    settle(endedMs: number, settledMs: number): void {
      for (const operation of unsettled) if (operation.endMs <= endedMs) operation.settledMs = settledMs
      unsettled = unsettled.filter(operation => operation.endMs > endedMs)
    },

    recordFault(fault: Omit<Fault, 'id' | 'op'>): Fault {
      const whole: Fault = { id: nextId++, op: 'fault', ...fault }
      faults.push(whole)
      return whole
    },

    /** Calls `onOperation` for every operation, until the returned function is called. */
    listen(onOperation: (operation: Operation | Refusal) => void): () => void {
      listeners.add(onOperation)
      return () => void listeners.delete(onOperation)
    },

    nameUser(username: string): string {
      const name = `u${userNames.size}`
      userNames.set(username, name)
      return name
    },

    /** The user shown in a response, by their name in the history. */
    seenUser(username: unknown): string | null {
      return username === null
        ? null
        : (userNames.get(String(username)) ?? `unknown user: ${String(username).slice(0, 40)}`)
    },

    /** The same secret always has the same name. The id of a renewed session has several names. */
    nameToken(secret: string, user: User | null): Token {
      const name = secretNames.get(secret) ?? `t${secretNames.size}`
      const id = secret.slice(3, 17)
      secretNames.set(secret, name)
      tokenNames.set(id, name)
      return { name, secret, id, user, restsUntilMs: 0 }
    },

    /** A secret that was never issued, but looks like the secret of an existing token. */
    inventToken({ id }: Token): Token {
      const name = `t${secretNames.size}`
      const secret = drawSecret(id)
      secretNames.set(secret, name)
      return { name, secret, id, user: null, restsUntilMs: 0 }
    },

    seenToken: (id: unknown): string => tokenNames.get(String(id)) ?? 'unknown',

    lines(header: Omit<HistoryHeader, 'format' | 'version' | 'startedAt'>): string[] {
      const first: HistoryHeader = { format: historyFormat, version: 1, ...header, startedAt }
      return [first, ...operations, ...faults].map(line => JSON.stringify(line))
    },

    close: () => agent.destroy(),
  }
}
