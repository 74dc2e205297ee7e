// Sends the requests of the clients and records each with its begin, its end and its outcome. Hides HTTP, the numbers that
// users and tokens have in a history, and which answers say what.
import { Agent, errors } from 'undici'
import { drawSecret } from '../services/auth/tokens/format.ts'
import type { Fault, HistoryHeader, Operation } from './history.ts'
import { historyFormat, outcomeOf } from './history.ts'

export interface User {
  name: string
  username: string
  /** Known once it is registered. */
  id: string
  /** Live ones, as far as is known, of all clients that use it. */
  tokens: Token[]
  /** The text of a password by its number. */
  passwordOf(number: number): string
  /** What may be the password, the likeliest first. */
  passwords: number[]
  /** Passwords that were given up and must not open it any more. */
  formerPasswords: number[]
  nextPassword: number
  /** A change that was answered 503: the same request completes it. */
  unfinished: { oldPassword: number; newPassword: number } | null
}

export interface Token {
  name: string
  secret: string
  id: string
  user: User | null
  /** Left alone until then, so that it dies or nearly does. */
  restsUntilMs: number
}

export interface Answer {
  status: number | null
  body: Record<string, unknown>
  beginMs: number
  endMs: number
}

/** An operation before its outcome is known. */
type Asked<O = Operation> = O extends Operation ? Omit<O, AnswerMembers> : never
type AnswerMembers = 'id' | 'beginMs' | 'endMs' | 'outcome' | 'status' | 'error'
/** A request that could not be sent: nobody listened. */
export interface Refusal {
  refusedBy: string
  beginMs: number
}
export type Recorder = ReturnType<typeof createRecorder>

export interface Request {
  /** A listener's name. */
  listener: 'auth' | 'authInternal' | 'business'
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  path: string
  bearer?: string
  body?: unknown
}

const answersWithinMs = 30_000 // more than any fault lasts: who is hung answers in the end, on a busy machine too

export function createRecorder(addressOf: (listener: string) => string) {
  const startedAtMs = performance.now()
  const startedAt = new Date().toISOString()
  const agent = new Agent({
    connections: 256, // more than there are requests at a time, or what waits for one would count as slow
    pipelining: 1,
    // Less than half of a lame duck: a connection that is not used meanwhile is closed here, and not by a service that
    // stops in the moment in which the next request is sent.
    keepAliveTimeout: 400,
    keepAliveMaxTimeout: 400,
    headersTimeout: answersWithinMs,
    bodyTimeout: answersWithinMs,
    connect: { timeout: answersWithinMs },
  })
  const operations: Operation[] = []
  const faults: Fault[] = []
  const hearers = new Set<(operation: Operation | Refusal) => void>()
  const userNames = new Map<string, string>()
  const tokenNames = new Map<string, string>()
  const secretNames = new Map<string, string>()
  let unsettled: Operation[] = []
  let nextId = 0

  const nowMs = () => performance.now() - startedAtMs

  /** Null where no connection was had: nothing was asked then. */
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
        for (const hear of hearers) hear({ refusedBy: listener, beginMs })
        return null
      }
      return { status: null, body: { error: null }, beginMs, endMs: nowMs() }
    }
  }

  /** `outcome` where the status alone does not say it. */
  function record(asked: Asked, { status, body, beginMs, endMs }: Answer, outcome = outcomeOf(status)): void {
    const error = outcome === 'ok' ? null : typeof body['error'] === 'string' ? body['error'] : null
    const operation = { ...asked, id: nextId++, beginMs, endMs, outcome, status, error } as Operation
    operations.push(operation)
    if (outcome === 'unknown') unsettled.push(operation)
    for (const hear of hearers) hear(operation)
  }

  return {
    nowMs,
    send,
    record,
    operations,
    faults,

    /** What was answered 5xx, or not at all, up to `endedMs` has taken effect by `settledMs`, or never will. */
    settle(endedMs: number, settledMs: number): void {
      for (const operation of unsettled) if (operation.endMs <= endedMs) operation.settledMs = settledMs
      unsettled = unsettled.filter(operation => operation.endMs > endedMs)
    },

    recordFault(fault: Omit<Fault, 'id' | 'op'>): Fault {
      const whole: Fault = { id: nextId++, op: 'fault', ...fault }
      faults.push(whole)
      return whole
    },

    /** Calls `hear` for every operation until what is returned is called. */
    listen(hear: (operation: Operation | Refusal) => void): () => void {
      hearers.add(hear)
      return () => void hearers.delete(hear)
    },

    nameUser(username: string): string {
      const name = `u${userNames.size}`
      userNames.set(username, name)
      return name
    },

    /** What an answer shows of a user, as a history says it. */
    seenUser(username: unknown): string | null {
      return username === null
        ? null
        : (userNames.get(String(username)) ?? `nobody known: ${String(username).slice(0, 40)}`)
    },

    /** Of a secret: the same one has the same name. Where a session was renewed its id has several. */
    nameToken(secret: string, user: User | null): Token {
      const name = secretNames.get(secret) ?? `t${secretNames.size}`
      const id = secret.slice(3, 17)
      secretNames.set(secret, name)
      tokenNames.set(id, name)
      return { name, secret, id, user, restsUntilMs: 0 }
    },

    /** A secret that nobody got, though it looks like that of a token which is there. */
    inventToken({ id }: Token): Token {
      const name = `t${secretNames.size}`
      const secret = drawSecret(id)
      secretNames.set(secret, name)
      return { name, secret, id, user: null, restsUntilMs: 0 }
    },

    seenToken: (id: unknown): string => tokenNames.get(String(id)) ?? 'not known',

    lines(header: Omit<HistoryHeader, 'format' | 'version' | 'startedAt'>): string[] {
      const first: HistoryHeader = { format: historyFormat, version: 1, ...header, startedAt }
      return [first, ...operations, ...faults].map(line => JSON.stringify(line))
    },

    close: () => agent.destroy(),
  }
}
