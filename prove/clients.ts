// Twenty clients that use the pair at random: they race one another with the same users and tokens, try dead tokens and old
// passwords, and let sessions nearly expire. Hides how they choose their next operation.
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { adminKey, serviceKey } from '../tests/support/credentials.ts'
import type { Random } from '../tests/support/random.ts'
import { type Outcome, outcomeOf, type Rate } from './history.ts'
import { ttlSeconds } from './pair.ts'
import type { Answer, BusinessName, Recorder, Token, User } from './recorder.ts'

export const clientCount = 20

const long = { ttlSeconds: 30, absoluteTtlSeconds: 60 } // outlives a restart
const short = { ttlSeconds, absoluteTtlSeconds: ttlSeconds + 1 } // soon reaches its absolute end, however often it is used
const purpose = 'reset'
const tokensPerUser = 4
const hashesAtATime = 2 // a worker computes about twelve hashes a second, and other operations must not wait for the hashes
const usualPauseMs = [10, 60] as const

export interface Clients {
  /** Registers the users; rejects if that fails. */
  begin(): Promise<void>
  run(): void
  /** Resolves when every client has its last response. */
  stop(): Promise<void>
}

export interface ClientsOptions {
  /** Each of the first ten users is used by two clients. */
  userCount?: number | undefined
  /** The shortest and the longest pause of a client between two operations. */
  pauseMs?: readonly [number, number] | undefined
  /** Whether there is a Business with the name `business-2`. */
  twoBusinesses?: boolean
}

interface TokenLimits {
  rate?: Rate
  uses?: number
}

export function createClients(
  recorder: Recorder,
  random: Random,
  { userCount = clientCount, pauseMs = usualPauseMs, twoBusinesses = false }: ClientsOptions,
): Clients {
  const { nowMs, send, record } = recorder
  const stopping = new AbortController()
  const users: User[] = []
  const usersOf: User[][] = []
  /** Tokens of any user that were valid once, to be tried again. */
  const graveyard: Token[] = []
  /** The last tokens that were issued with limits of their own. */
  const limited: Token[] = []
  const businesses: BusinessName[] = twoBusinesses ? ['business', 'business-2'] : ['business']
  let hashes = 0
  let changes = 0
  /** Users who got `admin` with the last change of their roles, if that change was made. */
  const admins = new Set<User>()
  let running: Promise<unknown> = Promise.resolve()
  const background = new Set<Promise<unknown>>()
  const failures: unknown[] = []

  function createUser(username: string): User {
    const salt = String(random.next())
    const passwordOf = (number: number) =>
      `CANARY ${createHash('sha256').update(`${salt} ${number}`).digest('hex').slice(0, 24)}`
    const name = recorder.nameUser(username)
    const passwords = { passwords: [0], formerPasswords: [], nextPassword: 1, unfinished: null }
    return { name, username, id: '', tokens: [], passwordOf, ...passwords }
  }

  async function register(user: User, client: number): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const body = { username: user.username, password: user.passwordOf(0) }
      const answer = await send({ listener: 'auth', method: 'POST', path: '/users', body })
      if (answer) record({ op: 'register', client, asked: 'auth', user: user.name }, answer)
      if (answer?.status === 201) user.id = String(answer.body['id'])
      if (answer?.status === 201) return
      if (attempt === 20) throw new Error(`${user.username} cannot be registered: ${answer?.status}`)
      await sleep(200)
    }
  }

  function bury(token: Token): void {
    const tokens = token.user?.tokens
    if (tokens?.includes(token)) tokens.splice(tokens.indexOf(token), 1)
    graveyard.push(token)
    if (graveyard.length > 200) graveyard.shift()
  }

  function createClient(client: number, own: User[], random: Random) {
    const liveOf = (user: User) => user.tokens.filter(({ restsUntilMs }) => restsUntilMs <= nowMs())

    async function data(token: Token, asked: BusinessName = 'business'): Promise<Answer | null> {
      const answer = await send({ listener: asked, method: 'GET', path: '/data', bearer: token.secret })
      if (answer === null) return null
      const said = /^Hello, (.*)!$/s.exec(String(answer.body['data']))?.[1] ?? 'not a greeting'
      const seenUser = answer.status === 200 ? recorder.seenUser(said === 'guest' ? null : said) : undefined
      record({ op: 'data', client, asked, token: token.name, seenUser }, answer, outcomeOfUse(answer.status))
      if (answer.status === 401) bury(token)
      return answer
    }

    /** Uses a route that only users with this role may use. */
    async function adminData(token: Token): Promise<void> {
      const answer = await send({ listener: 'business', method: 'GET', path: '/admin/data', bearer: token.secret })
      if (answer === null) return
      const asked = { op: 'data', client, asked: 'business', token: token.name, role: 'admin' } as const
      record(asked, answer, answer.status === 403 ? 'ok' : outcomeOfUse(answer.status))
      if (answer.status === 401) bury(token)
    }

    /** Validates several tokens of any users at once, as Business does. */
    async function validate(tokens: Token[], touch: boolean, purpose: string | null = null): Promise<void> {
      const secrets = tokens.map(({ secret }) => secret)
      const body = { tokens: secrets, ...(!touch && { touch }), ...(purpose !== null && { purpose }) }
      const path = '/validateToken'
      const answer = await send({ listener: 'authInternal', method: 'POST', path, bearer: serviceKey, body })
      if (answer === null) return
      const verdicts = answer.body['verdicts'] as Record<string, unknown>[] | undefined
      for (const [i, { name }] of tokens.entries()) {
        const asked = { op: 'validate', client, asked: 'auth', token: name, touch, purpose } as const
        const verdict = verdicts?.[i]
        if (answer.status !== 200 || verdict === undefined) record(asked, answer)
        else if (verdict['unavailable'] === true)
          record(asked, { ...answer, status: 503, body: { error: 'unavailable' } })
        else if (verdict['limited'] === true)
          record(asked, { ...answer, body: { error: 'too_many_requests' } }, 'limited')
        else if (verdict['authenticated'] !== true)
          record(asked, { ...answer, body: { error: 'invalid_token' } }, 'refused')
        else {
          const seenUser = recorder.seenUser(verdict['username'])
          const seenRoles = verdict['roles'] as string[]
          record({ ...asked, seenUser, seenToken: recorder.seenToken(verdict['tokenId']), seenRoles }, answer)
        }
      }
    }

    /** Sent by a proxy before it forwards a request. */
    async function forwardAuth(token: Token): Promise<void> {
      const request = { listener: 'authInternal', method: 'GET', path: '/forwardAuth' } as const
      const answer = await send({ ...request, bearer: token.secret })
      if (answer === null) return
      const asked = { op: 'validate', client, asked: 'auth', token: token.name, touch: true, purpose: null } as const
      record(asked, answer, outcomeOfUse(answer.status))
    }

    /** If `password` is null, a password that was never valid is sent. */
    async function logIn(user: User, password = user.passwords[0] as number | null): Promise<void> {
      const body = { username: user.username, password: user.passwordOf(password ?? -1) }
      const answer = await send({ listener: 'auth', method: 'POST', path: '/login', body })
      if (answer === null) return
      const token = answer.status === 200 ? recorder.nameToken(String(answer.body['token']), user) : null
      const got = token ? { token: token.name } : {}
      record({ op: 'login', client, asked: 'auth', user: user.name, password, ...got }, answer)
      if (token) user.tokens.push(token)
      // Another of the possible passwords may be the valid one.
      if (answer.status === 401 && user.passwords[0] === password) user.passwords.push(user.passwords.shift() as number)
    }

    async function issue(
      user: User | null,
      kind: 'sliding' | 'single-use' | 'fixed',
      purpose: string | null = null,
      slides: { ttlSeconds: number; absoluteTtlSeconds?: number } = random.pick([
        long,
        long,
        short,
        { ttlSeconds },
        { ttlSeconds },
      ]),
      limits: TokenLimits | null = null,
    ): Promise<Token | null> {
      const lives = kind === 'sliding' ? slides : { ttlSeconds: limits ? long.ttlSeconds : 2 }
      const body = { kind, ...lives, ...limits, ...(user && { userId: user.id }), ...(purpose !== null && { purpose }) }
      const answer = await send({ listener: 'authInternal', method: 'POST', path: '/tokens', bearer: adminKey, body })
      if (answer === null) return null
      const token = answer.status === 201 ? recorder.nameToken(String(answer.body['token']), user) : null
      const { absoluteTtlSeconds } = lives
      const absolute = absoluteTtlSeconds === undefined ? {} : { absoluteTtlMs: absoluteTtlSeconds * 1000 }
      const terms = { kind, purpose, user: user?.name ?? null, ttlMs: lives.ttlSeconds * 1000, ...absolute, ...limits }
      record({ op: 'issue', client, asked: 'auth', ...terms, ...(token && { token: token.name }) }, answer)
      return token
    }

    /** A delegated token that lives as long as the session may, or an hour. */
    async function delegate(parent: Token, user: User): Promise<Token | null> {
      const request = { listener: 'auth', method: 'POST', path: '/tokens/delegate' } as const
      const answer = await send({ ...request, bearer: parent.secret, body: {} })
      if (answer === null) return null
      const { status, body } = answer
      const token = status === 201 ? recorder.nameToken(String(body['token']), user) : null
      const ttlMs = token ? Number(body['expiresAt']) - Number(body['createdAt']) : 1
      const terms = { kind: 'fixed', purpose: null, user: user.name, ttlMs, parent: parent.name } as const
      record({ op: 'issue', client, asked: 'auth', ...terms, ...(token && { token: token.name }) }, answer)
      return token
    }

    /** Delegates from a session, tries both tokens, then pauses, limits or ends the session, and tries both again. */
    async function delegateFrom(parent: Token, user: User): Promise<void> {
      const token = await delegate(parent, user)
      if (token === null) return
      await strain([token, parent])
      const change = random.pick(['end', 'end', 'pause', 'limit', 'none'])
      if (change === 'pause') await pauseFor(paused => pauseToken(parent, paused), [token, parent])
      if (change === 'limit') await changeLimit(parent)
      if (change === 'end') await logOut(parent)
      await strain([token, parent])
      if (random.chance(0.7)) await logOut(token)
      else graveyard.push(token) // other clients try it later
    }

    const bearerRequest = (method: 'GET' | 'POST' | 'DELETE', path: string, token: Token) =>
      send({ listener: 'auth', method, path, bearer: token.secret })

    async function logOut(token: Token): Promise<void> {
      const isRevoke = random.chance(0.3)
      const answer = isRevoke
        ? await send({ listener: 'auth', method: 'POST', path: '/revoke', body: { token: token.secret } })
        : await bearerRequest('POST', '/logout', token)
      if (answer === null) return
      record({ op: 'logout', client, asked: 'auth', token: token.name }, answer)
      bury(token)
      // The very next request must be refused.
      if (random.chance(0.7)) await data(token)
    }

    async function renew(token: Token): Promise<void> {
      const answer = await bearerRequest('POST', '/renew', token)
      if (answer === null) return
      const newToken = answer.status === 200 ? recorder.nameToken(String(answer.body['token']), token.user) : null
      const got = newToken ? { newToken: newToken.name } : {}
      record({ op: 'renew', client, asked: 'auth', token: token.name, ...got }, answer)
      if (newToken) token.user?.tokens.push(newToken)
      if (answer.status === 503 || answer.status === null) return
      bury(token)
      if (newToken === null) return
      await Promise.all([data(newToken), data(token)])
      // Acts like a client that has only the old secret, because its session was stolen and renewed.
      if (random.chance(0.2)) {
        await logOut(token)
        bury(newToken)
        await data(newToken)
      }
    }

    async function list(token: Token): Promise<Record<string, unknown>[]> {
      const answer = await bearerRequest('GET', '/sessions', token)
      if (answer === null) return []
      const sessions = (answer.body['sessions'] ?? []) as Record<string, unknown>[]
      const seenTokens = sessions.map(({ id }) => recorder.seenToken(id))
      const seen = answer.status === 200 ? { seenTokens: seenTokens.filter(name => name !== 'unknown') } : {}
      record({ op: 'list', client, asked: 'auth', token: token.name, ...seen }, answer)
      return sessions
    }

    async function endOne(token: Token, user: User): Promise<void> {
      const sessions = await list(token)
      const ids = sessions.map(({ id }) => id)
      const target = user.tokens.find(({ id }) => ids.includes(id) && id !== token.id)
      if (target === undefined) return
      const answer = await bearerRequest('DELETE', `/sessions/${target.id}`, token)
      if (answer === null) return
      record({ op: 'endSession', client, asked: 'auth', token: token.name, target: target.name }, answer)
      if (answer.status !== 204) return
      bury(target)
      await data(target)
    }

    async function endAll(token: Token, user: User): Promise<void> {
      const before = [...user.tokens]
      const answer = await bearerRequest('DELETE', '/sessions', token)
      if (answer === null) return
      record({ op: 'endSessions', client, asked: 'auth', token: token.name, user: user.name }, answer)
      if (answer.status !== 204) return
      for (const ended of before) bury(ended)
      await validate(before.slice(0, 8), true)
    }

    const operatorEnds = (path: string) => send({ listener: 'authInternal', method: 'DELETE', path, bearer: adminKey })

    async function operatorEndsOne(target: Token): Promise<void> {
      const answer = await operatorEnds(`/tokens/${target.id}`)
      if (answer === null) return
      record({ op: 'endSession', client, asked: 'auth', token: null, target: target.name }, answer)
      if (answer.status !== 204) return
      bury(target)
      await data(target)
    }

    async function operatorEndsAll(user: User): Promise<void> {
      const before = [...user.tokens]
      const answer = await operatorEnds(`/admin/users/${user.id}/sessions`)
      if (answer === null) return
      record({ op: 'endSessions', client, asked: 'auth', token: null, user: user.name }, answer)
      if (answer.status !== 204) return
      for (const ended of before) bury(ended)
      await validate(before.slice(0, 8), true)
    }

    const operatorChanges = (path: string, body: unknown) =>
      send({ listener: 'authInternal', method: 'PATCH', path, bearer: adminKey, body })

    /** Grants or takes `admin`. The other role is new each time, so that each answer shows which change it saw. */
    async function setRoles(user: User, token: Token): Promise<void> {
      const roles = [...(admins.has(user) ? [] : ['admin']), `change-${changes++}`]
      if (!admins.delete(user)) admins.add(user)
      if (random.chance(0.5)) await adminData(token)
      const answer = await operatorChanges(`/admin/users/${user.id}`, { roles })
      if (answer === null) return
      record({ op: 'setRoles', client, asked: 'auth', user: user.name, roles }, answer)
      await Promise.all([adminData(token), validate(sample(4, [...user.tokens]), random.chance(0.5))])
    }

    /** Resolves to the status of the answer; null if there was none. */
    async function pauseUser(user: User, paused: boolean): Promise<number | null> {
      const answer = await operatorChanges(`/admin/users/${user.id}`, { paused })
      if (answer) record({ op: 'pauseUser', client, asked: 'auth', user: user.name, paused }, answer)
      return answer?.status ?? null
    }

    async function pauseToken({ id, name }: Token, paused: boolean): Promise<number | null> {
      const answer = await operatorChanges(`/tokens/${id}`, { paused })
      if (answer) record({ op: 'pauseToken', client, asked: 'auth', target: name, paused }, answer)
      return answer?.status ?? null
    }

    /** Repeats a change until it is made or refused. False if the clients stop before. */
    async function insist(change: () => Promise<number | null>): Promise<boolean> {
      for (let status = await change(); status === null || status >= 500; status = await change()) {
        if (stopping.signal.aborted) return false
        await sleep(100)
      }
      return true
    }

    /** Pauses, tries the tokens, resumes, and tries them again; clients that were refused meanwhile get them back. */
    async function pauseFor(pause: (paused: boolean) => Promise<number | null>, tokens: Token[]): Promise<void> {
      const tryAll = () =>
        Promise.all([...tokens.slice(0, 2).map(token => data(token)), validate(tokens.slice(0, 8), true)])
      await pause(true)
      await tryAll()
      await sleep(random.between(0, 300))
      if (!(await insist(() => pause(false)))) return
      await tryAll()
      for (const token of tokens) {
        if (token.user && !token.user.tokens.includes(token)) token.user.tokens.push(token)
      }
    }

    async function pauseAll(user: User): Promise<void> {
      if (random.chance(0.3)) beside(sleep(random.between(0, 200)).then(() => hashed(() => logIn(user))))
      await pauseFor(paused => pauseUser(user, paused), [...user.tokens])
    }

    /** Sends several requests with each token at once, to all processes. */
    async function strain(tokens: Token[]): Promise<void> {
      const all = tokens.flatMap(token =>
        businesses.flatMap(business => [data(token, business), data(token, business)]),
      )
      await Promise.all([...all, validate(tokens, random.chance(0.8))])
    }

    const drawRate = (): Rate => ({ perMinute: random.pick([6, 60, 600]), burst: random.pick([1, 2, 5]) })

    /** Uses a token up to its limits and beyond; later other clients do so again, perhaps after a process was killed. */
    async function useLimited(user: User): Promise<void> {
      const uses = random.pick([2, 5, 8])
      const limits = random.pick([{ uses }, { rate: drawRate() }, { uses, rate: drawRate() }])
      const token = await issue(random.chance(0.8) ? user : null, random.pick(['sliding', 'fixed']), null, long, limits)
      if (token === null) return
      limited.push(token)
      if (limited.length > 20) limited.shift()
      await strain([token])
    }

    async function changeLimit({ id, name }: Token): Promise<void> {
      const rate = random.chance(0.3) ? null : drawRate()
      const answer = await operatorChanges(`/tokens/${id}`, { rate })
      if (answer) record({ op: 'limitToken', client, asked: 'auth', target: name, rate }, answer)
    }

    async function limitUser(user: User, rate: Rate | null): Promise<number | null> {
      const answer = await operatorChanges(`/admin/users/${user.id}`, { rate })
      if (answer) record({ op: 'limitUser', client, asked: 'auth', user: user.name, rate }, answer)
      return answer?.status ?? null
    }

    /** Limits all tokens of the user together for a moment, and tries them before and after. */
    async function limitFor(user: User): Promise<void> {
      await limitUser(user, drawRate())
      await strain(sample(2, [...user.tokens]))
      await sleep(random.between(0, 300))
      await strain(sample(1, [...user.tokens]))
      if (await insist(() => limitUser(user, null))) await strain(sample(1, [...user.tokens]))
    }

    async function changePassword(token: Token, user: User): Promise<void> {
      const oldPassword = user.unfinished?.oldPassword ?? (user.passwords[0] as number)
      const newPassword = user.unfinished?.newPassword ?? user.nextPassword++
      const body = { currentPassword: user.passwordOf(oldPassword), password: user.passwordOf(newPassword) }
      const before = user.tokens.filter(other => other !== token)
      const request = { listener: 'auth', method: 'PATCH', path: '/users/me' } as const
      const answer = await send({ ...request, bearer: token.secret, body })
      if (answer === null) return
      const change = { user: user.name, token: token.name, oldPassword, newPassword }
      record({ op: 'changePassword', client, asked: 'auth', ...change }, answer)
      const { status } = answer
      if (status === 200) {
        user.formerPasswords.push(...user.passwords.filter(password => password !== newPassword))
        user.passwords = [newPassword]
        user.unfinished = null
        for (const ended of before) bury(ended)
        await validate([token, ...before.slice(0, 8)], true)
      } else if (status === null || status >= 500) {
        user.unfinished = { oldPassword, newPassword }
        if (!user.passwords.includes(newPassword)) user.passwords.unshift(newPassword)
      } else {
        user.unfinished = null
      }
    }

    /** Uses one secret twice at the same moment, on routes drawn at random; at most one use may succeed. */
    async function raceForSingleUse(user: User): Promise<void> {
      const token = await issue(random.chance(0.8) ? user : null, 'single-use')
      if (token === null) return
      await Promise.all([data(token), random.chance(0.5) ? data(token) : validate([token], true)])
      if (random.chance(0.3)) await data(token)
    }

    /** Uses a token for its own purpose, and for other purposes, which must be refused. */
    async function useForPurpose(user: User): Promise<void> {
      const token = await issue(user, random.pick(['fixed', 'single-use']), purpose)
      if (token === null) return
      await data(token)
      await validate([token], true)
      await validate([token], true, purpose)
      await validate([token], true, purpose)
    }

    async function useFixed(user: User): Promise<void> {
      const token = await issue(user, 'fixed')
      if (token === null) return
      await data(token)
      token.restsUntilMs = nowMs() + random.between(1500, 2500)
      user.tokens.push(token)
    }

    async function logInOrIssue(user: User): Promise<void> {
      if (random.chance(0.15)) return hashed(() => logIn(user))
      const token = await issue(user, 'sliding')
      if (token) user.tokens.push(token)
    }

    async function hashed(what: () => Promise<void>): Promise<void> {
      if (hashes >= hashesAtATime) return
      hashes++
      await what().finally(() => hashes--)
    }

    type Step = (user: User, token: Token) => Promise<unknown>
    const steps: [weight: number, Step][] = [
      [50, (_user, token) => data(token)],
      [8, (user, token) => validate([token, ...sample(3, [...user.tokens, ...graveyard])], random.chance(0.7))],
      [8, () => (graveyard.length > 0 ? data(random.pick(graveyard)) : Promise.resolve())],
      [5, (_user, token) => logOut(token)],
      [5, (_user, token) => renew(token)],
      [4, (_user, token) => list(token)],
      [3, (_user, token) => forwardAuth(token)],
      [3, (user, token) => endOne(token, user)],
      [2, (_user, token) => operatorEndsOne(token)],
      [1, (user, token) => endAll(token, user)],
      [1, user => operatorEndsAll(user)],
      [2, (_user, token) => data(recorder.inventToken(token))],
      [2, user => useForPurpose(user)],
      [6, user => raceForSingleUse(user)],
      [2, user => useFixed(user)],
      [4, user => logInOrIssue(user)],
      [3, (user, token) => hashed(() => changePassword(token, user))],
      [2, user => hashed(() => tryOldPassword(user))],
      [1, user => hashed(() => logIn(user, null))],
      [6, (_user, token) => adminData(token)],
      [4, (user, token) => setRoles(user, token)],
      [3, async (_user, token) => beside(pauseFor(paused => pauseToken(token, paused), [token]))],
      [2, async user => beside(pauseAll(user))],
      [3, user => useLimited(user)],
      [4, () => (limited.length > 0 ? strain([random.pick(limited)]) : Promise.resolve())],
      [1, () => (limited.length > 0 ? changeLimit(random.pick(limited)) : Promise.resolve())],
      [2, async user => beside(limitFor(user))],
      [3, async (_user, token) => beside(rest(token))],
      [1, async () => beside(outlive())],
      [3, async (user, token) => beside(delegateFrom(token, user))],
    ]
    const total = steps.reduce((sum, [weight]) => sum + weight, 0)

    /** Leaves the token unused until about its expiry, then tries it. */
    async function rest(token: Token): Promise<void> {
      const restsMs = ttlSeconds * 1000 + random.between(-300, 300)
      token.restsUntilMs = nowMs() + restsMs
      await sleep(restsMs, null, { signal: stopping.signal })
      await data(token)
    }

    /** Uses a guest's token, which no client logs out, until shortly after its absolute end. */
    async function outlive(): Promise<void> {
      const token = await issue(null, 'sliding', null, short)
      for (let restsMs = short.absoluteTtlSeconds * 1000 + 500; token !== null && restsMs > 0; restsMs -= 900) {
        await sleep(900, null, { signal: stopping.signal })
        await data(token)
      }
    }

    /** Lets `what` continue alongside the client's next operations. */
    function beside(what: Promise<void>): void {
      const going = what
        .catch(error => stopping.signal.aborted || failures.push(error))
        .finally(() => background.delete(going))
      background.add(going)
    }

    function drawStep(): Step {
      let left = random.next() * total
      for (const [weight, step] of steps) {
        left -= weight
        if (left < 0) return step
      }
      return (_user, token) => data(token)
    }

    const sample = (count: number, tokens: Token[]) => random.shuffle(tokens).slice(0, count)

    async function tryOldPassword(user: User): Promise<void> {
      const former = user.formerPasswords.at(-1)
      if (former !== undefined) await logIn(user, former)
    }

    return async function live(): Promise<void> {
      while (!stopping.signal.aborted) {
        await sleep(random.between(...pauseMs))
        const user = random.pick(own)
        if (user.tokens.length < tokensPerUser) await logInOrIssue(user)
        const live = liveOf(user)
        if (live.length === 0) continue
        await drawStep()(user, random.pick(live))
      }
    }
  }

  return {
    async begin() {
      for (let i = 0; i < userCount; i++) users.push(createUser(`client-${i}@example.com`))
      await Promise.all(users.map((user, i) => register(user, i)))
      for (let i = 0; i < clientCount; i++) {
        const [shared, own] = [users[Math.floor(i / 2)], i % 2 === 0 && users[clientCount / 2 + i / 2]]
        usersOf.push([shared, own].filter(user => typeof user === 'object'))
      }
    },
    run() {
      const clients = usersOf.map((own, i) => createClient(i, own, random.stream(`client ${i}`)))
      running = Promise.all(clients.map(live => live()))
      running.catch(() => {}) // reported by `stop`
    },
    async stop() {
      stopping.abort()
      await running
      await Promise.all(background)
      if (failures.length > 0) throw failures[0]
    },
  }
}

/** The outcome of a request that validates a token. The limits of addresses, which answer 429 too, are out of reach. */
function outcomeOfUse(status: number | null): Outcome {
  return status === 429 ? 'limited' : outcomeOf(status)
}
