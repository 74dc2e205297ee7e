// A user takes another username, or an operator gives one.
import { expect } from 'chai'
import { accountLimits } from '../../../services/auth/defence/throttles.ts'
import { type AuthApi, authApi, expectInvalidToken, expectProblem, phrases } from '../../support/authApi.ts'
import { newUsername } from '../../support/factories.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

const schemes = await schemesHere(['memory', 'sqlite', 'postgres'])

const renameOwn = (auth: AuthApi, token: string, username: string, currentPassword = phrases.first) =>
  auth.send<{ id: string; username: string }>('PATCH', '/users/me', token, { username, currentPassword })

const rename = (auth: AuthApi, id: string, change: object) =>
  auth.operate<{ id: string; username: string }>('PATCH', `/admin/users/${id}`, undefined, change)

for (const scheme of schemes) {
  describe(`a change of the username at ${scheme}:`, () => {
    let place: Place
    let auth: AuthApi
    let other: AuthApi
    before(async () => {
      place = await freshPlace(scheme)
      const env = { USER_STORE_URL: place.url, TOKEN_STORE_URL: place.url }
      auth = authApi(await startAuth({ env }))
      other = scheme === 'memory' ? auth : authApi(await startAuth({ env }))
    })
    afterEach('the log has no password and no internal error', () => auth.expectQuietLog())
    after(async () => {
      await closeServers()
      await place.remove()
    })

    for (const [by, change] of [
      ['the user', (token: string, _: string, username: string) => renameOwn(auth, token, username)],
      ['an operator', (_: string, id: string, username: string) => rename(auth, id, { username })],
    ] as const) {
      it(`by ${by} holds at once on every instance: the old name and every token are refused, the new name logs in`, async () => {
        const { user, credentials } = await auth.newUser()
        const token = await auth.session(credentials)
        const tokens = [token, await auth.issueTo(user.id), await auth.issueTo(user.id, 'fixed')]
        const link = await auth.issueTo(user.id, 'single-use', 'reset')
        expect(await other.live(tokens)).to.have.lengthOf(3)
        const username = newUsername()
        const changed = await change(token, user.id, username.toUpperCase())
        expect(changed.status, changed.text).to.equal(200)
        expect(changed.body).to.include({ id: user.id, username })
        expect(await other.live(tokens)).to.deep.equal([])
        expect(await other.live([link], 'reset')).to.deep.equal([])
        expectProblem(await other.logIn(credentials), 401, 'invalid_credentials')
        const again = await other.session({ ...credentials, username })
        expect(await auth.admissionOf(again)).to.include({ userId: user.id, username })
        expect((await auth.get('/users/me', again)).body).to.include({ id: user.id, username })
        expect(await other.find(username)).to.include({ id: user.id })
        expect(await other.find(credentials.username)).to.equal(undefined)
      })
    }

    it('frees the old username for another user, who is not taken for the first', async () => {
      const first = await auth.newUser()
      const username = newUsername()
      await renameOwn(auth, first.token, username)
      const second = await other.newUser({ username: first.credentials.username, password: phrases.second })
      expect(second.user.id).to.not.equal(first.user.id)
      expect(await auth.admissionOf(second.token)).to.include({ userId: second.user.id })
      expect(await auth.admissionOf(await auth.session({ ...first.credentials, username }))).to.include({
        userId: first.user.id,
      })
    })

    it('is 409 if the username is taken, in whatever form it is typed, and nothing changes', async () => {
      const taken = (await auth.newUser()).credentials.username
      const { user, credentials, token } = await auth.newUser()
      for (const username of [taken, taken.toUpperCase()]) {
        expectProblem(await renameOwn(auth, token, username), 409, 'conflict')
        const change = { username, roles: ['admin'], password: phrases.second }
        expectProblem(await rename(auth, user.id, change), 409, 'conflict')
      }
      expect(await auth.isLive(token)).to.equal(true)
      expect((await auth.get('/users/me', token)).body).to.deep.include({ username: credentials.username, roles: [] })
      expect((await auth.logIn(credentials)).status).to.equal(200)
    })

    it('gives a username to one of several users who ask at once', async () => {
      const users = await Promise.all(Array.from({ length: 4 }, () => auth.newUser()))
      const username = newUsername()
      const answers = await Promise.all(users.map(({ token }, i) => renameOwn(i % 2 ? auth : other, token, username)))
      expect(answers.map(({ status }) => status).toSorted()).to.deep.equal([200, 409, 409, 409])
      const winner = answers.findIndex(({ status }) => status === 200)
      expect(await auth.find(username)).to.include({ id: users[winner]?.user.id })
      expect(await auth.live(users.map(({ token }) => token))).to.have.lengthOf(3)
    })
  })
}

describe('a change of the username', () => {
  let auth: AuthApi
  before(async () => {
    auth = authApi(await startAuth())
  })
  after(closeServers)

  it('is 401 with a wrong current password, and nothing changes', async () => {
    const { user, token } = await auth.newUser()
    const answer = await renameOwn(auth, token, newUsername(), phrases.wrong)
    expectProblem(answer, 401, 'invalid_credentials')
    expect((await auth.get('/users/me', token)).body).to.deep.equal(user)
    expectInvalidToken(await renameOwn(auth, `${token}x`, newUsername()))
  })

  it('is 400 for a name that breaks a rule or a body that is not as expected', async () => {
    const { user, token } = await auth.newUser()
    const current = { currentPassword: phrases.first }
    for (const [body, detail] of [
      [{ ...current, username: ' ann' }, 'username: expected no blanks at the beginning or the end'],
      [{ ...current, username: '' }, 'username: expected a username of 1 to 256 characters'],
      [{ username: 'ann' }, 'currentPassword: expected a password, as a string'],
      [{ password: phrases.second }, 'currentPassword: expected a password, as a string'],
      [current, 'expected one of attributes, username, email and password'],
      [
        { ...current, username: 'ann', password: phrases.second },
        'expected one of attributes, username, email and password',
      ],
      // A password is good for one name and too easy to guess for another.
      [
        { ...current, username: phrases.first },
        'username: expected one that does not make your password easy to guess',
      ],
    ] as const) {
      const answer = await auth.send('PATCH', '/users/me', token, body)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.body, JSON.stringify(body)).to.include({ detail })
    }
    for (const [change, member] of [
      [{ username: 'a\0b' }, 'username'],
      [{ username: 'ann walks her iguana', password: 'ann walks her iguana' }, 'password'],
    ] as const) {
      const answer = await rename(auth, user.id, change)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.body)
        .to.have.property('detail')
        .match(new RegExp(`^${member}: `))
    }
    expect((await auth.get('/users/me', token)).body).to.deep.equal(user)
  })

  it('to the name that the user has ends nothing', async () => {
    const { user, token, credentials } = await auth.newUser()
    expect((await renameOwn(auth, token, credentials.username.toUpperCase())).body).to.deep.equal(user)
    expect((await rename(auth, user.id, { username: credentials.username })).status).to.equal(200)
    expect(await auth.isLive(token)).to.equal(true)
  })

  it('together with a password, by an operator, sets both', async () => {
    const { user, token } = await auth.newUser()
    const credentials = { username: newUsername(), password: phrases.second }
    expect((await rename(auth, user.id, credentials)).status).to.equal(200)
    expect(await auth.isLive(token)).to.equal(false)
    expect((await auth.logIn(credentials)).status).to.equal(200)
  })

  it('by the user is reported by mail to the address that was the username', async () => {
    const started = await startAuth() // in development the log has the mails
    const client = authApi(started)
    const { credentials, token } = await client.newUser()
    await renameOwn(client, token, credentials.username)
    const username = newUsername()
    expect((await renameOwn(client, token, username)).status).to.equal(200)
    const mails = started.lines.filter(({ event }) => event === 'mail')
    expect(mails.map(({ to, subject }) => [to, subject])).to.deep.equal([
      [credentials.username, 'Your username was changed'],
    ])
  })

  it('of an unknown user is 404', async () => {
    expectProblem(await rename(auth, 'nobody', { username: newUsername() }), 404, 'not_found')
  })

  for (const env of [{ REGISTRATION: 'closed' }, { EMAIL_CONFIRMATION: 'required' }]) {
    it(`is 403 for users and left to the operator with ${Object.entries(env).flat().join('=')}`, async () => {
      const strict = authApi(await startAuth({ env }))
      const credentials = { username: newUsername(), password: phrases.first }
      const created = await strict.operate<{ id: string }>('POST', '/admin/users', undefined, credentials)
      const token = await strict.session(credentials)
      const refused = await renameOwn(strict, token, newUsername())
      expectProblem(refused, 403, 'forbidden')
      expect(refused.body)
        .to.have.property('detail')
        .match(/ask the operator/)
      expect(await strict.isLive(token)).to.equal(true)
      const username = newUsername()
      expect((await rename(strict, created.body.id, { username })).status).to.equal(200)
      await strict.session({ ...credentials, username })
    })
  }

  it('is limited like registrations, because the answer shows which usernames are taken', async () => {
    const limited = authApi(await startAuth({ env: { REGISTRATION_LIMIT_PER_ADDRESS: '3' } }))
    const { credentials, token } = await limited.newUser()
    const tries = () => renameOwn(limited, token, credentials.username)
    expect([(await tries()).status, (await tries()).status, (await tries()).status]).to.deep.equal([200, 200, 429])
  })

  it('takes wrong current passwords together with those of other changes, and starts anew under the new name', async () => {
    const guarded = authApi(await startAuth({ limitsPerAccount: accountLimits }))
    const { credentials, token } = await guarded.newUser()
    for (let i = 0; i < accountLimits.freeFailures; i++) {
      expect((await renameOwn(guarded, token, newUsername(), phrases.wrong)).status).to.equal(401)
    }
    expectProblem(await renameOwn(guarded, token, newUsername()), 429, 'too_many_requests')
    expectProblem(await guarded.change(token, phrases.first, phrases.second), 429, 'too_many_requests')
    const id = (await guarded.find(credentials.username))?.['id'] as string
    const username = newUsername()
    expect((await rename(guarded, id, { username })).status).to.equal(200)
    const session = await guarded.session({ ...credentials, username })
    expect((await guarded.change(session, phrases.first, phrases.second)).status).to.equal(200)
  })
})
