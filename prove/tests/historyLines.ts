// Lines of hand-made histories, and the expected results of the checker.
import { expect } from 'chai'
import { checkHistory, type Rule } from '../checker.ts'
import { type Fault, type HistoryHeader, type OperationName, outcomeOf, type Rate, readHistory } from '../history.ts'

export const header: HistoryHeader = {
  format: 'latchkey-history',
  version: 1,
  seed: 1,
  store: 'memory:',
  tokenTtlMs: 1000,
  tokenAbsoluteTtlMs: 5000,
  tokenLimitPerUser: 100,
  toleranceMs: 10,
  startedAt: '2026-01-01T00:00:00.000Z',
}

export type Line = Record<string, unknown>

const okStatuses: Partial<Record<OperationName, number>> = {
  register: 201,
  issue: 201,
  logout: 204,
  endSession: 204,
  endSessions: 204,
}

/** An operation from `beginMs` to `endMs`, successful unless `members` contains another status. */
export function line(op: OperationName, [beginMs, endMs]: [number, number], members: Line): Line {
  const status = 'status' in members ? (members['status'] as number | null) : (okStatuses[op] ?? 200)
  const code = op === 'login' ? 'invalid_credentials' : 'invalid_token'
  const error = status === 401 ? code : null
  return { client: 1, op, beginMs, endMs, outcome: outcomeOf(status), error, asked: 'auth', ...members, status }
}

export const login = (user: string, token: string, when: [number, number], members: Line = {}) =>
  line('login', when, { user, token, password: 0, ...members })
export const badLogin = (user: string, password: number | null, when: [number, number], members: Line = {}) =>
  line('login', when, { user, password, status: 401, ...members })
export const data = (token: string, when: [number, number], members: Line = {}) =>
  line('data', when, { token, asked: 'business', ...members })
export const no = { status: 401 }
export const lost = { status: 503 }
export const logout = (token: string, when: [number, number], members: Line = {}) =>
  line('logout', when, { token, ...members })
export const renew = (token: string, newToken: string, when: [number, number], members: Line = {}) =>
  line('renew', when, { token, newToken, ...members })
export const change = (
  user: string,
  token: string,
  [from, to]: [number | null, number],
  when: [number, number],
  members: Line = {},
) => line('changePassword', when, { user, token, oldPassword: from, newPassword: to, ...members })
export const endAll = (user: string, when: [number, number], members: Line = {}) =>
  line('endSessions', when, { user, token: null, ...members })
export const setRoles = (user: string, roles: string[], when: [number, number], members: Line = {}) =>
  line('setRoles', when, { user, roles, ...members })
/** Pauses the user, or resumes them. */
export const pauseUser = (user: string, paused: boolean, when: [number, number], members: Line = {}) =>
  line('pauseUser', when, { user, paused, ...members })
export const pauseToken = (target: string, paused: boolean, when: [number, number], members: Line = {}) =>
  line('pauseToken', when, { target, paused, ...members })
export const limitUser = (user: string, rate: Rate | null, when: [number, number], members: Line = {}) =>
  line('limitUser', when, { user, rate, ...members })
export const limitToken = (target: string, rate: Rate | null, when: [number, number], members: Line = {}) =>
  line('limitToken', when, { target, rate, ...members })
/** The answer to a request that a limit does not allow. */
export const limited = { status: 429, outcome: 'limited', error: 'too_many_requests' }
/** A verdict with these roles. */
export const verdict = (token: string, seenRoles: string[], when: [number, number], members: Line = {}) =>
  line('validate', when, { token, touch: true, seenRoles, ...members })
/** The answer of a route that needs the role `admin`. */
export const adminData = (token: string, status: 200 | 403, when: [number, number]) =>
  line('data', when, { token, role: 'admin', asked: 'business', status, outcome: 'ok' })
export const issue = (token: string, when: [number, number], members: Line = {}) =>
  line('issue', when, { token, kind: 'single-use', purpose: null, user: null, ttlMs: 3000, ...members })
export const fault = (when: [number, number], members: Partial<Fault> = {}): Line => ({
  op: 'fault',
  fault: 'F1',
  what: 'auth SIGKILL',
  beginMs: when[0],
  endMs: when[1],
  recoveredMs: when[1],
  losesTokens: false,
  losesUsers: false,
  disconnects: [],
  clockShiftMs: 0,
  ...members,
})

export function linesOf(lines: Line[], changes: Partial<HistoryHeader> = {}): string[] {
  return [{ ...header, ...changes }, ...lines.map((members, number) => ({ id: number + 1, ...members }))].map(each =>
    JSON.stringify(each),
  )
}

function check(lines: Line[], changes: Partial<HistoryHeader> = {}) {
  return checkHistory(readHistory(linesOf(lines, changes)))
}

export function expectFine(lines: Line[], changes: Partial<HistoryHeader> = {}): void {
  expect(check(lines, changes)).to.deep.equal([])
}

/** Without its last line the history is fine; with that line it breaks this rule, and each violation names the line. */
export function expectBrokenByLast(rule: Rule, lines: Line[], changes: Partial<HistoryHeader> = {}): void {
  expectFine(lines.slice(0, -1), changes)
  const violations = check(lines, changes)
  expect(violations.map(violation => violation.rule)).to.include(rule)
  for (const { ids } of violations) expect(ids).to.include(lines.length)
}
