import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { expect } from 'chai'
import { ask as askAsIs } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey } from '../../support/credentials.ts'
import {
  ask,
  bytesOf,
  curl,
  expectNoSecretInLogs,
  freshAddress,
  freshName,
  logs,
  minute,
  otherPhrase,
  phrase,
  said,
  start,
  wrongPhrase,
} from '../../support/dialects.ts'
import { closeServers, startBusiness } from '../../support/servers.ts'

describe('flask-jwt', function () {
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

  const call = async (method: string, path: string, bearer: string | null = null, body?: unknown) =>
    ask(method, opened.flaskJwt + path, bearer, body)

  async function registered() {
    const credentials = { username: freshName(), password: phrase }
    expect(said(await call('POST', '/user', null, credentials))).to.deep.equal({
      status: 201,
      body: { message: 'User created successfully' },
    })
    return credentials
  }

  async function loggedIn(credentials?: { username: string; password: string }): Promise<string> {
    const known = credentials ?? (await registered())
    const { status, body } = await call('POST', '/authenticate_user', null, known)
    expect(status).to.equal(200)
    expect(body).to.have.all.keys('token', 'access_token')
    expect(body['token']).to.equal(body['access_token'])
    return String(body['token'])
  }

  const dead = { status: 401, body: { message: 'Invalid or expired token' } }

  it('creates a user, logs in, and returns the token under both names', async () => {
    const token = await loggedIn()
    const { body, status } = await call('GET', '/user', token)
    expect(status).to.equal(200)
    expect(body).to.have.all.keys('user', 'token')
    expect(body['user']).to.have.all.keys('id', 'username')
  })

  it('accepts a form too', async () => {
    const { username, password } = await registered()
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    const body = new URLSearchParams({ username, password }).toString()
    expect((await curl('POST', `${opened.flaskJwt}/authenticate_user`, { headers, body })).status).to.equal(200)
  })

  it('replaces the token with each use: a replay is 401', async () => {
    const first = await loggedIn()
    const second = String((await call('GET', '/user', first)).body['token'])
    expect(second).to.not.equal(first)
    expect(said(await call('GET', '/user', first))).to.deep.equal(dead)
    const third = String((await call('PUT', '/user', second, {})).body['token'])
    expect(said(await call('PUT', '/user', second, {}))).to.deep.equal(dead)
    const fourth = await call('POST', '/validate_token', third)
    expect(fourth.body).to.include({ message: 'Token is valid' })
    expect(fourth.body['token']).to.not.equal(third)
    expect(said(await call('POST', '/validate_token', third))).to.deep.equal({
      status: 401,
      body: { error: 'Token is invalid or has expired' },
    })
    expect((await call('GET', '/user', String(fourth.body['token']))).status).to.equal(200)
  })

  it('accepts a token for one of many requests at the same time', async () => {
    const token = await loggedIn()
    const answers = await Promise.all(Array.from({ length: 20 }, () => call('GET', '/user', token)))
    expect(answers.filter(({ status }) => status === 200)).to.have.length(1)
  })

  it('issues sessions that /data accepts', async () => {
    const token = await loggedIn()
    expect(await dataStatus(token)).to.equal(200)
    const { body } = await call('GET', '/user', token)
    expect(await dataStatus(token)).to.equal(401)
    expect(await dataStatus(String(body['token']))).to.equal(200)
  })

  const badAccounts: [string, unknown, string][] = [
    ['no password', { username: 'somebody' }, 'Missing username or password'],
    ['no username', { password: phrase }, 'Missing username or password'],
    ['an empty username', { username: '', password: phrase }, 'Missing username or password'],
    ['a null username', { username: null, password: phrase }, 'Missing username or password'],
    ['a short password', { username: 'somebody', password: 'x' }, 'Password must be at least 15 characters long'],
    ['a short username', { username: 'bo', password: phrase }, 'Username must be at least 4 characters long'],
    [
      'a common password',
      { username: 'somebody', password: 'passwordpassword' },
      'password: this is one of the most common passwords; expected one that others do not use',
    ],
    [
      'a username with a control character',
      { username: 'some\tbody', password: phrase },
      'username: expected no control characters',
    ],
  ]
  for (const [what, body, error] of badAccounts) {
    it(`registers no user with ${what}: ${error}`, async () => {
      expect(said(await call('POST', '/user', null, body))).to.deep.equal({ status: 400, body: { error } })
    })
  }

  it('requires 8 characters, like the older service, if that is the minimum', async () => {
    const { flaskJwt } = await start({ PASSWORD_MIN_LENGTH: '8' })
    const short = await ask('POST', `${flaskJwt}/user`, null, { username: 'somebody', password: 'hx7!kq2' })
    expect(short.body).to.deep.equal({ error: 'Password must be at least 8 characters long' })
    const good = await ask('POST', `${flaskJwt}/user`, null, { username: 'somebody', password: 'hx7!kq2z' })
    expect(good.status).to.equal(201)
  })

  it('refuses a username that is taken', async () => {
    const { username } = await registered()
    const answer = await call('POST', '/user', null, { username, password: otherPhrase })
    expect(said(answer)).to.deep.equal({ status: 400, body: { error: 'Username already exists' } })
  })

  it('answers an unknown user and a wrong password with the same bytes', async () => {
    const { username } = await registered()
    const wrong = await bytesOf(opened.flaskJwt, '/authenticate_user', { username, password: wrongPhrase })
    const unknown = await bytesOf(opened.flaskJwt, '/authenticate_user', {
      username: 'nobody',
      password: wrongPhrase,
    })
    expect(wrong).to.equal(unknown)
    expect(wrong).to.match(/^HTTP\/1\.1 401 .*\{"error":"Invalid credentials"\}$/s)
    expect(wrong).to.match(/^WWW-Authenticate: Bearer /m)
  })

  it('requires both username and password to log in', async () => {
    const answer = await call('POST', '/authenticate_user', null, { username: 'somebody' })
    expect(said(answer)).to.deep.equal({ status: 400, body: { error: 'Missing username or password' } })
  })

  it('distinguishes a missing token from a dead one', async () => {
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const body = method === 'PUT' ? {} : undefined
      expect(said(await call(method, '/user', null, body))).to.deep.equal({
        status: 401,
        body: { message: 'Token is missing' },
      })
      expect(said(await call(method, '/user', 'invalid_token', body))).to.deep.equal(dead)
    }
  })

  it('accepts a token in the header or, as documented, in the body; the header wins', async () => {
    const token = await loggedIn()
    const inBody = await call('POST', '/validate_token', null, { token })
    expect(inBody.body['message']).to.equal('Token is valid')
    const next = String(inBody.body['token'])
    const both = await call('POST', '/validate_token', next, { token: 'junk' })
    expect(both.status).to.equal(200)
    const last = String(both.body['token'])
    expect(said(await call('POST', '/logout', null, { token: last }))).to.deep.equal({
      status: 200,
      body: { message: 'Logged out successfully' },
    })
    expect(await dataStatus(last)).to.equal(401)
  })

  it('ends a session with /logout, once', async () => {
    const token = await loggedIn()
    expect((await call('POST', '/logout', token)).status).to.equal(200)
    const again = { status: 401, body: { error: 'Token is invalid or has expired' } }
    expect(said(await call('POST', '/logout', token))).to.deep.equal(again)
  })

  it('ends a session with /logout even if another client has already used the token', async () => {
    const own = await loggedIn()
    const stolen = String((await call('GET', '/user', own)).body['token'])
    const next = String((await call('POST', '/validate_token', stolen)).body['token'])
    expect(await dataStatus(next)).to.equal(200)
    expect((await call('POST', '/logout', own)).status).to.equal(401)
    expect(await dataStatus(next)).to.equal(401)
  })

  it('is 401 if neither the header nor the body has a token', async () => {
    const missing = { status: 401, body: { error: 'Authorization header missing or invalid' } }
    for (const path of ['/validate_token', '/logout']) {
      expect(said(await curl('POST', opened.flaskJwt + path))).to.deep.equal(missing)
      expect(said(await call('POST', path, null, {}))).to.deep.equal(missing)
      const headers = { authorization: 'Basic abc', 'content-type': 'application/json' }
      expect(said(await curl('POST', opened.flaskJwt + path, { headers }))).to.deep.equal(missing)
    }
  })

  it('changes a password, ends every other session, and returns a new token', async () => {
    const credentials = await registered()
    const other = await loggedIn(credentials)
    const token = await loggedIn(credentials)
    const body = { username: credentials.username, password: otherPhrase }
    const changed = await call('PUT', '/user', token, body)
    expect(changed.status).to.equal(200)
    expect(changed.body).to.include({ message: 'User updated successfully' })
    expect(await dataStatus(other)).to.equal(401)
    expect(await dataStatus(token)).to.equal(401)
    expect(await dataStatus(String(changed.body['token']))).to.equal(200)
    expect((await call('POST', '/authenticate_user', null, credentials)).status).to.equal(401)
    expect((await call('POST', '/authenticate_user', null, body)).status).to.equal(200)
  })

  it('applies our rules for passwords to a change, and a refused change does not use up the token', async () => {
    const token = await loggedIn()
    const change = async (password: string) => said(await call('PUT', '/user', token, { password }))
    expect(await change('short')).to.deep.equal({
      status: 400,
      body: { error: 'Password must be at least 15 characters long' },
    })
    expect((await change('passwordpassword')).status).to.equal(400)
    expect(await dataStatus(token)).to.equal(200)
  })

  it('changes a username, ends every other session, and returns a new token', async () => {
    const credentials = await registered()
    const other = await loggedIn(credentials)
    const renamed = { ...credentials, username: freshName() }
    const changed = await call('PUT', '/user', await loggedIn(credentials), { username: renamed.username })
    expect(changed).to.deep.include({ status: 200 })
    expect(await dataStatus(other)).to.equal(401)
    const token = String(changed.body['token'])
    const { body } = await call('GET', '/user', token)
    expect(body['user']).to.include({ username: renamed.username })
    expect((await call('POST', '/authenticate_user', null, credentials)).status).to.equal(401)
    expect((await call('POST', '/authenticate_user', null, renamed)).status).to.equal(200)
  })

  it('changes username and password in one call, or neither', async () => {
    const credentials = await registered()
    const token = await loggedIn(credentials)
    const username = freshName()
    expect((await call('PUT', '/user', token, { username, password: 'passwordpassword' })).status).to.equal(400)
    expect((await call('POST', '/authenticate_user', null, credentials)).status).to.equal(200)
    const both = { username, password: otherPhrase }
    expect((await call('PUT', '/user', token, both)).status).to.equal(200)
    expect((await call('POST', '/authenticate_user', null, both)).status).to.equal(200)
    expect((await call('POST', '/authenticate_user', null, credentials)).status).to.equal(401)
  })

  it('changes nothing for a session that ended while the body was on its way', async () => {
    const credentials = await registered()
    const renamed = { username: freshName(), password: otherPhrase }
    for (const body of [{ username: renamed.username }, renamed]) {
      const slow = await beginPut(`${opened.flaskJwt}/user`, await loggedIn(credentials))
      const ended = await askAsIs('DELETE', `${opened.auth}/sessions`, await loggedIn(credentials))
      expect(ended.status).to.equal(204)
      expect(await slow.finish(body)).to.equal(401)
      expect((await call('POST', '/authenticate_user', null, renamed)).status).to.equal(401)
    }
    expect((await call('POST', '/authenticate_user', null, credentials)).status).to.equal(200)
  })

  it('refuses a username that is taken or too short, and the token stays as it was', async () => {
    const { username } = await registered()
    const token = await loggedIn()
    const change = async (username: string) => said(await call('PUT', '/user', token, { username }))
    expect(await change(username)).to.deep.equal({ status: 400, body: { error: 'Username already exists' } })
    expect(await change('bo')).to.deep.equal({
      status: 400,
      body: { error: 'Username must be at least 4 characters long' },
    })
    expect(await dataStatus(token)).to.equal(200)
  })

  it('renews the token if the username is the same in other letters', async () => {
    const credentials = await registered()
    const asTyped = { username: credentials.username.toUpperCase() }
    expect((await call('PUT', '/user', await loggedIn(credentials), asTyped)).status).to.equal(200)
    expect((await call('POST', '/authenticate_user', null, credentials)).status).to.equal(200)
  })

  it('deletes an account and all its tokens', async () => {
    const credentials = await registered()
    const other = await loggedIn(credentials)
    const token = await loggedIn(credentials)
    expect(said(await call('DELETE', '/user', token))).to.deep.equal({
      status: 200,
      body: { message: 'User deleted successfully' },
    })
    expect(await dataStatus(other)).to.equal(401)
    expect((await call('POST', '/authenticate_user', null, credentials)).status).to.equal(401)
  })

  it('neither changes a password nor deletes an account five minutes after the log-in', async () => {
    const credentials = await registered()
    const token = await loggedIn(credentials)
    clock.advance(5 * minute - 1)
    const fresh = await call('PUT', '/user', token, { password: otherPhrase })
    expect(fresh.status).to.equal(200)
    clock.advance(5 * minute)
    const old = String(fresh.body['token'])
    expect(said(await call('PUT', '/user', old, { password: wrongPhrase }))).to.deep.equal(dead)
    expect(said(await call('DELETE', '/user', old))).to.deep.equal(dead)
    const shown = await call('GET', '/user', old)
    expect(shown.status).to.equal(200)
    const renewed = String(shown.body['token'])
    expect(said(await call('DELETE', '/user', renewed))).to.deep.equal(dead)
    const again = await loggedIn({ ...credentials, password: otherPhrase })
    expect((await call('DELETE', '/user', again)).status).to.equal(200)
  })

  it('neither changes a password nor deletes an account for a session without a log-in in the last five minutes', async () => {
    const credentials = { email: freshAddress(), password: phrase }
    expect((await ask('POST', `${opened.flaskAuth}/registration`, null, credentials)).status).to.equal(200)
    const { body } = await ask('POST', `${opened.flaskAuth}/login`, null, credentials)
    const refresh = async () =>
      String(
        (await ask('POST', `${opened.flaskAuth}/token/refresh`, String(body['refresh_token']))).body['access_token'],
      )
    clock.advance(5 * minute)
    const refreshed = await refresh()
    expect(await dataStatus(refreshed)).to.equal(200)
    const { body: user } = await ask('GET', `${opened.auth}/users/me`, refreshed)
    const terms = { kind: 'sliding', ttlSeconds: 600, userId: user['id'] }
    const issued = await ask('POST', `${opened.authInternal}/tokens`, adminKey, terms)
    for (const token of [refreshed, String(issued.body['token'])]) {
      expect(said(await call('PUT', '/user', token, { password: otherPhrase }))).to.deep.equal(dead)
      expect(said(await call('DELETE', '/user', token))).to.deep.equal(dead)
      const renewed = String((await call('GET', '/user', token)).body['token'])
      expect(said(await call('PUT', '/user', renewed, { password: otherPhrase }))).to.deep.equal(dead)
      expect(said(await call('DELETE', '/user', renewed))).to.deep.equal(dead)
    }
    expect((await ask('POST', `${opened.flaskAuth}/login`, null, credentials)).status).to.equal(200)
  })

  it('counts the five minutes from the log-in, even for a newer session', async () => {
    const credentials = { email: freshAddress(), password: phrase }
    await ask('POST', `${opened.flaskAuth}/registration`, null, credentials)
    const { body } = await ask('POST', `${opened.flaskAuth}/login`, null, credentials)
    clock.advance(5 * minute - 1000) // the time of the log-in is kept in whole seconds
    const { body: answer } = await ask('POST', `${opened.flaskAuth}/token/refresh`, String(body['refresh_token']))
    const changed = await call('PUT', '/user', String(answer['access_token']), { password: otherPhrase })
    expect(changed.status).to.equal(200)
    clock.advance(1000)
    const next = String(changed.body['token'])
    expect(said(await call('PUT', '/user', next, { password: wrongPhrase }))).to.deep.equal(dead)
    expect(said(await call('DELETE', '/user', next))).to.deep.equal(dead)
    expect(await dataStatus(next)).to.equal(200)
  })

  it('expires a token 35 minutes after the log-in or its last use', async () => {
    const unused = await loggedIn()
    const used = await loggedIn()
    clock.advance(35 * minute - 1)
    const next = String((await call('GET', '/user', used)).body['token'])
    clock.advance(1)
    expect(said(await call('GET', '/user', unused))).to.deep.equal(dead)
    clock.advance(35 * minute - 2)
    const last = await call('GET', '/user', next)
    expect(last.status).to.equal(200)
    clock.advance(35 * minute)
    expect(said(await call('GET', '/user', String(last.body['token'])))).to.deep.equal(dead)
  })

  it('refuses tokens of other kinds', async () => {
    for (const terms of [{ kind: 'fixed' }, { kind: 'single-use' }, { kind: 'sliding', purpose: 'reset' }]) {
      const body = { ttlSeconds: 60, ...terms }
      const issued = await ask('POST', `${opened.authInternal}/tokens`, adminKey, body)
      const token = String(issued.body['token'])
      expect(said(await call('GET', '/user', token))).to.deep.equal(dead)
      expect(said(await call('DELETE', '/user', token))).to.deep.equal(dead)
      expect((await call('POST', '/logout', token)).status).to.equal(401)
    }
  })

  it('logs no token and no password, even at debug level, whatever is sent', () => {
    expectNoSecretInLogs(30)
  })
})

/** Sends a request up to its body, which follows with `finish`. */
async function beginPut(url: string, bearer: string) {
  const headers = { authorization: `Bearer ${bearer}`, 'content-type': 'application/json' }
  const sent = request(url, { method: 'PUT', headers })
  sent.flushHeaders()
  await once(sent, 'socket').then(([socket]) => socket.connecting && once(socket, 'connect'))
  return {
    /** Resolves to the status. */
    async finish(body: unknown): Promise<number | undefined> {
      sent.end(JSON.stringify(body))
      const [response] = (await once(sent, 'response')) as [IncomingMessage]
      response.resume()
      return response.statusCode
    },
  }
}
