// Service accounts: users without a password, for programs. An operator creates them, and nothing gives them a password.
import { expect } from 'chai'
import { expectProblem } from '../../support/authApi.ts'
import { ask } from '../../support/client.ts'
import { adminKey } from '../../support/credentials.ts'
import { bytesOf } from '../../support/dialects.ts'
import { isLive, issueToken, validate } from '../../support/factories.ts'
import { closeMailServers, startMailServer } from '../../support/mailServer.ts'
import { closeServers, openTestAuth, startAuth } from '../../support/servers.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

interface ShownUser {
  id: string
  username: string
  confirmedAt: number | null
  disabledAt: number | null
  roles: string[]
  paused: boolean
  serviceAccount: boolean
}

const schemes = await schemesHere(['memory', 'sqlite', 'postgres'])
const password = 'CANARY ladle in a lagoon'
const another = 'CANARY tuba on a trellis'
/** What is stored instead of a hash, so that it is tried as a password. */
const mark = 'none'
const noPassword = 'A service account has no password.'
let names = 0
const freshName = () => `worker-${++names}`

async function start(env: Record<string, string> = {}) {
  const { url, internalUrl, service } = await startAuth({ env })
  const operate = <T = ShownUser>(method: string, path = '', body?: unknown) =>
    ask<T>(method, `${internalUrl}/admin/users${path}`, adminKey, body)
  return {
    url,
    internalUrl,
    service,
    operate,
    post: (path: string, body: unknown) => ask('POST', url + path, null, body),

    async create(username = freshName(), more: object = {}): Promise<ShownUser> {
      const { status, body, text } = await operate('POST', '', { username, serviceAccount: true, ...more })
      expect(status, text).to.equal(201)
      return body
    },

    /** The ids of users whom GET /admin/users shows as service accounts. */
    async listed(query: string): Promise<string[]> {
      const { body } = await operate<{ users: ShownUser[] }>('GET', query)
      return body.users.filter(({ serviceAccount }) => serviceAccount).map(({ id }) => id)
    },
  }
}

type Auth = Awaited<ReturnType<typeof start>>

async function hashesAt(internalUrl: string): Promise<number> {
  const { text } = await ask('GET', `${internalUrl}/metrics`)
  return Number((/^latchkey_hashes_total (\S+)$/m.exec(text) as RegExpExecArray)[1])
}

describe('a service account', () => {
  let auth: Auth
  const places: Place[] = []
  before(async () => {
    auth = await start()
  })
  after(async () => {
    await closeServers()
    await closeMailServers()
    for (const place of places) await place.remove()
  })

  for (const scheme of schemes) {
    it(`is created without a password, is shown as what it is, and can never log in: users in ${scheme}`, async () => {
      const place = await freshPlace(scheme)
      places.push(place)
      const own = await start({ USER_STORE_URL: place.url })
      const created = await own.create('Nightly-Report', { roles: ['reader'], attributes: { team: 'billing' } })
      const { id } = created
      expect(created).to.deep.include({ username: 'nightly-report', serviceAccount: true, roles: ['reader'] })
      expect(created.confirmedAt).to.be.a('number')
      const person = await own.operate('POST', '', { username: freshName(), password, serviceAccount: false })
      expect(person.status, person.text).to.equal(201)
      expect(person.body.serviceAccount).to.equal(false)

      expect((await own.operate('GET', `/${id}`)).body).to.deep.equal(created)
      for (const query of ['', '?username=NIGHTLY-REPORT', '?search=night'])
        expect(await own.listed(query), query).to.deep.equal([id])
      for (const typed of [mark, 'undefined', 'null', password])
        expectProblem(
          await own.post('/login', { username: 'nightly-report', password: typed }),
          401,
          'invalid_credentials',
        )

      if (scheme === 'memory') return
      await own.service.close()
      const later = await start({ USER_STORE_URL: place.url })
      expect((await later.operate('GET', `/${id}`)).body).to.deep.equal(created)
      expect(await later.post('/login', { username: 'nightly-report', password: mark })).to.include({ status: 401 })
    })
  }

  it('is refused with a password, and if the flag is not true or false', async () => {
    for (const [more, detail] of [
      [{ serviceAccount: true, password }, 'password: expected none, because a service account has no password'],
      [{ serviceAccount: 'yes' }, 'serviceAccount: expected true or false'],
      [{ serviceAccount: false }, 'password: expected one, because no mail can go to this user'],
      [{ serviceAccount: true, username: 'a\nb' }, 'username: expected no control characters'],
    ] as const) {
      const username = freshName()
      const answer = await auth.operate<{ detail: string }>('POST', '', { username, ...more })
      expect(answer.status, answer.text).to.equal(400)
      expect(answer.body.detail).to.equal(detail)
      expect((await auth.operate<{ users: [] }>('GET', `?username=${username}`)).body.users).to.deep.equal([])
    }
  })

  it('shares its namespace with other users: a taken username is 409, for both', async () => {
    const { username } = await auth.create()
    const name = username.toUpperCase()
    expect(await auth.operate('POST', '', { username: name, serviceAccount: true })).to.include({ status: 409 })
    expect(await auth.operate('POST', '', { username: name, password })).to.include({ status: 409 })
    expect(await auth.post('/users', { username: name, password })).to.include({ status: 409 })
  })

  it('gets the refusal of an unknown user, byte for byte and after one hash, at every listener', async () => {
    const { service } = await openTestAuth({ env: { DIALECTS: 'flask-jwt:0,flask-auth:0' } })
    const at = (await service.listen()) as unknown as Record<string, string>
    const [known, unknown] = ['worker@services.example', 'nobody@services.example']
    const body = { username: known, serviceAccount: true }
    expect(await ask('POST', `${at['authInternal']}/admin/users`, adminKey, body)).to.include({ status: 201 })
    const hashes = () => hashesAt(at['authInternal'] as string)
    for (const [listener, path, member] of [
      ['auth', '/login', 'username'],
      ['flaskJwt', '/authenticate_user', 'username'],
      ['flaskAuth', '/login', 'email'],
    ] as const) {
      const url = at[listener] as string
      const before = await hashes()
      const refused = await bytesOf(url, path, { [member]: known, password: mark })
      expect((await hashes()) - before, listener).to.equal(1)
      expect(refused, listener).to.match(/^HTTP\/1\.1 401 /)
      expect(refused).to.equal(await bytesOf(url, path, { [member]: unknown, password: mark }))
    }
  })

  it('never gets a password from an operator: 409, and nothing changes', async () => {
    const created = await auth.create()
    const { id } = created
    for (const [method, path, body] of [
      ['POST', `/${id}/reset`, undefined],
      ['PATCH', `/${id}`, { password: another }],
      ['PATCH', `/${id}`, { password: 'short', roles: ['admin'], paused: true, username: freshName() }],
    ] as const) {
      const answer = await auth.operate<{ detail: string }>(method, path, body)
      expectProblem(answer, 409, 'conflict')
      expect(answer.body.detail).to.equal(noPassword)
    }
    expect((await auth.operate('GET', `/${id}`)).body).to.deep.equal(created)
    expect(await auth.post('/login', { username: created.username, password: another })).to.include({ status: 401 })
  })

  it('never gets a password by a token: neither one for a reset nor a session that an operator issued', async () => {
    const { id, username } = await auth.create()
    const reset = await issueToken(auth.internalUrl, { kind: 'single-use', purpose: 'reset', userId: id })
    expectProblem(await auth.post('/password/reset', { token: reset.token, password: another }), 401, 'invalid_token')
    const { token } = await issueToken(auth.internalUrl, { kind: 'sliding', userId: id })
    const change = { currentPassword: mark, password: another }
    expectProblem(await ask('PATCH', `${auth.url}/users/me`, token, change), 401, 'invalid_credentials')
    expect(await auth.post('/login', { username, password: another })).to.include({ status: 401 })
    expect((await auth.operate('GET', `/${id}`)).body.serviceAccount).to.equal(true)
  })

  it('gets no mail, although its name is an address, and the answers are those for an unknown user', async () => {
    const server = await startMailServer()
    const env = { SMTP_URL: server.url, MAIL_FROM: 'me@mail.example', PUBLIC_URL: 'https://a.example' }
    const own = await start({ ...env, EMAIL_CONFIRMATION: 'required' })
    const [known, person, unknown] = ['robot@services.example', 'person@services.example', 'nobody@services.example']
    const created = await own.create(known, { email: 'team@services.example' })
    expect(await own.operate('POST', '', { username: person, password })).to.include({ status: 201 })
    for (const path of ['/password/forgot', '/users/confirm/resend', '/users']) {
      const send = (username: string) => own.post(path, { username, ...(path === '/users' && { password }) })
      const [refused, neutral] = [await send(known), await send(unknown)]
      expect(refused, path).to.include({ status: 202 })
      expect(refused.text).to.equal(neutral.text)
    }
    await own.post('/password/forgot', { username: person })
    await server.next(person) // requested last, so an earlier mail would have arrived by now
    expect(server.mails.filter(({ to }) => /robot|team/.test(to.join()))).to.deep.equal([])
    expect((await own.operate('GET', `/${created.id}`)).body).to.deep.equal(created)
  })

  it('may have a name that is no address where other users must have one, also after a rename', async () => {
    const server = await startMailServer()
    const own = await start({ SMTP_URL: server.url, MAIL_FROM: 'me@mail.example', PUBLIC_URL: 'https://a.example' })
    const { id } = await own.create('ci deployer')
    const renamed = await own.operate('PATCH', `/${id}`, { username: 'Deployer 2' })
    expect(renamed.status, renamed.text).to.equal(200)
    expect(renamed.body).to.include({ username: 'deployer 2', serviceAccount: true })
    expect(await own.operate('PATCH', `/${id}`, { username: 'a\nb' })).to.include({ status: 400 })
    const person = await own.operate('POST', '', { username: 'person@services.example', password })
    expect(await own.operate('PATCH', `/${person.body.id}`, { username: 'no address' })).to.include({ status: 400 })
  })

  it('obeys roles, a rate, a pause, disabling and deletion as other users do', async () => {
    const { id, username } = await auth.create()
    const key = async () => (await issueToken(auth.internalUrl, { kind: 'fixed', userId: id })).token
    const token = await key()
    const patch = async (change: object) => {
      const { status, body, text } = await auth.operate('PATCH', `/${id}`, change)
      expect(status, text).to.equal(200)
      expect(body.serviceAccount).to.equal(true)
      return body
    }
    await patch({ roles: ['admin'] })
    const { body: verdict } = await validate(auth.internalUrl, { token })
    expect(verdict).to.deep.include({ authenticated: true, username, roles: ['admin'] })
    await patch({ rate: { perMinute: 1 } })
    await validate(auth.internalUrl, { token })
    expect((await validate(auth.internalUrl, { token })).body['authenticated']).to.equal(false)
    await patch({ rate: null })
    await patch({ paused: true })
    expect(await isLive(auth.internalUrl, token)).to.equal(false)
    await patch({ paused: false })
    expect(await isLive(auth.internalUrl, token)).to.equal(true)
    expect((await patch({ disabled: true })).disabledAt).to.be.a('number')
    expect(await isLive(auth.internalUrl, token)).to.equal(false)
    await patch({ disabled: false })
    const second = await key()
    expect(await auth.operate('POST', `/${id}/unlock`)).to.include({ status: 204 })
    expect(await auth.operate('DELETE', `/${id}`)).to.include({ status: 204 })
    expect(await isLive(auth.internalUrl, second)).to.equal(false)
    expect(await auth.operate('GET', `/${id}`)).to.include({ status: 404 })
  })
})
