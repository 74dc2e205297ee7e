// Checks whether a recorded history keeps Latchkey's promises. Owns the rules. Hides how intervals are compared so that every
// history of a correct pair passes, in O(n log n). docs/histories.md explains the rules.
import { type Clock, clockOf } from './clock.ts'
import type { Fault, History, HistoryHeader, Operation, OperationName, OperationOf } from './history.ts'
import { createLimits, type Limits } from './limits.ts'
import { at, byBegin, byEnd, firstAbove, firstAtLeast, lastEffect, told } from './operations.ts'
import { createRegister, type Register } from './register.ts'

/** The name of each rule and what it forbids. */
export const rules = {
  'ended token': 'a token is admitted by a request that began after the end of the token was acknowledged',
  'dead token': 'a token is admitted by a request that began after its last possible instant, idle or absolute',
  revived: 'a token is admitted by a request that began after it had been refused',
  'single use': 'a single-use token is admitted twice',
  'lost session': 'a live token that nothing can have ended is refused',
  'wrong purpose': 'a token opens what it was not issued for',
  'wrong owner': 'an answer contains the name or the tokens of another user',
  'never issued': 'a token is admitted that was never issued',
  'issued twice': 'two clients received the same token',
  'old password': 'a password is accepted after it was replaced, or refused',
  'password never set': 'a password is accepted that was never set, or whose change had definitely not happened',
  'right password': 'the right password is refused: neither the old nor the new one works',
  'two changes': 'two changes of the same password both succeed',
  'stale authority':
    'roles are seen that were replaced before the request began, or a token is admitted that was paused before',
  'stale pause': 'a token is refused that was paused once, but resumed before the request began',
  'limit exceeded': 'more requests are admitted than the limits of a token, of its user or of its parent allow',
  'outlived parent': 'a delegated token is admitted after its parent had ended',
  'limited without cause': 'a request is limited although no limit can have been reached',
  status: 'an answer is not in the contract, or is missing without a fault',
} as const

export type Rule = keyof typeof rules

export interface Violation {
  rule: Rule
  /** What happened, in words. */
  sentence: string
  /** The lines that prove the violation. */
  ids: number[]
}

/** Empty if the history keeps every rule. */
export function checkHistory({ header, operations, faults }: History): Violation[] {
  const violations: Violation[] = []
  const refute: Refute = (rule, sentence, proof) => {
    const ids = new Set(proof.filter(each => each !== null).map(({ id }) => id))
    violations.push({ rule, sentence, ids: [...ids].sort(ascending) })
  }

  checkStatuses(operations, faults, refute)
  const clock = clockOf(header, faults)
  const world = index(operations, header, refute)
  confirmAuthorities(operations, world)
  for (const user of world.users.values()) {
    judgePasswords(user, faults, refute)
    prepareEnds(user, world.tokens, header)
  }
  for (const token of world.tokens.values()) addReuses(token, clock)
  const context = { world, header, faults, clock, refute }
  for (const token of world.tokens.values()) checkToken(token, context)
  for (const { name, session, birth } of world.tokens.values()) {
    if (birth === session.birth) checkLimits(name, session.limits, birth, context)
  }
  for (const { name, limits } of world.users.values()) checkLimits(name, limits, null, context)
  for (const operation of operations) {
    checkOwner(operation, world, refute)
    checkAuthority(operation, world, refute)
  }
  return violations
}

/** A null in `proof` stands for a fact that held before the history began. */
type Refute = (rule: Rule, sentence: string, proof: ({ id: number } | null)[]) => void

// Facts about users and tokens

type Change = OperationOf<'changePassword'>
type EndAll = OperationOf<'endSessions'>
type Birth = OperationOf<'login'> | OperationOf<'issue'> | OperationOf<'renew'>

interface Session {
  /** Null for a guest. */
  user: User | null
  birth: OperationOf<'login'> | OperationOf<'issue'>
  isForAccount: boolean
  kind: OperationOf<'issue'>['kind']
  purpose: string | null
  ttlMs: number
  absoluteTtlMs: number
  /** Attempts to end the session by id or by a log-out with any of its secrets; refused attempts are left out. */
  ends: (OperationOf<'endSession'> | OperationOf<'logout'>)[]
  /** Uses of secrets that were renewed long before; each use may have ended the session at any time since. */
  reuses: Operation[]
  isPaused: Register<boolean>
  limits: Limits
  /** The session that it was delegated from. */
  parent: Session | null
  /** Of all its secrets. */
  uses: Use[]
}

/** One secret. A renewed session has several, one after another. */
interface Token {
  name: string
  session: Session
  birth: Birth
  uses: Use[]
  /** Renewals and consumptions that may have ended this secret, but not its whole session; refused attempts are left out. */
  ends: Operation[]
}

interface Use {
  operation: Operation
  isAdmitted: boolean
  saysDead: boolean
  touches: 'yes' | 'maybe' | 'no'
}

interface User {
  name: string
  registrations: OperationOf<'register'>[]
  logins: OperationOf<'login'>[]
  changes: Change[]
  /** In the order in which they began; refused ones are left out. */
  endAlls: EndAll[]
  /** At each index, the largest `lastEffect` up to it. */
  endAllEffects: number[]
  births: Session['birth'][]
  passwords: Map<number, Password>
  roles: Register<string[]>
  isPaused: Register<boolean>
  limits: Limits
  /** Filled by `prepareEnds`. */
  ends: EndIndex
}

interface Password {
  number: number
  previous: Password | null
  next: Password[]
  /** Every change to this password, including the refused ones. */
  attempts: Change[]
  accepted: Operation[]
  refused: Operation[]
  /** The earliest proof that this password, or one that follows it, was set. */
  reached: Proof | null
  /** Interval in a walk through the tree: a password follows another if its interval lies within the other's. */
  walk: [number, number]
  /** The first acknowledged changes that replaced this password. */
  replaced: AcknowledgedChange[]
}

interface Proof {
  atMs: number
  operation: { id: number } | null
}

interface AcknowledgedChange {
  change: Change
  /** The sessions that the attempts of this change were meant to keep. */
  keeps: (Session | undefined)[]
}

interface EndIndex {
  /** All operations that may have ended all sessions of the user, ordered by begin. */
  possible: (Change | EndAll)[]
  /** At each index, the largest `lastEffect` up to it. */
  latestEffects: number[]
  endAlls: EndAll[]
  earliestEndAll: EndAll[]
  /** Ordered by the begin of the first attempt. */
  changes: AcknowledgedChange[]
  firstAttempts: number[]
  earliestChanges: AcknowledgedChange[][]
  /** Changes that may have ended the session they were meant to keep, because another change was unfinished. */
  isKeepDoubtful: Set<Change>
  birthBegins: number[]
  /** For each token, the latest birth of a session that the token can help to evict; ascending. */
  lastCounts: number[]
}

interface World {
  users: Map<string, User>
  tokens: Map<string, Token>
}

const reuseGraceMs = 10_000 // after a renewal; within this time, the old secret is refused but does not end the session

const mostReplacements = 4 // a session kept by more changes than this is not examined further

function index(operations: Operation[], header: HistoryHeader, refute: Refute): World {
  const users = new Map<string, User>()
  const tokens = new Map<string, Token>()
  const userOf = (name: string) => getOrAdd(users, name, () => createUser(name))

  const births = operations.filter((operation): operation is Birth => operation.outcome === 'ok' && isBirth(operation))
  births.sort(byBegin)
  for (const birth of births) {
    const name = birth.op === 'renew' ? birth.newToken : birth.token
    if (name === undefined) continue
    const known = tokens.get(name)
    if (known) {
      refute('issued twice', `${name} was issued at ${at(known.birth.endMs)} and again at ${at(birth.endMs)}`, [
        known.birth,
        birth,
      ])
      continue
    }
    // A token that was never issued has no session; all its uses are refuted, its renewals among them.
    const session =
      birth.op === 'renew' ? tokens.get(birth.token)?.session : createSession(birth, header, userOf, tokens)
    if (session) tokens.set(name, { name, session, birth, uses: [], ends: [] })
  }

  const strangers = new Set<string>()
  for (const operation of operations) {
    addToUser(operation, userOf, tokens)
    const bearer = bearerOf(operation)
    if (bearer === null) continue
    const token = tokens.get(bearer)
    if (token) addToToken(operation, token)
    else if (operation.outcome === 'ok' && operation.op !== 'logout' && !strangers.has(bearer)) {
      strangers.add(bearer)
      refute('never issued', `${bearer} was admitted by ${told(operation)}, but was never issued`, [operation])
    }
  }
  return { users, tokens }
}

function isBirth({ op }: Operation): boolean {
  return op === 'login' || op === 'issue' || op === 'renew'
}

function createUser(name: string): User {
  return {
    name,
    registrations: [],
    logins: [],
    changes: [],
    endAlls: [],
    endAllEffects: [],
    births: [],
    passwords: new Map(),
    roles: createRegister<string[]>([]),
    isPaused: createRegister(false),
    limits: createLimits(null, null),
    ends: {
      possible: [],
      latestEffects: [],
      endAlls: [],
      earliestEndAll: [],
      changes: [],
      firstAttempts: [],
      earliestChanges: [],
      isKeepDoubtful: new Set(),
      birthBegins: [],
      lastCounts: [],
    },
  }
}

function createSession(
  birth: Session['birth'],
  { tokenTtlMs, tokenAbsoluteTtlMs }: HistoryHeader,
  userOf: (name: string) => User,
  tokens: Map<string, Token>,
): Session {
  const user = birth.user === null ? null : userOf(birth.user)
  if (birth.op === 'login') {
    const absoluteTtlMs = tokenAbsoluteTtlMs
    return {
      user,
      birth,
      isForAccount: true,
      kind: 'sliding',
      purpose: null,
      ttlMs: tokenTtlMs,
      absoluteTtlMs,
      ends: [],
      reuses: [],
      isPaused: createRegister(false),
      limits: createLimits(null, null),
      parent: null,
      uses: [],
    }
  }
  const { kind, purpose, ttlMs } = birth
  const isForAccount = kind === 'sliding' && purpose === null && user !== null
  const absoluteTtlMs = kind === 'sliding' ? (birth.absoluteTtlMs ?? tokenAbsoluteTtlMs) : ttlMs
  const isPaused = createRegister(false)
  const limits = createLimits(birth.rate ?? null, birth.uses ?? null)
  const parent = tokens.get(birth.parent ?? '')?.session ?? null
  const facts = { user, birth, isForAccount, kind, purpose, ttlMs, absoluteTtlMs, isPaused, limits, parent }
  return { ...facts, ends: [], reuses: [], uses: [] }
}

function addToUser(operation: Operation, userOf: (name: string) => User, tokens: Map<string, Token>): void {
  const { op, outcome } = operation
  if (op === 'register') userOf(operation.user).registrations.push(operation)
  if (op === 'login') userOf(operation.user).logins.push(operation)
  if (op === 'changePassword') userOf(operation.user).changes.push(operation)
  if (op === 'setRoles') userOf(operation.user).roles.write(operation, operation.roles)
  if (op === 'pauseUser') userOf(operation.user).isPaused.write(operation, operation.paused)
  if (op === 'pauseToken') tokens.get(operation.target)?.session.isPaused.write(operation, operation.paused)
  if (op === 'limitUser') userOf(operation.user).limits.setRate(operation, operation.rate)
  if (op === 'limitToken') tokens.get(operation.target)?.session.limits.setRate(operation, operation.rate)
  if (outcome === 'refused') return
  if (op === 'endSessions') userOf(operation.user).endAlls.push(operation)
  if ((op === 'login' || op === 'issue') && operation.user !== null) userOf(operation.user).births.push(operation)
  if (op === 'endSession') tokens.get(operation.target)?.session.ends.push(operation)
}

function bearerOf(operation: Operation): string | null {
  if (operation.op === 'issue') return operation.parent ?? null
  return 'token' in operation && operation.op !== 'login' ? operation.token : null
}

function addToToken(operation: Operation, token: Token): void {
  const { op, outcome, status, error } = operation
  const { session } = token
  const isRight = isWhatItIsFor(operation, session)
  const saysNo = (status === 401 && error !== 'invalid_credentials') || (op === 'validate' && outcome === 'refused')
  // A password change also gets 429 if the session has sent too many wrong passwords.
  const saysTooMany = status === 429 && outcome === 'refused' && op !== 'changePassword' && op !== 'logout'
  const isAdmitted =
    op !== 'logout' &&
    (outcome === 'ok' ||
      error === 'invalid_credentials' ||
      (op === 'changePassword' && status === 409) ||
      (op === 'endSession' && status === 404))
  const canTouch = isRight && op !== 'logout' && op !== 'renew' && !(op === 'validate' && !operation.touch)
  const saysDead = isRight && op !== 'logout' && (saysNo || saysTooMany)
  const touches = !canTouch || saysDead || outcome === 'limited' ? 'no' : isAdmitted ? 'yes' : 'maybe'
  const use: Use = { operation, isAdmitted, saysDead, touches }
  token.uses.push(use)
  session.uses.push(use)

  if (outcome === 'refused' || outcome === 'limited') return
  // What a user does at Auth counts for no limit.
  if (canTouch && (op === 'data' || op === 'validate')) {
    session.limits.add(operation)
    if (session.purpose === null) session.user?.limits.add(operation)
    session.parent?.limits.add(operation)
  }
  const isConsumption = session.kind === 'single-use' && canTouch
  if (op === 'logout') session.ends.push(operation)
  if (op === 'renew' || isConsumption) token.ends.push(operation)
}

function isWhatItIsFor(operation: Operation, { isForAccount, purpose }: Session): boolean {
  if (operation.op === 'data') return purpose === null
  if (operation.op === 'validate') return purpose === (operation.purpose ?? null)
  return isForAccount || operation.op === 'logout' // logout also stands for /revoke, which accepts any token
}

// Statuses

const statuses: Record<OperationName, readonly number[]> = {
  register: [201, 409, 429, 503],
  login: [200, 401, 429, 503],
  issue: [201, 409, 503],
  data: [200, 401, 429, 503],
  validate: [200, 204, 401, 429, 503],
  list: [200, 401, 429, 503],
  logout: [200, 204, 401, 503],
  endSession: [204, 401, 404, 429, 503],
  endSessions: [204, 401, 404, 429, 503],
  renew: [200, 401, 429, 503],
  changePassword: [200, 401, 409, 429, 503],
  setRoles: [200, 503],
  pauseUser: [200, 503],
  pauseToken: [200, 404, 503],
  limitUser: [200, 503],
  limitToken: [200, 404, 503],
}

function checkStatuses(operations: Operation[], faults: Fault[], refute: Refute): void {
  for (const operation of operations) {
    const { op, asked, status, error, beginMs, endMs } = operation
    if (status !== null) {
      if (!statuses[op].includes(status) && !isForbidden(operation) && !isDelegationRefused(operation))
        refute('status', `${told(operation)} was answered ${status}`, [operation])
      else if (status === 401 && error !== null && !codesOf401(op).includes(error)) {
        refute('status', `${told(operation)} was answered 401 ${error}`, [operation])
      }
      continue
    }
    const isExcused = faults.some(
      f => f.disconnects.includes(asked) && f.beginMs <= endMs && (f.recoveredMs === null || beginMs <= f.recoveredMs),
    )
    if (!isExcused && !operation.expectsDisconnect) {
      refute('status', `${told(operation)} got no answer, although no fault affected ${asked}`, [operation])
    }
  }
}

/** A session that is dead, or too many dead ones. */
function isDelegationRefused(operation: Operation): boolean {
  return operation.op === 'issue' && operation.parent !== undefined && [401, 429].includes(operation.status ?? 0)
}

function codesOf401(op: OperationName): string[] {
  if (op === 'login') return ['invalid_credentials']
  return op === 'changePassword' ? ['invalid_token', 'invalid_credentials'] : ['invalid_token']
}

// Roles and pauses: registers, which are read with every admission

/** The token was admitted, but its user lacked the role. */
function isForbidden(operation: Operation): boolean {
  return operation.op === 'data' && operation.role !== undefined && operation.status === 403
}

/** Which roles the answer fits; null if it shows none. */
function rolesFitting(operation: Operation): ((roles: string[]) => boolean) | null {
  if (operation.outcome !== 'ok') return null
  if (operation.op === 'data' && operation.role !== undefined) {
    const { role, status } = operation
    return roles => roles.includes(role) === (status === 200)
  }
  if (operation.op !== 'validate' || operation.seenRoles === undefined) return null
  const seen = operation.seenRoles.join(' ')
  return roles => roles.join(' ') === seen
}

const isTrue = (value: boolean) => value
const isFalse = (value: boolean) => !value

/** A change whose outcome is unknown certainly took effect if an answer shows what only this change wrote. */
function confirmAuthorities(operations: Operation[], { tokens }: World): void {
  for (const token of tokens.values()) {
    const { user, isPaused, parent } = token.session
    for (const { operation, isAdmitted } of token.uses) {
      if (!isAdmitted) continue
      isPaused.confirm(operation, isFalse)
      parent?.isPaused.confirm(operation, isFalse)
      user?.isPaused.confirm(operation, isFalse)
    }
  }
  for (const operation of operations) {
    const fits = rolesFitting(operation)
    if (fits) sessionOf(operation, tokens)?.user?.roles.confirm(operation, fits)
  }
}

function sessionOf(operation: Operation, tokens: Map<string, Token>): Session | undefined {
  const bearer = bearerOf(operation)
  return bearer === null ? undefined : tokens.get(bearer)?.session
}

function checkAuthority(operation: Operation, { users, tokens }: World, refute: Refute): void {
  const proof = (register: Register<unknown>) => [register.lastBefore(operation), operation]
  if (operation.op === 'login' && operation.outcome === 'ok') {
    const user = users.get(operation.user)
    if (user && !user.isPaused.canBe(operation, isFalse)) {
      refute('stale authority', `${told(operation)} succeeded, although ${user.name} was paused`, proof(user.isPaused))
    }
  }
  const fits = rolesFitting(operation)
  const session = fits && sessionOf(operation, tokens)
  if (!fits || !session) return
  const roles = session.user?.roles ?? createRegister<string[]>([])
  if (roles.canBe(operation, fits)) return
  const shows =
    operation.op === 'validate' ? `the roles “${operation.seenRoles?.join(' ')}”` : `${operation.status} for a role`
  const sentence = `${told(operation)} of ${nameOf(session)} was answered with ${shows}, which no state that was current can explain`
  refute('stale authority', sentence, [...proof(roles), session.birth])
}

/** Checks that the token, its parent and its user can have been running, not paused, when the token was admitted. */
function checkPauses({ name, session, birth }: Token, admission: Operation, refute: Refute): void {
  for (const register of [session.isPaused, session.parent?.isPaused, session.user?.isPaused]) {
    if (!register || register.canBe(admission, isFalse)) continue
    const pause = register.lastBefore(admission)
    const sentence = `${name} was admitted by ${told(admission)}, although it, its parent or its user was paused${pause ? ` by ${told(pause)}` : ''}`
    refute('stale authority', sentence, [birth, pause, admission])
  }
}

function canBePaused(session: Session, refusal: Operation): boolean {
  return pausesOf(session).some(isPaused => isPaused.canBe(refusal, isTrue))
}

function wasEverPaused(session: Session, refusal: Operation): boolean {
  return pausesOf(session).some(isPaused => isPaused.wasEver(refusal, isTrue))
}

function pausesOf({ isPaused, user, parent }: Session): Register<boolean>[] {
  return [isPaused, user?.isPaused, parent?.isPaused].filter(register => register !== undefined)
}

// Delegated tokens, which end with their parent

/** Checks that the parent can have been live when the token was admitted. */
function checkParent({ name, session, birth }: Token, admission: Operation, { clock, refute }: Context): void {
  const { parent } = session
  if (parent === null) return
  const { beginMs, endMs } = admission
  const words = `${name} was admitted by ${told(admission)}, although its parent`
  const end = parent.ends.filter(({ outcome }) => outcome === 'ok').sort(byEnd)[0]
  if (end && beginMs > end.endMs) {
    const sentence = `${words} had ended with ${told(end)}, acknowledged at ${at(end.endMs)}`
    refute('outlived parent', sentence, [parent.birth, birth, end, admission])
  }
  const { lastTouch, latestMs } = latestEndOf(parent, beginMs)
  if (beginMs > latestMs + clock.toleranceMs + clock.back(parent.birth.beginMs, endMs)) {
    const sentence = `${words} had expired at ${at(latestMs)} at the latest`
    refute('outlived parent', sentence, [parent.birth, birth, lastTouch, admission])
  }
}

/** When the session expires at the latest, if nothing after `untilMs` extends it. */
function latestEndOf({ birth, kind, ttlMs, absoluteTtlMs, uses }: Session, untilMs: number) {
  let lastTouch: Operation = birth
  let touchedMs = birth.endMs
  for (const { operation, touches } of kind === 'sliding' ? uses : []) {
    if (touches === 'no' || operation.beginMs > untilMs || lastEffect(operation) <= touchedMs) continue
    lastTouch = operation
    touchedMs = lastEffect(operation)
  }
  return { lastTouch, latestMs: Math.min(touchedMs + ttlMs, birth.endMs + absoluteTtlMs) }
}

/** Whether the parent can be the reason of a refusal, or the number of tokens that were delegated for the same user. */
function canBeParents({ parent, user }: Session, refusal: Operation, context: Omit<Context, 'refute'>): boolean {
  if (parent === null) return false
  const { world, header, faults, clock } = context
  const { beginMs, endMs } = refusal
  const { birth, kind, ttlMs, absoluteTtlMs, ends, reuses, uses } = parent
  if ([...ends, ...reuses].some(end => end.beginMs <= endMs)) return true
  if (faults.some(f => f.losesTokens && f.beginMs <= endMs && birth.beginMs <= f.endMs)) return true
  if (canHaveEndedWithOthers(parent, endMs, world.tokens)) return true
  if (canBeEvicted(parent, endMs, header.tokenLimitPerUser, clock)) return true
  if (parent.limits.canBeUsedUp(refusal)) return true
  const delegated = user?.births.filter(
    each => each.op === 'issue' && each.parent !== undefined && each.beginMs <= endMs,
  )
  if ((delegated?.length ?? 0) > header.tokenLimitPerUser / 2) return true
  const certain = uses.filter(({ operation, touches }) => touches === 'yes' && operation.endMs <= beginMs)
  const touchedMs = certain.reduce((last, { operation }) => Math.max(last, operation.beginMs), birth.beginMs)
  const idleMs = touchedMs + ttlMs - clock.forward(touchedMs, endMs)
  const absoluteMs = birth.beginMs + absoluteTtlMs - clock.forward(birth.beginMs, endMs)
  return endMs >= (kind === 'sliding' ? Math.min(idleMs, absoluteMs) : absoluteMs) - clock.toleranceMs
}

// Owners

function checkOwner(operation: Operation, { tokens }: World, refute: Refute): void {
  if (operation.outcome !== 'ok') return
  const bearer = bearerOf(operation)
  const token = bearer === null ? undefined : tokens.get(bearer)
  if (!token) return
  const owner = nameOf(token.session)
  const sees = (words: string, ...others: { id: number }[]) =>
    refute('wrong owner', `${told(operation)} of ${owner} was answered with ${words}`, [
      token.session.birth,
      operation,
      ...others,
    ])
  if (operation.op === 'data' || operation.op === 'validate') {
    const { seenUser } = operation
    if (seenUser !== undefined && seenUser !== (token.session.user?.name ?? null))
      sees(`the name of ${seenUser ?? 'a guest'}`)
  }
  if (operation.op === 'validate' && operation.seenToken !== undefined) {
    const seen = tokens.get(operation.seenToken)
    if (seen?.session !== token.session) sees(`the id of ${operation.seenToken}`, ...(seen ? [seen.session.birth] : []))
  }
  if (operation.op === 'list') {
    for (const name of operation.seenTokens ?? []) {
      const seen = tokens.get(name)
      if (seen && seen.session.user !== token.session.user)
        sees(`${name} of ${nameOf(seen.session)}`, seen.session.birth)
    }
  }
  if ((operation.op === 'changePassword' || operation.op === 'endSessions') && operation.user !== owner) {
    sees(`success for ${operation.user}`)
  }
}

function nameOf({ user }: Session): string {
  return user?.name ?? 'a guest'
}

// Passwords: one register per user, which is written by compare-and-set and never takes an earlier value again

function judgePasswords(user: User, faults: Fault[], refute: Refute): void {
  const registered = user.registrations.length > 0 ? Math.min(...user.registrations.map(r => r.beginMs)) : 0
  const forgottenMs = faults
    .filter(fault => fault.losesUsers && registered <= fault.endMs)
    .reduce((least, { beginMs }) => Math.min(least, beginMs), Number.POSITIVE_INFINITY)
  buildPasswords(user, forgottenMs, refute)
  const { passwords, endAlls } = user
  endAlls.sort(byBegin)
  user.endAllEffects = latestUpTo(endAlls)
  const oldestFirst = [...passwords.values()].sort((a, b) => a.number - b.number)

  // If a password was set, the passwords before it were set too.
  for (const password of oldestFirst.toReversed()) {
    for (const operation of password.accepted) prove(password, operation, operation.endMs)
    for (const next of password.next) if (next.reached) prove(password, next.reached.operation, next.reached.atMs)
  }
  const first = passwords.get(0)
  if (first) {
    const registration = user.registrations.filter(({ outcome }) => outcome === 'ok').sort(byEnd)[0]
    if (registration) prove(first, registration, registration.endMs)
    else if (user.registrations.length === 0) first.reached = { atMs: Number.NEGATIVE_INFINITY, operation: null }
  }

  for (const password of oldestFirst) judgePassword(password, user, refute)
  walk(passwords)
}

function prove(password: Password, operation: { id: number } | null, atMs: number): void {
  if (password.reached === null || atMs < password.reached.atMs) password.reached = { atMs, operation }
}

function buildPasswords(user: User, forgottenMs: number, refute: Refute): void {
  const { passwords } = user
  const passwordOf = (number: number): Password =>
    getOrAdd(passwords, number, () => ({
      number,
      previous: null,
      next: [],
      attempts: [],
      accepted: [],
      refused: [],
      reached: null,
      walk: [0, 0],
      replaced: [],
    }))
  const neverRight = (operation: Operation) =>
    refute('password never set', `${told(operation)} succeeded with a password that was never right`, [operation])

  passwordOf(0)
  for (const change of user.changes) {
    if (change.endMs >= forgottenMs) continue
    const { oldPassword, newPassword, outcome } = change
    if (oldPassword === null) {
      if (outcome === 'ok') neverRight(change)
      continue
    }
    const [old, next] = [passwordOf(oldPassword), passwordOf(newPassword)]
    if (next.previous === null) {
      next.previous = old
      old.next.push(next)
    }
    next.attempts.push(change)
    if (outcome === 'ok') next.accepted.push(change)
    if (change.error === 'invalid_credentials') old.refused.push(change)
  }
  for (const login of user.logins) {
    if (login.endMs >= forgottenMs) continue
    if (login.password === null) {
      if (login.outcome === 'ok') neverRight(login)
      continue
    }
    if (login.outcome === 'ok') passwordOf(login.password).accepted.push(login)
    if (login.status === 401) passwordOf(login.password).refused.push(login)
  }
}

/** Judge the user's earlier passwords first: their refusals prove that they had been replaced. */
function judgePassword(password: Password, user: User, refute: Refute): void {
  const { number, attempts, accepted, next } = password
  const words = `password ${number} of ${user.name}`
  const logins = accepted.filter(({ op }) => op === 'login')

  if (number > 0 && !attempts.some(({ outcome }) => outcome !== 'refused')) {
    for (const login of logins)
      refute('password never set', `${words} was accepted by ${told(login)}`, [login, ...attempts])
  }
  const firstAttempt = attempts.toSorted(byBegin)[0]
  if (firstAttempt) {
    for (const login of logins) {
      if (login.endMs < firstAttempt.beginMs) {
        refute('password never set', `${words} was accepted by ${told(login)}, before it was set`, [
          login,
          firstAttempt,
        ])
      }
    }
  }

  const lastLogin = logins.toSorted(byBegin).at(-1)
  const candidates = next.filter(candidate => {
    const tried = candidate.attempts.filter(({ outcome }) => outcome !== 'refused')
    if (tried.length === 0) return false
    const settledMs = Math.max(...tried.map(lastEffect))
    const isAcknowledged = tried.some(({ outcome }) => outcome === 'ok')
    const witness =
      !isAcknowledged && lastLogin && lastLogin.beginMs > settledMs
        ? lastLogin
        : refusalAfter(candidate, settledMs, user)
    if (!witness) return true
    const { reached } = candidate
    if (reached === null) return false
    if (reached.atMs > witness.endMs || witness === lastLogin) {
      const sentence = `password ${candidate.number} of ${user.name} was accepted, although ${told(witness)} shows that it had not been set when its change was settled`
      refute('password never set', sentence, [witness, reached.operation, ...tried])
    }
    return true
  })

  judgeRefusals(password, candidates, user, refute)

  const reached = next.filter(candidate => candidate.reached !== null)
  if (reached.length > 1) {
    const proof = reached.map(candidate => (candidate.reached as Proof).operation)
    const both = reached.map(candidate => candidate.number).join(' and ')
    refute('two changes', `${words} was replaced by the passwords ${both}`, proof)
  }
  const gone = earliest(reached.map(candidate => candidate.reached as Proof))
  if (gone) {
    for (const login of logins) {
      if (login.beginMs > gone.atMs) {
        const sentence = `${words} was accepted by ${told(login)}, after it was certainly replaced at ${at(gone.atMs)}`
        refute('old password', sentence, [gone.operation, login])
      }
    }
  }
}

/** A refusal proves that a password was not set yet, or had been replaced. */
function judgeRefusals(password: Password, candidates: Password[], user: User, refute: Refute): void {
  const { number, refused, next } = password
  for (const refusal of refused.toSorted(byEnd)) {
    const { reached } = password
    if (reached === null || refusal.beginMs <= reached.atMs || isRaced(refusal, user)) continue
    const possible = candidates.filter(candidate => candidate.attempts.some(a => canHaveHappened(a, refusal.endMs)))
    const [only] = possible
    if (possible.length === 1 && only) prove(only, refusal, refusal.endMs)
    if (possible.length > 0) continue
    const attempts = next.flatMap(candidate => candidate.attempts)
    const sentence = `password ${number} of ${user.name} was refused by ${told(refusal)}, although it was set and cannot have been replaced`
    refute('right password', sentence, [reached.operation, refusal, ...attempts])
  }
}

function canHaveHappened({ outcome, beginMs }: Operation, untilMs: number): boolean {
  return outcome !== 'refused' && beginMs <= untilMs
}

/** A login fails if the user is paused, or if their sessions are ended between the check of the password and the issue of the token. */
function isRaced(login: Operation, { endAlls, endAllEffects, isPaused }: User): boolean {
  const { op, beginMs, endMs } = login
  if (op === 'login' && isPaused.canBe(login, isTrue)) return true
  const before = firstAbove(endAlls, endMs, end => end.beginMs) - 1
  return op === 'login' && before >= 0 && (endAllEffects[before] as number) >= beginMs
}

/** A refusal after the change was settled shows that the password was never set, unless a later change may have replaced it. */
function refusalAfter({ refused, next }: Password, settledMs: number, user: User): Operation | undefined {
  return refused.find(
    refusal =>
      refusal.beginMs > settledMs &&
      !isRaced(refusal, user) &&
      !next.some(({ attempts }) => attempts.some(a => canHaveHappened(a, refusal.endMs))),
  )
}

function walk(passwords: Map<number, Password>): void {
  let step = 0
  const roots = [...passwords.values()].filter(({ previous }) => previous === null)
  const open: { password: Password; next: number }[] = roots.map(password => ({ password, next: 0 }))
  while (open.length > 0) {
    const top = open[open.length - 1] as { password: Password; next: number }
    if (top.next === 0) top.password.walk[0] = ++step
    const child = top.password.next[top.next++]
    if (child) open.push({ password: child, next: 0 })
    else {
      top.password.walk[1] = ++step
      open.pop()
    }
  }
}

/** Also true if both are the same password. */
function follows(later: Password, earlier: Password): boolean {
  return later.walk[0] >= earlier.walk[0] && later.walk[1] <= earlier.walk[1]
}

// Ways in which all sessions of a user end

function latestUpTo(operations: Operation[]): number[] {
  let latest = Number.NEGATIVE_INFINITY
  return operations.map(operation => {
    latest = Math.max(latest, lastEffect(operation))
    return latest
  })
}

/** The latest birth of a session that the token can help to evict. A token of an older session would itself be evicted first. */
function lastCount(birth: Session['birth'], { tokenAbsoluteTtlMs }: HistoryHeader): number {
  if (birth.op === 'login' || (birth.kind === 'sliding' && birth.purpose === null)) return lastEffect(birth)
  return lastEffect(birth) + (birth.kind === 'sliding' ? (birth.absoluteTtlMs ?? tokenAbsoluteTtlMs) : birth.ttlMs)
}

function prepareEnds(user: User, tokens: Map<string, Token>, header: HistoryHeader): void {
  const { ends, passwords } = user
  const changes = user.changes.filter(({ outcome, oldPassword }) => outcome !== 'refused' && oldPassword !== null)
  ends.possible = [...changes, ...user.endAlls].sort(byBegin)
  ends.latestEffects = latestUpTo(ends.possible)

  const firstUnknownMs = ends.possible.find(({ outcome }) => outcome === 'unknown')?.beginMs ?? Number.POSITIVE_INFINITY
  for (const [number, end] of ends.possible.entries()) {
    if (end.op !== 'changePassword' || end.outcome !== 'ok') continue
    const before = ends.latestEffects[number - 1] ?? Number.NEGATIVE_INFINITY
    const after = ends.possible[number + 1]?.beginMs ?? Number.POSITIVE_INFINITY
    if (firstUnknownMs <= end.endMs || before >= end.beginMs || after <= end.endMs) ends.isKeepDoubtful.add(end)
  }

  ends.endAlls = user.endAlls.filter(({ outcome }) => outcome === 'ok').sort(byBegin)
  ends.earliestEndAll = suffixes(ends.endAlls, (end, later: EndAll | undefined) =>
    later && later.endMs < end.endMs ? later : end,
  )
  ends.birthBegins = user.births.map(({ beginMs }) => beginMs).sort(ascending)
  ends.lastCounts = user.births.map(birth => lastCount(birth, header)).sort(ascending)

  const newestFirst = [...passwords.values()].sort((a, b) => b.number - a.number)
  const own = new Map(newestFirst.map(password => [password, acknowledgedOf(password, tokens)]))
  for (const password of newestFirst) {
    password.replaced = earliestOf(password.next.flatMap(next => [...(own.get(next) ?? []), ...next.replaced]))
  }
  const firstAttempt = ({ attempts }: Password) => Math.min(...attempts.map(({ beginMs }) => beginMs))
  const acknowledged = newestFirst
    .flatMap(password => (own.get(password) ?? []).map(change => ({ change, firstMs: firstAttempt(password) })))
    .sort((a, b) => a.firstMs - b.firstMs)
  ends.firstAttempts = acknowledged.map(({ firstMs }) => firstMs)
  ends.earliestChanges = suffixes(acknowledged, ({ change }, later: AcknowledgedChange[] | undefined) =>
    earliestOf([change, ...(later ?? [])]),
  )
}

function acknowledgedOf({ attempts }: Password, tokens: Map<string, Token>): AcknowledgedChange[] {
  const tried = attempts.filter(({ outcome }) => outcome !== 'refused')
  const keeps = tried.map(({ token }) => tokens.get(token)?.session)
  return tried.filter(({ outcome }) => outcome === 'ok').map(change => ({ change, keeps }))
}

function earliestOf(changes: AcknowledgedChange[]): AcknowledgedChange[] {
  return changes.toSorted((a, b) => a.change.endMs - b.change.endMs).slice(0, mostReplacements)
}

/** The first acknowledged operation that ends all sessions of the user and certainly ended this session. */
function acknowledgedUserEnd(session: Session): Operation | null {
  const { user, birth } = session
  if (user === null) return null
  const { ends, passwords } = user
  const endAll = ends.earliestEndAll[firstAbove(ends.endAlls, birth.endMs, ({ beginMs }) => beginMs)]
  const password = passwordOf(session, passwords)
  const changes = password
    ? password.replaced
    : (ends.earliestChanges[firstAbove(ends.firstAttempts, birth.endMs, beginMs => beginMs)] ?? [])
  const change = changes.find(({ keeps }) => !keeps.includes(session))?.change
  if (endAll && change) return endAll.endMs <= change.endMs ? endAll : change
  return endAll ?? change ?? null
}

/** The password of the session's login, which determines the credential version of the session. */
function passwordOf({ birth }: Session, passwords: Map<number, Password>): Password | undefined {
  return birth.op === 'login' && birth.password !== null ? passwords.get(birth.password) : undefined
}

/** Whether the session may have ended by this time together with the user's other sessions. */
function canHaveEndedWithOthers(session: Session, untilMs: number, tokens: Map<string, Token>): boolean {
  const { user, birth } = session
  if (user === null) return false
  const { possible, latestEffects, isKeepDoubtful } = user.ends
  const password = passwordOf(session, user.passwords)
  for (let i = firstAbove(possible, untilMs, ({ beginMs }) => beginMs) - 1; i >= 0; i--) {
    if ((latestEffects[i] as number) < birth.beginMs) return false
    const end = possible[i] as Change | EndAll
    if (lastEffect(end) < birth.beginMs) continue
    if (end.op === 'endSessions') return true
    if (end.outcome === 'ok' && tokens.get(end.token)?.session === session && !isKeepDoubtful.has(end)) continue
    const set = user.passwords.get(end.newPassword)
    if (password && set && follows(password, set)) continue
    // The operator issues tokens with the version of the user, but a delegated token has that of its parent.
    const isOfUser = !password && session.parent === null
    if (isOfUser && set?.reached && set.reached.atMs < birth.beginMs) continue
    return true
  }
  return false
}

/** Whether the limit may have been exceeded while this session was the oldest. */
function canBeEvicted({ user, birth, isForAccount }: Session, untilMs: number, limit: number, clock: Clock): boolean {
  if (user === null || !isForAccount) return false
  const { birthBegins, lastCounts } = user.ends
  const begun = firstAbove(birthBegins, untilMs, ms => ms)
  // Auth's wall clock decides which session is the oldest.
  const older = clock.back(Number.NEGATIVE_INFINITY, untilMs) > 0 ? 0 : firstAtLeast(lastCounts, birth.beginMs)
  return begun - older - 1 >= limit
}

// Tokens: admitted in time, refused in time

interface Context {
  world: World
  header: HistoryHeader
  faults: Fault[]
  clock: Clock
  refute: Refute
}

/** Uses after the grace time count as reuses. If Auth's clock was set forward meanwhile, the grace time was shorter. */
function addReuses({ session, uses, ends }: Token, clock: Clock): void {
  const renewals = ends.filter(({ op }) => op === 'renew')
  for (const { operation } of uses) {
    const { op, beginMs, endMs } = operation
    if (op === 'logout' || (op === 'validate' && !operation.touch)) continue
    const isLate = renewals.some(renewal => {
      const leastMs = reuseGraceMs - clock.forward(renewal.beginMs, endMs) - clock.toleranceMs
      return renewal !== operation && beginMs >= renewal.beginMs && endMs - renewal.beginMs >= leastMs
    })
    if (isLate) session.reuses.push(operation)
  }
}

function checkToken(token: Token, context: Context): void {
  const { clock, refute } = context
  const { name, session, birth } = token
  token.uses.sort((a, b) => a.operation.beginMs - b.operation.beginMs)
  checkPurpose(token, refute)
  checkConsumption(token, refute)

  const end = acknowledgedEnd(token)
  const life = lifeOf(token, clock)
  let refusal: Operation | null = null
  const refusals = token.uses
    .filter(({ saysDead, operation }) => saysDead && !canBePaused(session, operation))
    .map(({ operation }) => operation)
  refusals.sort(byEnd)
  let nextRefusal = 0

  for (const use of token.uses) {
    const { operation } = use
    if (use.saysDead) {
      const sentence = life.whyLive(operation, context)
      const rule = wasEverPaused(session, operation) ? 'stale pause' : 'lost session'
      if (sentence !== null) refute(rule, sentence, [session.birth, birth, life.lastTouch(), operation])
    }
    if (operation.outcome === 'limited') checkLimited(token, operation, context)
    if (use.isAdmitted) {
      checkPauses(token, operation, refute)
      checkParent(token, operation, context)
      if (end && operation.beginMs > end.endMs) {
        const sentence = `${name} was admitted by ${told(operation)}, although it had ended with ${told(end)}, acknowledged at ${at(end.endMs)}`
        refute('ended token', sentence, [birth, end, operation])
      }
      for (let next = refusals[nextRefusal]; next && next.endMs < operation.beginMs; next = refusals[++nextRefusal]) {
        refusal ??= next
      }
      if (refusal) {
        const sentence = `${name} was admitted by ${told(operation)}, although ${told(refusal)} had refused it`
        refute('revived', sentence, [birth, refusal, operation])
      }
      const sentence = life.whyDead(operation)
      if (sentence !== null) refute('dead token', sentence, [session.birth, birth, life.lastTouch(), operation])
    }
    life.pass(use)
  }
}

function checkLimited({ name, session, birth }: Token, limited: Operation, { clock, refute }: Context): void {
  const isLook = limited.op === 'validate' && !limited.touch
  const limits = [session.limits, session.parent?.limits, session.purpose === null ? session.user?.limits : undefined]
  if (!isLook && limits.some(each => each?.canBeLimited(limited, clock))) return
  const sentence = `${name} was limited by ${told(limited)}, although no rate of it, its parent or its user can have been reached`
  refute('limited without cause', sentence, [session.birth, birth, limited])
}

/** `name` is that of a token or of a user. */
function checkLimits(name: string, limits: Limits, birth: Operation | null, { faults, clock, refute }: Context): void {
  for (const { limit, change, requests } of limits.excesses(faults, clock)) {
    const last = requests.at(-1) as Operation
    const sentence = `${name} has ${limit}, but ${told(last)} was admitted after ${requests.length - 1} others`
    refute('limit exceeded', sentence, [birth, change, ...requests])
  }
}

function checkPurpose({ name, session, uses }: Token, refute: Refute): void {
  for (const { operation } of uses) {
    if (operation.outcome === 'ok' && !isWhatItIsFor(operation, session)) {
      const what = session.isForAccount ? 'a session' : `${session.kind}, for ${session.purpose ?? 'no purpose'}`
      refute('wrong purpose', `${name}, ${what}, was admitted by ${told(operation)}`, [session.birth, operation])
    }
    if (operation.op === 'logout' && operation.status === 401 && session.isForAccount) {
      refute('status', `${told(operation)} was answered 401, although ${name} is a session`, [session.birth, operation])
    }
  }
}

function checkConsumption({ name, birth, ends, session }: Token, refute: Refute): void {
  if (session.kind !== 'single-use') return
  const [first, ...others] = ends.filter(({ outcome }) => outcome === 'ok').sort(byBegin)
  for (const other of others) {
    const sentence = `${name} is a single-use token, but was admitted by ${told(first as Operation)} and by ${told(other)}`
    refute('single use', sentence, [birth, first as Operation, other])
  }
}

/** The first acknowledged end of this token. */
function acknowledgedEnd({ session, ends }: Token): Operation | null {
  const own = [...ends, ...session.ends].filter(({ outcome }) => outcome === 'ok')
  const withOthers = acknowledgedUserEnd(session)
  if (withOthers) own.push(withOthers)
  return own.sort(byEnd)[0] ?? null
}

/** When the token expires, as an interval that each use narrows. Uses are added in the order of their begin. */
function lifeOf(token: Token, clock: Clock) {
  const { name, session, birth } = token
  const { kind, ttlMs, absoluteTtlMs, birth: root } = session
  const slides = kind === 'sliding'
  let latestMs = birth.endMs + ttlMs
  let unsettled = 0 // touches that may have happened or may still happen; each adds at most one idle time
  let lastTouch: Operation = birth

  const bridge = (untilMs: number) => {
    for (; latestMs <= untilMs && unsettled > 0; unsettled--) latestMs += ttlMs
  }
  /** A clock that was set back extends the token's life by as much. */
  const latestUntil = (ms: number) => latestMs + clock.toleranceMs + clock.back(root.beginMs, ms)

  return {
    lastTouch: () => lastTouch,

    whyDead(admission: Operation): string | null {
      const { beginMs, endMs } = admission
      const words = `${name} was admitted by ${told(admission)}`
      const absoluteMs = root.endMs + absoluteTtlMs
      if (beginMs > absoluteMs + clock.toleranceMs + clock.back(root.beginMs, endMs)) {
        return `${words}, after its absolute end, ${at(absoluteMs)} at the latest`
      }
      if (!slides) return null
      bridge(beginMs)
      return beginMs > latestUntil(endMs)
        ? `${words}, unused for too long: dead at ${at(latestMs)} at the latest`
        : null
    },

    /** Null if the token may be dead. */
    whyLive(refusal: Operation, { world, header, faults }: Omit<Context, 'refute'>): string | null {
      const { beginMs, endMs } = refusal
      if (beginMs < birth.endMs) return null
      const idleMs = lastTouch.beginMs + ttlMs - clock.forward(lastTouch.beginMs, endMs)
      const absoluteMs = root.beginMs + absoluteTtlMs - clock.forward(root.beginMs, endMs)
      const leastMs = slides ? Math.min(idleMs, absoluteMs) : absoluteMs
      if (endMs >= leastMs - clock.toleranceMs) return null
      const isEnd = (end: Operation) => end !== refusal && end.beginMs <= endMs
      if ([...token.ends, ...session.ends, ...session.reuses].some(isEnd)) return null
      if (faults.some(f => f.losesTokens && f.beginMs <= endMs && birth.beginMs <= f.endMs)) return null
      if (canHaveEndedWithOthers(session, endMs, world.tokens)) return null
      if (canBePaused(session, refusal) || session.limits.canBeUsedUp(refusal)) return null
      if (canBeParents(session, refusal, { world, header, faults, clock })) return null
      if (canBeEvicted(session, endMs, header.tokenLimitPerUser, clock)) return null
      return `${name} was refused by ${told(refusal)}, although it was live until ${at(leastMs)} or later and nothing can have ended it`
    },

    pass({ operation, touches }: Use): void {
      if (!slides || touches === 'no') return
      const { beginMs, endMs } = operation
      if (touches === 'yes') {
        lastTouch = operation
        latestMs = Math.max(latestMs, endMs + ttlMs)
        return
      }
      bridge(beginMs)
      if (beginMs > latestUntil(endMs)) return
      const effectMs = lastEffect(operation)
      if (effectMs === Number.POSITIVE_INFINITY) unsettled++
      else latestMs = Math.max(latestMs, effectMs + ttlMs)
    },
  }
}

// Order

function ascending(a: number, b: number): number {
  return a - b
}

function earliest(proofs: Proof[]): Proof | null {
  return proofs.reduce<Proof | null>((least, proof) => (least && least.atMs <= proof.atMs ? least : proof), null)
}

/** Folds the items from the last to the first, and returns the result at each index. */
function suffixes<T, R>(items: T[], fold: (item: T, later: R | undefined) => R): R[] {
  const folded: R[] = new Array(items.length)
  for (let i = items.length - 1; i >= 0; i--) folded[i] = fold(items[i] as T, folded[i + 1])
  return folded
}

function getOrAdd<K, V>(map: Map<K, V>, key: K, create: () => V): V {
  const known = map.get(key)
  if (known !== undefined) return known
  const created = create()
  map.set(key, created)
  return created
}
