// A recorded history: the requests of the clients, their outcomes, and the faults. Owns the file format, one JSON object per
// line (docs/histories.md). Hides how lines are read and which ones are malformed.
import { z } from 'zod'

export const historyFormat = 'latchkey-history'

/** Milliseconds since the history began, on one monotonic clock of the driver. May be fractional. */
const atMs = z.number()
/** A name that the driver assigned, such as `u3` or `t41`; never a username, a secret or a token id. */
const name = z.string().min(1)
/** 0 is a user's first password; every other number is the `newPassword` of a change. */
const password = z.int().min(0)
/** Null: a password that was never valid and never will be. */
const triedPassword = password.nullable()
/** As many requests as `burst` may come at once, and `perMinute` a minute later. */
const rate = z.object({ perMinute: z.number().positive(), burst: z.int().positive() })

const headerSchema = z.object({
  format: z.literal(historyFormat),
  version: z.literal(1),
  seed: z.number(),
  /** The store, such as `redis:`, for human readers. Which data it loses is recorded with each fault. */
  store: z.string(),
  /** TOKEN_TTL_SECONDS: the idle time of a session. */
  tokenTtlMs: z.number().positive(),
  /** TOKEN_ABSOLUTE_TTL_SECONDS: the absolute lifetime of a session. */
  tokenAbsoluteTtlMs: z.number().positive(),
  /** TOKEN_LIMIT_PER_USER: beyond it the user's oldest session ends. */
  tokenLimitPerUser: z.int().positive(),
  /** How early or late a token may expire: clock drift, and rounding to whole milliseconds. */
  toleranceMs: z.number().min(0),
  startedAt: z.string(),
})

const base = {
  id: z.int(),
  client: z.number(),
  /** Just before the first byte was sent. */
  beginMs: atMs,
  /** Just after the whole response was read, or when the client gave up. */
  endMs: atMs,
  /**
   * ok: done. refused: definitely not done. limited: not done, because the token, which is live, is used more often than its limits
   * or those of its user allow. unknown: 5xx, a timeout or a reset; it may have been done, or may still be done until `settledMs`.
   */
  outcome: z.enum(['ok', 'refused', 'limited', 'unknown']),
  /** Null if there was no response. */
  status: z.int().nullable(),
  /** The `error` of the response body; also `invalid_token` for a verdict `{authenticated: false}`. */
  error: z.string().nullable(),
  /** The listener that received the request, named as in `disconnects` of the faults: `business`, `business-2`, `auth`, `auth-2`. */
  asked: z.string(),
  /**
   * If the outcome is unknown: from this time on the operation can no longer take effect, because every process that worked on it has
   * ended or is idle. A change of a user has been written by then, if at all; the checker knows that older sessions may end later.
   */
  settledMs: atMs.optional(),
  /** The client hung up or sent an invalid request on purpose, so any outcome is right. */
  expectsDisconnect: z.boolean().optional(),
}

/** The user in an ok response: null for a guest; if the response contained an unknown name, a string that names no user. */
const seenUser = name.nullable().optional()

const operationSchemas = {
  /** POST /users, with password 0. A user without this operation existed before the history began. */
  register: z.object({ ...base, op: z.literal('register'), user: name }),

  /** POST /login. `token` is the new token if the outcome is ok. */
  login: z.object({ ...base, op: z.literal('login'), user: name, password: triedPassword, token: name.optional() }),

  /**
   * POST /tokens, by the operator; with `parent`, POST /tokens/delegate with the secret of that token. `token` is set if the outcome is
   * ok; `user` is null for a guest.
   */
  issue: z.object({
    ...base,
    op: z.literal('issue'),
    kind: z.enum(['sliding', 'fixed', 'single-use']),
    purpose: z.string().nullable(),
    user: name.nullable(),
    ttlMs: z.number().positive(),
    /** Only for sliding tokens; if absent, the value in the header applies. */
    absoluteTtlMs: z.number().positive().optional(),
    /** Null or absent: no limit. */
    rate: rate.nullable().optional(),
    /** How many requests the token admits; the last one ends it. Null or absent: any number. */
    uses: z.int().positive().nullable().optional(),
    /** A session of the same user, which is extended by delegating. */
    parent: name.optional(),
    token: name.optional(),
  }),

  /**
   * GET /data. Extends a sliding token and consumes a single-use one. With `role`: a route that needs this role. Its 403 is ok too:
   * the token was admitted, and its user lacked the role.
   */
  data: z.object({ ...base, op: z.literal('data'), token: name, seenUser, role: z.string().optional() }),

  /** POST /validateToken, GET /forwardAuth, POST /introspect. `touch`: whether the token is extended or consumed. */
  validate: z.object({
    ...base,
    op: z.literal('validate'),
    token: name,
    touch: z.boolean(),
    /** The requested purpose; null admits only tokens that have none. */
    purpose: z.string().nullable().optional(),
    seenUser,
    /** The name of the token with the verdict's `tokenId`; for a renewed session any of its names. */
    seenToken: name.optional(),
    /** The verdict's `roles`, in its order. */
    seenRoles: z.array(z.string()).optional(),
  }),

  /** GET /sessions. `seenTokens`: a name for each id that the driver knows; for a renewed session any of its names. */
  list: z.object({ ...base, op: z.literal('list'), token: name, seenTokens: z.array(name).optional() }),

  /** POST /logout or POST /revoke. */
  logout: z.object({ ...base, op: z.literal('logout'), token: name }),

  /** DELETE /sessions/:id with the bearer `token`, or DELETE /tokens/:id by the operator if `token` is null. */
  endSession: z.object({ ...base, op: z.literal('endSession'), token: name.nullable(), target: name }),

  /** DELETE /sessions with the bearer `token`, which ends too, or DELETE /admin/users/:id/sessions if `token` is null. */
  endSessions: z.object({ ...base, op: z.literal('endSessions'), token: name.nullable(), user: name }),

  /** POST /renew. `newToken` is set if the outcome is ok; the old secret ends in the same step. */
  renew: z.object({ ...base, op: z.literal('renew'), token: name, newToken: name.optional() }),

  /**
   * PATCH /users/me. The session of `token` continues; every other session and token of the user ends. A repeated
   * request has the same `oldPassword` and `newPassword`; a new change has a `newPassword` larger than any before.
   */
  changePassword: z.object({
    ...base,
    op: z.literal('changePassword'),
    user: name,
    token: name,
    oldPassword: triedPassword,
    newPassword: password,
  }),

  /** PATCH /admin/users/:id with `roles`, which replace all earlier ones. At first a user has none. */
  setRoles: z.object({ ...base, op: z.literal('setRoles'), user: name, roles: z.array(z.string()) }),

  /** PATCH /admin/users/:id with `paused`. */
  pauseUser: z.object({ ...base, op: z.literal('pauseUser'), user: name, paused: z.boolean() }),

  /** PATCH /tokens/:id with `paused`. Concerns all secrets of a renewed session. */
  pauseToken: z.object({ ...base, op: z.literal('pauseToken'), target: name, paused: z.boolean() }),

  /** PATCH /admin/users/:id with `rate`, for all tokens of the user without a purpose together. At first a user has none. */
  limitUser: z.object({ ...base, op: z.literal('limitUser'), user: name, rate: rate.nullable() }),

  /** PATCH /tokens/:id with `rate`. Concerns all secrets of a renewed session. */
  limitToken: z.object({ ...base, op: z.literal('limitToken'), target: name, rate: rate.nullable() }),
}

const faultSchema = z.object({
  id: z.int(),
  op: z.literal('fault'),
  /** The id in the fault model, such as `F6`. */
  fault: z.string(),
  /** A description, such as `redis SIGKILL`. */
  what: z.string(),
  beginMs: atMs,
  /** When the fault ended. */
  endMs: atMs,
  /** When requests were answered again; null if never during the history. */
  recoveredMs: atMs.nullable(),
  /** Tokens issued before `endMs` may be lost by design: a restart with the memory store, an empty Redis. */
  losesTokens: z.boolean(),
  /** The same for users. Use new names afterwards: passwords of lost users are no longer checked. */
  losesUsers: z.boolean(),
  /** Listeners whose connections may break from `beginMs` to `recoveredMs`. */
  disconnects: z.array(z.string()),
  /**
   * Auth's clock moved by this much, permanently, at some time between `beginMs` and `endMs`. Moving it back later is a
   * second fault.
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
  operationSchemas.setRoles,
  operationSchemas.pauseUser,
  operationSchemas.pauseToken,
  operationSchemas.limitUser,
  operationSchemas.limitToken,
  faultSchema,
])

export type HistoryHeader = z.infer<typeof headerSchema>
export type Fault = z.infer<typeof faultSchema>
export type Operation = Exclude<z.infer<typeof lineSchema>, Fault>
export type OperationName = Operation['op']
export type OperationOf<Name extends OperationName> = Extract<Operation, { op: Name }>
export type Outcome = Operation['outcome']
export type Rate = z.infer<typeof rate>

export interface History {
  header: HistoryHeader
  operations: Operation[]
  faults: Fault[]
}

/**
 * The outcome that a status stands for. For `validate` it is not enough: `{authenticated: false}` is 200, but refused or limited. Nor
 * is it for `data`: 403 is ok with a role, and 429 may be limited.
 */
export function outcomeOf(status: number | null): Outcome {
  if (status === null || status >= 500) return 'unknown'
  return status < 300 ? 'ok' : 'refused'
}

/** Throws with the number of the malformed line. The header must come first; the order of the other lines does not matter. */
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
  const isForbidden = op === 'data' && operation.role !== undefined && outcome === 'ok' && status === 403
  const isLimited =
    outcome === 'limited' &&
    ((op === 'data' && status === 429) || (op === 'validate' && (status === 429 || status === 200)))
  if (!isVerdict && !isForbidden && !isLimited && outcome !== outcomeOf(status))
    return `a status of ${status} is ${outcomeOf(status)}, not ${outcome}`
  if (settledMs !== undefined && settledMs < endMs) return 'settledMs is before endMs'
  if (op === 'changePassword') {
    if ((operation.oldPassword ?? -1) >= operation.newPassword) return 'newPassword is not larger than oldPassword'
    if (status === 401 && operation.error === null) return 'a 401 of changePassword needs its error'
  }
  if (outcome !== 'ok') return null
  if ((op === 'login' || op === 'issue') && operation.token === undefined) return 'an ok without the issued token'
  if (op === 'renew' && operation.newToken === undefined) return 'an ok without its newToken'
  return null
}
