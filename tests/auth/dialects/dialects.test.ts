// The dialects over HTTP: what older clients send is answered as they know it, under the rulings, and opens nothing else.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect } from 'chai'
import type { z } from 'zod'
import { makeTokenKey } from '../../../commands/keys/tokenKeys.ts'
import { readAuthConfig } from '../../../services/auth/config.ts'
import { dialectNames } from '../../../services/auth/dialects/index.ts'
import { clearSetting, lifeSettings, parseConfigXml } from '../../../services/auth/dialects/settings.ts'
import { openPasswords } from '../../../services/auth/users/passwords.ts'
import { ConfigError, type Environment, metaOf } from '../../../shared/config/config.ts'
import { type Answer, ask as askAsIs } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo } from '../../support/credentials.ts'
import { logIn } from '../../support/factories.ts'
import type { LogLine } from '../../support/log.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, openTestAuth, startBusiness } from '../../support/servers.ts'
import { freshPlace } from '../../support/stores.ts'
import { createWideThrottles, wideInvalidTokens } from '../../support/throttles.ts'

const all = 'token-provider:0,token-manager:0,flask-jwt:0,flask-auth:0'
const minute = 60_000
const badHeader = 'Invalid request. Your Request must have Authorization layer in a specific format. (Check the docs)'
const uuidV4 = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
const phrases = ['CANARY tandem over the hillock', 'nine CANARY crayons, one mug', 'a CANARY that hums in the dark']
const [phrase, otherPhrase, wrongPhrase] = phrases as [string, string, string]

let count = 0
const freshName = () => `person${++count}`
const freshAddress = () => `person${++count}@example.com`

interface Opened {
  auth: string
  authInternal: string
  tokenProvider: string
  tokenManager: string
  flaskJwt: string
  flaskAuth: string
}

const logs: LogLine[][] = []
/** What no log may contain: every secret that a test was given or made up. */
const secrets = new Set<string>(phrases)

async function start(env: Environment = {}, now?: () => number) {
  const { lines, service } = await openTestAuth({ env: { DIALECTS: all, ...env }, ...(now && { now }) })
  logs.push(lines)
  const addresses = await service.listen()
  return { ...(addresses as unknown as Opened), addresses, lines, service }
}

/** As curl sends it: no content type unless it is given. */
async function curl(
  method: string,
  url: string,
  { headers = {}, body }: { headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  const init = { method, headers: { connection: 'close', ...headers }, ...(body !== undefined && { body }) }
  const answer = await fetch(url, init)
  const text = await answer.text()
  const isJson = answer.headers.get('content-type')?.includes('json')
  return { status: answer.status, headers: answer.headers, text, body: isJson ? keepSecrets(JSON.parse(text)) : {} }
}

async function ask(...of: Parameters<typeof askAsIs>): Promise<Answer> {
  const answer = await askAsIs(...of)
  keepSecrets(answer.body)
  return answer
}

function keepSecrets(body: Record<string, unknown>): Record<string, unknown> {
  for (const name of ['token', 'access_token', 'refresh_token']) {
    if (typeof body[name] === 'string') secrets.add(body[name])
  }
  return body
}

const said = ({ status, body }: Answer) => ({ status, body })
const asProblem = ({ status, headers }: Answer) => ({ status, type: headers.get('content-type') })
const problem = (status: number) => ({ status, type: 'application/problem+json' })

/** The whole answer as it stands on the wire, but for the date. */
async function bytesOf(url: string, path: string, body: unknown): Promise<string> {
  const text = JSON.stringify(body)
  const head = `POST ${path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: same\r\nConnection: close\r\nContent-Type: application/json`
  const answer = await sendRaw(url, `${head}\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`, 5000)
  expect(answer.closed).to.equal(true)
  return answer.text.replace(/^Date: .*$/m, 'Date: -')
}

function problemsOf(env: Environment): string[] {
  try {
    readAuthConfig({ SERVICE_KEY: 'a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6', ADMIN_KEY: adminKey, ...env })
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

describe('the dialects', function () {
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

  describe('together', () => {
    it('are off by default: nothing listens but the two listeners of Auth', async () => {
      const { service } = await openTestAuth()
      expect(Object.keys(await service.listen())).to.deep.equal(['auth', 'authInternal'])
    })

    it('listen each on an address of their own, and each says in the log what it opens', () => {
      const { addresses, lines } = opened
      expect(Object.keys(addresses)).to.deep.equal([
        'auth',
        'authInternal',
        'tokenProvider',
        'tokenManager',
        'flaskJwt',
        'flaskAuth',
      ])
      expect(new Set(Object.values(addresses)).size).to.equal(6)
      const told = lines.filter(({ event }) => event === 'dialect_opened')
      expect(told.map(({ dialect, address }) => ({ dialect, address }))).to.deep.equal([
        { dialect: 'token-provider', address: opened.tokenProvider },
        { dialect: 'token-manager', address: opened.tokenManager },
        { dialect: 'flask-jwt', address: opened.flaskJwt },
        { dialect: 'flask-auth', address: opened.flaskAuth },
      ])
      expect(told[0]?.['routes']).to.deep.equal(['POST /generate_token', 'GET /verify_token', 'GET /', 'POST /'])
    })

    it('open one alone where only one is named', async () => {
      const { addresses } = await start({ DIALECTS: 'flask-jwt:0' })
      expect(Object.keys(addresses)).to.deep.equal(['auth', 'authInternal', 'flaskJwt'])
    })

    it('say which setting to change where their port cannot be had', async () => {
      const port = new URL(opened.auth).port
      const { service } = await openTestAuth({ env: { DIALECTS: `token-provider:${port}` } })
      const refusal = await service.listen().then(
        () => '',
        (error: Error) => error.message,
      )
      expect(refusal).to.match(/^Port \d+ on 127\.0\.0\.1 cannot be had \(it is in use\)\. Set DIALECTS to another\.$/)
    })

    it('answer with a problem document where their service answered with something else or not at all', async () => {
      const { tokenProvider, tokenManager, flaskJwt, flaskAuth } = opened
      expect(asProblem(await curl('GET', `${tokenProvider}/nothing`))).to.deep.equal(problem(404))
      expect(asProblem(await curl('GET', `${tokenProvider}/generate_token`))).to.deep.equal(problem(405))
      expect(asProblem(await curl('GET', `${tokenManager}/app/tokens`))).to.deep.equal(problem(404))
      expect(asProblem(await curl('GET', `${flaskJwt}/users`))).to.deep.equal(problem(404))
      const headers = { 'content-type': 'application/json' }
      const long = JSON.stringify({ email: freshAddress(), password: 'x'.repeat(20_000) })
      expect(asProblem(await curl('POST', `${flaskAuth}/login`, { headers, body: long }))).to.deep.equal(problem(413))
      const xml = { headers: { 'content-type': 'text/xml' }, body: '<login/>' }
      expect(asProblem(await curl('POST', `${flaskAuth}/login`, xml))).to.deep.equal(problem(415))
      const notJson = { headers, body: '{' }
      expect(asProblem(await curl('POST', `${flaskJwt}/authenticate_user`, notJson))).to.deep.equal(problem(400))
    })

    it('let no other origin read their answers', async () => {
      for (const path of ['/verify_token', '/generate_token']) {
        const method = path === '/verify_token' ? 'GET' : 'POST'
        const { headers } = await curl(method, opened.tokenProvider + path, {
          headers: { origin: 'https://evil.example' },
        })
        expect(headers.get('access-control-allow-origin')).to.equal(null)
      }
    })

    it('issue tokens without a log-in that open nothing but their own dialect', async () => {
      const uuid = String((await curl('POST', `${opened.tokenProvider}/generate_token`)).body['token'])
      const numbered = String((await curl('POST', `${opened.tokenManager}/app/token`)).body['token'])
      for (const token of [uuid, numbered, `lk_${numbered.slice(7)}`]) {
        expect(await dataStatus(token)).to.equal(401)
        const { text } = await askAsIs('GET', `${opened.auth}/users/me`, token)
        expect(JSON.parse(text).error).to.equal('invalid_token')
        expect(
          (await curl('GET', `${opened.flaskJwt}/user`, { headers: { authorization: `Bearer ${token}` } })).status,
        ).to.equal(401)
        const secret = await curl('GET', `${opened.flaskAuth}/secret`, {
          headers: { authorization: `Bearer ${token}` },
        })
        expect(secret.status).to.be.oneOf([401, 422])
      }
      expect(said(await curl('GET', `${opened.tokenManager}/app/valid/${uuid}`)).body['status']).to.equal(false)
      const asUuid = await curl('GET', `${opened.tokenProvider}/verify_token`, {
        headers: { authorization: `Bearer ${numbered}` },
      })
      expect(said(asUuid)).to.deep.equal({ status: 400, body: { error: badHeader } })
      // Nor does a session open them.
      const session = await logIn(opened.auth)
      secrets.add(session)
      expect((await curl('GET', `${opened.tokenManager}/app/valid/${session}`)).body['status']).to.equal(false)
    })

    it('keep hashes only, and the purpose that says which dialect a token is for', async () => {
      const place = await freshPlace('sqlite')
      const { tokenProvider, tokenManager, flaskAuth, service } = await start({
        TOKEN_STORE_URL: place.url,
        DIALECTS: 'token-provider:0,token-manager:0,flask-auth:0',
      })
      const given = [
        (await curl('POST', `${tokenProvider}/generate_token`)).body['token'],
        (await curl('POST', `${tokenManager}/app/token`)).body['token'],
        (await ask('POST', `${flaskAuth}/login`, null, { email: demo.username, password: demo.password })).body[
          'refresh_token'
        ],
      ]
      await service.close()
      const file = place.url.replace('sqlite:', '')
      const database = new DatabaseSync(file)
      const rows = database.prepare('select purpose, user_id from latchkey_tokens order by purpose').all()
      database.close()
      expect(rows.map(({ purpose, user_id }) => [purpose, user_id !== null])).to.deep.equal([
        [null, true],
        ['flask-auth.refresh', true],
        ['token-manager', false],
        ['token-provider', false],
      ])
      const bytes = readFileSync(file).toString('latin1')
      for (const token of given) expect(bytes).to.not.include(String(token).slice(-30))
      await place.remove()
    })

    it('know their tokens in every process of Auth, and after a restart', async () => {
      const place = await freshPlace('sqlite')
      const env = { TOKEN_STORE_URL: place.url, DIALECTS: 'token-provider:0,token-manager:0' }
      const [one, other] = [await start(env), await start(env)]
      const uuid = String((await curl('POST', `${one.tokenProvider}/generate_token`)).body['token'])
      const numbered = String((await curl('POST', `${one.tokenManager}/app/token`)).body['token'])
      await one.service.close()
      const headers = { authorization: `Bearer ${uuid}` }
      expect((await curl('GET', `${other.tokenProvider}/verify_token`, { headers })).body).to.deep.equal({
        valid: true,
      })
      expect((await curl('GET', `${other.tokenManager}/app/valid/${numbered}`)).body['status']).to.equal(true)
      await other.service.close()
      await place.remove()
    })

    it('speak their own wire format where the tokens of Auth are JWTs', async () => {
      const { tokenProvider, flaskJwt, flaskAuth, authInternal } = await start({
        TOKEN_FORMAT: 'jwt',
        TOKEN_KEYS: JSON.stringify({ keys: [makeTokenKey('HS256')] }),
      })
      expect((await curl('POST', `${tokenProvider}/generate_token`)).body['token']).to.match(uuidV4)
      const { username, password } = demo
      const first = await ask('POST', `${flaskJwt}/authenticate_user`, null, { username, password })
      const shown = await ask('GET', `${flaskJwt}/user`, String(first.body['token']))
      expect(shown.body['user']).to.include({ username })
      const validated = await ask('POST', `${flaskJwt}/validate_token`, null, { token: shown.body['token'] })
      expect(validated.status).to.equal(200)
      const { body } = await ask('POST', `${flaskAuth}/login`, null, { email: username, password })
      const access = String(body['access_token'])
      expect(access.split('.')).to.have.length(3)
      expect((await ask('GET', `${flaskAuth}/secret`, access)).body).to.deep.equal({ answer: 42 })
      const data = await startBusiness(authInternal)
      expect((await askAsIs('GET', `${data.url}/data`, access)).status).to.equal(200)
    })
  })

  describe('token-provider', () => {
    const generate = async () => {
      const { status, body } = await curl('POST', `${opened.tokenProvider}/generate_token`)
      expect(status).to.equal(200)
      expect(body).to.have.all.keys('token')
      return String(body['token'])
    }
    const verify = async (token: string) =>
      said(await curl('GET', `${opened.tokenProvider}/verify_token`, { headers: { authorization: `Bearer ${token}` } }))
    const valid = (valid: boolean) => ({ status: 200, body: { valid } })

    it('gives anybody a UUID of version 4, and says that it is valid', async () => {
      const token = await generate()
      expect(token).to.match(uuidV4)
      expect(await verify(token)).to.deep.equal(valid(true))
      expect(await verify(token.toUpperCase())).to.deep.equal(valid(true))
    })

    it('gives each UUID once, and shows nothing of the id of the token in it', async () => {
      const tokens = await Promise.all(Array.from({ length: 300 }, generate))
      expect(new Set(tokens).size).to.equal(300)
      const issued = opened.lines.filter(({ event }) => event === 'token_issued').map(({ tokenId }) => String(tokenId))
      const asBytes = tokens.map(token => Buffer.from(token.replaceAll('-', ''), 'hex').toString('latin1'))
      expect(asBytes.some(bytes => issued.some(id => bytes.includes(id.slice(0, 4))))).to.equal(false)
    })

    it('says 200 and not valid of a UUID it does not know, as in its documentation', async () => {
      expect(await verify('f26c57d9-ec8c-b2dc-b90d-5891ee72ef6a')).to.deep.equal(valid(false))
      expect(await verify('00000000-0000-4000-8000-000000000000')).to.deep.equal(valid(false))
    })

    it('does not know the UUIDs of an Auth with another ADMIN_KEY', async () => {
      const token = await generate()
      const { tokenProvider } = await start({ ADMIN_KEY: 'another-0123456789-zyxwvutsrqponmlkjihg' })
      const headers = { authorization: `Bearer ${token}` }
      expect((await curl('GET', `${tokenProvider}/verify_token`, { headers })).body).to.deep.equal({ valid: false })
    })

    const malformed: [string, Record<string, string>][] = [
      ['no header', {}],
      ['a header token', { token: 'f26c57d9-ec8c-42dc-b90d-5891ee72ef6a' }],
      ['another scheme', { authorization: 'Basic dXNlcjpwYXNzd29yZA==' }],
      ['no scheme', { authorization: 'f26c57d9-ec8c-42dc-b90d-5891ee72ef6a' }],
      ['no token', { authorization: 'Bearer ' }],
      ['what is no UUID', { authorization: 'Bearer xxx-xxx' }],
      ['a UUID and more', { authorization: 'Bearer f26c57d9-ec8c-42dc-b90d-5891ee72ef6a1' }],
      ['a UUID in braces', { authorization: 'Bearer {f26c57d9-ec8c-42dc-b90d-5891ee72ef6a}' }],
    ]
    for (const [what, headers] of malformed) {
      it(`says 400 in the words of its service for ${what}`, async () => {
        const answer = await curl('GET', `${opened.tokenProvider}/verify_token`, { headers })
        expect(said(answer)).to.deep.equal({ status: 400, body: { error: badHeader } })
      })
    }

    it('refuses two Authorization headers', async () => {
      const token = await generate()
      const header = `Authorization: Bearer ${token}\r\n`
      const bytes = `GET /verify_token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${header}${header}\r\n`
      expect((await sendRaw(opened.tokenProvider, bytes)).status).to.equal(400)
    })

    it('sends who calls / to a valid URL', async () => {
      for (const method of ['GET', 'POST']) {
        const answer = await curl(method, `${opened.tokenProvider}/`)
        expect(said(answer)).to.deep.equal({ status: 401, body: { message: 'Please enter a valid URL.' } })
        expect(answer.headers.get('www-authenticate')).to.match(/^Bearer /)
      }
    })

    it('ends a token after TOKEN_EXPIRATION_TIME to the millisecond, however often it is verified or swept', async () => {
      const slow = createClock()
      const { tokenProvider, authInternal } = await start(
        { TOKEN_EXPIRATION_TIME: '5', TOKEN_CLEAR_FREQUENCY: '5' },
        slow.now,
      )
      const token = String((await curl('POST', `${tokenProvider}/generate_token`)).body['token'])
      const headers = { authorization: `Bearer ${token}` }
      const isValid = async () => (await curl('GET', `${tokenProvider}/verify_token`, { headers })).body['valid']
      for (const step of [0, 2500, 2499]) {
        slow.advance(step)
        await askAsIs('DELETE', `${authInternal}/tokens/expired`, adminKey)
        expect(await isValid()).to.equal(true)
      }
      slow.advance(1)
      expect(await isValid()).to.equal(false)
      await askAsIs('DELETE', `${authInternal}/tokens/expired`, adminKey)
      expect(await isValid()).to.equal(false)
    })

    it('lets a token live 60 seconds where nothing else is set', async () => {
      const token = await generate()
      clock.advance(59_999)
      expect(await verify(token)).to.deep.equal(valid(true))
      clock.advance(1)
      expect(await verify(token)).to.deep.equal(valid(false))
    })
  })

  describe('token-manager', () => {
    const create = async () => {
      const headers = { 'content-type': 'application/json' } // as its example does, without a body
      const { status, body } = await curl('POST', `${opened.tokenManager}/app/token`, { headers })
      expect(status).to.equal(200)
      expect(body).to.have.all.keys('status_code', 'token')
      expect(body['status_code']).to.equal(200)
      return String(body['token'])
    }
    const byPath = async (token: string) => said(await curl('GET', `${opened.tokenManager}/app/valid/${token}`))
    const byBody = async (body: unknown, path = 'token') =>
      said(await ask('POST', `${opened.tokenManager}/app/valid/${path}`, null, body))
    const status = (status: boolean) => ({ status: 200, body: { status_code: 200, status } })

    it('gives anybody digits, a colon and characters that a URL takes, and says that they are good', async () => {
      const token = await create()
      expect(token).to.match(/^\d{6}:[\w-]{22,}$/)
      expect(await byPath(token)).to.deep.equal(status(true))
      expect(await byPath(encodeURIComponent(token))).to.deep.equal(status(true))
      expect(await byBody({ token })).to.deep.equal(status(true))
      expect(await byBody({ token, more: 1 }, '754321:whatever-is-here')).to.deep.equal(status(true))
    })

    it('says 200 and false of a token it does not know', async () => {
      const token = await create()
      const [digits = '', rest] = token.split(':')
      const otherDigits = String(digits === '999999' ? 100_000 : Number(digits) + 1)
      for (const unknown of ['754321:xyz9AbC2DeF3GhI4JkL', `${otherDigits}:${rest}`, `${token}0`, token.slice(0, -1)]) {
        expect(await byPath(unknown)).to.deep.equal(status(false))
        expect(await byBody({ token: unknown })).to.deep.equal(status(false))
      }
    })

    const bad: [string, string | undefined][] = [
      ['no body', undefined],
      ['what is no JSON', '{"token"'],
      ['no token', '{}'],
      ['a number', '{"token":1234567890123456789}'],
      ['fewer than 17 characters', '{"token":"123:abcdefghijkl"}'],
    ]
    for (const [what, body] of bad) {
      it(`says 422 with a list for ${what}, and repeats nothing of it`, async () => {
        const headers = { 'content-type': 'application/json' }
        const answer = await curl('POST', `${opened.tokenManager}/app/valid/x`, {
          headers,
          ...(body !== undefined && { body }),
        })
        expect(answer.status).to.equal(422)
        expect(answer.body['detail']).to.be.an('array').with.length(1)
        expect(answer.text).to.not.include('abcdefghijkl').and.not.include('12345')
      })
    }

    it('clears the dead only, for anybody, whatever the name says', async () => {
      const token = await create()
      const clear = async () => said(await curl('DELETE', `${opened.tokenManager}/app/clear/all/tokens`))
      expect(await clear()).to.deep.equal(status(true))
      expect(await byPath(token)).to.deep.equal(status(true))
    })

    it('ends a token after 60 minutes, however often it is validated, by path or by body', async () => {
      const token = await create()
      clock.advance(60 * minute - 1)
      await sweep()
      expect(await byPath(token)).to.deep.equal(status(true))
      expect(await byBody({ token })).to.deep.equal(status(true))
      clock.advance(1)
      expect(await byPath(token)).to.deep.equal(status(false))
      expect(await byBody({ token })).to.deep.equal(status(false))
    })

    it('ends a token after TOKEN_TTL_MINUTES where that is set', async () => {
      const slow = createClock()
      const { tokenManager } = await start({ TOKEN_TTL_MINUTES: '2' }, slow.now)
      const { body } = await curl('POST', `${tokenManager}/app/token`)
      slow.advance(2 * minute)
      const answer = await curl('GET', `${tokenManager}/app/valid/${body['token']}`)
      expect(said(answer)).to.deep.equal(status(false))
    })

    it('keeps the token in the URL out of the log, however it is written', async () => {
      const token = await create()
      const encoded = Array.from(token, character => `%${character.charCodeAt(0).toString(16)}`).join('')
      secrets.add(encoded)
      expect(await byPath(encoded)).to.deep.equal(status(true))
      const paths = opened.lines.filter(({ event, listener }) => event === 'request' && listener === 'tokenManager')
      const logged = JSON.stringify(paths)
      expect(logged).to.include('"/app/valid/…"')
      expect(logged).to.not.include('%')
    })

    it('shows its calls at /docs and /redoc', async () => {
      for (const path of ['/docs', '/redoc']) {
        const { status, headers, text } = await curl('GET', opened.tokenManager + path)
        expect(status).to.equal(200)
        expect(headers.get('content-type')).to.equal('text/html; charset=utf-8')
        expect(text).to.include('POST /app/token')
      }
    })
  })

  describe('flask-jwt', () => {
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

    it('creates a user, logs in, and gives a token under both names', async () => {
      const token = await loggedIn()
      const { body, status } = await call('GET', '/user', token)
      expect(status).to.equal(200)
      expect(body).to.have.all.keys('user', 'token')
      expect(body['user']).to.have.all.keys('id', 'username')
    })

    it('takes a form, too', async () => {
      const { username, password } = await registered()
      const headers = { 'content-type': 'application/x-www-form-urlencoded' }
      const body = new URLSearchParams({ username, password }).toString()
      expect((await curl('POST', `${opened.flaskJwt}/authenticate_user`, { headers, body })).status).to.equal(200)
    })

    it('consumes a token with each use and hands back the next: a replay is 401', async () => {
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

    it('lets one of many win that use a token at the same time', async () => {
      const token = await loggedIn()
      const answers = await Promise.all(Array.from({ length: 20 }, () => call('GET', '/user', token)))
      expect(answers.filter(({ status }) => status === 200)).to.have.length(1)
    })

    it('gives a session that /data takes', async () => {
      const token = await loggedIn()
      expect(await dataStatus(token)).to.equal(200)
      const { body } = await call('GET', '/user', token)
      expect(await dataStatus(token)).to.equal(401)
      expect(await dataStatus(String(body['token']))).to.equal(200)
    })

    const badAccounts: [string, unknown, string][] = [
      ['no password', { username: 'somebody' }, 'Missing username or password'],
      ['no username', { password: phrase }, 'Missing username or password'],
      ['a blank one', { username: '', password: phrase }, 'Missing username or password'],
      ['null', { username: null, password: phrase }, 'Missing username or password'],
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
      it(`registers nobody with ${what}: ${error}`, async () => {
        expect(said(await call('POST', '/user', null, body))).to.deep.equal({ status: 400, body: { error } })
      })
    }

    it('says 8 characters, as it always did, where that is the least', async () => {
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

    it('asks for both, to log in', async () => {
      const answer = await call('POST', '/authenticate_user', null, { username: 'somebody' })
      expect(said(answer)).to.deep.equal({ status: 400, body: { error: 'Missing username or password' } })
    })

    it('says whether a token is missing or dead', async () => {
      for (const method of ['GET', 'PUT', 'DELETE']) {
        const body = method === 'PUT' ? {} : undefined
        expect(said(await call(method, '/user', null, body))).to.deep.equal({
          status: 401,
          body: { message: 'Token is missing' },
        })
        expect(said(await call(method, '/user', 'invalid_token', body))).to.deep.equal(dead)
      }
    })

    it('takes a token in the header or, as documented, in the body; the header wins', async () => {
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

    it('ends a session with /logout by a token that was used up: another client had used it', async () => {
      const own = await loggedIn()
      const stolen = String((await call('GET', '/user', own)).body['token'])
      const next = String((await call('POST', '/validate_token', stolen)).body['token'])
      expect(await dataStatus(next)).to.equal(200)
      expect((await call('POST', '/logout', own)).status).to.equal(401)
      expect(await dataStatus(next)).to.equal(401)
    })

    it('says 401 where neither the header nor the body has a token', async () => {
      const missing = { status: 401, body: { error: 'Authorization header missing or invalid' } }
      for (const path of ['/validate_token', '/logout']) {
        expect(said(await curl('POST', opened.flaskJwt + path))).to.deep.equal(missing)
        expect(said(await call('POST', path, null, {}))).to.deep.equal(missing)
        const headers = { authorization: 'Basic abc', 'content-type': 'application/json' }
        expect(said(await curl('POST', opened.flaskJwt + path, { headers }))).to.deep.equal(missing)
      }
    })

    it('changes a password: every other session ends, and the answer has a new one', async () => {
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

    it('keeps to our rules for passwords where one is changed, and the token stays good', async () => {
      const token = await loggedIn()
      const change = async (password: string) => said(await call('PUT', '/user', token, { password }))
      expect(await change('short')).to.deep.equal({
        status: 400,
        body: { error: 'Password must be at least 15 characters long' },
      })
      expect((await change('passwordpassword')).status).to.equal(400)
      expect(await dataStatus(token)).to.equal(200)
    })

    it('does not change a username, and says so', async () => {
      const credentials = await registered()
      const token = await loggedIn(credentials)
      const answer = await call('PUT', '/user', token, { username: 'somebodyElse', password: otherPhrase })
      expect(said(answer)).to.deep.equal({ status: 400, body: { error: 'The username cannot be changed' } })
      const asTyped = { username: credentials.username.toUpperCase() }
      expect((await call('PUT', '/user', token, asTyped)).status).to.equal(200)
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

    it('changes no password and deletes no account for a log-in that is five minutes old', async () => {
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

    it('changes no password and deletes no account for a session that no log-in of the last five minutes led to', async () => {
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

    it('counts the five minutes from the log-in, however new the session is', async () => {
      const credentials = { email: freshAddress(), password: phrase }
      await ask('POST', `${opened.flaskAuth}/registration`, null, credentials)
      const { body } = await ask('POST', `${opened.flaskAuth}/login`, null, credentials)
      clock.advance(5 * minute - 1000) // of the log-in the second is kept
      const { body: answer } = await ask('POST', `${opened.flaskAuth}/token/refresh`, String(body['refresh_token']))
      const changed = await call('PUT', '/user', String(answer['access_token']), { password: otherPhrase })
      expect(changed.status).to.equal(200)
      clock.advance(1000)
      const next = String(changed.body['token'])
      expect(said(await call('PUT', '/user', next, { password: wrongPhrase }))).to.deep.equal(dead)
      expect(said(await call('DELETE', '/user', next))).to.deep.equal(dead)
      expect(await dataStatus(next)).to.equal(200)
    })

    it('lets a token live 35 minutes, at the log-in and after each use', async () => {
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

    it('takes no tokens of other kinds', async () => {
      for (const terms of [{ kind: 'fixed' }, { kind: 'single-use' }, { kind: 'sliding', purpose: 'reset' }]) {
        const body = { ttlSeconds: 60, ...terms }
        const issued = await ask('POST', `${opened.authInternal}/tokens`, adminKey, body)
        const token = String(issued.body['token'])
        expect(said(await call('GET', '/user', token))).to.deep.equal(dead)
        expect(said(await call('DELETE', '/user', token))).to.deep.equal(dead)
        expect((await call('POST', '/logout', token)).status).to.equal(401)
      }
    })
  })

  describe('flask-auth', () => {
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

    it('says hello', async () => {
      expect(said(await curl('GET', `${opened.flaskAuth}/`))).to.deep.equal({ status: 200, body: { hello: 'World!' } })
    })

    it('registers, logs in, and answers 42 to the access token', async () => {
      const { access } = await loggedIn()
      expect(said(await call('GET', '/secret', access))).to.deep.equal({ status: 200, body: { answer: 42 } })
    })

    it('takes a form, too', async () => {
      const headers = { 'content-type': 'application/x-www-form-urlencoded' }
      const body = new URLSearchParams(await registered()).toString()
      expect((await curl('POST', `${opened.flaskAuth}/login`, { headers, body })).status).to.equal(200)
    })

    it('gives access tokens that /data takes, and refresh tokens that it does not', async () => {
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

    it('keeps to our rules for passwords, and asks for an address', async () => {
      const { status, body } = await call('POST', '/registration', null, { email: freshAddress(), password: 'hunter2' })
      expect(status).to.equal(400)
      expect(body['message']).to.have.property('password').that.includes('at least 15 characters')
      const nobody = await call('POST', '/registration', null, { email: 'nobody', password: phrase })
      expect(said(nobody)).to.deep.equal({ status: 400, body: { message: { email: 'expected an e-mail address' } } })
    })

    it('refuses an address that is taken, and leaves its account as it is', async () => {
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

    it('gives a new access token for the refresh token, which stays the same', async () => {
      const { access, refresh } = await loggedIn()
      for (let i = 0; i < 2; i++) {
        const { status, body } = await call('POST', '/token/refresh', refresh)
        expect(status).to.equal(200)
        expect(body).to.have.all.keys('access_token')
        expect(body['access_token']).to.not.equal(access)
        expect((await call('GET', '/secret', String(body['access_token']))).status).to.equal(200)
      }
    })

    it('says 422 to a token of the wrong type and to what is no token, 401 to one that is missing', async () => {
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
      // None of this has ended one of them.
      expect((await call('GET', '/secret', access)).status).to.equal(200)
      expect((await call('POST', '/token/refresh', refresh)).status).to.equal(200)
    })

    const refreshed = async (refresh: string) =>
      String((await call('POST', '/token/refresh', refresh)).body['access_token'])
    const secretStatus = async (access: string) => (await call('GET', '/secret', access)).status
    const revoked = msg(401, 'Token has been revoked')

    it('ends with one log-out all that the log-in led to, and with either of its two tokens', async () => {
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

    it('ends with a log-out nothing of another log-in', async () => {
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

    it('ends the sessions of a refresh token with it when a new log-in takes its place', async () => {
      const credentials = await registered()
      const first = await loggedIn(credentials)
      const stolen = await refreshed(first.refresh)
      const second = await loggedIn(credentials)
      for (const token of [first.access, stolen]) expect(await secretStatus(token)).to.equal(401)
      expect((await call('POST', '/token/refresh', first.refresh)).status).to.equal(401)
      expect(await secretStatus(second.access)).to.equal(200)
    })

    it('leaves no session to a refresh that races the log-out', async () => {
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

    it('lets no session outlive the refresh token that it was made with', async () => {
      const { refresh } = await loggedIn()
      clock.advance(30 * 24 * 60 * minute - 5 * minute)
      const last = await refreshed(refresh)
      clock.advance(5 * minute - 1)
      expect(await secretStatus(last)).to.equal(200)
      clock.advance(1)
      expect(await secretStatus(last)).to.equal(401)
    })

    it('lets an access token live 15 minutes, however much it is used, and a refresh token 30 days', async () => {
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

    it('keeps one refresh token for a user, so that no number of log-ins locks him out', async () => {
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

    it('lists users to the operator only, and without their hashes', async () => {
      const credentials = await registered()
      const { access } = await loggedIn(credentials)
      expect(asProblem(await call('GET', '/users'))).to.deep.equal(problem(401))
      expect(asProblem(await call('GET', '/users', access))).to.deep.equal(problem(401))
      const { status, body } = await call('GET', '/users', adminKey)
      expect(status).to.equal(200)
      expect(body['users']).to.deep.include({ email: credentials.email, active: true })
      expect(JSON.stringify(body)).to.not.match(/hash|password|\$2/)
    })

    it('deletes every user for the operator only, and all their tokens', async () => {
      const { flaskAuth } = await start()
      const { body } = await ask('POST', `${flaskAuth}/login`, null, { email: demo.username, password: demo.password })
      await ask('POST', `${flaskAuth}/registration`, null, { email: freshAddress(), password: phrase })
      expect((await ask('DELETE', `${flaskAuth}/users`, String(body['access_token']))).status).to.equal(401)
      expect((await ask('DELETE', `${flaskAuth}/users`, adminKey)).body).to.deep.equal({ message: '2 row(s) deleted' })
      expect((await ask('GET', `${flaskAuth}/users`, adminKey)).body).to.deep.equal({ users: [] })
      expect((await ask('GET', `${flaskAuth}/secret`, String(body['access_token']))).status).to.equal(401)
    })
  })

  describe('registration', () => {
    it('is closed in the dialects where it is closed', async () => {
      const { flaskJwt, flaskAuth } = await start({ REGISTRATION: 'closed' })
      const one = await ask('POST', `${flaskJwt}/user`, null, { username: freshName(), password: phrase })
      expect(asProblem(one)).to.deep.equal(problem(403))
      const other = await ask('POST', `${flaskAuth}/registration`, null, { email: freshAddress(), password: phrase })
      expect(asProblem(other)).to.deep.equal(problem(403))
    })

    describe('with e-mail confirmation', () => {
      const slow = createClock()
      let confirming: Awaited<ReturnType<typeof start>>
      before(async () => {
        confirming = await start({ EMAIL_CONFIRMATION: 'required' }, slow.now)
      })

      /** The token of the last mail to this address: in development mails are in the log. */
      async function mailedToken(address: string): Promise<string> {
        for (;;) {
          const mail = confirming.lines.findLast(({ event, to }) => event === 'mail' && to === address)
          const [, token] = /#confirm=(\w+)/.exec(String(mail?.['text'])) ?? []
          if (token !== undefined) return token
          await new Promise(setImmediate)
        }
      }

      it('answers the same whether there is an account or not', async () => {
        const email = freshAddress()
        const first = await bytesOf(confirming.flaskAuth, '/registration', { email, password: phrase })
        const token = await mailedToken(email)
        expect((await curl('GET', `${confirming.flaskAuth}/confirm/${token}`)).status).to.equal(200)
        expect(await bytesOf(confirming.flaskAuth, '/registration', { email, password: otherPhrase })).to.equal(first)
        const asUser = { username: email, password: otherPhrase }
        const taken = await ask('POST', `${confirming.flaskJwt}/user`, null, asUser)
        expect(said(taken)).to.deep.equal({ status: 201, body: { message: 'User created successfully' } })
      })

      it('confirms once, with a token of 30 minutes, and only then lets the user in', async () => {
        const credentials = { email: freshAddress(), password: phrase }
        await ask('POST', `${confirming.flaskAuth}/registration`, null, credentials)
        const token = await mailedToken(credentials.email)
        const early = await bytesOf(confirming.flaskAuth, '/login', credentials)
        expect(early).to.equal(
          await bytesOf(confirming.flaskAuth, '/login', { ...credentials, email: 'x@example.com' }),
        )
        const confirm = async (token: string) => said(await curl('GET', `${confirming.flaskAuth}/confirm/${token}`))
        expect(await confirm(token)).to.deep.equal({
          status: 200,
          body: { message: 'Email successfully confirmed! You can now login.' },
        })
        const unknown = { status: 404, body: { message: 'Unknown email confirmation token' } }
        expect(await confirm(token)).to.deep.equal(unknown)
        expect(await confirm('junk')).to.deep.equal(unknown)
        expect((await ask('POST', `${confirming.flaskAuth}/login`, null, credentials)).status).to.equal(200)
        const late = freshAddress()
        await ask('POST', `${confirming.flaskAuth}/registration`, null, { ...credentials, email: late })
        const lateToken = await mailedToken(late)
        slow.advance(30 * minute)
        expect(await confirm(lateToken)).to.deep.equal(unknown)
        const requests = confirming.lines.filter(({ event }) => event === 'request')
        expect(JSON.stringify(requests)).to.not.include(token)
      })
    })
  })

  describe('the cost of a log-in', () => {
    it('is one hash, whether there is such a user or not', async () => {
      const { createUsers } = await import('../../../services/auth/users/users.ts')
      const { openTokenStore, openUserStore } = await import('../../../services/auth/stores/memory/tokenStore.ts')
      const { createTokens } = await import('../../../services/auth/tokens/tokens.ts')
      const { opaqueFormat } = await import('../../../services/auth/tokens/format.ts')
      const { createLinks } = await import('../../../services/auth/users/links.ts')
      const { createLogIn } = await import('../../../services/auth/users/logIn.ts')
      const { createRegistration } = await import('../../../services/auth/users/registration.ts')
      const { openDialect } = await import('../../../services/auth/dialects/index.ts')
      const { createListener } = await import('../../../shared/http/listener.ts')
      const { collectLog } = await import('../../support/servers.ts')
      const passwords = await openPasswords({ cost: 4, workers: 1, maxQueue: 32, maxPerAccount: 1000 })
      let hashes = 0
      const counted: typeof passwords = {
        ...passwords,
        hash(...of) {
          hashes++
          return passwords.hash(...of)
        },
        verify(...of) {
          hashes++
          return passwords.verify(...of)
        },
      }
      const limits = { perUser: 100, total: 1000 }
      const common = { now: clock.now, observe: () => {} }
      const store = await openTokenStore()
      const openTokens = (format: typeof opaqueFormat) =>
        createTokens({ store, format, ttlMs: minute, absoluteTtlMs: minute, limits, ...common })
      const tokens = openTokens(opaqueFormat)
      const rules = { minLength: 15 }
      const users = createUsers({
        store: await openUserStore(),
        passwords: counted,
        rules,
        addressesOnly: false,
        endTokens: tokens.endUser,
        ...common,
      })
      const throttles = createWideThrottles()
      const links = createLinks({
        users,
        tokens,
        throttles,
        mailer: null,
        publicUrl: 'https://a.example',
        ...common,
      })
      const parts = {
        users,
        tokens,
        openTokens,
        throttles,
        invalidTokens: wideInvalidTokens(),
        links,
        logIn: createLogIn({ users, throttles }),
        registration: createRegistration({ users, links, throttles, isOpen: true, needsConfirmation: false }),
        format: opaqueFormat,
        sweeper: { sweep: async () => 0 },
        secrets: [adminKey],
        requireAdminKey: () => {},
        passwordRules: rules,
        ttlMs: minute,
        absoluteTtlMs: minute,
        now: clock.now,
      } as const
      const options = {
        portSetting: 'DIALECTS',
        log: collectLog('auth').log,
        accessLog: 'off',
        monotonicNow: () => 0,
      } as const
      const costs: Record<string, number> = {}
      for (const [name, member, create, logIn] of [
        ['flask-jwt', 'username', '/user', '/authenticate_user'],
        ['flask-auth', 'email', '/registration', '/login'],
      ] as const) {
        const listener = createListener(await openDialect(name, parts), { name, ...options })
        const url = await listener.listen(0, '127.0.0.1')
        const cost = async (what: string, path: string, username: string, password: string) => {
          hashes = 0
          await ask('POST', url + path, null, { [member]: username, password })
          costs[`${name}: ${what}`] = hashes
        }
        const known = freshAddress()
        await cost('registers', create, known, phrase)
        await cost('is taken', create, known, phrase)
        await cost('right', logIn, known, phrase)
        await cost('wrong', logIn, known, wrongPhrase)
        await cost('unknown', logIn, freshAddress(), phrase)
        await listener.close({ lameDuckMs: 0, drainMs: 100 })
      }
      await passwords.close()
      expect(new Set(Object.values(costs)), JSON.stringify(costs)).to.deep.equal(new Set([1]))
    })
  })

  describe('DIALECTS', () => {
    const of = (DIALECTS: string, env: Environment = {}) =>
      readAuthConfig({ SERVICE_KEY: 'a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6', ADMIN_KEY: adminKey, DIALECTS, ...env })

    it('gives each dialect a port, and what its service let its tokens live', () => {
      expect(of('token-provider:5001, token-manager:8000,flask-jwt:5002 ,flask-auth:0').dialects).to.deep.equal([
        { name: 'token-provider', port: 5001, ttlMs: minute },
        { name: 'token-manager', port: 8000, ttlMs: 60 * minute },
        { name: 'flask-jwt', port: 5002, ttlMs: 35 * minute },
        { name: 'flask-auth', port: 0, ttlMs: 15 * minute },
      ])
      expect(of(' ').dialects).to.deep.equal([])
    })

    const bad = [
      'flask',
      'flask-jwt',
      'flask-jwt:',
      'flask-jwt:65536',
      'flask-jwt:-1',
      'flask-jwt:5e3',
      'flask-jwt:5002,',
      'flask-jwt:5002,flask-jwt:5003',
      'flask-jwt:5002;flask-auth:5000',
      'constructor:5000',
      'Flask-JWT:5002',
    ]
    for (const value of bad) {
      it(`refuses ${value}`, () => {
        expect(problemsOf({ DIALECTS: value })).to.deep.equal([
          `DIALECTS: expected name:port, separated by commas; names are ${dialectNames.join(', ')}, each at most once, and ports 0 to 65535; got ${JSON.stringify(value)}`,
        ])
      })
    }

    it('reads the settings of the dialects that are opened, and of no others', () => {
      const TOKEN_TTL_MINUTES = 'soon'
      expect(problemsOf({ TOKEN_TTL_MINUTES })).to.deep.equal([])
      expect(problemsOf({ DIALECTS: 'flask-jwt:0', TOKEN_TTL_MINUTES })).to.deep.equal([])
      expect(problemsOf({ DIALECTS: 'token-manager:0', TOKEN_TTL_MINUTES })).to.deep.equal([
        'TOKEN_TTL_MINUTES: expected a whole number of minutes, 1 or more; got "soon"',
      ])
      expect(of('flask-jwt:0', { FLASK_JWT_TTL_MINUTES: '5' }).dialects[0]?.ttlMs).to.equal(5 * minute)
    })

    it('reports what is wrong with a dialect together with everything else', () => {
      const problems = problemsOf({
        DIALECTS: 'token-provider:0',
        TOKEN_EXPIRATION_TIME: '0',
        TOKEN_CLEAR_FREQUENCY: 'often',
        AUTH_PORT: 'x',
      })
      expect(problems.map(problem => problem.split(':')[0])).to.have.members([
        'TOKEN_EXPIRATION_TIME',
        'TOKEN_CLEAR_FREQUENCY',
        'AUTH_PORT',
      ])
    })
  })

  describe('the configuration of token-provider', () => {
    const folders: string[] = []
    after(() => {
      for (const folder of folders) rmSync(folder, { recursive: true })
    })

    function file(text: string): string {
      const folder = mkdtempSync(join(tmpdir(), 'latchkey-dialects-'))
      folders.push(folder)
      writeFileSync(join(folder, 'config.xml'), text)
      return join(folder, 'config.xml')
    }

    const xml = (inner: string) => `<config>\n    <environment>\n${inner}\n    </environment>\n</config>`
    const read = (env: Environment) =>
      readAuthConfig({
        SERVICE_KEY: 'a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6',
        ADMIN_KEY: adminKey,
        DIALECTS: 'token-provider:0',
        ...env,
      })
    const whole = xml(`
      <POSTGRESQL_USERNAME>somebody</POSTGRESQL_USERNAME>
      <POSTGRESQL_PASSWORD>hunter2</POSTGRESQL_PASSWORD>
      <POSTGRESQL_DB_NAME>postgres</POSTGRESQL_DB_NAME>
      <POSTGRESQL_HOST>postgres_db</POSTGRESQL_HOST>
      <POSTGRESQL_DB_PORT>5432</POSTGRESQL_DB_PORT>
      <TOKEN_EXPIRATION_TIME>90</TOKEN_EXPIRATION_TIME>
      <TOKEN_CLEAR_FREQUENCY>45</TOKEN_CLEAR_FREQUENCY>
      <LOG_LEVEL>DEBUG</LOG_LEVEL>
      <POSTGRESQL_SSL_MODE>require</POSTGRESQL_SSL_MODE>
      <BACKEND_APP_PORT>8080</BACKEND_APP_PORT>`)

    it('is understood under its older names, from the environment', () => {
      const config = read({ TOKEN_EXPIRATION_TIME: '90', TOKEN_CLEAR_FREQUENCY: '45', LOG_LEVEL: 'WARNING' })
      expect(config.dialects[0]).to.include({ ttlMs: 90_000 })
      expect(config).to.include({ sweepIntervalMs: 45_000, logLevel: 'warn' })
      expect(config.warnings).to.deep.equal([])
    })

    it('is understood from a config.xml, whose other settings are named as without effect', () => {
      const config = read({ CONFIG_XML: file(whole) })
      expect(config.dialects[0]).to.include({ ttlMs: 90_000 })
      expect(config).to.include({ sweepIntervalMs: 45_000, logLevel: 'debug', tokenStoreUrl: 'memory:' })
      expect(config.warnings).to.deep.equal([
        'POSTGRESQL_USERNAME, POSTGRESQL_PASSWORD, POSTGRESQL_DB_NAME, POSTGRESQL_HOST, POSTGRESQL_DB_PORT, POSTGRESQL_SSL_MODE: no effect here; tokens are kept where TOKEN_STORE_URL says',
        'BACKEND_APP_PORT: no effect here; DIALECTS says on which port token-provider is',
      ])
    })

    it('is read from config.xml in the working directory, where there is one', () => {
      const from = process.cwd()
      expect(read({}).dialects[0]).to.include({ ttlMs: minute })
      process.chdir(join(file(whole), '..'))
      try {
        expect(read({}).dialects[0]).to.include({ ttlMs: 90_000 })
        expect(read({ DIALECTS: 'token-manager:0' }).sweepIntervalMs).to.equal(15_000)
      } finally {
        process.chdir(from)
      }
    })

    it('yields to the environment, and an older name to ours', () => {
      const CONFIG_XML = file(whole)
      const config = read({ CONFIG_XML, TOKEN_EXPIRATION_TIME: '7', SWEEP_INTERVAL_SECONDS: '8', LOG_LEVEL: 'error' })
      expect(config.dialects[0]).to.include({ ttlMs: 7000 })
      expect(config).to.include({ sweepIntervalMs: 8000, logLevel: 'error' })
    })

    it('brings nothing but those names: a file cannot set a key', () => {
      const inner = '<ADMIN_KEY>0123456789abcdef0123456789abcdef</ADMIN_KEY><TOKEN_LIMIT>1</TOKEN_LIMIT>'
      const config = read({ CONFIG_XML: file(xml(inner)) })
      expect(config.adminKey).to.equal(adminKey)
      expect(config.tokenLimits.total).to.equal(10_000_000)
      expect(config.warnings.map(warning => warning.replace(/^.*config\.xml/, 'config.xml'))).to.deep.equal([
        'config.xml: ADMIN_KEY is not known here',
        'config.xml: TOKEN_LIMIT is not known here',
      ])
    })

    it('tells its warnings in the log', async () => {
      const { lines } = await openTestAuth({
        env: { DIALECTS: 'token-provider:0', CONFIG_XML: file(xml('<COLOUR>green</COLOUR>')) },
      })
      expect(lines.filter(({ level }) => level === 'warn').map(({ event }) => event)[0]).to.match(/COLOUR is not known/)
    })

    it('is refused where the file is not there, is not readable, or is no such XML', () => {
      expect(problemsOf({ DIALECTS: 'token-provider:0', CONFIG_XML: '/nowhere/config.xml' })).to.deep.equal([
        'CONFIG_XML: expected a readable file; /nowhere/config.xml: ENOENT',
      ])
      const [problem] = problemsOf({ DIALECTS: 'token-provider:0', CONFIG_XML: file('<config/>') })
      expect(problem).to.match(/^CONFIG_XML: expected <config><environment> with one element for each setting/)
      expect(problemsOf({ DIALECTS: 'flask-jwt:0', CONFIG_XML: '/nowhere/config.xml' })).to.deep.equal([])
    })

    it('reports a value that is not usable under the name it was given', () => {
      const CONFIG_XML = file(xml('<TOKEN_CLEAR_FREQUENCY>often</TOKEN_CLEAR_FREQUENCY>'))
      expect(problemsOf({ DIALECTS: 'token-provider:0', CONFIG_XML })).to.deep.equal([
        'TOKEN_CLEAR_FREQUENCY: expected a whole number of seconds, 1 to 86400; got "often"',
      ])
    })

    it('takes a declaration, comments, blanks and the five entities', () => {
      const text = `\uFEFF<?xml version="1.0" encoding="UTF-8"?>\n<!-- a <comment> -->\n${xml(
        '<A> a &amp; b &lt;&gt;&quot;&apos; </A><!-- <B>1</B> --><C></C>',
      )}\n`
      expect(parseConfigXml(text)).to.deep.equal({ A: `a & b <>"'`, C: '' })
    })

    const hostile: [string, string][] = [
      ['a DTD', `<!DOCTYPE config [<!ENTITY a "b">]>${xml('<A>&a;</A>')}`],
      ['an external entity', `<!DOCTYPE config SYSTEM "file:///etc/passwd">${xml('<A>1</A>')}`],
      ['a DTD within', xml('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><A>&b;</A>')],
      ['an entity of its own', xml('<A>&a;</A>')],
      ['a character reference', xml('<A>&#49;</A>')],
      ['CDATA', xml('<A><![CDATA[1]]></A>')],
      ['an attribute', xml('<A b="1">1</A>')],
      ['an attribute of the root', '<config a="1"><environment></environment></config>'],
      ['elements in elements', xml('<A><B>1</B></A>')],
      ['an element twice', xml('<A>1</A><A>2</A>')],
      ['an element that does not end', xml('<A>1')],
      ['an element that another ends', xml('<A>1</B>')],
      ['text between elements', xml('<A>1</A>1<B>1</B>')],
      ['a processing instruction', xml('<?a b?><A>1</A>')],
      ['an inclusion', xml('<xi:include href="/etc/passwd"/>')],
      ['another root', '<settings><environment></environment></settings>'],
      ['two roots', `${xml('')}${xml('')}`],
      ['nothing', ''],
    ]
    for (const [what, text] of hostile) {
      it(`does not take ${what}`, () => expect(parseConfigXml(text)).to.equal(null))
    }

    it('reads a large file that is not well-formed in no time', () => {
      const startedAt = performance.now()
      for (const times of [4000, 1_000_000]) {
        for (const piece of ['<A>', '<config>', '<!--', ' ', '&', '<A>1</A>']) {
          expect(parseConfigXml(piece.repeat(times))).to.equal(null)
          parseConfigXml(xml(piece.repeat(times)))
        }
      }
      expect(performance.now() - startedAt).to.be.below(3000)
    })
  })

  describe('docs/dialects.md', () => {
    const text = readFileSync('docs/dialects.md', 'utf8')

    it('lists the calls of every dialect and no others', () => {
      for (const { event, dialect, routes } of opened.lines) {
        if (event !== 'dialect_opened') continue
        const section = text.split(`\n## ${dialect}`)[1]?.split('\n## ')[0] ?? ''
        const documented = [...section.matchAll(/^\| `([A-Z]+ \/\S*)`/gm)].map(([, route]) => route)
        expect(documented, String(dialect)).to.have.members(routes as string[])
      }
    })

    it('says of each setting what its schema says', () => {
      const settings = Object.assign({}, clearSetting, ...Object.values(lifeSettings)) as Record<string, z.ZodType>
      const rows = [...text.matchAll(/^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$/gm)].map(row => row.slice(1))
      const described = Object.entries(settings).map(([name, schema]) => {
        const ms = schema.parse(undefined) as number
        return [name, String(name.endsWith('_MINUTES') ? ms / minute : ms / 1000), metaOf(schema).description]
      })
      expect(rows).to.deep.include.members(described)
    })
  })

  describe('the log', () => {
    it('has no token and no password, at debug level, whatever was sent', () => {
      const written = JSON.stringify(logs.flat().filter(({ event }) => event !== 'mail'))
      const found = [...secrets].filter(secret => written.includes(secret))
      expect(secrets.size).to.be.above(100)
      expect(found).to.deep.equal([])
    })
  })
})
