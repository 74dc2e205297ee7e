// What users and tokens may do, as the operator changes it while they are in use.
import { expect } from 'chai'
import type { Verdict } from '../../../packages/client/contract.ts'
import { maxVerdictBytes } from '../../../packages/client/contract.ts'
import { type AuthApi, authApi, expectProblem } from '../../support/authApi.ts'
import { serviceKey } from '../../support/credentials.ts'
import { newUsername } from '../../support/factories.ts'
import { closeServers, startAuth } from '../../support/servers.ts'

const password = 'a CANARY with a parasol'

interface ShownUser {
  id: string
  roles: string[]
  paused: boolean
}

describe('roles, scope and pauses', () => {
  let auth: AuthApi
  before(async () => {
    auth = authApi(await startAuth())
  })
  after(closeServers)

  async function createUser(members: object = {}) {
    const username = newUsername()
    const created = await auth.operate<ShownUser>('POST', '/admin/users', undefined, { username, password, ...members })
    expect(created.status, created.text).to.equal(201)
    const logIn = async () => (await auth.logIn({ username, password })).body['token'] as string
    return { username, user: created.body, logIn }
  }

  const patchUser = (id: string, change: unknown) =>
    auth.operate<ShownUser>('PATCH', `/admin/users/${id}`, undefined, change)
  const patchToken = (id: string, change: unknown) => auth.operate('PATCH', `/tokens/${id}`, undefined, change)

  async function issue(terms: object) {
    const issued = await auth.operate<{ token: string; tokenId: string; scope: string | null }>(
      'POST',
      '/tokens',
      undefined,
      {
        kind: 'fixed',
        ttlSeconds: 60,
        ...terms,
      },
    )
    expect(issued.status, issued.text).to.equal(201)
    return issued.body
  }

  const validate = (token: string) => auth.validate({ token })

  it('a user has no roles at first, and a session no scope', async () => {
    const { user, logIn } = await createUser()
    expect(user).to.include({ paused: false }).and.have.deep.property('roles', [])
    expect(await validate(await logIn())).to.deep.include({ authenticated: true, roles: [], scope: null })
  })

  it('the next verdict has the roles that were just given or taken, on every open session', async () => {
    const { user, logIn } = await createUser()
    const tokens = [await logIn(), await logIn()]
    for (const roles of [['admin', 'billing:read'], ['billing:read'], [], ['editor']]) {
      const changed = await patchUser(user.id, { roles })
      expect(changed.status, changed.text).to.equal(200)
      expect(changed.body.roles).to.deep.equal(roles)
      for (const token of tokens) expect(await validate(token)).to.deep.include({ authenticated: true, roles })
      const [looked] = await auth.validateMany({ tokens: [tokens[0]], touch: false })
      expect(looked).to.deep.include({ roles })
    }
    const shown = await auth.operate<ShownUser>('GET', `/admin/users/${user.id}`)
    expect(shown.body.roles).to.deep.equal(['editor'])
  })

  it('a user can be created with roles, and every later session has them', async () => {
    const { user, logIn } = await createUser({ roles: ['admin'] })
    expect(user.roles).to.deep.equal(['admin'])
    expect(await validate(await logIn())).to.deep.include({ roles: ['admin'] })
  })

  it('users see their own roles, and cannot change them', async () => {
    const { user, logIn } = await createUser({ roles: ['admin'] })
    const token = await logIn()
    const roles = async () => (await auth.get('/users/me', token)).body['roles']
    expect(await roles()).to.deep.equal(['admin'])
    await patchUser(user.id, { roles: ['editor'] })
    expect(await roles()).to.deep.equal(['editor'])
    const tried = await auth.send('PATCH', '/users/me', token, {
      currentPassword: password,
      password,
      roles: ['admin'],
    })
    expectProblem(tried, 400, 'invalid_request')
    expect(await roles()).to.deep.equal(['editor'])
  })

  it('of many changes at once, all requests agree on one', async () => {
    const { user, logIn } = await createUser()
    const token = await logIn()
    const names = Array.from({ length: 12 }, (_, i) => `role-${i}`)
    const answers = await Promise.all(names.map(name => patchUser(user.id, { roles: [name] })))
    expect(answers.map(({ status }) => status)).to.deep.equal(names.map(() => 200))
    const { body } = await auth.operate<ShownUser>('GET', `/admin/users/${user.id}`)
    expect(body.roles).to.have.lengthOf(1)
    expect(await validate(token)).to.deep.include({ roles: body.roles })
  })

  it('a paused user is refused everywhere and cannot log in; afterwards the same token works again', async () => {
    const { username, user, logIn } = await createUser({ roles: ['admin'] })
    const token = await logIn()
    expect((await patchUser(user.id, { paused: true })).body).to.include({ paused: true })
    expect(await validate(token)).to.deep.equal({ authenticated: false })
    expect((await auth.get('/sessions', token)).status).to.equal(401)
    expectProblem(await auth.logIn({ username, password }), 401, 'invalid_credentials')
    expect((await patchUser(user.id, { paused: false })).body).to.deep.include({ paused: false, roles: ['admin'] })
    expect(await validate(token)).to.deep.include({ authenticated: true, roles: ['admin'] })
  })

  it('a paused token is refused, its user’s others are not; afterwards it works again', async () => {
    const { user, logIn } = await createUser()
    const [one, other] = [await logIn(), await logIn()]
    const { tokenId } = (await validate(one)) as Verdict & { tokenId: string }
    const paused = await patchToken(tokenId, { paused: true })
    expect(paused.status, paused.text).to.equal(200)
    expect(paused.body).to.include({ id: tokenId, userId: user.id, paused: true })
    expect(await validate(one)).to.deep.equal({ authenticated: false })
    expect(await validate(other)).to.include({ authenticated: true })
    const list = await auth.operate<{ tokens: { id: string; paused: boolean }[] }>('GET', `/tokens?userId=${user.id}`)
    expect(list.body.tokens.map(({ paused }) => paused)).to.deep.equal([true, false])
    await patchToken(tokenId, { paused: false })
    expect(await validate(one)).to.include({ authenticated: true })
  })

  it('a session that is paused, or whose user is, ends with its log-out', async () => {
    for (const what of ['token', 'user']) {
      const { user, logIn } = await createUser()
      const token = await logIn()
      const pause = (paused: boolean) =>
        what === 'user' ? patchUser(user.id, { paused }) : patchToken(token.slice(3, 17), { paused })
      await pause(true)
      expect((await auth.post('/logout', token)).status).to.equal(204)
      await pause(false)
      expect(await validate(token), what).to.deep.equal({ authenticated: false })
    }
  })

  it('a paused token that is no session is not ended by a log-out, and is refused', async () => {
    const { token, tokenId } = await issue({})
    await patchToken(tokenId, { paused: true })
    expectProblem(await auth.post('/logout', token), 401, 'invalid_token')
    await patchToken(tokenId, { paused: false })
    expect(await validate(token)).to.include({ authenticated: true })
  })

  it('a token can have a scope, which can be changed while it is in use', async () => {
    const { user } = await createUser()
    const { token, tokenId, scope } = await issue({ userId: user.id, scope: 'orders:read orders:write' })
    expect(scope).to.equal('orders:read orders:write')
    expect(await validate(token)).to.include({ scope })
    expect((await patchToken(tokenId, { scope: 'orders:read' })).body).to.include({
      scope: 'orders:read',
      paused: false,
    })
    expect(await validate(token)).to.include({ scope: 'orders:read' })
    await patchToken(tokenId, { scope: null })
    expect(await validate(token)).to.include({ scope: null })
  })

  it('a guest’s token can have a scope, and never a role', async () => {
    const { token } = await issue({ scope: 'kiosk' })
    expect(await validate(token)).to.deep.include({ scope: 'kiosk', roles: [], userId: null })
  })

  it('the largest verdict fits', async () => {
    const roles = Array.from({ length: 16 }, (_, i) => `${i}`.padStart(15, 'r'))
    const scope = Array.from({ length: 16 }, (_, i) => `${i}`.padStart(15, '!')).join(' ')
    expect(roles.join(' ').length).to.equal(255)
    const { user } = await createUser({ roles, username: `${newUsername()}${'x'.repeat(200)}`.slice(0, 240) })
    const { token } = await issue({ userId: user.id, scope })
    const answer = await auth.operate('POST', '/validateToken', serviceKey, { token })
    expect(answer.body).to.deep.include({ roles, scope })
    expect(answer.text.length).to.be.at.most(maxVerdictBytes)
  })

  it('bad input is 400 and says what is expected', async () => {
    const { user, logIn } = await createUser()
    const { tokenId } = (await validate(await logIn())) as Verdict & { tokenId: string }
    const tooMany = Array.from({ length: 17 }, (_, i) => `r${i}`)
    for (const [change, expected] of [
      [{}, 'disabled, paused'],
      [{ roles: 'admin' }, 'roles: expected up to 16'],
      [{ roles: ['an admin'] }, 'expected up to 16'],
      [{ roles: ['Admin'] }, 'expected up to 16'],
      [{ roles: ['admin', 'admin'] }, 'different roles'],
      [{ roles: tooMany }, 'up to 16'],
      [{ roles: ['a'.repeat(64), 'b'.repeat(64), 'c'.repeat(64), 'd'.repeat(64)] }, '256 characters in all'],
      [{ roles: ['latchkey:operator'] }, 'no role that begins with latchkey:'],
      [{ roles: [], role: [] }, 'role'],
      [{ paused: 1 }, 'paused: expected true or false'],
    ] as const) {
      const answer = await patchUser(user.id, change)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.text).to.include(expected)
    }
    for (const [change, expected] of [
      [{}, 'expected scope, paused (true or false), rate or uses'],
      [{ scope: '' }, 'scope: expected up to 16'],
      [{ scope: 'a  b' }, 'single spaces'],
      [{ scope: 'a a' }, 'different names'],
      [{ scope: 'a"b' }, 'RFC 6749'],
      [{ scope: ['a'] }, 'scope: expected'],
      [{ scope: tooMany.join(' ') }, 'up to 16'],
      [{ scope: 'a'.repeat(257) }, '256 characters in all'],
      [{ paused: 'yes' }, 'paused: expected true or false'],
    ] as const) {
      const answer = await patchToken(tokenId, change)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.text).to.include(expected)
    }
    expect((await auth.operate<ShownUser>('GET', `/admin/users/${user.id}`)).body).to.deep.include({
      roles: [],
      paused: false,
    })
  })

  it('an unknown user or token is 404, and nobody gets in without the admin key', async () => {
    expectProblem(await patchUser('nobody', { roles: [] }), 404, 'not_found')
    for (const id of ['nothing', 'AAAABBBBBCCCCC'])
      expectProblem(await patchToken(id, { paused: true }), 404, 'not_found')
    for (const path of ['/admin/users/x', '/tokens/AAAABBBBBCCCCC']) {
      expect((await auth.operate('PATCH', path, serviceKey, { paused: true })).status).to.equal(401)
    }
  })
})
