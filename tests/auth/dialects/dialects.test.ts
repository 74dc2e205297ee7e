// What all dialects have in common: their listeners, their rules for tokens, registration and the cost of a log-in.
import { readFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { expect } from 'chai'
import type { z } from 'zod'
import { makeTokenKey } from '../../../commands/keys/tokenKey.ts'
import { clearSetting } from '../../../services/auth/dialects/olderNames.ts'
import { lifeSettings } from '../../../services/auth/dialects/settings.ts'
import { createOwnAccount } from '../../../services/auth/users/ownAccount.ts'
import { openPasswords } from '../../../services/auth/users/passwords.ts'
import { metaOf } from '../../../shared/config/settings.ts'
import { ask as askAsIs } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo } from '../../support/credentials.ts'
import {
  ask,
  asProblem,
  badHeader,
  bytesOf,
  curl,
  expectNoSecretInLogs,
  freshAddress,
  freshName,
  logs,
  minute,
  otherPhrase,
  phrase,
  problem,
  said,
  secrets,
  start,
  uuidV4,
  wrongPhrase,
} from '../../support/dialects.ts'
import { logIn } from '../../support/factories.ts'
import { hashThreads } from '../../support/hashThreads.ts'
import { closeServers, openTestAuth, startBusiness } from '../../support/servers.ts'
import { freshPlace } from '../../support/stores.ts'
import { createWideThrottles, wideInvalidTokens } from '../../support/throttles.ts'

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

  describe('together', () => {
    it('are off by default: only the two listeners of Auth are open', async () => {
      const { service } = await openTestAuth()
      expect(Object.keys(await service.listen())).to.deep.equal(['auth', 'authInternal'])
    })

    it('each listen on their own address, and log their routes', () => {
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

    it('open only the dialect that is named', async () => {
      const { addresses } = await start({ DIALECTS: 'flask-jwt:0' })
      expect(Object.keys(addresses)).to.deep.equal(['auth', 'authInternal', 'flaskJwt'])
    })

    it('name the setting to change if their port is in use', async () => {
      const port = new URL(opened.auth).port
      const { service } = await openTestAuth({ env: { DIALECTS: `token-provider:${port}` } })
      const refusal = await service.listen().then(
        () => '',
        (error: Error) => error.message,
      )
      expect(refusal).to.match(/^Port \d+ on 127\.0\.0\.1 is already in use\. Set DIALECTS to a free port\.$/)
    })

    it('send a problem document if the older service sent something else or nothing', async () => {
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

    it('do not let other origins read their answers', async () => {
      for (const path of ['/verify_token', '/generate_token']) {
        const method = path === '/verify_token' ? 'GET' : 'POST'
        const { headers } = await curl(method, opened.tokenProvider + path, {
          headers: { origin: 'https://evil.example' },
        })
        expect(headers.get('access-control-allow-origin')).to.equal(null)
      }
    })

    it('issue tokens without a log-in that are valid in their own dialect only', async () => {
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
      // A session is not valid in these dialects either.
      const session = await logIn(opened.auth)
      secrets.add(session)
      expect((await curl('GET', `${opened.tokenManager}/app/valid/${session}`)).body['status']).to.equal(false)
    })

    it('store hashes only, with the dialect as the purpose', async () => {
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

    it('accept their tokens in every process of Auth, and after a restart', async () => {
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

    it('keep their own wire format if the tokens of Auth are JWTs', async () => {
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

  describe('registration', () => {
    it('is closed in the dialects too if it is closed in Auth', async () => {
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

      /** The token of the last mail to this address, read from the log: development writes its mails there. */
      async function mailedToken(address: string): Promise<string> {
        for (;;) {
          const mail = confirming.lines.findLast(({ event, to }) => event === 'mail' && to === address)
          const [, token] = /#confirm=(\w+)/.exec(String(mail?.['text'])) ?? []
          if (token !== undefined) return token
          await new Promise(setImmediate)
        }
      }

      it('gets the same answer whether or not the account exists', async () => {
        const email = freshAddress()
        const first = await bytesOf(confirming.flaskAuth, '/registration', { email, password: phrase })
        const token = await mailedToken(email)
        expect((await curl('GET', `${confirming.flaskAuth}/confirm/${token}`)).status).to.equal(200)
        expect(await bytesOf(confirming.flaskAuth, '/registration', { email, password: otherPhrase })).to.equal(first)
        const asUser = { username: email, password: otherPhrase }
        const taken = await ask('POST', `${confirming.flaskJwt}/user`, null, asUser)
        expect(said(taken)).to.deep.equal({ status: 201, body: { message: 'User created successfully' } })
      })

      it('is confirmed once, by a token valid for 30 minutes; only then can the user log in', async () => {
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
    it('is one hash, whether or not the user exists', async () => {
      const { createUsers } = await import('../../../services/auth/users/users.ts')
      const { openTokenStore } = await import('../../../services/auth/stores/memory/tokenStore.ts')
      const { openUserStore } = await import('../../../services/auth/stores/memory/userStore.ts')
      const { createTokens } = await import('../../../services/auth/tokens/tokens.ts')
      const { opaqueFormat } = await import('../../../services/auth/tokens/format.ts')
      const { createLinks } = await import('../../../services/auth/users/links.ts')
      const { createLogIn } = await import('../../../services/auth/users/logIn.ts')
      const { createRegistration } = await import('../../../services/auth/users/registration.ts')
      const { openDialect } = await import('../../../services/auth/dialects/index.ts')
      const { createListener } = await import('../../../shared/http/listener.ts')
      const { collectLog } = await import('../../support/log.ts')
      const passwords = await openPasswords({ cost: 4, threads: hashThreads, maxQueue: 32, maxPerAccount: 1000 })
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
      const common = { now: clock.now, emit: () => {} }
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
        revokeTokens: tokens.revokeByUser,
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
        ownAccount: createOwnAccount({ users, links, throttles, canRename: true }),
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
      passwords.close()
      expect(new Set(Object.values(costs)), JSON.stringify(costs)).to.deep.equal(new Set([1]))
    })
  })

  describe('the routes that every dialect has', () => {
    const listeners = ['tokenProvider', 'tokenManager', 'flaskJwt', 'flaskAuth'] as const
    for (const listener of listeners) {
      it(`answer at ${listener}`, async () => {
        const health = await curl('GET', `${opened[listener]}/health`)
        expect(said(health)).to.deep.equal({ status: 200, body: { status: 'ok' } })
        for (const path of ['/docs', '/redoc']) {
          const { status, headers } = await curl('GET', opened[listener] + path)
          expect([status, headers.get('content-type')]).to.deep.equal([200, 'text/html; charset=utf-8'])
        }
        expect((await curl('GET', `${opened[listener]}/docs/documents.js`)).text).to.include('openapi.json')
      })

      it(`describe every call of ${listener} and no other`, async () => {
        const { body } = await curl('GET', `${opened[listener]}/docs/openapi.json`)
        const paths = Object.entries(body['paths'] as Record<string, object>)
        const described = paths.flatMap(([path, methods]) =>
          Object.keys(methods).map(method => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`),
        )
        const [line] = opened.lines.filter(({ event, address }) => {
          return event === 'dialect_opened' && address === opened[listener]
        })
        expect(described).to.have.members(line?.['routes'] as string[])
      })
    }

    it('are without documents if API_DOCS is off', async () => {
      const { tokenManager } = await start({ API_DOCS: 'off' })
      expect(asProblem(await curl('GET', `${tokenManager}/docs`))).to.deep.equal(problem(404))
      expect((await curl('GET', `${tokenManager}/health`)).status).to.equal(200)
    })

    it('have the title and the description of the operator', async () => {
      const { tokenManager } = await start({ APP_TITLE: 'Our tokens', APP_DESCRIPTION: 'For all of us' })
      const { body } = await curl('GET', `${tokenManager}/docs/openapi.json`)
      expect(body['info']).to.include({ title: 'Our tokens', description: 'For all of us' })
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

    it('describes each setting as its schema does', () => {
      const settings = Object.assign({}, clearSetting, ...Object.values(lifeSettings)) as Record<string, z.ZodType>
      const rows = [...text.matchAll(/^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$/gm)].map(row => row.slice(1))
      const described = Object.entries(settings).map(([name, schema]) => {
        return [name, String(schema.parse(undefined)), metaOf(schema).description]
      })
      expect(rows).to.deep.include.members(described)
    })
  })

  describe('the log', () => {
    it('has no token and no password, even at debug level, whatever was sent', () => expectNoSecretInLogs(20))
  })
})
