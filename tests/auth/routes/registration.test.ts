import { expect } from 'chai'
import fc from 'fast-check'
import { openAuthClient } from '../../../packages/client/authClient.ts'
import { maxTokensPerCall, maxVerdictBytes, type Verdict } from '../../../packages/client/contract.ts'
import { openUserStore } from '../../../services/auth/stores/index.ts'
import type { UserRecord, UserStore } from '../../../services/auth/stores/userPort.ts'
import { type AuthApi, authApi, expectProblem, phrases } from '../../support/authApi.ts'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { serviceKey } from '../../support/credentials.ts'
import { newUsername } from '../../support/factories.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { freshPlace, type Place } from '../../support/stores.ts'

type Auth = Awaited<ReturnType<typeof startAuth>>

describe('POST /users', () => {
  const clock = createClock()
  let client: AuthApi
  before(async () => {
    client = authApi(await startAuth({ now: clock.now }))
  })
  afterEach('the log has no password and no internal error', () => client.expectQuietLog())
  after(closeServers)

  /** The detail of a 400. */
  async function refusal(username: string, password: string): Promise<string> {
    const answer = await client.register({ username, password })
    expectProblem(answer, 400, 'invalid_request')
    return (answer.body as unknown as { detail: string }).detail
  }

  it('is 201 with exactly id, username, createdAt, no roles and nothing else known, after which the user can log in', async () => {
    const credentials = { username: newUsername(), password: phrases.first }
    expect((await client.logIn(credentials)).status).to.equal(401)
    const { status, body } = await client.register(credentials)
    expect(status).to.equal(201)
    expect(body.id).to.match(/^[\w-]{20,}$/)
    const { username } = credentials
    const nothing = { roles: [], email: null, pendingEmail: null, attributes: {} }
    expect(body).to.deep.equal({ id: body.id, username, createdAt: clock.now(), ...nothing })
    const token = await client.session(credentials)
    expect((await client.get('/users/me', token)).body).to.deep.equal(body)
  })

  it('logs the id and not the username', async () => {
    const auth = await startAuth()
    const own = authApi(auth)
    const { user } = await own.newUser()
    const registered = auth.lines.filter(({ event }) => event === 'user_registered').at(-1)
    expect(registered).to.include({ level: 'info', userId: user.id })
    const told = auth.lines.filter(({ event }) => event === 'user_registered' || event.startsWith('login'))
    expect(JSON.stringify(told)).to.not.include(user.username)
  })

  it('is 409 for a username that is taken, in any case, width and composition', async () => {
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

  it('gives a username to one of many clients that request it at the same time', async () => {
    const username = newUsername()
    const passwords = Array.from({ length: 6 }, (_, i) => `${phrases.first} ${i}`)
    const answers = await Promise.all(passwords.map(password => client.register({ username, password })))
    expect(answers.map(({ status }) => status).sort()).to.deep.equal([201, 409, 409, 409, 409, 409])
    const winner = answers.findIndex(({ status }) => status === 201)
    expect((await client.logIn({ username, password: passwords[winner] as string })).status).to.equal(200)
    expect((await client.logIn({ username, password: passwords[(winner + 1) % 6] as string })).status).to.equal(401)
  })

  it('is 403 with REGISTRATION=closed, and in production unless it is open', async () => {
    for (const [env, status] of [
      [{ REGISTRATION: 'closed' }, 403],
      [{ NODE_ENV: 'production' }, 403],
      [{ NODE_ENV: 'production', REGISTRATION: 'open' }, 201],
    ] as const) {
      const own = authApi(await startAuth({ env }))
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

    it('is the same however its accents are typed', async () => {
      const [composed, decomposed] = ['NFC', 'NFD'].map(form => 'un café brûlé à Besançon'.normalize(form))
      const user = { username: newUsername(), password: composed as string }
      await client.register(user)
      expect((await client.logIn({ ...user, password: decomposed as string })).status).to.equal(200)
    })

    it('has at least PASSWORD_MIN_LENGTH characters, except that of the demo user', async () => {
      const env = { PASSWORD_MIN_LENGTH: '8', DEMO_USERNAME: 'Demo-X', DEMO_PASSWORD: 'x' }
      const own = authApi(await startAuth({ env }))
      const short = 'vq7kzjhw'
      const answer = await own.register({ username: newUsername(), password: short.slice(1) })
      expect(answer.text).to.include('at least 8 characters')
      expect((await own.register({ username: newUsername(), password: short })).status).to.equal(201)
      const token = await own.session({ username: 'demo-x', password: 'x' })
      expectProblem(await own.change(token, 'x', 'y'), 400, 'invalid_request')
    })
  })

  it('is 400 if a member is anything but a string', async () => {
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
  let own: AuthApi
  before(async () => {
    auth = await startAuth()
    own = authApi(auth)
  })
  after(closeServers)

  it('and a longer one is 400, even with fewer than 256 characters, and cannot log in', async () => {
    for (const username of [longest + key, key.repeat(256), '鍵'.repeat(213)]) {
      const answer = await own.register({ username, password: phrases.first })
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.body).to.have.property('detail', 'username: expected at most 640 bytes as JSON')
      expect((await own.logIn({ username, password: phrases.first })).status).to.equal(401)
    }
    for (const username of ['鍵'.repeat(212), '"'.repeat(256)]) await own.newUser({ username })
  })

  it('so that a full batch of 256 verdicts stays below 2 KB for each', async () => {
    const { token } = await own.newUser({ username: longest })
    const tokens = Array<string>(maxTokensPerCall).fill(token)
    const { text, body } = await own.operate<{ verdicts: Verdict[] }>('POST', '/validateToken', serviceKey, { tokens })
    expect(Buffer.byteLength(text)).to.be.at.most(maxVerdictBytes * maxTokensPerCall)
    expect(body.verdicts.filter(({ authenticated }) => authenticated)).to.have.length(maxTokensPerCall)

    const log = { info() {}, warn() {} }
    const [url, monotonicNow] = [auth.internalUrl, () => performance.now()]
    const client = openAuthClient({ url, key: serviceKey, log, monotonicNow, maxBatch: maxTokensPerCall })
    const judged = await Promise.all(tokens.map(token => client.validate(token, { requestId: 'full' })))
    await client.close()
    for (const { verdict, serverTiming } of judged) {
      expect(verdict).to.include({ authenticated: true, username: longest })
      expect(serverTiming).to.include('shared by 256')
    }
  })
})

describe('an unexpected member is 400 and changes nothing:', () => {
  let place: Place
  let store: UserStore
  let own: AuthApi
  let token: string
  let row: UserRecord
  before(async () => {
    place = await freshPlace('sqlite')
    own = authApi(await startAuth({ env: { USER_STORE_URL: place.url } }))
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
    authority: { version: 9, roles: ['admin'], paused: false, rate: null },
    mirroredAuthority: 9,
    email: 'a@b.example',
    pendingEmail: 'a@b.example',
    emailTokenId: 'chosen',
    attributes: { profile: {} },
    role: 'admin',
    roles: ['admin'],
    paused: false,
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

  it('every column of a user is tested', () => {
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
    expect(await store.list(null, 10)).to.have.length(2) // the demo user and the new one
  })
})
