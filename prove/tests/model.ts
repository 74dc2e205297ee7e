// A model of Latchkey that keeps every promise, or breaks a chosen one, and the histories of its clients.
import type { Rule } from '../checker.ts'
import type { Fault, HistoryHeader, Operation, OperationName } from '../history.ts'
import { fault, header, type Line, line } from './historyLines.ts'

/** What a model can do wrong, and the rule that finds it. */
export const flaws = {
  'forgets to end a session that logs out': 'ended token',
  'ends only the current secret with a log-out': 'ended token',
  'remembers a verdict for a second': 'ended token',
  'renews without ending the old secret': 'ended token',
  'changes a password and keeps the sessions': 'ended token',
  'ends sessions one by one, so that a log-in can race it': 'ended token',
  'admits a single-use token twice': 'single use',
  "answers with another request's user": 'wrong owner',
  'also accepts the previous password': 'old password',
  'acknowledges a password change that it does not write': 'right password',
  'loses a session now and then': 'lost session',
  'answers 401 when it has no verdict': 'lost session',
  'admits dead tokens': 'dead token',
  'slides beyond the absolute end': 'dead token',
  'ignores the purpose': 'wrong purpose',
  'revives a refused token': 'revived',
  'answers 500 now and then': 'status',
  'remembers roles for a second': 'stale authority',
  'answers a change of roles before tokens show it': 'stale authority',
  'admits paused tokens': 'stale authority',
  'shows a resumed user as paused': 'stale pause',
} as const satisfies Record<string, Rule>
export type Flaw = keyof typeof flaws
export type FaultKind = 'empties' | 'clock'

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
  /** The session's first secret, which stands for its id. */
  session: string
  createdAt: number
  user: string | null
  kind: 'sliding' | 'fixed' | 'single-use'
  purpose: string | null
  version: number
  ttlMs: number
  expiresAt: number
  absoluteExpiresAt: number
  isPaused: boolean
}

interface ModelUser {
  password: number
  previous: number
  version: number
  endedVersion: number
  /** The version that the last password change made; a repeated request completes that change only at this version. */
  passwordVersion: number
  floor: number
  isChanging: number
  /** As written in the first step of a change, and as tokens show it after the second. */
  authority: Authority
  shown: Authority
}

interface Authority {
  version: number
  roles: string[]
  isPaused: boolean
}

interface Answer {
  status: number
  members?: Line
}

/** Each yield lets time pass; the code between two yields is one atomic step. */
type Steps = Generator<undefined, Answer>

export const modelHeader: HistoryHeader = {
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

/** Runs clients of a model, each with one request at a time, and returns the history that they record. */
export function record({
  seed,
  operations: count,
  clients,
  users: userCount,
  shareUnknown = 0.05,
  faults = [],
  flaw,
}: Run) {
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
  const noAuthority = { version: 0, roles: [], isPaused: false }
  const users = new Map<string, ModelUser>(
    names.map(name => [
      name,
      {
        ...{ password: 0, previous: 0, version: 1, endedVersion: 1, passwordVersion: 1, floor: 0, isChanging: 0 },
        ...{ authority: noAuthority, shown: noAuthority },
      },
    ]),
  )
  const userOf = (name: string) => users.get(name) as ModelUser
  const tokens = new Map<string, ModelToken>()
  /** Secret -> session, including dead secrets. */
  const sessions = new Map<string, string>()
  const cache = new Map<string, { untilMs: number; user: string | null }>()
  const rolesCache = new Map<string, { untilMs: number; roles: string[] }>()
  let drawn = 0
  let drawnRoles = 0

  const isLive = (token: ModelToken) =>
    (flaw === 'admits dead tokens' || serverNow() < token.expiresAt) &&
    (token.user === null || token.version >= userOf(token.user).floor)

  const isPaused = ({ isPaused, user }: ModelToken) =>
    flaw !== 'admits paused tokens' && (isPaused || (user !== null && userOf(user).shown.isPaused))

  function rolesOf(user: string | null): string[] {
    if (user === null) return []
    const cached = rolesCache.get(user)
    if (flaw === 'remembers roles for a second' && cached && cached.untilMs > nowMs) return cached.roles
    const { roles } = userOf(user).shown
    rolesCache.set(user, { untilMs: nowMs + 1000, roles })
    return roles
  }

  function look(name: string, purpose: string | null): ModelToken | null {
    const token = tokens.get(name)
    if (!token) return null
    if (!isLive(token)) {
      tokens.delete(name) // even if the clock is set back
      return null
    }
    if (isPaused(token)) return null
    if (flaw === 'loses a session now and then' && chance(0.01)) tokens.delete(name)
    return token.purpose === purpose || flaw === 'ignores the purpose' ? token : null
  }

  function touch(name: string, purpose: string | null): ModelToken | null {
    const token = look(name, purpose)
    if (flaw === 'revives a refused token' && token && chance(0.02)) return null
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
    token: Omit<ModelToken, 'session' | 'createdAt' | 'expiresAt' | 'absoluteExpiresAt' | 'isPaused'>,
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
    tokens.set(name, { ...token, session: name, createdAt: serverNow(), expiresAt, absoluteExpiresAt, isPaused: false })
    return name
  }

  function endUser(name: string, version: number, keep: string | null): void {
    const user = userOf(name)
    for (const [secret, token] of tokens) {
      if (token.user !== name || token.version >= version) continue
      if (token.session === keep && token.version >= user.floor) token.version = version
      else if (flaw === 'ends sessions one by one, so that a log-in can race it') tokens.delete(secret)
    }
    if (flaw !== 'ends sessions one by one, so that a log-in can race it') user.floor = Math.max(user.floor, version)
  }

  function finish(name: string, version: number, keep: string | null): void {
    const user = userOf(name)
    endUser(name, version, user.endedVersion === version - 1 ? keep : null)
    if (user.version === version) user.endedVersion = version
  }

  function* login(name: string, password: number | null): Steps {
    yield
    const { password: right, previous, version, authority } = userOf(name)
    const isPrevious = flaw === 'also accepts the previous password' && password === previous
    yield
    if ((password !== right && !isPrevious) || authority.isPaused) return wrong
    const { tokenTtlMs: ttlMs, tokenAbsoluteTtlMs } = modelHeader
    const token = insert({ user: name, kind: 'sliding', purpose: null, version, ttlMs }, tokenAbsoluteTtlMs)
    yield
    if (token === 'full') return { status: 503 }
    return token === null ? wrong : { status: 200, members: { token } }
  }

  function* data(name: string, role: string | null): Steps {
    yield
    const cached = cache.get(name)
    const isRemembered = flaw === 'remembers a verdict for a second' && cached && cached.untilMs > nowMs
    const verdict = isRemembered ? cached : touch(name, null)
    if (verdict && !isRemembered) cache.set(name, { untilMs: nowMs + 1000, user: verdict.user })
    const roles = verdict ? rolesOf(verdict.user) : []
    yield
    if (flaw === 'answers 500 now and then' && chance(0.01)) return { status: 500 }
    if (!verdict) return dead
    if (role !== null) {
      const status = roles.includes(role) ? 200 : 403
      return { status, members: { outcome: 'ok' } }
    }
    const isSwapped = flaw === "answers with another request's user" && chance(0.05)
    return { status: 200, members: { seenUser: isSwapped ? pick(names) : verdict.user } }
  }

  function* validate(name: string, purpose: string | null, touches: boolean): Steps {
    yield
    const verdict = touches ? touch(name, purpose) : look(name, purpose)
    const seenRoles = verdict ? rolesOf(verdict.user) : []
    yield
    if (!verdict) return { status: 200, members: { outcome: 'refused', error: 'invalid_token' } }
    return { status: 200, members: { seenUser: verdict.user, seenToken: verdict.session, seenRoles } }
  }

  function* logout(name: string): Steps {
    yield
    const token = tokens.get(name)
    if (token && isLive(token) && !isSession(token)) return dead
    const session = sessions.get(name)
    for (const [secret, other] of tokens) {
      if (other.session !== session || flaw === 'forgets to end a session that logs out') continue
      if (secret === name || flaw !== 'ends only the current secret with a log-out') tokens.delete(secret)
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
    if (flaw !== 'acknowledges a password change that it does not write') {
      Object.assign(user, { password: to, previous: from, version: version + 1, passwordVersion: version + 1 })
    }
    user.isChanging++
    yield
    user.isChanging--
    if (flaw !== 'changes a password and keeps the sessions') finish(name, version + 1, session)
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

  function show(name: string): void {
    const user = userOf(name)
    const { authority, shown } = user
    if (shown.version >= authority.version) return
    const isStuck = flaw === 'shows a resumed user as paused' && shown.isPaused
    user.shown = { ...authority, isPaused: authority.isPaused || isStuck }
  }

  function* changeAuthority(name: string, changes: Partial<Authority>): Steps {
    yield
    const user = userOf(name)
    user.authority = { ...user.authority, ...changes, version: user.authority.version + 1 }
    yield
    if (flaw !== 'answers a change of roles before tokens show it') show(name)
    yield
    return { status: 200 }
  }

  function* pauseToken(name: string, paused: boolean): Steps {
    yield
    const session = sessions.get(name)
    const own = [...tokens.values()].filter(token => token.session === session && isLive(token))
    for (const token of own) token.isPaused = paused
    yield
    return { status: own.length > 0 ? 200 : 404 }
  }

  /** The state of the driver: the tokens that it received, and the passwords that it tried. */
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
    if (dice < 0.23) {
      const roles = [...(chance(0.5) ? ['admin'] : []), `change-${drawnRoles++}`]
      return { op: 'setRoles', members: { user, roles }, steps: changeAuthority(user, { roles }) }
    }
    if (dice < 0.25) {
      const paused = userOf(user).authority.isPaused ? false : chance(0.5)
      return { op: 'pauseUser', members: { user, paused }, steps: changeAuthority(user, { isPaused: paused }) }
    }
    if (dice < 0.28) {
      const paused = chance(0.4)
      return { op: 'pauseToken', members: { target: token, paused }, steps: pauseToken(token, paused) }
    }
    if (dice < 0.6) {
      const role = chance(0.3) ? 'admin' : null
      const asks = { ...members, asked: 'business', ...(role && { role }) }
      return { op: 'data', members: asks, steps: data(token, role) }
    }
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
        // Take the last steps of a long operation all at once.
        while (!answer) answer = steps.next().value ?? undefined
        recordLine(write(answer))
        goOn()
      })
      return
    }

    const stopsAfter = Math.floor(between(0, 7)) // the number of steps until the process is killed
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
      const isLie = flaw === 'answers 401 when it has no verdict' && op === 'data'
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
        if (chance(0.5)) show(name)
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

/** A copy of the operation with an id, users and tokens of its own. */
export function rename(operation: Operation, copy: number): Operation {
  const renamed: Line = { ...operation, id: operation.id + copy * 1_000_000 }
  for (const member of ['user', 'token', 'newToken', 'target', 'seenUser', 'seenToken']) {
    if (typeof renamed[member] === 'string') renamed[member] += `.${copy}`
  }
  if (operation.op === 'list') renamed['seenTokens'] = operation.seenTokens?.map(name => `${name}.${copy}`)
  return renamed as unknown as Operation
}
