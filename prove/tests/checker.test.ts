// The checker of recorded histories: what each rule passes and what it refutes, by hand-made histories and by those of a
// model of Latchkey that keeps every promise, or breaks one.
import { expect } from 'chai'
import fc from 'fast-check'
import { checkHistory, type Rule } from '../checker.ts'
import {
  type Fault,
  type HistoryHeader,
  type Operation,
  type OperationName,
  outcomeOf,
  readHistory,
} from '../history.ts'

const header: HistoryHeader = {
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

type Line = Record<string, unknown>

const okStatuses: Partial<Record<OperationName, number>> = {
  register: 201,
  issue: 201,
  logout: 204,
  endSession: 204,
  endSessions: 204,
}

/** An operation from `beginMs` to `endMs`; ok where no status is given. */
function line(op: OperationName, [beginMs, endMs]: [number, number], members: Line): Line {
  const status = 'status' in members ? (members['status'] as number | null) : (okStatuses[op] ?? 200)
  const code = op === 'login' ? 'invalid_credentials' : 'invalid_token'
  const error = status === 401 ? code : null
  return { client: 1, op, beginMs, endMs, outcome: outcomeOf(status), error, asked: 'auth', ...members, status }
}

const login = (user: string, token: string, when: [number, number], members: Line = {}) =>
  line('login', when, { user, token, password: 0, ...members })
const badLogin = (user: string, password: number | null, when: [number, number], members: Line = {}) =>
  line('login', when, { user, password, status: 401, ...members })
const data = (token: string, when: [number, number], members: Line = {}) =>
  line('data', when, { token, asked: 'business', ...members })
const no = { status: 401 }
const lost = { status: 503 }
const logout = (token: string, when: [number, number], members: Line = {}) =>
  line('logout', when, { token, ...members })
const renew = (token: string, newToken: string, when: [number, number], members: Line = {}) =>
  line('renew', when, { token, newToken, ...members })
const change = (
  user: string,
  token: string,
  [from, to]: [number | null, number],
  when: [number, number],
  members: Line = {},
) => line('changePassword', when, { user, token, oldPassword: from, newPassword: to, ...members })
const endAll = (user: string, when: [number, number], members: Line = {}) =>
  line('endSessions', when, { user, token: null, ...members })
const issue = (token: string, when: [number, number], members: Line = {}) =>
  line('issue', when, { token, kind: 'single-use', purpose: null, user: null, ttlMs: 3000, ...members })
const fault = (when: [number, number], members: Partial<Fault> = {}): Line => ({
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

function linesOf(lines: Line[], changes: Partial<HistoryHeader> = {}): string[] {
  return [{ ...header, ...changes }, ...lines.map((members, number) => ({ id: number + 1, ...members }))].map(each =>
    JSON.stringify(each),
  )
}

function check(lines: Line[], changes: Partial<HistoryHeader> = {}) {
  return checkHistory(readHistory(linesOf(lines, changes)))
}

function expectFine(lines: Line[], changes: Partial<HistoryHeader> = {}): void {
  expect(check(lines, changes)).to.deep.equal([])
}

/** Fine without the last line, and with it broken by this rule, which names that line. */
function expectBrokenByLast(rule: Rule, lines: Line[], changes: Partial<HistoryHeader> = {}): void {
  expectFine(lines.slice(0, -1), changes)
  const violations = check(lines, changes)
  expect(violations.map(violation => violation.rule)).to.include(rule)
  for (const { ids } of violations) expect(ids).to.include(lines.length)
}

/** What a model can do wrong, and the rule that finds it. */
const flaws = {
  'forgets to end a session that logs out': 'ended token',
  'ends with a log-out the secret alone': 'ended token',
  'remembers a verdict for a second': 'ended token',
  'renews without ending the old secret': 'ended token',
  'changes a password and leaves the sessions': 'ended token',
  'ends sessions by a walk, which a log-in can race': 'ended token',
  'admits a single-use token twice': 'single use',
  "answers with another request's user": 'wrong owner',
  'accepts the password before the last, too': 'old password',
  'acknowledges a change of password that it does not write': 'right password',
  'loses a session now and then': 'lost session',
  'says 401 where it could not ask': 'lost session',
  'admits dead tokens': 'dead token',
  'slides beyond the absolute end': 'dead token',
  'does not look at the purpose': 'wrong purpose',
  'brings a refused token back': 'revived',
  'answers 500 now and then': 'status',
} as const satisfies Record<string, Rule>
type Flaw = keyof typeof flaws
type FaultKind = 'empties' | 'clock'

interface Run {
  seed: number
  operations: number
  clients: number
  users: number
  shareUnknown?: number
  faults?: FaultKind[]
  flaw?: Flaw
}

interface ModelToken {
  /** The first secret, which stands for the id. */
  session: string
  createdAt: number
  user: string | null
  kind: 'sliding' | 'fixed' | 'single-use'
  purpose: string | null
  version: number
  ttlMs: number
  expiresAt: number
  absoluteExpiresAt: number
}

interface ModelUser {
  password: number
  previous: number
  version: number
  endedVersion: number
  /** That which the last change of password made: only then is the same request again the rest of it. */
  passwordVersion: number
  floor: number
  isChanging: number
}

interface Answer {
  status: number
  members?: Line
}

/** Each yield lets time pass; what is between two of them is one atomic step. */
type Steps = Generator<undefined, Answer>

const modelHeader: HistoryHeader = {
  ...header,
  tokenTtlMs: 250,
  tokenAbsoluteTtlMs: 500,
  tokenLimitPerUser: 12,
  toleranceMs: 0,
}

function createRandom(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** What the clients of a model recorded, each with one request at a time. */
function record({ seed, operations: count, clients, users: userCount, shareUnknown = 0.05, faults = [], flaw }: Run) {
  const random = createRandom(seed)
  const between = (low: number, high: number) => low + (high - low) * random()
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T
  const chance = (share: number) => random() < share

  const events: { atMs: number; run: () => void }[] = []
  const later = (atMs: number, run: () => void) => events.push({ atMs, run })
  let nowMs = 0
  let clockOffsetMs = 0
  const serverNow = () => nowMs + clockOffsetMs

  const names = Array.from({ length: userCount }, (_, number) => `u${number + 1}`)
  const users = new Map<string, ModelUser>(
    names.map(name => [
      name,
      { password: 0, previous: 0, version: 1, endedVersion: 1, passwordVersion: 1, floor: 0, isChanging: 0 },
    ]),
  )
  const userOf = (name: string) => users.get(name) as ModelUser
  const tokens = new Map<string, ModelToken>()
  /** Of every secret, those that are dead included. */
  const sessions = new Map<string, string>()
  const cache = new Map<string, { untilMs: number; user: string | null }>()
  let drawn = 0

  const isLive = (token: ModelToken) =>
    (flaw === 'admits dead tokens' || serverNow() < token.expiresAt) &&
    (token.user === null || token.version >= userOf(token.user).floor)

  function look(name: string, purpose: string | null): ModelToken | null {
    const token = tokens.get(name)
    if (!token || !isLive(token)) return null
    if (flaw === 'loses a session now and then' && chance(0.01)) tokens.delete(name)
    return token.purpose === purpose || flaw === 'does not look at the purpose' ? token : null
  }

  function touch(name: string, purpose: string | null): ModelToken | null {
    const token = look(name, purpose)
    if (flaw === 'brings a refused token back' && token && chance(0.02)) return null
    if (token?.kind === 'single-use' && (flaw !== 'admits a single-use token twice' || chance(0.5))) tokens.delete(name)
    if (token?.kind === 'sliding') {
      const end = flaw === 'slides beyond the absolute end' ? Number.POSITIVE_INFINITY : token.absoluteExpiresAt
      token.expiresAt = Math.min(serverNow() + token.ttlMs, end)
    }
    return token
  }

  const touchSession = (name: string) => (isSession(tokens.get(name)) ? touch(name, null) : null)
  const isSession = (token?: ModelToken) => token?.kind === 'sliding' && token.user !== null && token.purpose === null
  const dead: Answer = { status: 401 }
  const wrong: Answer = { status: 401, members: { error: 'invalid_credentials' } }

  function insert(
    token: Omit<ModelToken, 'session' | 'createdAt' | 'expiresAt' | 'absoluteExpiresAt'>,
    absoluteTtlMs: number,
  ) {
    const { user, version, ttlMs } = token
    if (user !== null && version < userOf(user).floor) return null
    const own = [...tokens].filter(([, other]) => user !== null && other.user === user && isLive(other))
    if (own.length >= modelHeader.tokenLimitPerUser) {
      const sessions = own.filter(([, other]) => isSession(other))
      const [oldest] = sessions.sort(([, one], [, other]) => one.createdAt - other.createdAt)
      if (!oldest) return 'full'
      tokens.delete(oldest[0])
    }
    const name = `t${++drawn}`
    const absoluteExpiresAt = serverNow() + absoluteTtlMs
    const expiresAt = Math.min(serverNow() + ttlMs, absoluteExpiresAt)
    sessions.set(name, name)
    tokens.set(name, { ...token, session: name, createdAt: serverNow(), expiresAt, absoluteExpiresAt })
    return name
  }

  function endUser(name: string, version: number, keep: string | null): void {
    const user = userOf(name)
    for (const [secret, token] of tokens) {
      if (token.user !== name || token.version >= version) continue
      if (token.session === keep && token.version >= user.floor) token.version = version
      else if (flaw === 'ends sessions by a walk, which a log-in can race') tokens.delete(secret)
    }
    if (flaw !== 'ends sessions by a walk, which a log-in can race') user.floor = Math.max(user.floor, version)
  }

  function finish(name: string, version: number, keep: string | null): void {
    const user = userOf(name)
    endUser(name, version, user.endedVersion === version - 1 ? keep : null)
    if (user.version === version) user.endedVersion = version
  }

  function* login(name: string, password: number | null): Steps {
    yield
    const { password: right, previous, version } = userOf(name)
    const isPrevious = flaw === 'accepts the password before the last, too' && password === previous
    yield
    if (password !== right && !isPrevious) return wrong
    const { tokenTtlMs: ttlMs, tokenAbsoluteTtlMs } = modelHeader
    const token = insert({ user: name, kind: 'sliding', purpose: null, version, ttlMs }, tokenAbsoluteTtlMs)
    yield
    if (token === 'full') return { status: 503 }
    return token === null ? wrong : { status: 200, members: { token } }
  }

  function* data(name: string): Steps {
    yield
    const cached = cache.get(name)
    const isRemembered = flaw === 'remembers a verdict for a second' && cached && cached.untilMs > nowMs
    const verdict = isRemembered ? cached : touch(name, null)
    if (verdict && !isRemembered) cache.set(name, { untilMs: nowMs + 1000, user: verdict.user })
    yield
    if (flaw === 'answers 500 now and then' && chance(0.01)) return { status: 500 }
    if (!verdict) return dead
    const isSwapped = flaw === "answers with another request's user" && chance(0.05)
    return { status: 200, members: { seenUser: isSwapped ? pick(names) : verdict.user } }
  }

  function* validate(name: string, purpose: string | null, touches: boolean): Steps {
    yield
    const verdict = touches ? touch(name, purpose) : look(name, purpose)
    yield
    if (!verdict) return { status: 200, members: { outcome: 'refused', error: 'invalid_token' } }
    return { status: 200, members: { seenUser: verdict.user, seenToken: verdict.session } }
  }

  function* logout(name: string): Steps {
    yield
    const token = tokens.get(name)
    if (token && isLive(token) && !isSession(token)) return dead
    const session = sessions.get(name)
    for (const [secret, other] of tokens) {
      if (other.session !== session || flaw === 'forgets to end a session that logs out') continue
      if (secret === name || flaw !== 'ends with a log-out the secret alone') tokens.delete(secret)
    }
    yield
    return { status: 204 }
  }

  function* renew(name: string): Steps {
    yield
    if (!isSession(look(name, null) ?? undefined)) return dead
    yield
    const old = look(name, null)
    if (!old) return dead
    const newToken = `t${++drawn}`
    const expiresAt = Math.min(serverNow() + old.ttlMs, old.absoluteExpiresAt)
    sessions.set(newToken, old.session)
    tokens.set(newToken, { ...old, expiresAt })
    if (flaw !== 'renews without ending the old secret') tokens.delete(name)
    yield
    return { status: 200, members: { newToken } }
  }

  function* list(name: string): Steps {
    yield
    const session = touchSession(name)
    yield
    if (!session) return dead
    const own = [...tokens.values()].filter(token => token.user === session.user && isSession(token) && isLive(token))
    yield
    return { status: 200, members: { seenTokens: own.map(token => token.session) } }
  }

  function* endSession(name: string, target: string): Steps {
    yield
    const session = touchSession(name)
    yield
    if (!session) return dead
    const id = tokens.get(target)?.session
    const own = [...tokens].filter(([, token]) => token.session === id && token.user === session.user && isLive(token))
    for (const [secret] of own) tokens.delete(secret)
    yield
    return { status: own.length > 0 ? 204 : 404 }
  }

  function* endSessions(token: string | null, name: string): Steps {
    yield
    if (token !== null && !touchSession(token)) return dead
    yield
    const version = ++userOf(name).version
    yield
    finish(name, version, null)
    yield
    return { status: 204 }
  }

  function* changePassword(token: string, name: string, from: number, to: number): Steps {
    yield
    const session = touchSession(token)?.session
    if (!session) return dead
    yield
    const user = userOf(name)
    const { password, version, passwordVersion } = user
    const isSame = password === to && user.endedVersion < version && passwordVersion === version
    yield
    if (isSame) {
      finish(name, version, session)
      yield
      return { status: 200 }
    }
    if (password !== from) return wrong
    if (user.version !== version) return { status: 409 }
    if (flaw !== 'acknowledges a change of password that it does not write') {
      Object.assign(user, { password: to, previous: from, version: version + 1, passwordVersion: version + 1 })
    }
    user.isChanging++
    yield
    user.isChanging--
    if (flaw !== 'changes a password and leaves the sessions') finish(name, version + 1, session)
    yield
    return { status: 200 }
  }

  function* issue(name: string | null, kind: ModelToken['kind'], purpose: string | null, ttlMs: number): Steps {
    yield
    const version = name === null ? 0 : userOf(name).version
    yield
    const absoluteTtlMs = kind === 'sliding' ? modelHeader.tokenAbsoluteTtlMs : ttlMs
    const token = insert({ user: name, kind, purpose, version, ttlMs }, absoluteTtlMs)
    yield
    if (token === 'full') return { status: 503 }
    return token === null ? { status: 409 } : { status: 201, members: { token } }
  }

  /** What the driver knows: the tokens that it got, and the passwords that it tried. */
  const known: { token: string; user: string | null }[] = []
  const passwords = new Map(names.map(name => [name, { latest: 0, follows: new Map<number, number>() }]))

  function choose(): { op: OperationName; members: Line; steps: Steps } {
    const user = pick(names)
    const tried = passwords.get(user) as { latest: number; follows: Map<number, number> }
    const recent = Math.floor(between(Math.max(0, tried.latest - 3), tried.latest + 1))
    const held = known.slice(-25)
    const dice = random()
    if (held.length === 0 || dice < 0.15) {
      const password = chance(0.05) ? null : chance(0.7) ? userOf(user).password : recent
      return { op: 'login', members: { user, password }, steps: login(user, password) }
    }
    if (dice < 0.2) {
      const kind = pick(['sliding', 'fixed', 'single-use'] as const)
      const purpose = chance(0.3) ? 'reset' : null
      const owner = chance(0.7) ? user : null
      const ttlMs = between(50, 600)
      return { op: 'issue', members: { user: owner, kind, purpose, ttlMs }, steps: issue(owner, kind, purpose, ttlMs) }
    }
    const holder = pick(held)
    const { token } = holder
    const members = { token }
    if (dice < 0.6) return { op: 'data', members: { ...members, asked: 'business' }, steps: data(token) }
    if (dice < 0.7) {
      const purpose = chance(0.3) ? 'reset' : null
      const touches = chance(0.5)
      return {
        op: 'validate',
        members: { ...members, purpose, touch: touches },
        steps: validate(token, purpose, touches),
      }
    }
    if (dice < 0.76) return { op: 'logout', members, steps: logout(token) }
    if (dice < 0.84) return { op: 'renew', members, steps: renew(token) }
    if (dice < 0.88) return { op: 'list', members, steps: list(token) }
    if (dice < 0.91) {
      const target = pick(held).token
      return { op: 'endSession', members: { ...members, target }, steps: endSession(token, target) }
    }
    if (dice < 0.93 || holder.user === null) {
      const own = chance(0.5) || holder.user === null ? null : token
      const name = own === null ? user : (holder.user as string)
      return { op: 'endSessions', members: { token: own, user: name }, steps: endSessions(own, name) }
    }
    const name = holder.user
    const own = passwords.get(name) as { latest: number; follows: Map<number, number> }
    const again = chance(0.4) ? own.follows.get(own.latest) : undefined
    const from = again ?? (chance(0.8) ? userOf(name).password : Math.floor(between(0, own.latest + 1)))
    const to = again === undefined ? ++own.latest : own.latest
    own.follows.set(to, from)
    const change = { ...members, user: name, oldPassword: from, newPassword: to }
    return { op: 'changePassword', members: change, steps: changePassword(token, name, from, to) }
  }

  const lines: Line[] = []
  const ownerOf = (name: string) => known.find(({ token }) => token === name)?.user ?? null
  const recordLine = (written: Line) => {
    const { op, outcome, token, newToken, user } = written
    lines.push(written)
    if (outcome !== 'ok') return
    if (op === 'login' || op === 'issue') known.push({ token: token as string, user: user as string | null })
    if (op === 'renew') known.push({ token: newToken as string, user: ownerOf(token as string) })
  }

  let begun = 0
  function client(number: number): void {
    if (begun >= count) return
    const id = ++begun
    const { op, members, steps } = choose()
    const beginMs = nowMs
    const endMs = beginMs + between(1, 40)
    const isUnknown = chance(shareUnknown)
    const goOn = () => later(nowMs + between(0, 40), () => client(number))
    const write = ({ status, members: seen }: { status: number | null; members?: Line | undefined }) =>
      line(op, [beginMs, endMs], { id, client: number, expectsDisconnect: true, ...members, ...seen, status })

    if (!isUnknown) {
      const times = Array.from({ length: 5 }, () => between(beginMs, endMs)).sort((a, b) => a - b)
      let answer: Answer | undefined
      for (const atMs of times) {
        later(atMs, () => {
          if (answer) return
          const { done, value } = steps.next()
          if (done) answer = value
        })
      }
      later(endMs, () => {
        // The last steps of a long one, all at once.
        while (!answer) answer = steps.next().value ?? undefined
        recordLine(write(answer))
        goOn()
      })
      return
    }

    const stopsAfter = Math.floor(between(0, 7)) // steps: then its process was killed
    const hangsUntil = chance(0.5) ? endMs : endMs + between(0, 800)
    const times = Array.from({ length: stopsAfter }, () => between(beginMs, hangsUntil)).sort((a, b) => a - b)
    let isDone = false
    for (const atMs of times) {
      later(atMs, () => {
        if (!isDone) isDone = steps.next().done === true
      })
    }
    later(Math.max(endMs, hangsUntil), () => {
      if (op === 'changePassword') userOf(members['user'] as string).isChanging = 0
    })
    later(endMs, () => {
      const settled = chance(0.7) ? { settledMs: Math.max(endMs, hangsUntil) } : {}
      const isLie = flaw === 'says 401 where it could not ask' && op === 'data'
      recordLine({ ...write({ status: isLie ? 401 : chance(0.5) ? 503 : null }), ...(isLie ? {} : settled) })
      goOn()
    })
  }

  const endsAtMs = (count / clients) * 45
  const recorded: Fault[] = []
  const addFault = (members: Partial<Fault>, strike: () => void) => {
    const beginMs = between(0, endsAtMs)
    const endMs = beginMs + between(0, 100)
    recorded.push({ id: 1_000_000 + recorded.length, ...(fault([beginMs, endMs], members) as object) } as Fault)
    later(between(beginMs, endMs), strike)
  }
  if (faults.includes('empties')) addFault({ losesTokens: true }, () => tokens.clear())
  if (faults.includes('clock')) {
    for (const clockShiftMs of [400, -700]) addFault({ clockShiftMs }, () => (clockOffsetMs += clockShiftMs))
  }
  for (let atMs = 100; atMs < endsAtMs; atMs += 250) {
    later(atMs, () => {
      for (const [name, token] of tokens) if (flaw !== 'admits dead tokens' && !isLive(token)) tokens.delete(name)
      for (const [name, user] of users) {
        if (user.endedVersion < user.version && user.isChanging === 0 && chance(0.5)) finish(name, user.version, null)
      }
    })
  }
  for (let number = 0; number < clients; number++) later(random(), () => client(number))

  while (events.length > 0) {
    let soonest = 0
    for (let i = 1; i < events.length; i++) {
      if ((events[i]?.atMs as number) < (events[soonest]?.atMs as number)) soonest = i
    }
    const [event] = events.splice(soonest, 1)
    nowMs = event?.atMs as number
    event?.run()
  }
  return { header: modelHeader, operations: lines as unknown as Operation[], faults: recorded }
}

/** The same, of other users and tokens. */
function rename(operation: Operation, copy: number): Operation {
  const renamed: Line = { ...operation, id: operation.id + copy * 1_000_000 }
  for (const member of ['user', 'token', 'newToken', 'target', 'seenUser', 'seenToken']) {
    if (typeof renamed[member] === 'string') renamed[member] += `.${copy}`
  }
  if (operation.op === 'list') renamed['seenTokens'] = operation.seenTokens?.map(name => `${name}.${copy}`)
  return renamed as unknown as Operation
}

describe('checkHistory', () => {
  const t1 = login('u1', 't1', [0, 10])

  describe('an ended token is not admitted by a request that begins after the acknowledgement', () => {
    it('refutes a token that outlives its log-out', () => {
      expectBrokenByLast('ended token', [t1, logout('t1', [20, 30]), data('t1', [31, 40])])
    })

    it('passes a request that began at or before the acknowledgement, however late its answer', () => {
      expectFine([t1, logout('t1', [20, 30]), data('t1', [30, 900]), data('t1', [25, 28])])
    })

    it('passes a request after a log-out whose outcome is unknown, either way', () => {
      expectFine([t1, logout('t1', [20, 30], lost), data('t1', [40, 50]), data('t1', [60, 70], no)])
    })

    it('refutes the old secret of a renewed session', () => {
      expectBrokenByLast('ended token', [t1, renew('t1', 't2', [20, 30]), data('t2', [31, 35]), data('t1', [36, 40])])
    })

    it('refutes a session that outlives a log-out with a secret that it had before', () => {
      const renewed = [t1, renew('t1', 't2', [20, 30]), renew('t2', 't3', [40, 50])]
      expectBrokenByLast('ended token', [...renewed, logout('t1', [60, 70]), data('t3', [71, 80])])
      expectBrokenByLast('ended token', [...renewed, logout('t2', [35, 70]), data('t3', [71, 80])])
    })

    it('refutes a session that was ended by its id, also by its next secret', () => {
      const ended = line('endSession', [40, 50], { token: null, target: 't1' })
      expectBrokenByLast('ended token', [t1, renew('t1', 't2', [20, 30]), ended, data('t2', [51, 60])])
    })

    it('refutes a session that outlives the end of all', () => {
      expectBrokenByLast('ended token', [t1, endAll('u1', [20, 30]), data('t1', [31, 40])])
    })

    it('counts the first acknowledgement of several that overlap', () => {
      expectBrokenByLast('ended token', [t1, endAll('u1', [20, 100]), endAll('u1', [30, 40]), data('t1', [41, 50])])
    })

    it('counts every answer that only a live session gets as admitted', () => {
      const ended = [t1, logout('t1', [20, 30])]
      const conflict = change('u1', 't1', [0, 1], [31, 40], { status: 409, error: 'conflict' })
      const wrong = change('u1', 't1', [null, 1], [31, 40], { status: 401, error: 'invalid_credentials' })
      const unknownId = line('endSession', [31, 40], { token: 't1', target: 't9', status: 404, error: 'not_found' })
      for (const answer of [conflict, wrong, unknownId]) expectBrokenByLast('ended token', [...ended, answer])
      expectFine([...ended, change('u1', 't1', [0, 1], [31, 40], { ...no, error: 'invalid_token' })])
    })

    it('passes a session that began while or after all were ended', () => {
      const t2 = login('u1', 't2', [25, 40])
      const t3 = login('u1', 't3', [31, 40])
      expectFine([t1, endAll('u1', [20, 30]), t2, t3, data('t2', [50, 60]), data('t3', [50, 60])])
      expectFine([t1, endAll('u1', [20, 30]), t2, data('t2', [50, 60], no)])
    })

    it('refutes another session after a change of password, and passes the one that changed it', () => {
      const t2 = login('u1', 't2', [0, 10])
      const changed = change('u1', 't1', [0, 1], [20, 30])
      expectBrokenByLast('ended token', [t1, t2, changed, data('t1', [31, 40]), data('t2', [41, 50])])
    })

    it('refutes a session of the old password whose log-in raced the change', () => {
      const raced = login('u1', 't2', [25, 45])
      const changed = change('u1', 't1', [0, 1], [20, 30])
      expectFine([t1, raced, changed, data('t2', [46, 50], no)])
      expectBrokenByLast('ended token', [t1, raced, changed, data('t2', [46, 50])])
    })

    it('passes a session of the new password that began before the change was acknowledged', () => {
      const early = login('u1', 't2', [22, 28], { password: 1 })
      expectFine([t1, change('u1', 't1', [0, 1], [20, 30]), early, data('t2', [31, 40])])
    })

    it('passes what the first attempt of a change was to keep, and refutes the others', () => {
      const first = change('u1', 't1', [0, 1], [20, 30], lost)
      const t2 = login('u1', 't2', [0, 10])
      const again = change('u1', 't2', [0, 1], [40, 50])
      expectFine([t1, t2, first, again, data('t1', [60, 70]), data('t2', [60, 70])])
      const t3 = login('u1', 't3', [0, 10])
      expectBrokenByLast('ended token', [t1, t2, t3, first, again, data('t3', [60, 70])])
    })

    it("ends the user's issued tokens with his password", () => {
      const key = issue('t2', [0, 10], { kind: 'fixed', user: 'u1' })
      expectBrokenByLast('ended token', [t1, key, change('u1', 't1', [0, 1], [20, 30]), data('t2', [31, 40])])
    })
  })

  describe('a dead token is not admitted', () => {
    it('refutes a token that was unused for longer than its idle time', () => {
      expectFine([t1, data('t1', [1019, 1020])])
      expectBrokenByLast('dead token', [t1, data('t1', [1021, 1025])])
    })

    it('counts from the end of the last request that was ok', () => {
      expectFine([t1, data('t1', [900, 950]), data('t1', [1955, 1960])])
      expectBrokenByLast('dead token', [t1, data('t1', [900, 950]), data('t1', [1961, 1965])])
    })

    it('counts a request of unknown outcome as one that may have slid it, until it is settled', () => {
      const unknown = data('t1', [900, 950], { ...lost, settledMs: 1000 })
      expectFine([t1, unknown, data('t1', [2005, 2007])])
      expectBrokenByLast('dead token', [t1, unknown, data('t1', [2011, 2012])])
    })

    it('gives one idle time for a request that is never settled', () => {
      const unknown = data('t1', [900, 950], lost)
      expectFine([t1, unknown, data('t1', [2015, 2017])])
      expectBrokenByLast('dead token', [t1, unknown, data('t1', [2021, 2022])])
    })

    it('is not slid by a look, by a refusal, or by a request that came too late', () => {
      const look = line('validate', [900, 905], { token: 't1', touch: false })
      expectBrokenByLast('dead token', [t1, look, data('t1', [1100, 1110])])
      const late = data('t1', [1030, 1040], { ...lost, settledMs: 1041 })
      expectBrokenByLast('dead token', [t1, late, data('t1', [1100, 1110])])
    })

    it('refutes a token that was used again and again beyond its absolute end', () => {
      const uses = Array.from({ length: 6 }, (_, number) => data('t1', [900 * number + 500, 900 * number + 510]))
      expectBrokenByLast('dead token', [t1, ...uses.slice(0, 5), data('t1', [4900, 4901]), data('t1', [5021, 5022])])
      expectFine([t1, ...uses.slice(0, 5), data('t1', [5020, 5022])])
    })

    it('keeps the absolute end of a session that is renewed', () => {
      const renewals = [800, 1600, 2400, 3200, 4000, 4800].map((begin, number) =>
        renew(`t${number + 1}`, `t${number + 2}`, [begin, begin + 5]),
      )
      expectBrokenByLast('dead token', [t1, ...renewals, data('t7', [5050, 5060])])
    })

    it('gives back what a clock that is put back gives', () => {
      expectFine([t1, fault([100, 110], { clockShiftMs: -500 }), data('t1', [1500, 1510])])
      expectBrokenByLast('dead token', [t1, fault([100, 110], { clockShiftMs: -500 }), data('t1', [1521, 1525])])
    })
  })

  describe('a live session is not lost', () => {
    it('refutes a refusal that nothing explains, also during a fault', () => {
      expectBrokenByLast('lost session', [t1, data('t1', [20, 30]), data('t1', [40, 50], no)])
      const away = fault([35, 60], { disconnects: ['auth'] })
      expectBrokenByLast('lost session', [t1, data('t1', [20, 30]), away, data('t1', [40, 50], no)])
    })

    it('refutes 429 for a live token, which is for dead ones only', () => {
      expectBrokenByLast('lost session', [t1, data('t1', [40, 50], { status: 429 })])
    })

    it('passes a refusal that overlaps an end, acknowledged or not', () => {
      expectFine([t1, data('t1', [20, 30], no), logout('t1', [30, 40])])
      expectFine([
        t1,
        data('t1', [20, 30], no),
        endAll('u1', [25, 40], { status: null, asked: 'nobody', expectsDisconnect: true }),
      ])
      expectBrokenByLast('lost session', [t1, logout('t1', [31, 40]), data('t1', [20, 30], no)])
    })

    it('passes a refusal when the token may have expired, and refutes it before', () => {
      expectFine([t1, data('t1', [980, 990], no)])
      expectBrokenByLast('lost session', [t1, data('t1', [980, 989], no)])
      expectFine([t1, data('t1', [500, 600]), data('t1', [1480, 1490], no)])
      expectBrokenByLast('lost session', [t1, data('t1', [500, 600]), data('t1', [1480, 1489], no)])
    })

    it('passes a refusal after a fault that loses tokens, of those issued before it was over', () => {
      const emptied = fault([20, 40], { losesTokens: true })
      expectFine([t1, emptied, data('t1', [50, 60], no)])
      expectBrokenByLast('lost session', [t1, emptied, login('u1', 't2', [41, 50]), data('t2', [60, 70], no)])
    })

    it('passes a refusal of the oldest session where there is one too many', () => {
      const [t2, t3] = [login('u1', 't2', [20, 30]), login('u1', 't3', [30, 40])]
      expectFine([t1, t2, t3, data('t1', [50, 60], no)], { tokenLimitPerUser: 2 })
      expectBrokenByLast('lost session', [t1, t2, t3, data('t2', [50, 60], no)], { tokenLimitPerUser: 2 })
    })

    it('counts older tokens that are no sessions, which are never ended for another', () => {
      const key = issue('t0', [0, 1], { kind: 'fixed', user: 'u1' })
      const [t2, t3] = [login('u1', 't2', [20, 30]), login('u1', 't3', [31, 40])]
      expectFine([key, t2, t3, data('t2', [50, 60], no)], { tokenLimitPerUser: 2 })
      expectBrokenByLast('lost session', [key, t2, t3, data('t0', [50, 60], no)], { tokenLimitPerUser: 2 })
    })

    it('passes a refusal of what a clock that was put back made the oldest', () => {
      const [t2, t3, t4] = [login('u1', 't2', [20, 30]), login('u1', 't3', [40, 50]), login('u1', 't4', [60, 70])]
      const limits = { tokenLimitPerUser: 2 }
      expectFine([t1, t2, fault([32, 33], { clockShiftMs: -500 }), t3, t4, data('t3', [80, 90], no)], limits)
      expectBrokenByLast('lost session', [t1, t2, t3, t4, data('t3', [80, 90], no)], limits)
    })

    it('refutes the loss of the session that changed the password', () => {
      const changed = change('u1', 't1', [0, 1], [20, 30])
      expectBrokenByLast('lost session', [t1, changed, data('t1', [31, 40], no)])
    })

    it('passes its loss where another change was not finished', () => {
      expectFine([t1, endAll('u1', [5, 8], lost), change('u1', 't1', [0, 1], [20, 30]), data('t1', [31, 40], no)])
      expectFine([t1, endAll('u1', [28, 35]), change('u1', 't1', [0, 1], [20, 30]), data('t1', [31, 40], no)])
    })

    it('passes its loss also where that other change is older than the session', () => {
      const unknown = change('u1', 't1', [0, 1], [20, 30], { ...lost, settledMs: 31 })
      const t2 = login('u1', 't2', [40, 50], { password: 1 })
      expectFine([t1, unknown, t2, change('u1', 't2', [1, 2], [60, 70]), data('t2', [80, 90], no)])
      const known = change('u1', 't1', [0, 1], [20, 30])
      const kept = [t1, known, t2, change('u1', 't2', [1, 2], [60, 70])]
      expectBrokenByLast('lost session', [...kept, data('t2', [80, 90], no)])
    })

    it('refutes the loss of a session of the new password', () => {
      const unknown = change('u1', 't1', [0, 1], [20, 30], lost)
      const t2 = login('u1', 't2', [40, 50], { password: 1 })
      expectBrokenByLast('lost session', [t1, unknown, t2, data('t2', [60, 70], no)])
    })

    it('refutes the loss of a token that was issued when the new password had worked', () => {
      const unknown = change('u1', 't1', [0, 1], [20, 30], lost)
      const t2 = login('u1', 't2', [40, 50], { password: 1 })
      const key = (when: [number, number]) => issue('t3', when, { kind: 'fixed', user: 'u1' })
      expectFine([t1, unknown, t2, key([45, 60]), data('t3', [70, 80], no)])
      expectBrokenByLast('lost session', [t1, unknown, t2, key([51, 60]), data('t3', [70, 80], no)])
    })

    it('passes a refusal that began before the token was got', () => {
      expectFine([t1, data('t1', [9, 20], no)])
    })

    it('passes a loss to a clock that is put forward', () => {
      expectFine([t1, fault([100, 110], { clockShiftMs: 900 }), data('t1', [200, 210], no)])
      const late = [t1, fault([100, 110], { clockShiftMs: 900 }), data('t1', [120, 125]), data('t1', [200, 210], no)]
      expectBrokenByLast('lost session', late)
    })
  })

  it('a token that was refused does not come back', () => {
    expectFine([t1, data('t1', [20, 30], no), data('t1', [25, 35]), logout('t1', [22, 28], lost)])
    expectBrokenByLast('revived', [t1, logout('t1', [20, 28], lost), data('t1', [30, 35], no), data('t1', [36, 40])])
  })

  describe('a session may end when a secret comes back that was renewed away', () => {
    const long = { tokenTtlMs: 60_000, tokenAbsoluteTtlMs: 120_000 }
    const renewed = [t1, renew('t1', 't2', [20, 30])]
    const gone = data('t2', [20_000, 20_010], no)

    it('passes its loss after a use more than ten seconds after the renewal, by whatever outcome', () => {
      for (const members of [no, lost]) expectFine([...renewed, data('t1', [10_020, 10_040], members), gone], long)
      expectFine(
        [...renewed, renew('t2', 't3', [40, 50]), data('t1', [10_060, 10_070], no), { ...gone, token: 't3' }],
        long,
      )
    })

    it('refutes its loss after a use within ten seconds, a look, or none', () => {
      expectBrokenByLast('lost session', [...renewed, gone], long)
      expectBrokenByLast('lost session', [...renewed, data('t1', [9_900, 9_980], no), gone], long)
      const look = line('validate', [15_000, 15_010], { token: 't1', touch: false, ...no })
      expectBrokenByLast('lost session', [...renewed, look, gone], long)
    })

    it('refutes its loss before that use, and after the use of a secret that is still good', () => {
      const reuse = data('t1', [15_000, 15_010], no)
      expectBrokenByLast('lost session', [...renewed, reuse, data('t2', [14_000, 14_900], no)], long)
      expectBrokenByLast('lost session', [...renewed, data('t2', [15_000, 15_010]), gone], long)
    })
  })

  describe('a single-use token is admitted once', () => {
    const t2 = issue('t2', [0, 10])

    it('refutes the second, also where both overlap', () => {
      expectBrokenByLast('single use', [t2, data('t2', [20, 30]), data('t2', [25, 35])])
    })

    it('passes one after another of unknown outcome, and refusals after that', () => {
      expectFine([t2, data('t2', [20, 30], lost), data('t2', [40, 50]), data('t2', [60, 70], no)])
      expectFine([t2, data('t2', [20, 30], lost), data('t2', [40, 50], no)])
    })

    it('is not consumed by a look', () => {
      const look = line('validate', [20, 30], { token: 't2', touch: false })
      expectFine([t2, look, look, data('t2', [40, 50])].map(each => ({ ...each })))
      expectBrokenByLast('lost session', [t2, look, data('t2', [40, 50], no)])
      expectBrokenByLast('ended token', [t2, data('t2', [10, 15]), { ...look }])
    })
  })

  describe('a token opens what it was issued for', () => {
    it('refutes /data for a token with a purpose, and an account for a token that is no session', () => {
      expectBrokenByLast('wrong purpose', [issue('t2', [0, 10], { purpose: 'reset' }), data('t2', [20, 30])])
      const list = (status: number) => line('list', [20, 30], { token: 't2', status })
      expectFine([issue('t2', [0, 10], { kind: 'fixed', user: 'u1' }), list(401)])
      expectBrokenByLast('wrong purpose', [issue('t2', [0, 10], { kind: 'fixed', user: 'u1' }), list(200)])
    })

    it('passes its refusal elsewhere', () => {
      const right = line('validate', [40, 50], { token: 't2', touch: true, purpose: 'reset' })
      expectFine([issue('t2', [0, 10], { purpose: 'reset' }), data('t2', [20, 30], no), right])
    })
  })

  describe('an answer belongs to its user', () => {
    it("refutes another user's name, and a name for a guest", () => {
      expectFine([
        t1,
        data('t1', [20, 30], { seenUser: 'u1' }),
        issue('t2', [0, 1]),
        data('t2', [2, 3], { seenUser: null }),
      ])
      expectBrokenByLast('wrong owner', [t1, data('t1', [20, 30], { seenUser: 'u2' })])
      expectBrokenByLast('wrong owner', [t1, data('t1', [20, 30], { seenUser: null })])
    })

    it("refutes another user's sessions in a list", () => {
      const t2 = login('u2', 't2', [0, 10])
      expectBrokenByLast('wrong owner', [t1, t2, line('list', [20, 30], { token: 't1', seenTokens: ['t1', 't2'] })])
    })

    it("refutes another token's id, and passes that of the same session before its renewal", () => {
      const seen = (seenToken: string) => line('validate', [40, 50], { token: 't3', touch: true, seenToken })
      const before = [t1, login('u1', 't2', [0, 10]), renew('t1', 't3', [20, 30])]
      expectFine([...before, seen('t1')])
      expectBrokenByLast('wrong owner', [...before, seen('t2')])
    })

    it('refutes one token for two log-ins, and a token that nobody got', () => {
      expectBrokenByLast('issued twice', [t1, login('u2', 't1', [0, 10])])
      expectFine([data('t9', [0, 10], no), logout('t9', [0, 10])])
      expectBrokenByLast('never issued', [data('t9', [0, 10])])
    })
  })

  describe('exactly one of the old and the new password works', () => {
    const changed = change('u1', 't1', [0, 1], [20, 30])
    const unknown = change('u1', 't1', [0, 1], [20, 30], lost)
    const settled = { ...unknown, settledMs: 35 }
    const withOld = (when: [number, number]) => login('u1', `old${when[0]}`, when)
    const withNew = (when: [number, number]) => login('u1', `new${when[0]}`, when, { password: 1 })

    it('refutes the old one after an acknowledged change, and passes it before', () => {
      expectFine([t1, changed, withOld([30, 40])])
      expectBrokenByLast('old password', [t1, changed, withOld([31, 40])])
    })

    it('refutes the old one after the new one has worked', () => {
      expectFine([t1, unknown, withOld([40, 50]), withNew([60, 70])])
      expectBrokenByLast('old password', [t1, unknown, withNew([60, 70]), withOld([71, 80])])
    })

    it('refutes the old one after it was refused', () => {
      expectBrokenByLast('old password', [t1, unknown, badLogin('u1', 0, [40, 50]), withOld([51, 60])])
    })

    it('refutes the right one being refused, and neither working', () => {
      expectBrokenByLast('right password', [t1, badLogin('u1', 0, [20, 30])])
      expectBrokenByLast('right password', [t1, changed, badLogin('u1', 1, [31, 40])])
      expectFine([t1, unknown, badLogin('u1', 1, [31, 40]), badLogin('u1', 0, [41, 50])])
      expectBrokenByLast('right password', [t1, unknown, badLogin('u1', 0, [31, 40]), badLogin('u1', 1, [41, 50])])
      expectBrokenByLast('right password', [t1, settled, badLogin('u1', 1, [36, 40]), badLogin('u1', 0, [41, 50])])
    })

    it('refutes the new one after its change could no longer happen', () => {
      expectFine([t1, unknown, withOld([36, 40]), withNew([41, 50])])
      expectBrokenByLast('password never set', [t1, settled, withOld([36, 40]), withNew([41, 50])])
      expectBrokenByLast('password never set', [t1, settled, badLogin('u1', 1, [36, 40]), withNew([41, 50])])
      expectBrokenByLast('password never set', [t1, settled, withNew([36, 50]), withOld([40, 45])])
      const refused = change('u1', 't1', [0, 1], [20, 30], { status: 409 })
      expectBrokenByLast('password never set', [t1, refused, withNew([41, 50])])
      expectBrokenByLast('password never set', [t1, login('u1', 't2', [20, 30], { password: null })])
    })

    it('refutes two changes of the same password', () => {
      expectBrokenByLast('two changes', [t1, changed, change('u1', 't1', [0, 2], [20, 30])])
      expectFine([t1, changed, change('u1', 't1', [0, 2], [20, 30], { status: 401, error: 'invalid_credentials' })])
    })

    it('passes the same change again', () => {
      expectFine([t1, unknown, change('u1', 't1', [0, 1], [40, 50]), withNew([60, 70])])
    })

    it('passes a log-in that loses to the end of all sessions', () => {
      expectFine([t1, endAll('u1', [20, 30]), badLogin('u1', 0, [30, 40])])
      expectBrokenByLast('right password', [t1, endAll('u1', [20, 30]), badLogin('u1', 0, [31, 40])])
    })

    it('passes a user who is not yet registered or was forgotten', () => {
      const registered = line('register', [20, 30], { user: 'u2' })
      expectFine([badLogin('u2', 0, [0, 10]), registered, badLogin('u2', 0, [30, 40])])
      expectBrokenByLast('right password', [registered, badLogin('u2', 0, [31, 40])])
      expectFine([t1, fault([20, 30], { losesUsers: true }), badLogin('u1', 0, [40, 50])])
    })
  })

  describe('an answer is one that the contract knows', () => {
    it('refutes 500 and 502, also during a fault', () => {
      const away = fault([0, 60], { disconnects: ['business'] })
      expectFine([t1, away, data('t1', [20, 30], { status: 503 })])
      expectBrokenByLast('status', [t1, away, data('t1', [20, 30], { status: 500 })])
      expectBrokenByLast('status', [t1, away, data('t1', [20, 30], { status: 502 })])
      expectBrokenByLast('status', [t1, data('t1', [20, 30], { status: 404 })])
    })

    it('refutes a 401 of the wrong kind', () => {
      expectBrokenByLast('status', [t1, logout('t1', [20, 30], no)])
      expectBrokenByLast('status', [badLogin('u1', null, [0, 10], { error: 'invalid_token' })])
    })

    it('refutes no answer, but while the one who was asked is at fault or the client itself hung up', () => {
      const none = { status: null }
      expectFine([t1, data('t1', [60, 70], none), fault([30, 40], { disconnects: ['business'], recoveredMs: 60 })])
      expectFine([t1, data('t1', [60, 70], { ...none, expectsDisconnect: true })])
      expectFine([t1, data('t1', [60, 70], none), fault([0, 59], { disconnects: ['business'], recoveredMs: null })])
      expectBrokenByLast('status', [t1, fault([0, 59], { disconnects: ['business'] }), data('t1', [60, 70], none)])
      expectBrokenByLast('status', [t1, fault([0, 80], { disconnects: ['auth'] }), data('t1', [60, 70], none)])
    })
  })

  it('judges ten thousand operations a second, also where all are of one user', () => {
    const { operations } = record({ seed: 7, operations: 4000, clients: 40, users: 30 })
    const copies: Operation[] = []
    for (let copy = 0; copy < 10; copy++) {
      for (const operation of operations) copies.push(rename(operation, copy))
    }
    const chain: Line[] = [login('u1', 't0', [0, 1])]
    for (let number = 0; number < 2000; number++) {
      const from = 50 * number + 10
      chain.push(change('u1', `t${number}`, [number, number + 1], [from, from + 5], number % 2 ? {} : lost))
      chain.push(login('u1', `t${number + 1}`, [from + 10, from + 15], { password: number + 1 }))
      chain.push(endAll('u1', [from + 16, from + 17], lost))
      chain.push(data(`t${number + 1}`, [from + 20, from + 25]), data(`t${number}`, [from + 20, from + 25], no))
    }
    for (const history of [
      { header: modelHeader, operations: copies, faults: [] },
      readHistory(linesOf(chain, { tokenLimitPerUser: 5000 })),
    ]) {
      const began = performance.now()
      expect(checkHistory(history)).to.deep.equal([])
      expect(performance.now() - began).to.be.below(history.operations.length / 10)
    }
  })
})

describe('readHistory', () => {
  const good = linesOf([login('u1', 't1', [0, 10]), data('t1', [20, 30]), fault([5, 6])])
  const withLine = (members: Line) => [...good, JSON.stringify({ id: 9, ...members })]

  it('reads what was recorded, in any order', () => {
    const { operations, faults } = readHistory([good[0], good[3], good[2], '', good[1]] as string[])
    expect(operations.map(({ id }) => id)).to.deep.equal([2, 1])
    expect(faults).to.have.length(1)
  })

  const refused: Record<string, [string[], RegExp]> = {
    'an empty file': [[], /^line 1: no header/],
    'a file without its header': [good.slice(1), /^line 1: no header of a latchkey-history/],
    'another version': [[JSON.stringify({ ...header, version: 2 })], /^line 1: .*version/],
    'a line that was cut off': [[...good, '{"id":9,"op":"da'], /^line 5: not JSON/],
    'an unknown operation': [withLine({ op: 'dance' }), /^line 5: op/],
    'a missing member': [withLine({ ...data('t1', [0, 1]), token: undefined }), /^line 5: token/],
    'an id that is there twice': [withLine({ ...data('t1', [0, 1]), id: 2 }), /^line 5: the id 2 was used before/],
    'an end before the begin': [withLine(data('t1', [2, 1])), /^line 5: endMs is before beginMs/],
    'an outcome against its status': [
      withLine({ ...data('t1', [0, 1]), outcome: 'unknown' }),
      /^line 5: a status of 200 is ok/,
    ],
    'a log-in without its token': [
      withLine({ ...login('u1', 't2', [0, 1]), token: undefined }),
      /^line 5: an ok without/,
    ],
    'a password that follows two': [
      [
        ...withLine(change('u1', 't1', [0, 2], [0, 1])),
        JSON.stringify({ id: 10, ...change('u1', 't1', [1, 2], [0, 1]) }),
      ],
      /^line 6: password 2 of u1 follows both 0 and 1/,
    ],
  }
  for (const [what, [lines, words]] of Object.entries(refused)) {
    it(`refuses ${what}, with its line and in words`, () => {
      expect(() => readHistory(lines)).to.throw(words)
    })
  }
})

describe('checkHistory, of a model of Latchkey', () => {
  it('never refutes one that keeps every promise, whatever overlaps, hangs, crashes or is forgotten', () => {
    const runs = fc.record({
      seed: fc.nat(),
      operations: fc.integer({ min: 50, max: 1200 }),
      clients: fc.integer({ min: 2, max: 25 }),
      users: fc.integer({ min: 1, max: 8 }),
      shareUnknown: fc.constantFrom(0, 0.05, 0.3),
      faults: fc.constantFrom<FaultKind[]>([], ['empties'], ['clock'], ['empties', 'clock']),
    })
    fc.assert(
      fc.property(runs, run => {
        expect(checkHistory(record(run))).to.deep.equal([])
      }),
      { numRuns: 60 },
    )
  })

  for (const [flaw, rule] of Object.entries(flaws)) {
    it(`refutes one that ${flaw}`, () => {
      const found = new Set<Rule>()
      for (let seed = 1; seed <= 12 && !found.has(rule); seed++) {
        const history = record({ seed, operations: 1000, clients: 15, users: 4, flaw: flaw as Flaw })
        for (const violation of checkHistory(history)) found.add(violation.rule)
      }
      expect([...found]).to.include(rule)
    })
  }
})
