// Auth over HTTP: accounts, from registration to their end, on every store; and what becomes of a change that was cut short.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import bcrypt from 'bcryptjs'
import { expect } from 'chai'
import fc from 'fast-check'
import { openAuthClient } from '../../../packages/client/authClient.ts'
import { maxTokensPerCall, maxVerdictBytes, type TokenKind, type Verdict } from '../../../packages/client/contract.ts'
import { openTokenStore, openUserStore } from '../../../services/auth/stores/index.ts'
import type { TokenRef, TokenStore, UserRecord, UserStore } from '../../../services/auth/stores/ports.ts'
import { parseSecret } from '../../../services/auth/tokens/format.ts'
import { createTokens, type Tokens } from '../../../services/auth/tokens/tokens.ts'
import { openPasswords, type Passwords } from '../../../services/auth/users/passwords.ts'
import { createUsers, type UserEvent, type Users, type UsersOptions } from '../../../services/auth/users/users.ts'
import type { AppError } from '../../../shared/http/errors.ts'
import { type Answer, ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, openTestAuth, startAuth } from '../../support/servers.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'
import { until } from '../../support/until.ts'

const schemes = await schemesHere(['memory', 'sqlite', 'postgres'])
const client = { address: '192.0.2.1' }
const owner = { ...client, account: 'somebody' }

const phrases = {
  first: 'CANARY tandem over the hillock',
  second: 'nine CANARY crayons, one mug',
  third: 'a CANARY that hums in the dark',
  wrong: 'a CANARY must have gargled',
}

interface PublicUser {
  id: string
  username: string
  createdAt: number
}

interface Credentials {
  username: string
  password: string
}

let count = 0
const newUsername = () => `user${++count}@example.com`

type Auth = Awaited<ReturnType<typeof startAuth>>

/** What the tests ask of an Auth; remembers every password it sent. */
function clientOf({ url, internalUrl, lines }: Pick<Auth, 'url' | 'internalUrl' | 'lines'>) {
  const sent = new Set<string>()

  async function send<T = Record<string, unknown>>(
    method: string,
    path: string,
    bearer: string | null,
    body: Record<string, unknown>,
  ) {
    const passwords = [body['password'], body['currentPassword']].filter(value => typeof value === 'string')
    const telling = passwords.filter(password => password.length > 5)
    for (const password of telling) sent.add(password)
    const answer = await ask<T>(method, url + path, bearer, body)
    for (const password of telling) {
      expect(answer.text).to.not.include(JSON.stringify(password).slice(1, -1))
      expect(answer.text).to.not.include(password)
    }
    return answer
  }

  const operate = <T = Record<string, unknown>>(
    method: string,
    path: string,
    key: string | null = adminKey,
    body?: unknown,
  ) => ask<T>(method, internalUrl + path, key, body)

  const client = {
    url,
    send,
    operate,
    register: (credentials: Credentials) => send<PublicUser>('POST', '/users', null, { ...credentials }),
    logIn: (credentials: Credentials) => send('POST', '/login', null, { ...credentials }),
    get: <T = Record<string, unknown>>(path: string, bearer: string) => ask<T>('GET', url + path, bearer),
    post: (path: string, bearer: string) => ask('POST', url + path, bearer),

    change: (bearer: string, currentPassword: string, password: string) =>
      send<PublicUser>('PATCH', '/users/me', bearer, { currentPassword, password }),

    remove: (bearer: string, currentPassword: string) => send('DELETE', '/users/me', bearer, { currentPassword }),

    /** A new user and a session of theirs. */
    async newUser({ username = newUsername(), password = phrases.first }: Partial<Credentials> = {}) {
      const { status, body, text } = await client.register({ username, password })
      expect(status, text).to.equal(201)
      return { user: body, credentials: { username, password }, token: await client.issue(body.id) }
    },

    async session(credentials: Credentials): Promise<string> {
      const { status, body, text } = await client.logIn(credentials)
      expect(status, text).to.equal(200)
      return body['token'] as string
    },

    /** A token without the cost of a hash; where it is sliding and has no purpose, a session like any other. */
    async issue(userId: string, kind: TokenKind = 'sliding', purpose?: string): Promise<string> {
      const absolute = kind === 'sliding' ? { absoluteTtlSeconds: 3600 } : {}
      const terms = { kind, ttlSeconds: 600, userId, ...absolute, ...(purpose !== undefined && { purpose }) }
      const { status, body, text } = await operate('POST', '/tokens', adminKey, terms)
      expect(status, text).to.equal(201)
      return body['token'] as string
    },

    /** Which of them a look admits. */
    async live(tokens: string[], purpose?: string): Promise<string[]> {
      const verdicts: Verdict[] = []
      for (let i = 0; i < tokens.length; i += 256) {
        const question = { tokens: tokens.slice(i, i + 256), touch: false, ...(purpose !== undefined && { purpose }) }
        const { body } = await operate<{ verdicts: Verdict[] }>('POST', '/validateToken', serviceKey, question)
        verdicts.push(...body.verdicts)
      }
      return tokens.filter((_, i) => verdicts[i]?.authenticated)
    },

    isLive: async (token: string) => (await client.live([token])).length === 1,

    /** As the operator finds the user; undefined where there is none. */
    async find(username: string): Promise<Record<string, unknown> | undefined> {
      const path = `/admin/users?username=${encodeURIComponent(username)}`
      const { status, body, text } = await operate<{ users: Record<string, unknown>[] }>('GET', path)
      expect(status, text).to.equal(200)
      return body.users[0]
    },

    /** No password that was sent is in the log, and nothing failed inside. */
    expectQuietLog(): void {
      const log = JSON.stringify(lines)
      for (const password of sent) expect(log.includes(JSON.stringify(password).slice(1, -1)), password).to.equal(false)
      expect(lines.filter(({ level }) => level === 'error' || level === 'warn')).to.deep.equal([])
    },
  }
  return client
}

type Client = ReturnType<typeof clientOf>

function expectProblem({ status, headers, body }: Answer<unknown>, expected: number, error: string): void {
  expect(body).to.include({ status: expected, error })
  expect(status).to.equal(expected)
  expect(headers.get('content-type')).to.equal('application/problem+json')
}

/** The whole answer, byte for byte, but for the time of day. */
async function rawLogin(url: string, credentials: Credentials): Promise<string> {
  const body = JSON.stringify(credentials)
  const head = ['POST /login HTTP/1.1', 'Host: auth', 'Content-Type: application/json', 'X-Request-Id: the-same']
  const length = `Content-Length: ${Buffer.byteLength(body)}`
  const { text } = await sendRaw(url, `${[...head, length, 'Connection: close'].join('\r\n')}\r\n\r\n${body}`, 5000)
  return text.replace(/^Date: .*$/m, 'Date: …')
}

describe('POST /users', () => {
  const clock = createClock()
  let client: Client
  before(async () => {
    client = clientOf(await startAuth({ now: clock.now }))
  })
  afterEach('no password is in the log, and nothing failed inside', () => client.expectQuietLog())
  after(closeServers)

  /** The detail of a 400. */
  async function refusal(username: string, password: string): Promise<string> {
    const answer = await client.register({ username, password })
    expectProblem(answer, 400, 'invalid_request')
    return (answer.body as unknown as { detail: string }).detail
  }

  it('answers 201 with exactly id, username and createdAt; then the user can log in', async () => {
    const credentials = { username: newUsername(), password: phrases.first }
    expect((await client.logIn(credentials)).status).to.equal(401)
    const { status, body } = await client.register(credentials)
    expect(status).to.equal(201)
    expect(body.id).to.match(/^[\w-]{20,}$/)
    expect(body).to.deep.equal({ id: body.id, username: credentials.username, createdAt: clock.now() })
    const token = await client.session(credentials)
    expect((await client.get('/users/me', token)).body).to.deep.equal(body)
  })

  it('tells the log of the id and of no username', async () => {
    const auth = await startAuth()
    const own = clientOf(auth)
    const { user } = await own.newUser()
    const registered = auth.lines.filter(({ event }) => event === 'user_registered').at(-1)
    expect(registered).to.include({ level: 'info', userId: user.id })
    const told = auth.lines.filter(({ event }) => event === 'user_registered' || event.startsWith('login'))
    expect(JSON.stringify(told)).to.not.include(user.username)
  })

  it('is 409 for a username that is taken, in whatever case, width and composition', async () => {
    await client.newUser({ username: 'Ann-é@example.com' })
    for (const username of [
      'ann-é@example.com',
      'ANN-É@EXAMPLE.COM',
      'ann-e\u0301@example.com',
      'ＡＮＮ-é@example.com',
      'ann-é@ｅｘａｍｐｌｅ.com',
    ]) {
      expectProblem(await client.register({ username, password: phrases.second }), 409, 'conflict')
      expect((await client.logIn({ username, password: phrases.first })).status, username).to.equal(200)
    }
    expect((await client.logIn({ username: 'ann-é@example.com', password: phrases.second })).status).to.equal(401)
    expect((await client.register({ username: 'ann-e@example.com', password: phrases.second })).status).to.equal(201)
  })

  it('gives a username to one of many that ask for it at the same time', async () => {
    const username = newUsername()
    const passwords = Array.from({ length: 6 }, (_, i) => `${phrases.first} ${i}`)
    const answers = await Promise.all(passwords.map(password => client.register({ username, password })))
    expect(answers.map(({ status }) => status).sort()).to.deep.equal([201, 409, 409, 409, 409, 409])
    const winner = answers.findIndex(({ status }) => status === 201)
    expect((await client.logIn({ username, password: passwords[winner] as string })).status).to.equal(200)
    expect((await client.logIn({ username, password: passwords[(winner + 1) % 6] as string })).status).to.equal(401)
  })

  it('is 403 with REGISTRATION=closed, and in production where it is not open', async () => {
    for (const [env, status] of [
      [{ REGISTRATION: 'closed' }, 403],
      [{ NODE_ENV: 'production' }, 403],
      [{ NODE_ENV: 'production', REGISTRATION: 'open' }, 201],
    ] as const) {
      const own = clientOf(await startAuth({ env }))
      const credentials = { username: newUsername(), password: phrases.first }
      const answer = await own.register(credentials)
      expect(answer.status).to.equal(status)
      if (status === 403) expectProblem(answer, 403, 'forbidden')
      expect((await own.logIn(credentials)).status).to.equal(status === 201 ? 200 : 401)
    }
  })

  describe('a password', () => {
    const username = 'ann.smith@example.com'
    const tooShort = 'password: expected at least 15 characters; any will do, a sentence is fine'
    const tooLong = 'password: expected a password of 1 to 256 characters'
    const tooCommon = 'password: this is one of the most common passwords; expected one that others do not use'
    const tooWeak =
      'password: expected one that is harder to guess: this is little more than common words, names, dates, repetitions or neighbouring keys. Add a few uncommon words'
    const tooNear = 'password: expected more than your username or the name of this service'
    const long = `${phrases.first}, `.repeat(10)
    const emoji = '🦊🌵🧭🎷🪁🧊🍋🚲🎲🦉🔭🪴🥁🧵🏔'

    for (const [what, password, detail] of [
      ['14 characters', phrases.first.slice(0, 14), tooShort],
      ['14 emoji', [...emoji].slice(0, 14).join(''), tooShort],
      ['257 characters', long.slice(0, 257), tooLong],
      ['257 emoji', emoji.repeat(18).slice(0, 2 * 257), tooLong],
      ['a megabyte', null, 'too_large'],
      ['nothing', '', tooLong],
      ['half a surrogate pair', `${phrases.first}\ud83d`, 'password: expected a password in valid Unicode'],
      ['a common password', 'PasswordPassword', tooCommon],
      ['a common password and digits', 'superman12345678', tooCommon],
      ['a repetition', 'abcabcabcabcabca', tooWeak],
      ['a run of digits', '123456789012345', tooWeak],
      ['a run of letters', 'abcdefghijklmnop', tooWeak],
      ['a run backwards', 'zyxwvutsrqponmlk', tooWeak],
      ['a row of keys', 'qwertyuiopasdfgh', tooWeak],
      ['the username', username, tooNear],
      ['the username and a little', 'ANN.Smith-2024!', tooNear],
      ['the product and a little', 'latchkey-2024-!', tooNear],
    ] as const) {
      it(`is 400 with the rule that it breaks: ${what}`, async () => {
        if (password === null) {
          const answer = await client.register({ username, password: 'x'.repeat(1_000_000) })
          expectProblem(answer, 413, detail)
        } else expect(await refusal(username, password)).to.include(detail)
        expect(await client.find(username)).to.equal(undefined)
      })
    }

    it('may have 15 to 256 characters of any kind, and each of them counts', async () => {
      const withNul = `${phrases.first}\0${phrases.second}`
      const passwords = ['CANARYvq7kzjhw2', long.slice(0, 256), emoji, emoji.repeat(17), withNul]
      await Promise.all(
        passwords.map(async password => {
          const user = { username: newUsername(), password }
          expect((await client.register(user)).status, password).to.equal(201)
          expect((await client.logIn(user)).status).to.equal(200)
          const shorter = [...password].slice(0, -1).join('')
          expect((await client.logIn({ ...user, password: shorter })).status).to.equal(401)
        }),
      )
    })

    it('is the same however its accents were typed', async () => {
      const [composed, decomposed] = ['NFC', 'NFD'].map(form => 'un café brûlé à Besançon'.normalize(form))
      const user = { username: newUsername(), password: composed as string }
      await client.register(user)
      expect((await client.logIn({ ...user, password: decomposed as string })).status).to.equal(200)
    })

    it('has PASSWORD_MIN_LENGTH characters; that of the demo user is exempt', async () => {
      const env = { PASSWORD_MIN_LENGTH: '8', DEMO_USERNAME: 'Demo-X', DEMO_PASSWORD: 'x' }
      const own = clientOf(await startAuth({ env }))
      const short = 'vq7kzjhw'
      const answer = await own.register({ username: newUsername(), password: short.slice(1) })
      expect(answer.text).to.include('at least 8 characters')
      expect((await own.register({ username: newUsername(), password: short })).status).to.equal(201)
      const token = await own.session({ username: 'demo-x', password: 'x' })
      expectProblem(await own.change(token, 'x', 'y'), 400, 'invalid_request')
    })
  })

  it('refuses what is no string with 400, whatever it is', async () => {
    const notText = fc.anything().filter(value => typeof value !== 'string')
    await fc.assert(
      fc.asyncProperty(fc.constantFrom('username', 'password'), notText, async (member, value) => {
        const body = { username: newUsername(), password: phrases.first, [member]: value }
        expectProblem(await ask('POST', `${client.url}/users`, null, body), 400, 'invalid_request')
      }),
      { numRuns: 60 },
    )
    expect(Object.keys(Object.prototype)).to.deep.equal([])
  })
})

describe('a username has at most 640 bytes as JSON', () => {
  const key = '🔑' // four bytes
  const longest = key.repeat(159)
  let auth: Auth
  let own: Client
  before(async () => {
    auth = await startAuth()
    own = clientOf(auth)
  })
  after(closeServers)

  it('and a longer one is 400, also where it has no more than 256 characters, and no name to log in with', async () => {
    for (const username of [longest + key, key.repeat(256), '鍵'.repeat(213)]) {
      const answer = await own.register({ username, password: phrases.first })
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.body).to.have.property('detail', 'username: expected at most 640 bytes as JSON')
      expect((await own.logIn({ username, password: phrases.first })).status).to.equal(401)
    }
    for (const username of ['鍵'.repeat(212), '"'.repeat(256)]) await own.newUser({ username })
  })

  it('so that 256 tokens of the longest get their verdicts in one call, of at most 1 KB each', async () => {
    const { token } = await own.newUser({ username: longest })
    const tokens = Array<string>(maxTokensPerCall).fill(token)
    const { text, body } = await own.operate<{ verdicts: Verdict[] }>('POST', '/validateToken', serviceKey, { tokens })
    expect(Buffer.byteLength(text)).to.be.at.most(maxVerdictBytes * maxTokensPerCall)
    expect(body.verdicts.filter(({ authenticated }) => authenticated)).to.have.length(maxTokensPerCall)

    const log = { info() {}, warn() {} }
    const [url, monotonicNow] = [auth.internalUrl, () => performance.now()]
    const client = openAuthClient({ url, key: serviceKey, log, monotonicNow, maxBatch: maxTokensPerCall })
    const judged = await Promise.all(tokens.map(token => client.judge(token, { requestId: 'full' })))
    await client.close()
    for (const { verdict, serverTiming } of judged) {
      expect(verdict).to.include({ authenticated: true, username: longest })
      expect(serverTiming).to.include('shared by 256')
    }
  })
})

describe('a member that nobody asked for is 400, and nothing changes:', () => {
  let place: Place
  let store: UserStore
  let own: Client
  let token: string
  let row: UserRecord
  before(async () => {
    place = await freshPlace('sqlite')
    own = clientOf(await startAuth({ env: { USER_STORE_URL: place.url } }))
    store = await openUserStore(place.url)
    const { user, token: session } = await own.newUser()
    token = session
    row = (await store.findById(user.id)) as UserRecord
  })
  after(async () => {
    await closeServers()
    await store.close()
    await place.remove()
  })

  const members: Record<string, unknown> = {
    id: 'chosen',
    passwordHash: '$2b$04$',
    credentialVersion: 0,
    endedVersion: 0,
    createdAt: 0,
    confirmedAt: 0,
    disabledAt: 0,
    deletedAt: 0,
    role: 'admin',
    isAdmin: true,
    emailConfirmed: true,
    ttl: 1e9,
    ttlSeconds: 1e9,
    kind: 'fixed',
    constructor: { prototype: { isAdmin: true } },
    toString: 'x',
  }
  for (const name of Object.keys(members)) {
    const snakeCase = name.replace(/[A-Z]/g, letter => `_${letter.toLowerCase()}`)
    if (snakeCase !== name) members[snakeCase] = members[name]
  }

  it('every column of a user is among them', () => {
    const others = Object.keys(row).filter(name => name !== 'username')
    expect(Object.keys(members)).to.include.members(others)
  })

  for (const [name, value] of Object.entries(members)) {
    it(name, async () => {
      const username = newUsername()
      const credentials = { username, password: phrases.second }
      const change = { currentPassword: phrases.first, password: phrases.second }
      for (const [method, path, body] of [
        ['POST', '/users', credentials],
        ['POST', '/login', { username: row.username, password: phrases.first }],
        ['PATCH', '/users/me', change],
        ['DELETE', '/users/me', { currentPassword: phrases.first }],
      ] as const) {
        const answer = await own.send(method, path, method === 'POST' ? null : token, { ...body, [name]: value })
        expectProblem(answer, 400, 'invalid_request')
      }
      expect(await store.findByUsername(username)).to.equal(null)
      expect(await store.findById(row.id)).to.deep.equal(row)
    })
  }

  it('__proto__, and a username or id in PATCH', async () => {
    const json = `{"username":"${newUsername()}","password":"${phrases.second}","__proto__":{"isAdmin":true}}`
    expectProblem(await ask('POST', `${own.url}/users`, null, json), 400, 'invalid_request')
    const change = { currentPassword: phrases.first, password: phrases.second, username: newUsername() }
    expectProblem(await own.send('PATCH', '/users/me', token, change), 400, 'invalid_request')
    expect(await store.findById(row.id)).to.deep.equal(row)
    expect(await store.list(null, 10)).to.have.length(2) // the demo user and this one
  })
})

for (const scheme of schemes) {
  describe(`users at ${scheme}:`, () => {
    const clock = createClock()
    let place: Place
    let client: Client
    before(async () => {
      place = await freshPlace(scheme)
      const env = { USER_STORE_URL: place.url, TOKEN_STORE_URL: place.url, TOKEN_LIMIT_PER_USER: '1000' }
      client = clientOf(await startAuth({ env, now: clock.now }))
    })
    afterEach('no password is in the log, and nothing failed inside', () => client.expectQuietLog())
    after(async () => {
      await closeServers()
      await place.remove()
    })

    it('may be called whatever has no control characters and no blanks at its ends', async () => {
      const usernames = [
        '__proto__',
        'constructor',
        'toString',
        `o'"; drop table x --`,
        '🦊🔑',
        'שלום@דוגמה',
        '%00',
        'null',
      ]
      await Promise.all(
        [...usernames, 'x'.repeat(256)].map(async username => {
          const user = { username, password: phrases.first }
          const { status, body, text } = await client.register(user)
          expect(status, text).to.equal(201)
          expect(body.username).to.equal(username.toLowerCase())
          const token = await client.session(user)
          expect((await client.get('/users/me', token)).body).to.deep.equal(body)
          expect(await client.find(username)).to.include({ id: body.id })
        }),
      )
    })

    it('are 400 where they would have another name, and logging in with it is 401 like any other', async () => {
      const unknown = await rawLogin(client.url, { username: newUsername(), password: phrases.first })
      expect(unknown).to.match(/^HTTP\/1\.1 401 /)
      const tooLong = '\ufdfa'.repeat(100) // 1800 characters once normalised
      const names = ['\0', 'a\0b', 'a\nb', 'a\u2028b', '\ufdd0', ' a', tooLong]
      const others = ['a\tb', '\x7f', 'a\u0085b', 'a\u2029b', 'a ', '\u00a0a', '\u3000', '   ']
      for (const username of [...names, ...others]) {
        const answer = await client.register({ username, password: phrases.first })
        expectProblem(answer, 400, 'invalid_request')
        expect(answer.body)
          .to.have.property('detail')
          .match(/^username: expected /)
      }
      const answers = await Promise.all(
        names.map(username => rawLogin(client.url, { username, password: phrases.first })),
      )
      for (const answer of answers) expect(answer).to.equal(unknown)
    })

    it('are 400 where their name is empty, too long or half a character, on every route', async () => {
      for (const username of ['', 'x'.repeat(257), '🔑'.repeat(257), 'a\ud83d', '\udd11']) {
        const credentials = { username, password: phrases.first }
        for (const answer of [await client.register(credentials), await client.logIn(credentials)]) {
          expectProblem(answer, 400, 'invalid_request')
          expect(answer.body)
            .to.have.property('detail')
            .match(/^username: expected /)
        }
      }
    })

    describe('PATCH /users/me', () => {
      it('is 401 with a wrong current password: nothing changes, and the session goes on', async () => {
        const { credentials, token, user } = await client.newUser()
        const other = await client.issue(user.id)
        for (const current of [phrases.wrong, phrases.second, `${phrases.first}\0`]) {
          const answer = await client.change(token, current, phrases.second)
          expectProblem(answer, 401, 'invalid_credentials')
          expect(answer.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey"')
        }
        expect((await client.get('/users/me', token)).body).to.deep.equal(user)
        expect(await client.live([token, other])).to.have.length(2)
        expect((await client.logIn({ ...credentials, password: phrases.second })).status).to.equal(401)
        expect((await client.logIn(credentials)).status).to.equal(200)
      })

      it('is 400 for a password that breaks a rule, and nothing changes', async () => {
        const { credentials, token } = await client.newUser()
        for (const password of [
          phrases.second.slice(0, 14),
          '123456789012345',
          credentials.username,
          'x'.repeat(257),
        ]) {
          const answer = await client.change(token, phrases.first, password)
          expectProblem(answer, 400, 'invalid_request')
          expect(answer.body)
            .to.have.property('detail')
            .match(/^password: /)
        }
        expect((await client.logIn(credentials)).status).to.equal(200)
      })

      it('ends every other session and token at once, and the current one goes on with its secret', async () => {
        const { user, credentials, token } = await client.newUser()
        const others = [await client.session(credentials)]
        for (let i = 0; i < 48; i++) others.push(await client.issue(user.id))
        others.push(await client.issue(user.id, 'fixed'), await client.issue(user.id, 'single-use'))
        const link = await client.issue(user.id, 'single-use', 'reset')
        const bystander = (await client.newUser()).token
        expect(await client.live([token, ...others])).to.have.length(52)
        expect(await client.live([link], 'reset')).to.have.length(1)
        clock.advance(1000)

        const { status, body } = await client.change(token, phrases.first, phrases.second)
        expect(await client.live([...others, token, bystander])).to.deep.equal([token, bystander])
        expect(await client.live([link], 'reset')).to.deep.equal([])
        expect(status).to.equal(200)
        expect(body).to.deep.equal(user)

        const { body: list } = await client.get<{ sessions: { id: string; current: boolean }[] }>('/sessions', token)
        expect(list.sessions.map(({ id, current }) => ({ id, current }))).to.deep.equal([
          { id: token.slice(3, 17), current: true },
        ])
        const renewed = (await client.post('/renew', token)).body['token'] as string
        expect(await client.live([token, renewed])).to.deep.equal([renewed])

        expect((await client.logIn(credentials)).status).to.equal(401)
        const fresh = await client.session({ ...credentials, password: phrases.second })
        expect((await client.change(renewed, phrases.second, phrases.third)).status).to.equal(200)
        expect(await client.live([fresh, renewed])).to.deep.equal([renewed])
      })

      it('beats every log-in with the old password that races it', async () => {
        const { credentials, token } = await client.newUser()
        const passwords = Array.from({ length: 4 }, (_, i) =>
          i === 0 ? credentials.password : `${phrases.second} ${i}`,
        )
        const counts = { issued: 0, refused: 0 }
        for (const [i, password] of passwords.slice(1).entries()) {
          const old = { ...credentials, password: passwords[i] as string }
          let isChanged = false
          const issued: string[] = []
          const keepLoggingIn = async () => {
            while (!isChanged) {
              const answer = await client.logIn(old)
              if (answer.status === 200) issued.push(answer.body['token'] as string)
              else {
                expectProblem(answer, 401, 'invalid_credentials')
                counts.refused++
              }
            }
          }
          // More would keep the database of a busy machine waiting for longer than a store's deadline.
          const rivals = Array.from({ length: scheme === 'memory' ? 20 : 8 }, keepLoggingIn)
          while (issued.length === 0) await new Promise(setImmediate)
          const change = await client.change(token, old.password, password)
          expect(change.status, change.text).to.equal(200)
          expect(await client.live([...issued, token])).to.deep.equal([token])
          isChanged = true
          await Promise.all(rivals)
          expect(await client.live([...issued, token])).to.deep.equal([token])
          counts.issued += issued.length
        }
        expect(counts.issued).to.be.above(0)
        expect(counts.refused).to.be.above(0)
        expect((await client.logIn({ ...credentials, password: passwords.at(-1) as string })).status).to.equal(200)
      })

      it('has one winner, of two at the same time', async () => {
        const { user, credentials, token } = await client.newUser()
        const sessions = [token, await client.issue(user.id)]
        const wanted = [phrases.second, phrases.third]
        const answers = await Promise.all(
          sessions.map((session, i) => client.change(session, phrases.first, wanted[i] as string)),
        )
        const winner = answers.findIndex(({ status }) => status === 200)
        expect(answers[winner]?.status).to.equal(200)
        expect(answers[1 - winner]?.status).to.be.oneOf([401, 409])
        expect(await client.live(sessions)).to.deep.equal([sessions[winner]])
        const statuses: number[] = []
        for (const password of [phrases.first, ...wanted]) {
          statuses.push((await client.logIn({ ...credentials, password })).status)
        }
        expect(statuses).to.deep.equal(winner === 0 ? [401, 200, 401] : [401, 401, 200])
      })
    })

    describe('DELETE /users/me', () => {
      it('is 401 with a wrong current password, and nothing changes', async () => {
        const { user, credentials, token } = await client.newUser()
        expectProblem(await client.remove(token, phrases.wrong), 401, 'invalid_credentials')
        expect((await client.get('/users/me', token)).body).to.deep.equal(user)
        expect((await client.logIn(credentials)).status).to.equal(200)
      })

      it('is 204, ends every session, and leaves nothing that tells of the user', async () => {
        const { user, credentials, token } = await client.newUser()
        const others = [await client.session(credentials), await client.issue(user.id, 'fixed')]
        const { status, text } = await client.remove(token, phrases.first)
        expect(await client.live([token, ...others])).to.deep.equal([])
        expect({ status, text }).to.deep.equal({ status: 204, text: '' })
        expectProblem(await client.get('/users/me', token), 401, 'invalid_token')
        const unknown = await rawLogin(client.url, { ...credentials, username: newUsername() })
        expect(unknown).to.match(/^HTTP\/1\.1 401 /)
        expect(await rawLogin(client.url, credentials)).to.equal(unknown)
        expect(await client.find(credentials.username)).to.equal(undefined)
      })

      it('frees the username: who takes it next is somebody else', async () => {
        const { user, credentials, token } = await client.newUser()
        await client.remove(token, phrases.first)
        const next = await client.newUser({ ...credentials, password: phrases.second })
        expect(next.user.id).to.not.equal(user.id)
        expect((await client.get('/users/me', next.token)).body).to.deep.equal(next.user)
        expect((await client.logIn(credentials)).status).to.equal(401)
        expect(await client.live([token, next.token])).to.deep.equal([next.token])
      })

      it('beats every log-in that races it', async () => {
        const { credentials, token } = await client.newUser()
        const rivals = Array.from({ length: 8 }, () => client.logIn(credentials))
        await rivals[0]
        expect((await client.remove(token, phrases.first)).status).to.equal(204)
        const answers = await Promise.all(rivals)
        const issued = answers.map(({ body }) => body['token']).filter(secret => typeof secret === 'string')
        expect(await client.live([...issued, token])).to.deep.equal([])
      })
    })

    describe('the operator', () => {
      interface Page {
        users: Record<string, unknown>[]
        next: string | null
      }
      const page = (query: string) => client.operate<Page>('GET', `/admin/users${query}`)

      it('sees every user once, page by page, and never a hash', async () => {
        for (let i = 0; i < 7; i++) await client.newUser()
        const whole = (await page('?limit=200')).body
        expect(whole.next).to.equal(null)
        expect(whole.users.length).to.be.at.least(7)
        const paged: Page['users'] = []
        let next: string | null = ''
        while (next !== null) {
          const { status, body } = await page(`?limit=3${next && `&after=${next}`}`)
          expect(status).to.equal(200)
          expect(body.users.length).to.be.at.most(3)
          paged.push(...body.users)
          next = body.next
        }
        expect(paged).to.deep.equal(whole.users)
        expect(new Set(paged.map(({ id }) => id)).size).to.equal(paged.length)
        const members = ['id', 'username', 'createdAt', 'confirmedAt', 'disabledAt', 'deletedAt']
        for (const user of paged) expect(Object.keys(user)).to.deep.equal(members)
        expect(JSON.stringify(whole)).to.not.match(/\$2[aby]\$|hash|bcrypt/i)
      })

      it('finds one by the username, in whatever case', async () => {
        const { user } = await client.newUser({ username: `É.${newUsername()}` })
        for (const username of [user.username, user.username.toUpperCase(), user.username.normalize('NFD')]) {
          const { body } = await page(`?username=${encodeURIComponent(username)}`)
          expect(body.users.map(({ id }) => id)).to.deep.equal([user.id])
        }
        for (const username of ['nobody', '', '%00', '%ff', '%', `${user.username}x`]) {
          const { status, body } = await page(
            `?username=${username.length > 3 ? encodeURIComponent(username) : username}`,
          )
          expect({ status, users: body.users }).to.deep.equal({ status: 200, users: [] })
        }
      })

      it('goes on after an id that is no user’s', async () => {
        const { body: whole } = await page('?limit=200')
        for (const [after, users] of [
          ['', whole.users],
          ['%00', null],
          ['%F0%9F%94%91', null],
          ["'", null],
          ['zzz', []],
        ] as const) {
          const { status, body } = await page(`?limit=200&after=${after}`)
          expect(status).to.equal(200)
          if (users) expect(body.users).to.deep.equal(users)
        }
      })

      it('deletes a user, 204, whose sessions end; again it is 404', async () => {
        const { user, credentials, token } = await client.newUser()
        const { status, text } = await client.operate('DELETE', `/admin/users/${user.id}`)
        expect(await client.isLive(token)).to.equal(false)
        expect({ status, text }).to.deep.equal({ status: 204, text: '' })
        expect((await client.logIn(credentials)).status).to.equal(401)
        expect((await client.register(credentials)).status).to.equal(201)
        expectProblem(await client.operate('DELETE', `/admin/users/${user.id}`), 404, 'not_found')
      })

      it('ends the sessions of a user, who can log in again', async () => {
        const { user, credentials, token } = await client.newUser()
        const bystander = (await client.newUser()).token
        expect((await client.operate('DELETE', `/admin/users/${user.id}/sessions`)).status).to.equal(204)
        expect(await client.live([token, bystander])).to.deep.equal([bystander])
        expect(await client.isLive(await client.session(credentials))).to.equal(true)
      })

      it('is answered 404 for an id that is no user’s, whatever it is', async () => {
        const ids = [
          '%00',
          'a%00b',
          '..%2f',
          '%2e%2e%2fusers',
          '%E0%A4%A',
          '%ff',
          '%F0%9F%94%91',
          "'",
          '0',
          'x'.repeat(8000),
        ]
        for (const id of [...ids, '__proto__', 'null', encodeURIComponent(demo.username)]) {
          for (const path of [`/admin/users/${id}`, `/admin/users/${id}/sessions`]) {
            expectProblem(await client.operate('DELETE', path), 404, 'not_found')
          }
        }
        expect((await client.logIn(demo)).status).to.equal(200)
      })
    })
  })
}

describe('the operator’s view of the users', () => {
  let auth: Auth
  let client: Client
  before(async () => {
    auth = await startAuth()
    client = clientOf(auth)
  })
  after(closeServers)

  it('needs the ADMIN_KEY: nothing else opens it, and what was asked for is not done', async () => {
    const { user, token } = await client.newUser()
    for (const [method, path] of [
      ['GET', '/admin/users'],
      ['DELETE', `/admin/users/${user.id}`],
      ['DELETE', `/admin/users/${user.id}/sessions`],
    ] as const) {
      for (const key of [null, serviceKey, token, adminKey.slice(0, -1), `${adminKey}x`]) {
        expectProblem(await client.operate(method, path, key), 401, 'invalid_token')
      }
      expectProblem(await ask(method, auth.url + path, adminKey), 404, 'not_found') // nor is it outside
    }
    expect(await client.isLive(token)).to.equal(true)
  })

  for (const query of [
    'limit=0',
    'limit=201',
    'limit=abc',
    'limit=',
    'limit=1.5',
    'limit=-1',
    'limit=1e1',
    'limit=0x1',
    'limit=%201',
    'limit=1&limit=2',
    'after=a&after=b',
    'username=a&username=b',
    'username[]=a',
    'offset=1',
    'constructor=1',
    `after=${'x'.repeat(257)}`,
    `username=${'x'.repeat(257)}`,
  ]) {
    it(`is 400 with the query ${query.slice(0, 30)}`, async () => {
      const answer = await client.operate('GET', `/admin/users?${query}`)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.body['detail']).to.include('limit (1 to 200)')
    })
  }

  it('has 1 to 200 users on a page, 50 where nothing is said', async () => {
    for (const [query, length] of [
      ['limit=1', 1],
      ['limit=200', 2],
      ['', 2],
    ] as const) {
      const { status, body } = await client.operate<{ users: unknown[] }>('GET', `/admin/users?${query}`)
      expect(status).to.equal(200)
      expect(body.users).to.have.length(length)
    }
  })
})

describe('a log-in that is refused', () => {
  let place: Place
  let store: UserStore
  let client: Client
  before(async () => {
    place = await freshPlace('sqlite')
    store = await openUserStore(place.url)
    client = clientOf(await startAuth({ env: { USER_STORE_URL: place.url } }))
  })
  after(async () => {
    await closeServers()
    await store.close()
    await place.remove()
  })

  it('says the same, byte for byte, for an unknown, disabled and unconfirmed user and a wrong password', async () => {
    const [disabled, unconfirmed, deleted] = [await client.newUser(), await client.newUser(), await client.newUser()]
    await store.update(disabled.user.id, 1, { disabledAt: 5 })
    await store.update(unconfirmed.user.id, 1, { confirmedAt: null })
    await store.update(deleted.user.id, 1, { deletedAt: 5 })
    const { credentials } = await client.newUser()
    const unknown = await rawLogin(client.url, { ...credentials, username: newUsername() })
    expect(unknown).to.match(/^HTTP\/1\.1 401 Unauthorized\r\n/)
    expect(unknown).to.include('"error":"invalid_credentials","requestId":"the-same"')
    expect(await rawLogin(client.url, { ...credentials, password: phrases.wrong })).to.equal(unknown)
    for (const [what, other] of Object.entries({ disabled, unconfirmed, deleted })) {
      expect(await rawLogin(client.url, other.credentials), what).to.equal(unknown)
    }
    expect(await rawLogin(client.url, credentials)).to.match(/^HTTP\/1\.1 200 /)
  })
})

describe('a stored hash', () => {
  let place: Place
  let store: UserStore
  let cheap: Passwords
  before(async () => {
    place = await freshPlace('sqlite')
    store = await openUserStore(place.url)
    cheap = await openPasswords({ cost: 4, workers: 1, maxQueue: 10, maxPerAccount: 1000 })
  })
  after(async () => {
    await closeServers()
    await store.close()
    await cheap.close()
    await place.remove()
  })
  const start = async (env = {}) => clientOf(await startAuth({ env: { ...env, USER_STORE_URL: place.url } }))

  /** A user with this hash, however he came by it. */
  async function plant(passwordHash: string): Promise<UserRecord> {
    const user: UserRecord = {
      id: `planted-${++count}`,
      username: newUsername(),
      passwordHash,
      credentialVersion: 1,
      endedVersion: 1,
      createdAt: 5,
      confirmedAt: 5,
      disabledAt: null,
      deletedAt: null,
    }
    expect(await store.insert(user)).to.equal(true)
    return user
  }
  const hashOf = async ({ id }: UserRecord) => (await store.findById(id))?.passwordHash as string

  it('of a smaller cost is renewed at the next log-in: all that log in meanwhile do, and no session ends', async () => {
    const ten = await openPasswords({ cost: 10, workers: 1, maxQueue: 10, maxPerAccount: 1000 })
    const user = await plant(await ten.hash(phrases.first, owner))
    await ten.close()
    const client = await start({ PASSWORD_HASH_COST: '11' })
    const credentials = { username: user.username, password: phrases.first }
    expect((await client.logIn({ ...credentials, password: phrases.wrong })).status).to.equal(401)
    const answers = await Promise.all(Array.from({ length: 6 }, () => client.logIn(credentials)))
    expect(answers.map(({ status }) => status)).to.deep.equal(Array(6).fill(200))
    await until(async () => (await hashOf(user)).startsWith('hmac-sha256+bcrypt:$2b$11$'))
    const last = await client.session(credentials)
    const sessions = [...answers.map(({ body }) => body['token'] as string), last]
    expect(await client.live(sessions)).to.have.length(7)
    const { passwordHash: _, ...rest } = (await store.findById(user.id)) as UserRecord
    const { passwordHash: __, ...planted } = user
    expect(rest).to.deep.equal(planted)
  })

  describe('made by others', () => {
    let client: Client
    before(async () => {
      client = await start({ PASSWORD_HASH_COST: '10' })
    })

    for (const minor of ['b', 'a', 'y']) {
      it(`with bcrypt alone is good for a log-in, and replaced by it: $2${minor}$`, async () => {
        const user = await plant(bcrypt.hashSync(phrases.first, 4).replace('$2b$', `$2${minor}$`))
        const credentials = { username: user.username, password: phrases.first }
        expect((await client.logIn({ ...credentials, password: phrases.wrong })).status).to.equal(401)
        expect(await hashOf(user)).to.equal(user.passwordHash)
        const token = await client.session(credentials)
        await until(async () => (await hashOf(user)).startsWith('hmac-sha256+bcrypt:$2b$10$'))
        expect((await client.logIn(credentials)).status).to.equal(200)
        expect(await client.isLive(token)).to.equal(true)
        expect(await store.findById(user.id)).to.include({ credentialVersion: 1, endedVersion: 1 })
      })
    }

    it('never matches a password that bcrypt alone would take for another', async () => {
      const [long, nul] = ['x'.repeat(72), 'abcdef']
      for (const [password, others] of [
        [long, [`${long}x`, `${long}\0`]],
        [nul, [`${nul}\0`, `${nul}\0${nul}`, `${nul}\0${nul}\0${nul}`]],
      ] as const) {
        const user = await plant(bcrypt.hashSync(password, 4))
        for (const other of others) {
          expect((await client.logIn({ username: user.username, password: other })).status).to.equal(401)
          expect(await hashOf(user)).to.equal(user.passwordHash)
        }
        expect((await client.logIn({ username: user.username, password })).status).to.equal(200)
      }
    })

    it('that is empty, malformed, or costs too little or too much is 401 in bounded time', async () => {
      const plain = 'stored as it was typed' // without the mark of secrets, for a row has it
      const bare = bcrypt.hashSync(plain, 4)
      const ours = await cheap.hash(plain, owner)
      const rows = ['', plain, `${bare}x`, ours.slice(0, -1), `$2x${bare.slice(3)}`, 'hmac-sha256+bcrypt:']
      const costs = ['03', '17', '31', '-1']
      const others = costs.flatMap(cost => [bare, ours].map(hash => hash.replace('$04$', `$${cost}$`)))
      const unknown = await rawLogin(client.url, { username: newUsername(), password: plain })
      for (const row of [...rows, ...others]) {
        const { username } = await plant(row)
        const startedAt = performance.now()
        expect(await rawLogin(client.url, { username, password: plain }), row).to.equal(unknown)
        expect(performance.now() - startedAt, row).to.be.below(2000)
      }
      client.expectQuietLog()
    })
  })
})

describe('accounts in a database', () => {
  const places: Place[] = []
  after(async () => {
    await closeServers()
    for (const place of places) await place.remove()
  })

  async function envAt(scheme: string): Promise<Record<string, string>> {
    const place = await freshPlace(scheme)
    places.push(place)
    return { USER_STORE_URL: place.url, TOKEN_STORE_URL: place.url }
  }

  it('outlive a restart, and so do their sessions; the demo user is the same and is there once', async () => {
    const { now } = createClock()
    const env = await envAt('sqlite')
    const first = await startAuth({ env, now })
    const before = clientOf(first)
    const { user, credentials, token } = await before.newUser()
    const demoToken = await before.session(demo)
    const demoUser = await before.find(demo.username)
    const all = (await before.operate('GET', '/admin/users')).text
    await first.service.close()

    const after = clientOf(await startAuth({ env, now }))
    expect((await after.get('/users/me', token)).body).to.deep.equal(user)
    expect((await after.logIn(credentials)).status).to.equal(200)
    expect((await after.logIn({ ...credentials, password: phrases.wrong })).status).to.equal(401)
    expect(await after.find(demo.username)).to.deep.equal(demoUser)
    expect((await after.operate('GET', '/admin/users')).text).to.equal(all)
    expect(await after.isLive(demoToken)).to.equal(true)
    expect((await after.logIn(demo)).status).to.equal(200)
  })

  it('keep the password that the demo user has chosen, whatever the settings say', async () => {
    const env = await envAt('sqlite')
    const first = await startAuth({ env })
    const before = clientOf(first)
    expect((await before.change(await before.session(demo), demo.password, phrases.first)).status).to.equal(200)
    await first.service.close()
    const after = clientOf(await startAuth({ env }))
    expect((await after.logIn(demo)).status).to.equal(401)
    expect((await after.logIn({ ...demo, password: phrases.first })).status).to.equal(200)
  })

  it('let the demo user log in again after a restart, whatever he has done before', async () => {
    const acts: [what: string, act: (client: Client, token: string) => Promise<Answer<unknown>>][] = [
      ['ended all sessions', (client, token) => ask('DELETE', `${client.url}/sessions`, token)],
      ['changed the password', (client, token) => client.change(token, demo.password, phrases.first)],
      ['deleted the account', (client, token) => client.remove(token, demo.password)],
    ]
    for (const [what, act] of acts) {
      for (const keepsUsers of [false, true]) {
        const clock = createClock()
        const { TOKEN_STORE_URL, USER_STORE_URL } = (await envAt('sqlite')) as Record<string, string>
        const env = { TOKEN_STORE_URL, ...(keepsUsers && { USER_STORE_URL }) }
        const first = await startAuth({ env, now: clock.now })
        const before = clientOf(first)
        expect((await act(before, await before.session(demo))).status, what).to.be.oneOf([200, 204])
        await first.service.close()
        clock.advance(1000)
        const after = clientOf(await startAuth({ env, now: clock.now }))
        const password = keepsUsers && what === 'changed the password' ? phrases.first : demo.password
        expect(await after.isLive(await after.session({ ...demo, password })), what).to.equal(true)
      }
    }
  })

  it('that are forgotten with the process leave sessions that can be ended, and nothing else', async () => {
    const { TOKEN_STORE_URL } = (await envAt('sqlite')) as { TOKEN_STORE_URL: string }
    const first = await startAuth({ env: { TOKEN_STORE_URL } })
    const { user, credentials, token } = await clientOf(first).newUser()
    const other = await clientOf(first).issue(user.id)
    await first.service.close()

    const after = clientOf(await startAuth({ env: { TOKEN_STORE_URL } }))
    expect((await after.logIn(credentials)).status).to.equal(401)
    expectProblem(await after.get('/users/me', token), 404, 'not_found')
    expectProblem(await after.change(token, phrases.first, phrases.second), 401, 'invalid_credentials')
    expectProblem(await after.remove(token, phrases.first), 401, 'invalid_credentials')
    expect(await after.live([token, other])).to.have.length(2)
    expect((await ask('DELETE', `${after.url}/sessions`, token)).status).to.equal(204)
    expect(await after.live([token, other])).to.deep.equal([])
  })

  for (const scheme of schemes.slice(1)) {
    it(`are the same for two that share it at ${scheme}:`, async () => {
      const env = await envAt(scheme)
      const { now } = createClock()
      const here = clientOf(await startAuth({ env, now }))
      const there = clientOf(await startAuth({ env, now }))
      expect((await here.operate<{ users: unknown[] }>('GET', '/admin/users')).body.users).to.have.length(1)
      const { user, credentials, token } = await here.newUser()
      const other = await there.session(credentials)
      expect((await there.get('/users/me', token)).body).to.deep.equal(user)
      expect(await there.live([token, other])).to.have.length(2)
      expect(await here.live([token, other])).to.have.length(2)

      expect((await there.change(other, phrases.first, phrases.second)).status).to.equal(200)
      expect(await here.live([token, other])).to.deep.equal([other])
      expectProblem(await here.get('/users/me', token), 401, 'invalid_token')
      expect((await here.logIn(credentials)).status).to.equal(401)

      const current = { ...credentials, password: phrases.second }
      const rivals = Array.from({ length: 8 }, () => here.logIn(current))
      await rivals[0]
      expect((await there.change(other, phrases.second, phrases.third)).status).to.equal(200)
      const late = await Promise.all(rivals)
      const issued = late.map(({ body }) => body['token']).filter(secret => typeof secret === 'string')
      expect(await here.live([...issued, other])).to.deep.equal([other])

      expect((await here.remove(other, phrases.third)).status).to.equal(204)
      expect(await there.isLive(other)).to.equal(false)
      expect((await there.logIn({ ...current, password: phrases.third })).status).to.equal(401)
    })
  }
})

describe('a change that is cut short', () => {
  const now = () => 1_800_000_000_000
  const credentials = { username: 'ann@example.com', password: phrases.first }
  const change = { currentPassword: phrases.first, password: phrases.second }
  const closers: (() => Promise<void>)[] = []
  afterEach(async () => {
    for (const close of closers.splice(0)) await close()
  })
  let passwords: Passwords
  before(async () => {
    passwords = await openPasswords({ cost: 4, workers: 1, maxQueue: 100, maxPerAccount: 1000 })
  })
  after(async () => {
    await closeServers()
    await passwords.close()
  })

  interface UseCases {
    users: Users
    /** Of another process on the same stores. */
    options: UsersOptions
    tokens: Tokens
    store: UserStore
    tokenStore: TokenStore
    events: UserEvent[]
    user: UserRecord
    /** Secret and id of each. */
    current: { secret: string; id: string }
    other: { secret: string; id: string }
    /** The next so many times, the token store cannot be asked to end a user's tokens. */
    fail(times: number): void
    /** Called when a user's tokens are to be ended, before they are. */
    meanwhile(job: () => Promise<unknown>): void
    isLive(token: { secret: string }): Promise<boolean>
    logsIn(password: string): Promise<boolean>
  }

  async function openUseCases(scheme: string): Promise<UseCases> {
    const place = await freshPlace(scheme)
    const tokenStore = await openTokenStore(place.url)
    const store = await openUserStore(place.url)
    closers.push(async () => {
      await tokenStore.close()
      await store.close()
      await place.remove()
    })
    const events: UserEvent[] = []
    let failures = 0
    let job: (() => Promise<unknown>) | null = null
    const tokens = createTokens({
      store: {
        ...tokenStore,
        async endUser(...args) {
          if (failures > 0) {
            failures--
            throw new Error('the token store is away')
          }
          const next = job
          job = null
          await next?.()
          return tokenStore.endUser(...args)
        },
      },
      now,
      ttlMs: 30_000,
      absoluteTtlMs: 43_200_000,
      limits: { perUser: 1000, total: 10_000 },
      observe: () => {},
    })
    const options: UsersOptions = {
      store,
      passwords,
      rules: { minLength: 15 },
      addressesOnly: false,
      endTokens: tokens.endUser,
      now,
      observe: event => events.push(event),
      wait: async () => {},
    }
    const users = createUsers(options)
    const user = (await users.insert({
      username: credentials.username,
      passwordHash: await passwords.hash(credentials.password, owner),
    })) as UserRecord
    const issue = async () => {
      const { secret, token } = (await tokens.issueSession(user)) as NonNullable<
        Awaited<ReturnType<Tokens['issueSession']>>
      >
      return { secret, id: token.id }
    }
    return {
      users,
      options,
      tokens,
      store,
      tokenStore,
      events,
      user,
      current: await issue(),
      other: await issue(),
      fail: times => {
        failures = times
      },
      meanwhile: next => {
        job = next
      },
      isLive: async ({ secret }) => (await tokens.validate([secret], { purpose: null, touch: false }))[0] !== null,
      logsIn: async password => (await users.verify({ ...credentials, password }, client)).outcome === 'verified',
    }
  }

  const codeOf = (call: Promise<unknown>) =>
    call.then(
      () => 'resolved',
      (error: AppError) => error.code,
    )

  for (const scheme of ['memory', 'sqlite']) {
    describe(`at ${scheme}:`, () => {
      let at: UseCases
      beforeEach(async () => {
        at = await openUseCases(scheme)
      })

      const changePassword = () => at.users.changePassword(at.user.id, change, at.current.id, client)
      const remove = () => at.users.removeOwn(at.user.id, credentials.password, client)
      const told = (type: UserEvent['type']) => at.events.filter(event => event.type === type).length
      const live = async () => [await at.isLive(at.current), await at.isLive(at.other)]

      it('of a password rejects with unavailable, and the same call completes it', async () => {
        at.fail(2)
        for (let i = 0; i < 2; i++) {
          expect(await codeOf(changePassword())).to.equal('unavailable')
          expect(await at.logsIn(phrases.second)).to.equal(true)
          expect(await at.logsIn(phrases.first)).to.equal(false)
          expect(await live()).to.deep.equal([true, true])
        }
        expect(await changePassword()).to.have.nested.include({ outcome: 'changed', 'user.id': at.user.id })
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findUnfinished(10)).to.deep.equal([])
        expect(await at.logsIn(phrases.second)).to.equal(true)
        expect(told('password_changed')).to.equal(1)
        expect(await changePassword()).to.include({ outcome: 'wrong_password' }) // like any other now
      })

      it('of a password is completed without asking again', async () => {
        at.fail(1)
        expect(await codeOf(changePassword())).to.equal('unavailable')
        await at.users.finishAll()
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findUnfinished(10)).to.deep.equal([])
        expect(await at.logsIn(phrases.second)).to.equal(true)
        expect(told('password_changed')).to.equal(1)
      })

      it('of a password is not completed by who does not know the new one', async () => {
        at.fail(1)
        expect(await codeOf(changePassword())).to.equal('unavailable')
        const guess = { currentPassword: phrases.first, password: phrases.wrong }
        expect(await at.users.changePassword(at.user.id, guess, at.other.id, client)).to.include({
          outcome: 'wrong_password',
        })
        expect(await at.logsIn(phrases.second)).to.equal(true)
        expect(await at.store.findUnfinished(10)).to.have.length(1)
      })

      it('of a password by a link rejects with unavailable, and the same call completes it', async () => {
        at.fail(1)
        const reset = () => at.users.resetPassword(at.user, phrases.second, client)
        expect(await codeOf(reset())).to.equal('unavailable')
        expect(await reset()).to.include({ outcome: 'changed' })
        expect(await live()).to.deep.equal([false, false])
        expect(await reset()).to.deep.equal({ outcome: 'stale' })
        expect(await at.logsIn(phrases.second)).to.equal(true)
        expect(told('password_changed')).to.equal(1)
      })

      it('of an account to none rejects with unavailable, and the same call completes it', async () => {
        at.fail(1)
        expect(await codeOf(remove())).to.equal('unavailable')
        expect(await at.logsIn(phrases.first)).to.equal(false)
        expect(await at.users.find(at.user.id)).to.equal(null)
        expect(await live()).to.deep.equal([true, true])
        expect(await at.users.removeOwn(at.user.id, phrases.wrong, client)).to.include({ outcome: 'wrong_password' })
        expect(await remove()).to.deep.equal({ outcome: 'removed' })
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findById(at.user.id)).to.equal(null)
        expect(told('user_deleted')).to.equal(1)
      })

      it('of an account to none is completed without asking again, and its username is free only then', async () => {
        at.fail(1)
        expect(await codeOf(remove())).to.equal('unavailable')
        const next = { username: credentials.username, passwordHash: 'x' }
        expect(await at.users.insert(next)).to.equal(null)
        await at.users.finishAll()
        expect(await live()).to.deep.equal([false, false])
        expect(await at.store.findById(at.user.id)).to.equal(null)
        expect(told('user_deleted')).to.equal(1)
        expect((await at.users.insert(next))?.id).to.not.equal(at.user.id)
      })

      it('by the operator is completed by the same call, or without asking again', async () => {
        at.fail(1)
        expect(await codeOf(at.users.endSessions(at.user.id))).to.equal('unavailable')
        expect(await at.users.endSessions(at.user.id)).to.equal(true)
        expect(await live()).to.deep.equal([false, false])
        at.fail(1)
        expect(await codeOf(at.users.remove(at.user.id))).to.equal('unavailable')
        expect(await at.users.remove(at.user.id)).to.equal(true)
        expect(await at.users.remove(at.user.id)).to.equal(false)
        expect(told('user_deleted')).to.equal(1)
      })

      it('ends the session that asks for another change next: it may be what was to end', async () => {
        at.fail(1)
        expect(await codeOf(at.users.endSessions(at.user.id))).to.equal('unavailable')
        expect(await changePassword()).to.have.nested.include({ outcome: 'changed', 'user.id': at.user.id })
        expect(await live()).to.deep.equal([false, false])
      })

      it('keeps no session for a change that is asked for again, done long ago, while all are being ended', async () => {
        expect(await changePassword()).to.have.nested.include({ outcome: 'changed', 'user.id': at.user.id })
        expect(await live()).to.deep.equal([true, false])
        at.meanwhile(changePassword)
        expect(await at.users.endSessions(at.user.id)).to.equal(true)
        expect(await live()).to.deep.equal([false, false])
      })

      it('leaves no session to a disabled user, whatever he asks for meanwhile', async () => {
        for (const ask of [change, { currentPassword: phrases.wrong, password: phrases.second }]) {
          const user = (await at.users.find(at.user.id)) as UserRecord
          const session = await at.tokens.issueSession(user)
          at.fail(1)
          expect(await codeOf(at.users.disable(user.id))).to.equal('unavailable')
          await at.users.changePassword(user.id, ask, session?.token.id as string, client)
          await at.users.finishAll()
          expect(await at.isLive(session as { secret: string })).to.equal(false)
          expect(await at.users.enable(user.id)).to.equal(true)
        }
      })

      it('leaves the others alone, and those that are under way, in whatever process', async () => {
        const [looked, over] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
        const elsewhere = createUsers({
          ...at.options,
          wait() {
            looked.resolve()
            return over.promise
          },
        })
        let finishing: Promise<void> | undefined
        at.meanwhile(() => {
          finishing = elsewhere.finishAll()
          return Promise.race([looked.promise, finishing])
        })
        expect(await changePassword()).to.have.nested.include({ outcome: 'changed', 'user.id': at.user.id })
        over.resolve()
        await finishing
        expect(await live()).to.deep.equal([true, false])
      })

      it('leaves a later change alone that is under way when an earlier one is finished', async () => {
        at.fail(1)
        expect(await codeOf(at.users.endSessions(at.user.id))).to.equal('unavailable')
        const waits: number[] = []
        const elsewhere = createUsers({
          ...at.options,
          async wait(ms) {
            waits.push(ms)
            if (waits.length > 1) return
            at.fail(1)
            expect(await codeOf(at.users.endSessions(at.user.id))).to.equal('unavailable')
          },
        })
        await elsewhere.finishAll()
        expect(await at.store.findUnfinished(10)).to.have.length(1)
        await elsewhere.finishAll()
        expect(await at.store.findUnfinished(10)).to.deep.equal([])
        expect(waits).to.deep.equal([2000, 2000])
      })
    })
  }

  it('is a conflict for who proved himself by the old password and comes after it, to change or to delete', async () => {
    const another = { currentPassword: phrases.first, password: phrases.third }
    for (const act of [
      (users: Users, { id }: UserRecord, keep: string) => users.changePassword(id, another, keep, client),
      (users: Users, { id }: UserRecord) => users.removeOwn(id, phrases.first, client),
    ]) {
      const at = await openUseCases('memory')
      const slow: Passwords = {
        ...passwords,
        async verify(...args) {
          const matches = await passwords.verify(...args)
          await at.users.changePassword(at.user.id, change, at.current.id, client)
          return matches
        },
      }
      const { store } = at
      const endTokens = at.tokens.endUser
      const rules = { minLength: 15 }
      const rival = createUsers({ store, passwords: slow, rules, addressesOnly: false, endTokens, now, observe() {} })
      expect(await codeOf(act(rival, at.user, at.other.id))).to.equal('conflict')
      expect(await at.logsIn(phrases.second)).to.equal(true)
      expect([await at.isLive(at.current), await at.isLive(at.other)]).to.deep.equal([true, false])
    }
  })

  for (const scheme of schemes) {
    it(`never gives a session to a log-in that was verified before it and asks after it, at ${scheme}:`, async () => {
      const at = await openUseCases(scheme)
      for (const act of [
        () => at.users.changePassword(at.user.id, change, at.current.id, client),
        () => at.users.endSessions(at.user.id),
        () => at.users.disable(at.user.id),
        () => at.users.remove(at.user.id),
      ]) {
        const verified = (await at.users.find(at.user.id)) as UserRecord
        await act()
        expect(await at.tokens.issueSession(verified)).to.equal(null)
      }
    })

    it(`leaves no session of an old password, however often they race, at ${scheme}:`, async () => {
      const at = await openUseCases(scheme)
      const lost = { issued: 0, refused: 0 }
      let current = phrases.first
      for (let round = 0; round < 12; round++) {
        let changed = false
        const issued: string[] = []
        const logIn = async () => {
          const result = await at.users.verify({ ...credentials, password: current }, client)
          const session = result.outcome === 'verified' && (await at.tokens.issueSession(result.user))
          if (session) issued.push(session.secret)
          else lost.refused++
        }
        const keepLoggingIn = async () => {
          // On a busy machine a database may be too late for a store: that gives no session either.
          while (!changed) expect(await codeOf(logIn())).to.be.oneOf(['resolved', 'unavailable'])
        }
        const rivals = Array.from({ length: 20 }, keepLoggingIn)
        await new Promise(setImmediate)
        const password = `${phrases.second} ${round}`
        const wanted = { currentPassword: current, password }
        const changePassword = () => codeOf(at.users.changePassword(at.user.id, wanted, at.current.id, client))
        let outcome = await changePassword()
        while (outcome === 'unavailable') outcome = await changePassword()
        expect(outcome).to.equal('resolved')
        const early = await at.tokens.validate(issued, { purpose: null, touch: false })
        expect(early.filter(token => token !== null)).to.deep.equal([])
        changed = true
        await Promise.all(rivals)
        const late = await at.tokens.validate(issued, { purpose: null, touch: false })
        expect(late.filter(token => token !== null)).to.deep.equal([])
        expect(await at.isLive(at.current)).to.equal(true)
        expect(await at.logsIn(password)).to.equal(true)
        lost.issued += issued.length
        current = password
      }
      expect(lost.issued).to.be.above(0)
      expect(lost.refused).to.be.above(0)
    })
  }

  describe('by the end of the process', () => {
    /** Auth's use cases in a process of their own, which is killed where it should end a user's tokens. */
    const child = `
      const [root, url, act, id, keep, currentPassword, password] = process.argv.slice(1)
      const load = path => import(new URL('services/auth/' + path, root))
      const { openUserStore } = await load('stores/index.ts')
      const { openPasswords } = await load('users/passwords.ts')
      const { createUsers } = await load('users/users.ts')
      const users = createUsers({
        store: await openUserStore(url),
        passwords: await openPasswords({ cost: 4, workers: 1, maxQueue: 10, maxPerAccount: 1000 }),
        rules: { minLength: 15 },
        addressesOnly: false,
        endTokens: () => {
          process.kill(process.pid, 'SIGKILL')
          return new Promise(() => {})
        },
        now: Date.now,
        observe() {},
      })
      const client = { address: '192.0.2.1' }
      if (act === 'change') await users.changePassword(id, { currentPassword, password }, keep, client)
      else await users.removeOwn(id, currentPassword, client)
    `

    for (const act of ['change', 'remove']) {
      const what = act === 'change' ? 'the password is the new one' : 'the user is gone'
      it(`leaves nothing half done: ${what} and the old sessions are dead before the next one listens`, async () => {
        const place = await freshPlace('sqlite')
        closers.push(closeServers, place.remove)
        const env = { USER_STORE_URL: place.url, TOKEN_STORE_URL: place.url, TOKEN_TTL_SECONDS: '600' }
        const first = await startAuth({ env })
        const client = clientOf(first)
        const { user, credentials, token } = await client.newUser()
        const tokens = [token, await client.issue(user.id), await client.issue(user.id, 'fixed')]
        await first.service.close()

        const root = new URL('../../../', import.meta.url).href
        const args = [root, place.url, act, user.id, token.slice(3, 17), phrases.first, phrases.second]
        const killed = spawn(process.execPath, ['-e', child, ...args], { stdio: 'inherit' })
        expect(await once(killed, 'exit')).to.deep.equal([null, 'SIGKILL'])

        const store = await openUserStore(place.url)
        const tokenStore = await openTokenStore(place.url)
        closers.unshift(store.close, tokenStore.close)
        const live = async () =>
          (
            await tokenStore.look(
              tokens.map(secret => parseSecret(secret) as TokenRef),
              Date.now(),
              null,
            )
          ).filter(found => found !== null).length
        expect(await store.findUnfinished(10)).to.have.length(1)
        expect(await live()).to.equal(3) // it was killed in between

        const { service, lines } = await openTestAuth({ env })
        expect(await store.findUnfinished(10)).to.deep.equal([])
        expect(await live()).to.equal(0)
        if (act === 'remove') expect(await store.findById(user.id)).to.equal(null)

        const { auth, authInternal } = await service.listen()
        const next = clientOf({ url: auth as string, internalUrl: authInternal as string, lines })
        expect((await next.logIn(credentials)).status).to.equal(401)
        const renewed = await next.logIn({ ...credentials, password: phrases.second })
        expect(renewed.status).to.equal(act === 'change' ? 200 : 401)
        expect(await next.live(tokens)).to.deep.equal([])
      })
    }
  })
})
