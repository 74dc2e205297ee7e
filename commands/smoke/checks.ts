// What `npm run smoke` asks a deployment, in this order, and what it says where an answer is not the contract's
// (docs/http-api.md). Changes nothing but the sessions that it makes and ends itself.
import { randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Answer, Fault, openClient, type Question } from './client.ts'

export interface Target {
  /** Origins. */
  auth: string
  business: string
  internal: string | null
  /** Where no internal listener may answer. */
  internalPorts: number[]
  user: { username: string; password: string } | null
  serviceKey: string | null
  allowsHttp: boolean
}

export type Outcome = 'passed' | 'failed' | 'unchecked'

const budgetMs = 18_000
const atOnce = 4 // requests: more than one process may answer
const internalRoutes = [
  'POST /validateToken',
  'POST /introspect',
  'GET /forwardAuth',
  'POST /forwardAuth/data',
  'GET /metrics',
  'GET /tokens',
  'POST /tokens',
  'DELETE /tokens/expired',
  'GET /admin/users',
  'POST /admin/users',
  'GET /admin/users/nobody',
  'PATCH /admin/users/nobody',
  'DELETE /admin/users/nobody',
  'POST /admin/users/nobody/unlock',
  'POST /admin/users/nobody/reset',
  'GET /events',
]
const demo = { username: 'demo@example.com', password: 'postman' }
const strangersOrigin = 'https://somebody-else.example'
const wellFormed = `lk_${'0'.repeat(62)}x` // and nobody's

/** Resolves when all has been told. */
export async function runChecks(
  target: Target,
  tell: (outcome: Outcome, title: string, seen: string) => void,
): Promise<void> {
  const { auth, business, internal, internalPorts, user, serviceKey, allowsHttp } = target
  const client = openClient(budgetMs)
  const { ask, answers } = client
  const publicOrigins = [...new Set([auth, business])]
  const issued: string[] = []
  let isReady = true

  async function check(title: string, look: () => Promise<string>): Promise<boolean> {
    try {
      tell('passed', title, await look())
      return true
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      tell('failed', title, error.message)
      return false
    }
  }

  const getData = (question: Question = {}) => ask('GET', `${business}/data`, question)

  async function logIn(credentials: { username: string; password: string }): Promise<Answer> {
    const answer = await ask('POST', `${auth}/login`, { body: credentials })
    if (answer.status === 200 && typeof answer.body['token'] === 'string') issued.push(answer.body['token'])
    return answer
  }

  try {
    if (!(await checkAddresses())) return
    await checkReadiness()
    await checkRequestsWithoutToken()
    await checkBadRequests()
    await checkLogin()
    if (user === null) {
      const missing = 'there is no --username and --password, so nothing could log in'
      tell('unchecked', 'with a token: /data, sliding, sessions, renewal, revocation', missing)
    } else {
      await checkSession(user)
    }
    await checkInternalIsClosed()
    if (internal === null) {
      tell('unchecked', 'the internal listener, for those who may reach it', 'there is no --internal')
    } else {
      await checkInternal(internal)
    }
    await checkDocuments()
    await checkStrangers()
    await checkEveryAnswer()
  } finally {
    await Promise.allSettled(
      issued.map(token => ask('POST', `${auth}/revoke`, { headers: [...form], body: `token=${token}` })),
    )
    client.close()
  }

  async function checkAddresses(): Promise<boolean> {
    let answer = true
    for (const [name, origin] of addressesOf(auth, business)) {
      answer &&= await check(`${name} answers at ${origin}`, async () => {
        const { status, body, ms } = await ask('GET', `${origin}/health`)
        if (status !== 200 || body['status'] !== 'ok') {
          throw new Fault(`GET /health answered ${status}, and not as Latchkey does: something else is at this address`)
        }
        return `200 in ${Math.round(ms)} ms`
      })
    }
    if (!answer) {
      tell('unchecked', 'everything else', 'it needs both of them')
      return false
    }
    const layout = await check('each address is that of its service', async () => {
      const login = await ask('GET', `${auth}/login`)
      if (login.status === 404) {
        throw new Fault(`there is no /login at ${auth}: is this the address of Business? Auth is not forwarded there`)
      }
      if ((await getData()).status === 404)
        throw new Fault(`there is no /data at ${business}: is this the address of Auth?`)
      return auth === business ? 'one address for both' : 'two addresses'
    })
    for (const origin of publicOrigins)
      await check(`what is sent to ${origin} is safe on the way`, () => lookAtTransport(origin))
    return layout
  }

  async function lookAtTransport(origin: string): Promise<string> {
    const { hostname, protocol, port } = new URL(origin)
    if (protocol === 'http:') {
      if (isThisMachine(hostname)) return 'http, and it stays on this machine'
      if (allowsHttp) return 'http, which --allow-http says is meant so'
      throw new Fault(
        'HTTP in clear: tokens and passwords can be read on the way; put TLS in front, or set TLS_CERT_FILE',
      )
    }
    const { secure, headers } = await ask('GET', `${origin}/health`, { fresh: true })
    const { protocol: version, certificateDays } = secure as NonNullable<Answer['secure']>
    if (!/^TLSv1\.[23]$/.test(version)) throw new Fault(`${version} is spoken: it is broken, TLS 1.2 is the least`)
    if (certificateDays < 14) throw new Fault(`the certificate ends in ${certificateDays} days: renew it now`)
    if (headers['strict-transport-security'] === undefined) {
      throw new Fault(
        'Strict-Transport-Security is missing: browsers may be led to http; behind a proxy set TRUSTED_PROXIES, and let it send X-Forwarded-Proto',
      )
    }
    const clear = port === '' ? await ask('GET', `http://${hostname}/sessions`).catch(() => null) : null
    // Its own 401 came from behind the front: the token of a careless client would have been looked at.
    if (clear !== null && /^(200|401)$/.test(String(clear.status))) {
      throw new Fault('requests over http:// are served as well: set TRUSTED_PROXIES, or let the front refuse them')
    }
    return `${version}, the certificate has ${certificateDays} days left`
  }

  async function checkReadiness(): Promise<void> {
    const look = async (origin: string) => {
      const { status, body } = await ask('GET', `${origin}/ready`)
      if (status === 200 && body['status'] === 'ready') return '200'
      throw new Fault(`GET /ready answered ${status}: ${String(body['detail'] ?? 'without saying why')}`)
    }
    if (auth !== business) await check('Auth is ready', () => look(auth))
    isReady = await check('Business is ready: Auth gives it verdicts', () => look(business))
    const title = '/data is 503, not 401, while Auth gives no verdict'
    if (isReady) return tell('unchecked', title, 'Auth gives verdicts; stop it and run this again to see')
    await check(title, async () => {
      const answer = await getData({ bearer: wellFormed })
      if (answer.status === 401) {
        throw new Fault('/data answered 401 while Auth gives no verdict: outages log people out')
      }
      expectStatus(answer, 503, 'clients tell an outage by 503 only')
      return '503'
    })
  }

  async function checkRequestsWithoutToken(): Promise<void> {
    await check('/data without a token is refused', async () => {
      const answer = await getData()
      expectStatus(answer, 401, 'whoever asks gets in, or is told something that is not so')
      expectChallenge(answer)
      return '401 with WWW-Authenticate'
    })
    if (isReady) {
      await check('/data with a token of nobody is refused', async () => {
        for (const question of [{ bearer: wellFormed }, { headers: ['token', wellFormed] }]) {
          const answer = await getData(question)
          expectStatus(answer, 401, 'a token that was never issued must open nothing')
          expectChallenge(answer, /error="invalid_token"/)
          expectCode(answer, 'invalid_token')
        }
        return '401 invalid_token in either header'
      })
    }
    await check('/data with an ill-formed token is refused without asking', async () => {
      const answer = await getData({ headers: ['token', 'not a token!'] })
      expectStatus(answer, 401, 'what cannot be a token is 401')
      const long = await getData({ bearer: 'x'.repeat(2049) })
      expectStatus(long, 401, 'what is longer than 2 KB is 401')
      return '401, also for one that is too long'
    })
    await check('/data with two tokens is refused', async () => {
      const [header, bearer] = [
        ['token', wellFormed],
        ['Authorization', `Bearer ${wellFormed}`],
      ] as const
      for (const headers of [
        [...header, ...bearer],
        [...header, ...header],
        [...bearer, ...bearer],
      ]) {
        const answer = await getData({ headers })
        // A front may fold two of the same into one, which is then ill-formed.
        if (answer.status !== 401 || headers[0] !== headers[2])
          expectStatus(answer, 400, 'nobody can say which one counts')
      }
      return '400'
    })
  }

  async function checkBadRequests(): Promise<void> {
    await check('what is not there is 404', async () => {
      const strange = ['/nowhere', '/.env', '/.git/config', '/admin']
      const addresses = publicOrigins.flatMap(origin => strange.map(path => `${origin}${path}`))
      for (const answer of await Promise.all(addresses.map(address => ask('GET', address)))) {
        expectStatus(answer, 404, `something is served at ${answer.path} that should not be`)
      }
      const nearly = ['/data/', '/DATA'].map(path => ask('GET', `${business}${path}`))
      for (const answer of await Promise.all(nearly)) {
        expectStatus(answer, 404, 'paths are exact, in case and in slashes')
      }
      return '404, and paths are exact'
    })
    await check('a wrong method is 405 with Allow', async () => {
      for (const [method, address, allowed] of [
        ['POST', `${business}/data`, 'GET'],
        ['DELETE', `${business}/data`, 'GET'],
        ['GET', `${auth}/login`, 'POST'],
        ['PUT', `${auth}/sessions`, 'DELETE'],
      ] as const) {
        const answer = await ask(method, address)
        expectStatus(answer, 405, 'a method that a path does not take is 405')
        const { allow } = answer.headers
        if (allow === undefined)
          throw new Fault(`405 without Allow on ${method} ${answer.path}: clients cannot tell what it takes`)
        if (!allow.split(/, */).includes(allowed))
          throw new Fault(`${method} ${answer.path}: Allow says ${allow}, without ${allowed}`)
      }
      return '405'
    })
    await check('a body of another type or shape is refused', async () => {
      const nobody = JSON.stringify({ username: `nobody-${randomUUID()}`, password: 'wrong' })
      const cases: [number, string, Question][] = [
        [415, 'text', { headers: ['Content-Type', 'text/plain'], body: nobody }],
        [415, 'a compressed body', { headers: ['Content-Encoding', 'gzip'], body: nobody }],
        [400, 'broken JSON', { body: '{"username": ' }],
        [400, 'a list', { body: '[]' }],
        [400, 'no password', { body: { username: 'nobody' } }],
        [400, 'an unknown member', { body: { username: 'nobody', password: 'wrong', admin: true } }],
        [413, 'a body of 32 KB', { body: { username: 'x'.repeat(32_768), password: 'wrong' } }],
      ]
      const found = await Promise.all(cases.map(([, , question]) => ask('POST', `${auth}/login`, question)))
      for (const [index, [status, what]] of cases.entries()) {
        expectStatus(found[index] as Answer, status, `${what} at /login must be refused`)
      }
      return '400, 413, 415'
    })
    await check('X-Request-Id is ours where it is good, and a new one where it is not', async () => {
      const id = `smoke-${randomBytes(6).toString('hex')}`
      const given = await ask('GET', `${business}/health`, { headers: ['X-Request-Id', id] })
      const { 'x-request-id': returned } = given.headers
      if (returned === undefined)
        throw new Fault('the answers carry no X-Request-Id: nobody can find a request in the log')
      if (returned !== id) throw new Fault('it is replaced on the way: logs of clients and servers cannot be joined')
      const { headers } = await ask('GET', `${business}/health`, { headers: ['X-Request-Id', 'a b"c'] })
      if (headers['x-request-id'] === 'a b"c') throw new Fault('anything is taken: log lines can be forged with it')
      return 'so it is'
    })
  }

  async function checkLogin(): Promise<void> {
    const unknown = () => logIn({ username: `nobody-${randomUUID()}@example.com`, password: randomUUID() })
    await check('a user who does not exist cannot log in', async () => {
      const answer = await unknown()
      expectStatus(answer, 401, 'an unknown user is 401')
      expectCode(answer, 'invalid_credentials')
      return '401 invalid_credentials'
    })
    if (!isThisMachine(new URL(auth).hostname)) {
      await check('the demo user of the documentation is not here', async () => {
        const { status } = await logIn(demo)
        if (status === 200) {
          throw new Fault(
            'demo@example.com logs in with the password of the README: delete that user, and set NODE_ENV=production',
          )
        }
        return String(status)
      })
    }
    if (user === null) return
    await check('a wrong password looks like an unknown user', async () => {
      const tryWrong = () => logIn({ username: user.username, password: randomUUID() })
      const wrong = await tryWrong()
      const nobody = await unknown()
      expectStatus(wrong, 401, 'a wrong password is 401')
      if (shapeOf(wrong) !== shapeOf(nobody)) {
        throw new Fault(
          'the two answers differ in more than the X-Request-Id: whoever tries can learn who has an account',
        )
      }
      const fast = Math.round(nobody.ms)
      let slow = Math.round(wrong.ms)
      const tells = () => slow - fast > 40 && fast < slow / 3
      // Once may be chance: a busy machine, a lost packet.
      for (let i = 0; i < 2 && tells(); i++) slow = Math.min(slow, Math.round((await tryWrong()).ms))
      if (tells()) {
        throw new Fault(
          `the same words, but ${fast} ms for an unknown user and ${slow} ms for a known one: that tells who has an account`,
        )
      }
      return `the same bytes, ${slow} and ${fast} ms`
    })
  }

  async function checkSession(credentials: NonNullable<Target['user']>): Promise<void> {
    let token = ''
    let absoluteEnd: unknown
    const isIn = await check('the right password logs in', async () => {
      const answer = await logIn(credentials)
      expectStatus(answer, 200, 'the password given here is not right, or log-in is broken')
      const { token: secret, tokenType, expiresAt, absoluteExpiresAt } = answer.body
      if (typeof secret !== 'string' || tokenType !== 'Bearer')
        throw new Fault('there is no bearer token in the answer')
      if (!(Number(absoluteExpiresAt) >= Number(expiresAt))) throw new Fault('expiresAt is behind absoluteExpiresAt')
      const leftMs = Number(expiresAt) - Date.parse(answer.headers.date ?? new Date().toUTCString())
      if (leftMs <= 0) throw new Fault('the token is dead already: the clocks of the machines differ')
      token = secret
      absoluteEnd = absoluteExpiresAt
      return `200, a token that lives ${Math.round(leftMs / 1000)} s unless used`
    })
    if (!isIn) return tell('unchecked', 'everything that needs a token', 'nobody could log in')
    if (!isReady) return tell('unchecked', '/data with a token, and that it slides and ends', 'Business is not ready')

    const admitted = await check('/data with that token, in either header', async () => {
      for (const question of [{ bearer: token }, { headers: ['token', token] }]) {
        const answer = await getData(question)
        if (answer.status === 401) {
          throw new Fault(
            'a token that was issued a moment ago is refused: does Business ask this Auth (AUTH_INTERNAL_URL), and do several Auths share their store (TOKEN_STORE_URL)?',
          )
        }
        expectStatus(answer, 200, 'a live token must be admitted')
      }
      const lower = await getData({ headers: ['authorization', `bearer ${token}`] })
      expectStatus(lower, 200, 'the word Bearer may be written small')
      return '200'
    })
    if (!admitted) return
    await check('/data with a live token in the wrong place is refused', async () => {
      for (const place of [`?token=${token}`, `?access_token=${token}`]) {
        const answer = await ask('GET', `${business}/data${place}`)
        expectStatus(answer, 401, 'a token is taken from the URL, where logs and histories keep it')
      }
      const cookie = await getData({ headers: ['Cookie', `token=${token}; access_token=${token}`] })
      expectStatus(cookie, 401, 'a token is taken from a cookie, which other pages make browsers send')
      const two = await getData({ bearer: token, headers: ['token', token] })
      expectStatus(two, 400, 'two tokens are 400, also where both are good')
      return '401 in the URL and in a cookie, 400 twice'
    })
    await check('a token slides while it is used', async () => {
      const before = await currentSession(token)
      await sleep(100)
      expectStatus(await getData({ bearer: token }), 200, 'a live token must be admitted')
      const after = await currentSession(token)
      // One by /data, one by /sessions itself.
      if (after.refreshCount < before.refreshCount + 2)
        throw new Fault('/data does not extend the session: people who work are logged out')
      if (after.expiresAt <= before.expiresAt && after.expiresAt < after.absoluteExpiresAt) {
        throw new Fault('expiresAt does not grow with use: people who work are logged out')
      }
      if (after.absoluteExpiresAt !== before.absoluteExpiresAt)
        throw new Fault('its absolute end moves: it would never die')
      return `expiresAt grew by ${after.expiresAt - before.expiresAt} ms`
    })
    await check('a session can be seen and ended from another one', async () => {
      const answer = await logIn(credentials)
      expectStatus(answer, 200, 'a second session must be possible')
      const other = String(answer.body['token'])
      const { id } = await currentSession(other)
      const list = await ask('GET', `${auth}/sessions`, { bearer: token })
      expectStatus(list, 200, 'a session may list its like')
      if (list.text.includes(token) || list.text.includes(other))
        throw new Fault('/sessions shows the secrets of tokens')
      if (!list.text.includes(id)) throw new Fault('/sessions does not show the other session')
      const end = (id: string) => ask('DELETE', `${auth}/sessions/${id}`, { bearer: token })
      expectStatus(await end('nobodys'), 404, 'a session of nobody is 404')
      expectStatus(await getData({ bearer: other }), 200, 'it lives until it is ended')
      expectStatus(await end(id), 204, 'a session of mine can be ended')
      await expectRefused(other, 'DELETE /sessions/:id')
      return '204, and refused at once'
    })
    await check('a renewed session has a new secret, and the old one is dead at once', async () => {
      expectStatus(await getData({ bearer: token }), 200, 'a live token must be admitted')
      const answer = await ask('POST', `${auth}/renew`, { bearer: token })
      expectStatus(answer, 200, 'a live session can be renewed')
      const renewed = String(answer.body['token'])
      issued.push(renewed)
      await expectRefused(token, '/renew')
      token = renewed
      if (answer.body['absoluteExpiresAt'] !== absoluteEnd)
        throw new Fault('its absolute end moves: it would never die')
      expectStatus(await getData({ bearer: token }), 200, 'the new secret must be admitted')
      return '200'
    })
    if (internal !== null && serviceKey !== null) await checkVerdicts(internal, serviceKey, token)
    await check('a session that logged out is refused on the very next request', async () => {
      await Promise.all(Array.from({ length: atOnce }, () => getData({ bearer: token, fresh: true })))
      const end = () => ask('POST', `${auth}/logout`, { bearer: token })
      expectStatus(await end(), 204, 'a session can log out')
      await expectRefused(token, '/logout')
      expectStatus(await end(), 204, 'a second log-out is no fault')
      const list = await ask('GET', `${auth}/sessions`, { bearer: token })
      expectStatus(list, 401, 'a dead session lists nothing')
      return `401 for each of ${atOnce}`
    })
    await check('a token that was given back (RFC 7009) is refused on the very next request', async () => {
      const { body } = await logIn(credentials)
      const given = String(body['token'])
      expectStatus(await getData({ bearer: given }), 200, 'a live token must be admitted')
      const answer = await ask('POST', `${auth}/revoke`, { headers: [...form], body: `token=${given}` })
      expectStatus(answer, 200, '/revoke takes a form')
      await expectRefused(given, '/revoke')
      return `401 for each of ${atOnce}`
    })
  }

  /** On connections of their own, all at the same time: each process that may answer has its chance to be wrong. */
  async function expectRefused(token: string, after: string): Promise<void> {
    const found = await Promise.all(Array.from({ length: atOnce }, () => getData({ bearer: token, fresh: true })))
    const admitted = found.filter(({ status }) => status < 400).length
    if (admitted > 0) {
      throw new Fault(
        `a revoked token was still admitted: ${admitted} of ${atOnce} requests right after ${after}; something keeps verdicts or answers, or several Auths do not share their store`,
      )
    }
    for (const answer of found) expectStatus(answer, 401, 'a dead token is 401')
  }

  async function currentSession(token: string) {
    const answer = await ask('GET', `${auth}/sessions`, { bearer: token })
    expectStatus(answer, 200, 'a live session may list its like')
    const sessions = answer.body['sessions'] as Session[] | undefined
    const current = sessions?.filter(session => session.current) ?? []
    if (current.length !== 1) throw new Fault(`/sessions calls ${current.length} sessions the current one`)
    return current[0] as Session
  }

  async function checkInternalIsClosed(): Promise<void> {
    for (const origin of publicOrigins) {
      await check(`the internal routes are not reachable at ${origin}`, async () => {
        const found = await Promise.all(
          internalRoutes.map(async route => {
            const [method, path] = route.split(' ') as [string, string]
            const { status } = await ask(method, `${origin}${path}`, method === 'POST' ? { body: {} } : {})
            return { route, status }
          }),
        )
        const open = found
          .filter(({ status }) => status !== 404)
          .map(({ route, status }) => `${route} answered ${status}`)
        if (open.length > 0)
          throw new Fault(`the internal listener is reachable from here: ${open.join(', ')}, each must be 404`)
        return `404 for each of ${internalRoutes.length}`
      })
    }
    const hosts = new Set(publicOrigins.map(origin => new URL(origin).hostname))
    for (const host of hosts) {
      const title = `the internal ports of ${host} are closed from here`
      if (isThisMachine(host)) {
        tell('unchecked', title, 'it is this machine, which may reach them; run this from another one')
        continue
      }
      await check(title, async () => {
        const ports = internalPorts.filter(port => `http://${host}:${port}` !== internal)
        const found = await Promise.all(
          ports.map(async port => {
            const answer = await ask('GET', `http://${host}:${port}/metrics`).catch(() => null)
            return answer === null ? [] : [`http://${host}:${port} answered ${answer.status}`]
          }),
        )
        if (found.flat().length > 0)
          throw new Fault(
            `the internal listener is reachable from here: ${found.flat().join(', ')}; set INTERNAL_HOST, or close the port`,
          )
        return `no answer on ${ports.join(' and ')}`
      })
    }
  }

  async function checkInternal(internal: string): Promise<void> {
    const answers = await check(`the internal listener answers at ${internal}`, async () => {
      if (publicOrigins.includes(internal))
        throw new Fault('it is the address of a public listener: the two must never be one')
      const { status } = await ask('GET', `${internal}/health`)
      if (status !== 200) throw new Fault(`GET /health answered ${status}`)
      return '200'
    })
    if (!answers) return
    await check('it opens to a key only', async () => {
      const body = { token: wellFormed }
      for (const bearer of [undefined, wellFormed, randomBytes(32).toString('hex')]) {
        const answer = await ask('POST', `${internal}/validateToken`, { body, ...(bearer && { bearer }) })
        expectStatus(answer, 401, 'verdicts are given without the service key')
      }
      expectStatus(await ask('GET', `${internal}/admin/users`), 401, 'users are shown without the admin key')
      return '401 without one, and with a wrong one'
    })
    await check('its metrics tell no secret', async () => {
      const { status, text } = await ask('GET', `${internal}/metrics`)
      if (status !== 200 || !text.includes('latchkey_http_request_duration_seconds')) {
        throw new Fault(
          `GET /metrics answered ${status}, without the figures of Latchkey: nobody is warned of anything`,
        )
      }
      expectNoSecret('/metrics', text)
      return `${text.split('\n').filter(line => line && !line.startsWith('#')).length} figures`
    })
    if (serviceKey === null) {
      tell('unchecked', 'verdicts on the internal listener', 'there is no --service-key')
      return
    }
    await check('the service key opens verdicts, and nothing of the operator', async () => {
      const answer = await ask('POST', `${internal}/validateToken`, { bearer: serviceKey, body: { token: wellFormed } })
      expectStatus(answer, 200, 'SERVICE_KEY is not the one that Auth has: Business is refused like this, too')
      if (answer.text !== '{"authenticated":false}')
        throw new Fault('a token of nobody is not exactly {"authenticated":false}')
      const users = await ask('GET', `${internal}/admin/users`, { bearer: serviceKey })
      if (users.status === 200)
        throw new Fault('it opens /admin/users: is ADMIN_KEY the same as SERVICE_KEY? Make another one')
      return '{"authenticated":false} for a token of nobody'
    })
  }

  async function checkVerdicts(internal: string, key: string, token: string): Promise<void> {
    await check('the verdict of a live token says whose it is, a batch keeps its order', async () => {
      const validate = (body: unknown) => ask('POST', `${internal}/validateToken`, { bearer: key, body })
      const one = await validate({ token, touch: false })
      expectStatus(one, 200, 'SERVICE_KEY opens verdicts')
      if (one.body['authenticated'] !== true || typeof one.body['tokenId'] !== 'string') {
        throw new Fault('a live token is not authenticated there: is this the internal listener of the same Auth?')
      }
      const { body } = await validate({ tokens: [wellFormed, token], touch: false })
      const verdicts = (body['verdicts'] ?? []) as { authenticated: boolean }[]
      if (verdicts.map(({ authenticated }) => authenticated).join() !== 'false,true') {
        throw new Fault(
          'the verdicts of a batch are not in the order of its tokens: people would get the answers of others',
        )
      }
      const seen = await ask('POST', `${internal}/introspect`, {
        bearer: key,
        headers: [...form],
        body: `token=${token}`,
      })
      if (seen.body['active'] !== true) throw new Fault('/introspect does not find it active')
      expectStatus(
        await ask('GET', `${internal}/forwardAuth`, { bearer: token }),
        204,
        '/forwardAuth admits a live token',
      )
      expectStatus(await ask('GET', `${internal}/forwardAuth`), 401, '/forwardAuth refuses where there is none')
      expectStatus(await validateAs(token), 401, 'the token of a user opens the internal listener')
      return 'authenticated'

      function validateAs(bearer: string) {
        return ask('POST', `${internal}/validateToken`, { bearer, body: { token } })
      }
    })
  }

  async function checkDocuments(): Promise<void> {
    for (const origin of publicOrigins) {
      await check(`${origin}/openapi.json tells nothing that is secret`, async () => {
        const answer = await ask('GET', `${origin}/openapi.json`)
        if (answer.status === 404) return 'it is switched off (API_DOCS), or not there'
        expectStatus(answer, 200, 'the description is missing')
        if (!String(answer.body['openapi']).startsWith('3.')) throw new Fault('it is no OpenAPI document')
        expectNoSecret('/openapi.json', answer.text)
        const [address] = /\b(10|192\.168|172\.(1[6-9]|2\d|3[01]))\.\d+\.\d+(:\d+)?/.exec(answer.text) ?? []
        if (address) throw new Fault(`it names ${address}, an address of the network behind`)
        return `OpenAPI ${answer.body['openapi']}`
      })
    }
  }

  /** Names no secret that it finds. */
  function expectNoSecret(where: string, text: string): void {
    const suspects: [string, string | RegExp | undefined | null][] = [
      ['the service key', serviceKey],
      ['a token', /\blk_[0-9A-Za-z]{63}\b/],
      ['a private key', /-----BEGIN [A-Z ]*PRIVATE KEY/],
      ['a hash of a password', /\$2[aby]\$\d\d\$/],
      ['a URL with a password', /:\/\/[^/\s:"@]+:[^/\s:"@]+@/],
    ]
    for (const [what, pattern] of suspects) {
      const found = typeof pattern === 'string' ? text.includes(pattern) : (pattern?.test(text) ?? false)
      if (found) throw new Fault(`${where} holds ${what}: make a new one now`)
    }
  }

  async function checkStrangers(): Promise<void> {
    await check('pages of other origins cannot read answers', async () => {
      const headers = ['Origin', strangersOrigin]
      for (const answer of [await getData({ headers }), await ask('POST', `${auth}/login`, { headers, body: {} })]) {
        const allowed = answer.headers['access-control-allow-origin']
        if (allowed === '*' || allowed === strangersOrigin) {
          throw new Fault(
            `Access-Control-Allow-Origin: ${allowed} on ${answer.path}: any page may use what a visitor may; see CORS_ORIGINS`,
          )
        }
      }
      return 'no Access-Control-Allow-Origin for a stranger'
    })
  }

  /** What must hold for each answer that came until now, whatever it was asked for. */
  async function checkEveryAnswer(): Promise<void> {
    const ours = answers.filter(({ origin }) => publicOrigins.includes(origin))
    const every = (title: string, missing: (answer: Answer) => boolean, words: string, among = ours) =>
      check(title, async () => {
        const found = among.filter(missing)
        if (found.length > 0) throw new Fault(`${words} ${routesOf(found)}`)
        return `${among.length} answers`
      })
    const refusals = ours.filter(({ status }) => status >= 400)
    await every(
      'no cache may keep an answer',
      ({ headers }) => !/\bno-store\b/.test(headers['cache-control'] ?? ''),
      'a proxy or a browser may keep tokens and data: Cache-Control (no-store) is missing on',
    )
    await every(
      'every answer can be found in the log',
      ({ headers }) => headers['x-request-id'] === undefined,
      'the answers carry no X-Request-Id:',
    )
    await every(
      'browsers do not guess types',
      ({ headers }) => headers['x-content-type-options'] !== 'nosniff',
      'X-Content-Type-Options: nosniff is missing on',
    )
    await every(
      'no answer tells which software runs here',
      ({ headers }) => headers['x-powered-by'] !== undefined || /\d/.test(String(headers.server ?? '')),
      'a version for attackers to look up is in Server or X-Powered-By of',
    )
    await every(
      'no answer sets a cookie',
      ({ headers }) => headers['set-cookie'] !== undefined,
      'nothing here uses cookies, something in front adds Set-Cookie to',
    )
    await every(
      'every refusal is a problem document',
      answer => !isProblem(answer),
      'clients switch on its member error; none, or one of another status or request, on',
      refusals,
    )
    await every(
      'every 401 says how to log in',
      ({ status, headers, body }) =>
        status === 401 &&
        body['error'] !== 'invalid_credentials' &&
        !/^Bearer\b/.test(headers['www-authenticate'] ?? ''),
      'WWW-Authenticate: Bearer is missing on',
      refusals,
    )
    await every(
      'every 429 and 503 says when to come again',
      ({ status, headers }) => (status === 429 || status === 503) && headers['retry-after'] === undefined,
      'Retry-After is missing on',
      refusals,
    )
    await every(
      'nothing broke',
      ({ status }) => status === 500 || status === 502 || status === 504,
      'a fault of the server or of what is in front of it; the log has it under the X-Request-Id:',
    )
  }
}

const form = ['Content-Type', 'application/x-www-form-urlencoded'] as const

interface Session {
  id: string
  expiresAt: number
  absoluteExpiresAt: number
  refreshCount: number
  current: boolean
}

function addressesOf(auth: string, business: string): [string, string][] {
  if (auth === business) return [['Latchkey', auth]]
  return [
    ['Auth', auth],
    ['Business', business],
  ]
}

function expectStatus({ status, method, path, headers }: Answer, expected: number, why: string): void {
  if (status === expected) return
  if (status === 429) {
    throw new Fault(
      `${method} ${path} answered 429: too many failures came from this address lately; run this again in ${headers['retry-after'] ?? 'some'} s`,
    )
  }
  throw new Fault(`${method} ${path} answered ${status}, not ${expected}: ${why}`)
}

function expectCode({ method, path, body }: Answer, code: string): void {
  if (body['error'] !== code)
    throw new Fault(`${method} ${path} says ${JSON.stringify(body['error'])}, not ${code}, in the member error`)
}

function expectChallenge({ method, path, headers }: Answer, pattern = /^Bearer\b/): void {
  const { 'www-authenticate': challenge } = headers
  if (challenge === undefined)
    throw new Fault(`WWW-Authenticate is missing on the 401 of ${method} ${path}: clients cannot tell how to log in`)
  if (!pattern.test(challenge))
    throw new Fault(`WWW-Authenticate on the 401 of ${method} ${path} is not what RFC 6750 asks for`)
}

function isProblem({ status, headers, body }: Answer): boolean {
  return (
    (headers['content-type'] ?? '').startsWith('application/problem+json') &&
    body['status'] === status &&
    typeof body['error'] === 'string' &&
    typeof body['detail'] === 'string' &&
    body['requestId'] === headers['x-request-id']
  )
}

/** All of an answer but what is its own each time. */
function shapeOf({ status, headers, text, body }: Answer): string {
  const { date, 'x-request-id': id, ...rest } = headers
  return JSON.stringify([
    status,
    rest,
    text.replaceAll(String(body['requestId']), ''),
    date === undefined,
    id === undefined,
  ])
}

function routesOf(found: Answer[]): string {
  const routes = [
    ...new Set(found.map(({ method, path }) => `${method} ${path.replace(/\/sessions\/.*/, '/sessions/:id')}`)),
  ]
  const shown = routes.slice(0, 5).join(', ')
  return routes.length > 5 ? `${shown} and ${routes.length - 5} more` : shown
}

function isThisMachine(hostname: string): boolean {
  return /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname)
}
