// /admin/users on the internal listener: how an operator manages the users of a running Auth.
import { expect } from 'chai'
import { accountLimits } from '../../../services/auth/defence/throttles.ts'
import { type AuthApi, authApi, expectProblem } from '../../support/authApi.ts'
import { ask } from '../../support/client.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { isLive } from '../../support/factories.ts'
import { closeMailServers, startMailServer } from '../../support/mailServer.ts'
import { closeServers, startAuth } from '../../support/servers.ts'

interface AdminUser {
  id: string
  username: string
  createdAt: number
  confirmedAt: number | null
  disabledAt: number | null
  deletedAt: number | null
}

const password = 'CANARY walrus in a tundra'
const another = 'CANARY gherkin on a plinth'
let names = 0
const freshName = () => `person-${++names}@users.example`

async function start(env: Record<string, string> = {}) {
  const { url, internalUrl } = await startAuth({ env, limitsPerAccount: accountLimits })
  const operate = <T = AdminUser>(method: string, path: string, body?: unknown) =>
    ask<T>(method, `${internalUrl}/admin/users${path}`, adminKey, body)
  return {
    internalUrl,
    operate,
    create: async (username = freshName()) => (await operate('POST', '', { username, password })).body,
    logIn: (username: string, typed = password) =>
      ask<{ token: string }>('POST', `${url}/login`, null, { username, password: typed }),
    reset: (token: string, typed: string) => ask('POST', `${url}/password/reset`, null, { token, password: typed }),
    isLive: (token: string) => isLive(internalUrl, token),
  }
}

describe('the operator’s routes for users', () => {
  let auth: Awaited<ReturnType<typeof start>>
  before(async () => {
    auth = await start()
  })
  after(async () => {
    await closeServers()
    await closeMailServers()
  })

  it('are 401 without the admin key', async () => {
    for (const route of [
      'POST ',
      'GET /x',
      'PATCH /x',
      'DELETE /x',
      'POST /x/unlock',
      'POST /x/reset',
      'GET ?search=a',
    ]) {
      const [method = '', path = ''] = route.split(' ')
      const body = method === 'GET' || method === 'DELETE' ? undefined : {}
      for (const key of [null, serviceKey]) {
        const answer = await ask(method, `${auth.internalUrl}/admin/users${path}`, key, body)
        expect(answer.status, route).to.equal(401)
      }
    }
  })

  it('are 404 for an unknown user', async () => {
    for (const [method, path, body] of [
      ['GET', '/nobody'],
      ['PATCH', '/nobody', { disabled: true }],
      ['DELETE', '/nobody'],
      ['POST', '/nobody/unlock'],
      ['POST', '/nobody/reset'],
    ] as const) {
      expect(await auth.operate(method, path, body), method + path).to.include({ status: 404 })
    }
  })

  describe('POST /admin/users', () => {
    it('creates a user who can log in and whom GET shows', async () => {
      const username = freshName()
      const created = await auth.operate('POST', '', { username: username.toUpperCase(), password })
      expect(created.status, created.text).to.equal(201)
      expect(created.body).to.include({ username, disabledAt: null, deletedAt: null })
      expect(created.text).to.not.include('hash')
      expect(await auth.logIn(username)).to.include({ status: 200 })
      expect((await auth.operate('GET', `/${created.body.id}`)).body).to.deep.equal(created.body)
    })

    it('is 409 for a username that is taken', async () => {
      const { username } = await auth.create()
      expect(await auth.operate('POST', '', { username, password: another })).to.include({ status: 409 })
    })

    it('is 400 for invalid members, and names what is expected', async () => {
      for (const [body, detail] of [
        [{ username: 'a\nb', password }, /^username: expected/],
        [{ username: freshName(), password: 'passwordpassword' }, /^password: /],
        [{ username: freshName(), password, role: 'admin' }, /role/],
        [{ username: 'not an address' }, /^password: expected one, because no mail can go to this user/],
        [{ password }, /username/],
      ] as const) {
        const answer = await auth.operate<{ detail: string }>('POST', '', body)
        expect(answer.status, answer.text).to.equal(400)
        expect(answer.body.detail).to.match(detail)
      }
    })

    it('without a password, sends a link by which the user chooses one', async () => {
      const server = await startMailServer()
      const own = await start({ SMTP_URL: server.url, MAIL_FROM: 'me@mail.example', PUBLIC_URL: 'https://a.example' })
      const username = freshName()
      const created = await own.operate('POST', '', { username })
      expect(created.status, created.text).to.equal(201)
      expect(created.body).to.include({ confirmedAt: null })
      expect(await own.logIn(username, '')).to.include({ status: 400 })
      expect(await own.logIn(username)).to.include({ status: 401 })
      const { token, link } = await server.next(username)
      expect(link).to.match(/^https:\/\/a\.example\/account#reset=/)
      expect(await own.reset(token, another)).to.include({ status: 204 })
      expect(await own.logIn(username, another)).to.include({ status: 200 })
      expect((await own.operate('GET', `/${created.body.id}`)).body.confirmedAt).to.be.a('number')
    })
  })

  describe('PATCH /admin/users/:id', () => {
    it('disables a user, which prevents log-ins and ends every session, and enables the user again', async () => {
      const { id, username } = await auth.create()
      const { token } = (await auth.logIn(username)).body
      const disabled = await auth.operate('PATCH', `/${id}`, { disabled: true })
      expect(disabled.status).to.equal(200)
      expect(disabled.body.disabledAt).to.be.a('number')
      expect(await auth.isLive(token)).to.equal(false)
      expect(await auth.logIn(username)).to.include({ status: 401 })
      const enabled = await auth.operate('PATCH', `/${id}`, { disabled: false })
      expect(enabled.body).to.include({ id, disabledAt: null })
      expect(await auth.logIn(username)).to.include({ status: 200 })
    })

    it('sets a password, which ends every session, under the rules of POST /users', async () => {
      const { id, username } = await auth.create()
      const { token } = (await auth.logIn(username)).body
      const weak = await auth.operate<{ detail: string }>('PATCH', `/${id}`, {
        password: 'passwordpassword',
        paused: true,
      })
      expect(weak.status).to.equal(400)
      expect(weak.body.detail).to.match(/^password: /)
      expect(await auth.isLive(token), 'after a refused change').to.equal(true)
      expect(await auth.operate('PATCH', `/${id}`, { password: another })).to.include({ status: 200 })
      expect(await auth.isLive(token)).to.equal(false)
      expect(await auth.logIn(username)).to.include({ status: 401 })
      expect(await auth.logIn(username, another)).to.include({ status: 200 })
    })

    it('changes nothing if one of several members is refused', async () => {
      const { id, username } = await auth.create()
      const { username: taken } = await auth.create()
      const profile = { about: 'x'.repeat(400) }
      const { body: before } = await auth.operate('PATCH', `/${id}`, { attributes: { profile } })
      const { token } = (await auth.logIn(username)).body
      const good = {
        attributes: { plan: 'pro' },
        email: freshName(),
        roles: ['admin'],
        rate: { perMinute: 1 },
        password: another,
        paused: true,
        disabled: true,
      }
      for (const [bad, status, detail] of [
        [{ username: freshName(), attributes: { notes: 'x'.repeat(700) } }, 400, /^attributes: expected at most/],
        [{ username: freshName(), password: 'passwordpassword' }, 400, /^password: /],
        [{ username: `quilt-${id}`, password: `quilt-${id}` }, 400, /^password: expected more than your username/],
        [{ username: ' blank' }, 400, /^username: /],
        [{ username: taken.toUpperCase() }, 409, /taken/],
        [{ username: freshName(), email: 'nobody' }, 400, /^email: /],
        [{ username: freshName(), roles: ['No'] }, 400, /^roles/],
      ] as const) {
        const answer = await auth.operate<{ detail: string }>('PATCH', `/${id}`, { ...good, ...bad })
        expect(answer.status, answer.text).to.equal(status)
        expect(answer.body.detail).to.match(detail)
        expect((await auth.operate('GET', `/${id}`)).body, answer.text).to.deep.equal(before)
      }
      expect(await auth.isLive(token)).to.equal(true)
      const all = await auth.operate('PATCH', `/${id}`, { ...good, username: freshName() })
      expect(all.status, all.text).to.equal(200)
      expect(all.body).to.deep.include({ attributes: { plan: 'pro', profile }, email: good.email, roles: ['admin'] })
    })

    it('is 400 for any other change', async () => {
      const { id } = await auth.create()
      for (const body of [{}, { disabled: 'yes' }, { disabled: true, name: 'x' }, { deletedAt: 1 }]) {
        expect(await auth.operate('PATCH', `/${id}`, body)).to.include({ status: 400 })
      }
      expect((await auth.operate('GET', `/${id}`)).body.disabledAt).to.equal(null)
    })
  })

  it('POST …/unlock lets a user log in at once after too many wrong passwords', async () => {
    const { id, username } = await auth.create()
    for (let i = 0; i < 5; i++) expect(await auth.logIn(username, another)).to.include({ status: 401 })
    expect(await auth.logIn(username)).to.include({ status: 429 })
    expect(await auth.operate('POST', `/${id}/unlock`)).to.include({ status: 204 })
    expect(await auth.logIn(username)).to.include({ status: 200 })
  })

  describe('POST …/reset', () => {
    it('returns the link if no mail can go to the user; only the newest link works, once', async () => {
      const { id } = await auth.create('no address')
      const offer = async () => {
        const { status, body, text } = await auth.operate<{ sent: boolean; link: string }>('POST', `/${id}/reset`)
        expect(status, text).to.equal(200)
        expect(body.sent).to.equal(false)
        return (/#reset=(.+)$/.exec(body.link) as RegExpExecArray)[1] as string
      }
      const [first, last] = [await offer(), await offer()]
      expect(await auth.reset(first, another)).to.include({ status: 401 })
      expect(await auth.logIn('no address')).to.include({ status: 200 })
      expect(await auth.reset(last, another)).to.include({ status: 204 })
      expect(await auth.logIn('no address')).to.include({ status: 401 })
      expect(await auth.logIn('no address', another)).to.include({ status: 200 })
      expect(await auth.reset(last, password)).to.include({ status: 401 })
    })

    it('sends the link by mail if possible, and does not return it', async () => {
      const server = await startMailServer()
      const own = await start({ SMTP_URL: server.url, MAIL_FROM: 'me@mail.example', PUBLIC_URL: 'https://a.example' })
      const { id, username } = await own.create()
      const answer = await own.operate<object>('POST', `/${id}/reset`)
      expect(answer.status).to.equal(200)
      expect(answer.body).to.deep.equal({ sent: true })
      const { token } = await server.next(username)
      expect(await own.reset(token, another)).to.include({ status: 204 })
      expect(await own.logIn(username, another)).to.include({ status: 200 })
    })
  })

  describe('GET /admin/users?search=', () => {
    it('finds users by the beginning of the username, in any case, page by page', async () => {
      const stem = `Search-${++names}`
      const made = []
      for (const end of ['a', 'b', 'c', 'd', 'e']) made.push((await auth.create(`${stem}-${end}`)).username)
      const found: string[] = []
      for (let after = ''; ; ) {
        const query = `?search=${stem.toUpperCase()}&limit=2${after && `&after=${after}`}`
        const { body } = await auth.operate<{ users: AdminUser[]; next: string | null }>('GET', query)
        found.push(...body.users.map(({ username }) => username))
        if (body.next === null) break
        after = body.next
      }
      expect(found.toSorted()).to.deep.equal(made)
      const demos = await auth.operate<{ users: AdminUser[] }>('GET', '?search=dem')
      expect(demos.body.users.map(({ username }) => username)).to.deep.equal([demo.username])
    })

    it('is 400 together with username', async () => {
      expect(await auth.operate('GET', '?search=a&username=a')).to.include({ status: 400 })
    })
  })
})

type Auth = Awaited<ReturnType<typeof startAuth>>

describe('the operator’s list of users', () => {
  let auth: Auth
  let client: AuthApi
  before(async () => {
    auth = await startAuth()
    client = authApi(auth)
  })
  after(closeServers)

  it('requires ADMIN_KEY: with any other key nothing is shown or changed', async () => {
    const { user, token } = await client.newUser()
    for (const [method, path] of [
      ['GET', '/admin/users'],
      ['DELETE', `/admin/users/${user.id}`],
      ['DELETE', `/admin/users/${user.id}/sessions`],
    ] as const) {
      for (const key of [null, serviceKey, token, adminKey.slice(0, -1), `${adminKey}x`]) {
        expectProblem(await client.operate(method, path, key), 401, 'invalid_token')
      }
      // The public listener has no such route.
      expectProblem(await ask(method, auth.url + path, adminKey), 404, 'not_found')
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

  it('has 1 to 200 users on a page, 50 by default', async () => {
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
