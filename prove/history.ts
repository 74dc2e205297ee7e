// A recorded history: what the clients asked, what they were answered, and the faults meanwhile. Owns the file format,
// one JSON object per line (docs/histories.md); hides how lines are read and what makes one malformed.
import { z } from 'zod'

export const historyFormat = 'latchkey-history'

/** Milliseconds since the history began, on one monotonic clock of the driver; fractions are welcome. */
const atMs = z.number()
/** Whoever the driver numbered: `u3`, `t41`. Never a username, a token's secret or its id. */
const name = z.string().min(1)
/** 0 is the first one of a user; every other number is the `newPassword` of a change, and of that change only. */
const password = z.int().min(0)
/** Null: one that was never right and never will be. */
const triedPassword = password.nullable()

const headerSchema = z.object({
  format: z.literal(historyFormat),
  version: z.literal(1),
  seed: z.number(),
  /** Told to readers: `redis:`, `sqlite: and postgres:`. What a store forgets is told by the faults, not by its name. */
  store: z.string(),
  /** TOKEN_TTL_SECONDS: idle time of a session. */
  tokenTtlMs: z.number().positive(),
  /** TOKEN_ABSOLUTE_TTL_SECONDS: absolute life of a session. */
  tokenAbsoluteTtlMs: z.number().positive(),
  /** TOKEN_LIMIT_PER_USER: for one more the oldest session ends. */
  tokenLimitPerUser: z.int().positive(),
  /** By how much expiry may come early or late: the drift of the two clocks, and that an instant is whole milliseconds. */
  toleranceMs: z.number().min(0),
  startedAt: z.string(),
})

const base = {
  id: z.int(),
  client: z.number(),
  /** Just before the first byte was sent. */
  beginMs: atMs,
  /** Just after the whole answer was read, or when the client gave up. */
  endMs: atMs,
  /**
   * ok: it was done. refused: a definite no, nothing was done. unknown: 5xx, a timeout or a reset; it may have been done,
   * and may yet be, until `settledMs`.
   */
  outcome: z.enum(['ok', 'refused', 'unknown']),
  /** Null: there was no answer. */
  status: z.int().nullable(),
  /** The `error` of the answer's body; `invalid_token` also for a verdict `{authenticated: false}`. */
  error: z.string().nullable(),
  /** Whose connection it was, as in `disconnects` of the faults: `business`, `auth`, `auth-2`. */
  asked: z.string(),
  /**
   * Of an unknown one: from here on it can take effect no more, since everything that worked on it is dead or idle. Of a
   * change or an end of all sessions the user is written by then; that older sessions may end later the checker knows.
   */
  settledMs: atMs.optional(),
  /** The client itself hung up or sent nonsense on purpose: no answer is right. */
  expectsDisconnect: z.boolean().optional(),
}

/** What came with an ok: `null` for a guest, and any string that names no user where the answer bore an unknown name. */
const seenUser = name.nullable().optional()

const operationSchemas = {
  /** POST /users, with the password 0. A user that is never registered was there before the history began. */
  register: z.object({ ...base, op: z.literal('register'), user: name }),

  /** POST /login. `token`: the one that was got, where ok. */
  login: z.object({ ...base, op: z.literal('login'), user: name, password: triedPassword, token: name.optional() }),

  /** POST /tokens, by the operator. `token` where ok; `user` null for a guest. */
  issue: z.object({
    ...base,
    op: z.literal('issue'),
    kind: z.enum(['sliding', 'fixed', 'single-use']),
    purpose: z.string().nullable(),
    user: name.nullable(),
    ttlMs: z.number().positive(),
    /** Of sliding ones; that of the header where it is not given. */
    absoluteTtlMs: z.number().positive().optional(),
    token: name.optional(),
  }),

  /** GET /data. Slides a sliding token and consumes a single-use one: there is no operation of its own for that. */
  data: z.object({ ...base, op: z.literal('data'), token: name, seenUser }),

  /** POST /validateToken, GET /forwardAuth, POST /introspect. `touch`: it extends and consumes, as the first two do. */
  validate: z.object({
    ...base,
    op: z.literal('validate'),
    token: name,
    touch: z.boolean(),
    /** That was asked for; null: only tokens without one are admitted. */
    purpose: z.string().nullable().optional(),
    seenUser,
    /** The number that belongs to the verdict's `tokenId`; any of a session that was renewed. */
    seenToken: name.optional(),
  }),

  /** GET /sessions. `seenTokens`: a number for each id that the driver knows, any of a session that was renewed. */
  list: z.object({ ...base, op: z.literal('list'), token: name, seenTokens: z.array(name).optional() }),

  /** POST /logout or POST /revoke. */
  logout: z.object({ ...base, op: z.literal('logout'), token: name }),

  /** DELETE /sessions/:id with the bearer `token`, or DELETE /tokens/:id by the operator, `token` null. */
  endSession: z.object({ ...base, op: z.literal('endSession'), token: name.nullable(), target: name }),

  /** DELETE /sessions with the bearer `token`, which ends too, or DELETE /admin/users/:id/sessions, `token` null. */
  endSessions: z.object({ ...base, op: z.literal('endSessions'), token: name.nullable(), user: name }),

  /** POST /renew. `newToken` where ok; the old one ends in the same step. */
  renew: z.object({ ...base, op: z.literal('renew'), token: name, newToken: name.optional() }),

  /**
   * PATCH /users/me. Every other session and token of the user ends, the one of `token` goes on. The same request again
   * has the same two numbers; every other one a `newPassword` larger than any before.
   */
  changePassword: z.object({
    ...base,
    op: z.literal('changePassword'),
    user: name,
    token: name,
    oldPassword: triedPassword,
    newPassword: password,
  }),
}

const faultSchema = z.object({
  id: z.int(),
  op: z.literal('fault'),
  /** As in the fault model: `F6`. */
  fault: z.string(),
  /** In words: `redis SIGKILL`. */
  what: z.string(),
  beginMs: atMs,
  /** When it was taken back. */
  endMs: atMs,
  /** When requests were answered again; null: never while the history lasted. */
  recoveredMs: atMs.nullable(),
  /** Tokens issued before `endMs` may be forgotten, by documented design: memory restarted, an empty Redis. */
  losesTokens: z.boolean(),
  /** The same of the users. Go on with other numbers: passwords of the forgotten ones are not judged any more. */
  losesUsers: z.boolean(),
  /** Whose connections may break from `beginMs` to `recoveredMs`. */
  disconnects: z.array(z.string()),
  /**
   * The clock of Auth moved by this much, for good, at a moment between `beginMs` and `endMs`. One that moves back later
   * is a second fault.
   */
  clockShiftMs: z.number(),
})

const lineSchema = z.discriminatedUnion('op', [
  operationSchemas.register,
  operationSchemas.login,
  operationSchemas.issue,
  operationSchemas.data,
  operationSchemas.validate,
  operationSchemas.list,
  operationSchemas.logout,
  operationSchemas.endSession,
  operationSchemas.endSessions,
  operationSchemas.renew,
  operationSchemas.changePassword,
  faultSchema,
])

export type HistoryHeader = z.infer<typeof headerSchema>
export type Fault = z.infer<typeof faultSchema>
export type Operation = Exclude<z.infer<typeof lineSchema>, Fault>
export type OperationName = Operation['op']
export type OperationOf<Name extends OperationName> = Extract<Operation, { op: Name }>
export type Outcome = Operation['outcome']

export interface History {
  header: HistoryHeader
  operations: Operation[]
  faults: Fault[]
}

/** What a status says. Only `validate` needs more: a verdict `{authenticated: false}` is a 200 and refused. */
export function outcomeOf(status: number | null): Outcome {
  if (status === null || status >= 500) return 'unknown'
  return status < 300 ? 'ok' : 'refused'
}

/** Throws what is wrong, with the number of the line. The order of the lines does not matter, but that the header is first. */
export function readHistory(lines: Iterable<string>): History {
  let header: HistoryHeader | null = null
  const operations: Operation[] = []
  const faults: Fault[] = []
  const ids = new Set<number>()
  const predecessors = new Map<string, number | null>()
  let number = 0
  for (const text of lines) {
    number++
    if (text.trim() === '') continue
    const malformed = (words: string) => new Error(`line ${number}: ${words}`)
    const value = parseJson(text)
    if (value === undefined) throw malformed('not JSON; was the recording cut off here?')
    if (header === null) {
      const read = headerSchema.safeParse(value)
      if (!read.success) throw malformed(`no header of a ${historyFormat}, version 1: ${wordsOf(read.error)}`)
      header = read.data
      continue
    }
    const read = lineSchema.safeParse(value)
    if (!read.success) throw malformed(wordsOf(read.error))
    const line = read.data
    const problem = line.op === 'fault' ? whyNotTimes(line) : (whyNotTimes(line) ?? whyNotOperation(line))
    if (problem !== null) throw malformed(problem)
    if (ids.has(line.id)) throw malformed(`the id ${line.id} was used before`)
    ids.add(line.id)
    if (line.op === 'changePassword') {
      const { user, oldPassword, newPassword } = line
      const key = JSON.stringify([user, newPassword])
      const known = predecessors.get(key) ?? oldPassword
      if (known !== oldPassword)
        throw malformed(`password ${newPassword} of ${user} follows both ${known} and ${oldPassword}`)
      predecessors.set(key, known)
    }
    if (line.op === 'fault') faults.push(line)
    else operations.push(line)
  }
  if (header === null) throw new Error(`line 1: no header of a ${historyFormat}; the file is empty`)
  return { header, operations, faults }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function wordsOf(error: z.ZodError): string {
  return error.issues
    .map(({ path, message }) => (path.length > 0 ? `${path.join('.')}: ${message}` : message))
    .join('; ')
}

function whyNotTimes({ beginMs, endMs }: { beginMs: number; endMs: number }): string | null {
  return endMs < beginMs ? 'endMs is before beginMs' : null
}

function whyNotOperation(operation: Operation): string | null {
  const { op, outcome, status, settledMs, endMs } = operation
  const isVerdict = op === 'validate' && outcome === 'refused' && status === 200
  if (!isVerdict && outcome !== outcomeOf(status))
    return `a status of ${status} is ${outcomeOf(status)}, not ${outcome}`
  if (settledMs !== undefined && settledMs < endMs) return 'settledMs is before endMs'
  if (op === 'changePassword') {
    if ((operation.oldPassword ?? -1) >= operation.newPassword) return 'newPassword is not larger than oldPassword'
    if (status === 401 && operation.error === null) return 'a 401 of changePassword needs its error'
  }
  if (outcome !== 'ok') return null
  if ((op === 'login' || op === 'issue') && operation.token === undefined) return 'an ok without the token that was got'
  if (op === 'renew' && operation.newToken === undefined) return 'an ok without the newToken that was got'
  return null
}
