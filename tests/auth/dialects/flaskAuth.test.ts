import { expect } from 'chai'
import { type Answer, ask as askAsIs } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo } from '../../support/credentials.ts'
import {
  ask,
  asProblem,
  bytesOf,
  curl,
  expectNoSecretInLogs,
  freshAddress,
  logs,
  minute,
  otherPhrase,
  phrase,
  problem,
  said,
  secrets,
  start,
  wrongPhrase,
} from '../../support/dialects.ts'
import { logIn } from '../../support/factories.ts'
import { closeServers, startBusiness } from '../../support/servers.ts'

describe('flask-auth', function () {
  this.slow(500)
  const clock = createClock()
  let opened: Awaited<ReturnType<typeof start>>
  let business: string

  before(async () => {
    opened = await start({}, clock.now)
    const started = await startBusiness(opened.authInternal)
    logs.push(started.lines)
    business = started.url
  })

  after(closeServers)

  const dataStatus = async (token: string) => (await askAsIs('GET', `${business}/data`, token)).status
  const sweep = () => askAsIs('DELETE', `${opened.authInternal}/tokens/expired`, adminKey)

  const call = async (method: string, path: string, bearer: string | null = null, body?: unknown) =>
    ask(method, opened.flaskAuth + path, bearer, body)

  async function registered() {
    const credentials = { email: freshAddress(), password: phrase }
    expect(said(await call('POST', '/registration', null, credentials))).to.deep.equal({
      status: 200,
      body: { message: `User ${credentials.email} was created, please verify your email` },
    })
    return credentials
  }

  async function loggedIn(known?: { email: string; password: string }) {
    const credentials = known ?? (await registered())
    const { status, body } = await call('POST', '/login', null, credentials)
    expect(status).to.equal(200)
    expect(body).to.have.all.keys('message', 'access_token', 'refresh_token')
    expect(body['message']).to.equal(`Logged in as ${credentials.email}`)
    return { access: String(body['access_token']), refresh: String(body['refresh_token']) }
  }

  const msg = (status: number, msg: string) => ({ status, body: { msg } })

  it('greets at /', async () => {
    expect(said(await curl('GET', `${opened.flaskAuth}/`))).to.deep.equal({ status: 200, body: { hello: 'World!' } })
  })

  it('registers a user, logs in, and returns 42 for the access token', async () => {
    const { access } = await loggedIn()
    expect(said(await call('GET', '/secret', access))).to.deep.equal({ status: 200, body: { answer: 42 } })
  })

  it('accepts a form too', async () => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    const body = new URLSearchParams(await registered()).toString()
    expect((await curl('POST', `${opened.flaskAuth}/login`, { headers, body })).status).to.equal(200)
  })

  it('issues access tokens that /data accepts, and refresh tokens that it refuses', async () => {
    const { access, refresh } = await loggedIn()
    expect(await dataStatus(access)).to.equal(200)
    expect(await dataStatus(refresh)).to.equal(401)
  })

  for (const path of ['/registration', '/login']) {
    it(`names the field that is missing at ${path}`, async () => {
      const cannot = (member: string) => ({
        status: 400,
        body: { message: { [member]: 'This field cannot be blank' } },
      })
      expect(said(await call('POST', path, null, { email: 'a@example.com' }))).to.deep.equal(cannot('password'))
      expect(said(await call('POST', path, null, { password: phrase }))).to.deep.equal(cannot('email'))
      expect(said(await call('POST', path, null, {}))).to.deep.equal(cannot('email'))
      expect(said(await call('POST', path, null, { email: 'a@example.com', password: '' }))).to.deep.equal(
        cannot('password'),
      )
    })
  }

  it('applies our rules for passwords, and requires an e-mail address', async () => {
    const { status, body } = await call('POST', '/registration', null, { email: freshAddress(), password: 'hunter2' })
    expect(status).to.equal(400)
    expect(body['message']).to.have.property('password').that.includes('at least 15 characters')
    const nobody = await call('POST', '/registration', null, { email: 'nobody', password: phrase })
    expect(said(nobody)).to.deep.equal({ status: 400, body: { message: { email: 'expected an e-mail address' } } })
  })

  it('refuses an address that is taken, and does not change its account', async () => {
    const credentials = await registered()
    const again = await call('POST', '/registration', null, { email: credentials.email, password: otherPhrase })
    expect(said(again)).to.deep.equal({ status: 409, body: { message: `Email ${credentials.email} already exists` } })
    await loggedIn(credentials)
  })

  it('answers an unknown user and a wrong password with the same bytes', async () => {
    const { email } = await registered()
    const wrong = await bytesOf(opened.flaskAuth, '/login', { email, password: wrongPhrase })
    const unknown = await bytesOf(opened.flaskAuth, '/login', { email: 'x@example.com', password: wrongPhrase })
    expect(wrong).to.equal(unknown)
    expect(wrong).to.match(/^HTTP\/1\.1 401 .*\{"message":"Wrong credentials"\}$/s)
  })

  it('issues a new access token for the refresh token, which stays the same', async () => {
    const { access, refresh } = await loggedIn()
    for (let i = 0; i < 2; i++) {
      const { status, body } = await call('POST', '/token/refresh', refresh)
      expect(status).to.equal(200)
      expect(body).to.have.all.keys('access_token')
      expect(body['access_token']).to.not.equal(access)
      expect((await call('GET', '/secret', String(body['access_token']))).status).to.equal(200)
    }
  })

  it('is 422 for a token of the wrong type and for a malformed one, and 401 without a token', async () => {
    const { access, refresh } = await loggedIn()
    const onlyAccess = msg(422, 'Only access tokens are allowed')
    const onlyRefresh = msg(422, 'Only refresh tokens are allowed')
    expect(said(await call('GET', '/secret', refresh))).to.deep.equal(onlyAccess)
    expect(said(await call('POST', '/logout/access', refresh))).to.deep.equal(onlyAccess)
    expect(said(await call('POST', '/token/refresh', access))).to.deep.equal(onlyRefresh)
    expect(said(await call('POST', '/logout/refresh', access))).to.deep.equal(onlyRefresh)
    for (const [method, path] of [
      ['GET', '/secret'],
      ['POST', '/token/refresh'],
      ['POST', '/logout/access'],
      ['POST', '/logout/refresh'],
    ] as const) {
      expect(said(await call(method, path))).to.deep.equal(msg(401, 'Missing Authorization Header'))
      expect((await call(method, path, 'junk')).status).to.equal(422)
      const basic = await curl(method, opened.flaskAuth + path, { headers: { authorization: 'Basic abc' } })
      expect(basic.status).to.equal(422)
    }
    // None of these requests revoked a token.
    expect((await call('GET', '/secret', access)).status).to.equal(200)
    expect((await call('POST', '/token/refresh', refresh)).status).to.equal(200)
  })

  const refreshed = async (refresh: string) =>
    String((await call('POST', '/token/refresh', refresh)).body['access_token'])
  const secretStatus = async (access: string) => (await call('GET', '/secret', access)).status
  const revoked = msg(401, 'Token has been revoked')

  it('ends all tokens of a log-in with one log-out by any of them', async () => {
    for (const which of ['access', 'refresh', 'refreshed'] as const) {
      const { access, refresh } = await loggedIn()
      const all = { access, refresh, refreshed: await refreshed(refresh) }
      const kind = which === 'refresh' ? 'refresh' : 'access'
      expect(said(await call('POST', `/logout/${kind}`, all[which]))).to.deep.equal({
        status: 200,
        body: { message: `${kind === 'refresh' ? 'Refresh' : 'Access'} token has been revoked` },
      })
      for (const token of [access, all.refreshed]) {
        expect(said(await call('GET', '/secret', token))).to.deep.equal(revoked)
        expect(said(await call('POST', '/logout/access', token))).to.deep.equal(revoked)
        expect(await dataStatus(token)).to.equal(401)
      }
      expect(said(await call('POST', '/token/refresh', refresh))).to.deep.equal(revoked)
      expect(said(await call('POST', '/logout/refresh', refresh))).to.deep.equal(revoked)
    }
  })

  it('ends a refresh token with its session on every route of Auth that ends one', async () => {
    const routes: [string, (token: string, id: string) => Promise<Answer>][] = [
      ['POST /logout', token => ask('POST', `${opened.auth}/logout`, token)],
      ['POST /revoke', token => ask('POST', `${opened.auth}/revoke`, null, { token })],
      ['DELETE /sessions/:id', (token, id) => ask('DELETE', `${opened.auth}/sessions/${id}`, token)],
      ['DELETE /sessions', token => ask('DELETE', `${opened.auth}/sessions`, token)],
      ['DELETE /tokens/:id', (_, id) => ask('DELETE', `${opened.authInternal}/tokens/${id}`, adminKey)],
    ]
    for (const [route, end] of routes) {
      const { access, refresh } = await loggedIn()
      const { body } = await ask('GET', `${opened.auth}/sessions`, access)
      expect((await end(access, (body['sessions'] as { id: string }[])[0]?.id as string)).status, route).to.be.oneOf([
        200, 204,
      ])
      expect(said(await call('POST', '/token/refresh', refresh)), route).to.deep.equal(revoked)
    }
  })

  it('ends no token of another log-in with a log-out', async () => {
    const credentials = await registered()
    const session = await logIn(opened.auth, { username: credentials.email, password: credentials.password })
    secrets.add(session)
    const { access, refresh } = await loggedIn(credentials)
    const other = await loggedIn()
    expect((await call('POST', '/logout/access', access)).status).to.equal(200)
    expect(await secretStatus(session)).to.equal(200)
    expect(await secretStatus(other.access)).to.equal(200)
    expect((await call('POST', '/token/refresh', other.refresh)).status).to.equal(200)
    expect((await call('POST', '/token/refresh', refresh)).status).to.equal(401)
    const again = await loggedIn(credentials)
    expect((await ask('POST', `${opened.auth}/logout`, session)).status).to.equal(204)
    expect(await secretStatus(again.access)).to.equal(200)
    expect((await call('POST', '/token/refresh', again.refresh)).status).to.equal(200)
  })

  it('ends a refresh token and its sessions when a new log-in replaces it', async () => {
    const credentials = await registered()
    const first = await loggedIn(credentials)
    const stolen = await refreshed(first.refresh)
    const second = await loggedIn(credentials)
    for (const token of [first.access, stolen]) expect(await secretStatus(token)).to.equal(401)
    expect((await call('POST', '/token/refresh', first.refresh)).status).to.equal(401)
    expect(await secretStatus(second.access)).to.equal(200)
  })

  it('leaves no session to a refresh that races a log-out', async () => {
    for (let i = 0; i < 5; i++) {
      const { access, refresh } = await loggedIn()
      const [ended, ...answers] = await Promise.all([
        call('POST', i % 2 ? '/logout/refresh' : '/logout/access', i % 2 ? refresh : access),
        ...Array.from({ length: 10 }, () => call('POST', '/token/refresh', refresh)),
      ])
      expect(ended?.status).to.equal(200)
      const made = answers.filter(({ status }) => status === 200).map(({ body }) => String(body['access_token']))
      for (const token of made) expect(await secretStatus(token)).to.equal(401)
      expect((await call('POST', '/token/refresh', refresh)).status).to.equal(401)
    }
  })

  it('ends each session no later than its refresh token', async () => {
    const { refresh } = await loggedIn()
    clock.advance(30 * 24 * 60 * minute - 5 * minute)
    const last = await refreshed(refresh)
    clock.advance(5 * minute - 1)
    expect(await secretStatus(last)).to.equal(200)
    clock.advance(1)
    expect(await secretStatus(last)).to.equal(401)
  })

  it('expires an access token after 15 minutes, used or not, and a refresh token after 30 days', async () => {
    const { access, refresh } = await loggedIn()
    clock.advance(8 * minute)
    expect((await call('GET', '/secret', access)).status).to.equal(200)
    clock.advance(7 * minute - 1)
    expect((await call('GET', '/secret', access)).status).to.equal(200)
    clock.advance(1)
    expect(said(await call('GET', '/secret', access))).to.deep.equal(msg(401, 'Token has expired'))
    clock.advance(30 * 24 * 60 * minute - 15 * minute - 1)
    await sweep()
    expect((await call('POST', '/token/refresh', refresh)).status).to.equal(200)
    clock.advance(1)
    expect(said(await call('POST', '/token/refresh', refresh))).to.deep.equal(msg(401, 'Token has expired'))
  })

  it('keeps only one refresh token per user, so that log-ins never reach the limit of tokens', async () => {
    const { flaskAuth } = await start({ TOKEN_LIMIT_PER_USER: '4' })
    const body = { email: demo.username, password: demo.password }
    const given: string[] = []
    for (let i = 0; i < 8; i++) {
      const { status, body: answer } = await ask('POST', `${flaskAuth}/login`, null, body)
      expect(status).to.equal(200)
      given.push(String(answer['refresh_token']))
    }
    const statuses = await Promise.all(
      given.map(async token => (await ask('POST', `${flaskAuth}/token/refresh`, token)).status),
    )
    expect(statuses).to.deep.equal([401, 401, 401, 401, 401, 401, 401, 200])
  })

  it('ends both tokens when the password is changed elsewhere', async () => {
    const credentials = await registered()
    const { access, refresh } = await loggedIn(credentials)
    const session = await logIn(opened.auth, { username: credentials.email, password: credentials.password })
    secrets.add(session)
    const change = { currentPassword: credentials.password, password: otherPhrase }
    expect((await ask('PATCH', `${opened.auth}/users/me`, session, change)).status).to.equal(200)
    expect((await call('GET', '/secret', access)).status).to.equal(401)
    expect((await call('POST', '/token/refresh', refresh)).status).to.equal(401)
  })

  it('lists users for the operator only, and without hashes', async () => {
    const credentials = await registered()
    const { access } = await loggedIn(credentials)
    expect(asProblem(await call('GET', '/users'))).to.deep.equal(problem(401))
    expect(asProblem(await call('GET', '/users', access))).to.deep.equal(problem(401))
    const { status, body } = await call('GET', '/users', adminKey)
    expect(status).to.equal(200)
    expect(body['users']).to.deep.include({ email: credentials.email, active: true })
    expect(JSON.stringify(body)).to.not.match(/hash|password|\$2/)
  })

  it('deletes all users and their tokens for the operator only', async () => {
    const { flaskAuth } = await start()
    const { body } = await ask('POST', `${flaskAuth}/login`, null, { email: demo.username, password: demo.password })
    await ask('POST', `${flaskAuth}/registration`, null, { email: freshAddress(), password: phrase })
    expect((await ask('DELETE', `${flaskAuth}/users`, String(body['access_token']))).status).to.equal(401)
    expect((await ask('DELETE', `${flaskAuth}/users`, adminKey)).body).to.deep.equal({ message: '2 row(s) deleted' })
    expect((await ask('GET', `${flaskAuth}/users`, adminKey)).body).to.deep.equal({ users: [] })
    expect((await ask('GET', `${flaskAuth}/secret`, String(body['access_token']))).status).to.equal(401)
  })

  it('logs no token and no password, even at debug level, whatever is sent', () => {
    expectNoSecretInLogs(30)
  })
})
