// What is known about users: the attributes that the operator writes, and the profile in them that the user writes.
import { expect } from 'chai'
import { type AuthApi, authApi, expectProblem, phrases } from '../../support/authApi.ts'
import type { LogLine } from '../../support/log.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

interface ShownUser {
  id: string
  attributes: Record<string, unknown>
}

const schemes = await schemesHere(['memory', 'sqlite', 'postgres'])

for (const scheme of schemes) {
  describe(`attributes of users at ${scheme}:`, () => {
    let place: Place
    let auth: AuthApi
    before(async () => {
      place = await freshPlace(scheme)
      auth = authApi(await startAuth({ env: { USER_STORE_URL: place.url, TOKEN_STORE_URL: place.url } }))
    })
    after(async () => {
      await closeServers()
      await place.remove()
    })

    const write = (id: string, attributes: unknown) =>
      auth.operate<ShownUser>('PATCH', `/admin/users/${id}`, undefined, { attributes })
    const writeOwn = (token: string, attributes: unknown) =>
      auth.send<ShownUser>('PATCH', '/users/me', token, { attributes })

    /** Also checks that the user and the operator see the same. */
    async function attributesOf(id: string, token: string): Promise<unknown> {
      const shown = await auth.operate<ShownUser>('GET', `/admin/users/${id}`)
      const own = await auth.get<ShownUser>('/users/me', token)
      expect(own.body.attributes).to.deep.equal(shown.body.attributes)
      return shown.body.attributes
    }

    it('are none at first; the operator writes them, the user the profile, and both see all', async () => {
      const { user, token } = await auth.newUser()
      expect(await attributesOf(user.id, token)).to.deep.equal({})
      const written = await write(user.id, { plan: 'pro', seats: [1, 2.5, null] })
      expect(written.status, written.text).to.equal(200)
      const own = await writeOwn(token, { profile: { name: 'Ann', théme: '🦊\0\ud800' } })
      expect(own.status, own.text).to.equal(200)
      const all = { plan: 'pro', seats: [1, 2.5, null], profile: { name: 'Ann', théme: '🦊\0\ud800' } }
      expect(own.body.attributes).to.deep.equal(all)
      expect(await attributesOf(user.id, token)).to.deep.equal(all)
      const { users } = (await auth.operate<{ users: ShownUser[] }>('GET', '/admin/users?limit=200')).body
      expect(users.find(({ id }) => id === user.id)?.attributes).to.deep.equal(all)
    })

    it('each writer replaces what is theirs: the operator all but the profile, unless they send one', async () => {
      const { user, token } = await auth.newUser()
      await write(user.id, { plan: 'pro', beta: true })
      await writeOwn(token, { profile: { name: 'Ann', theme: 'dark' } })
      await write(user.id, { plan: 'free' })
      expect(await attributesOf(user.id, token)).to.deep.equal({
        plan: 'free',
        profile: { name: 'Ann', theme: 'dark' },
      })
      await writeOwn(token, { profile: { name: 'Anne' } })
      expect(await attributesOf(user.id, token)).to.deep.equal({ plan: 'free', profile: { name: 'Anne' } })
      await write(user.id, { profile: {} })
      expect(await attributesOf(user.id, token)).to.deep.equal({ profile: {} })
    })

    it('concurrent writes of both parts lose nothing', async () => {
      const { user, token } = await auth.newUser()
      const writes = Array.from({ length: 10 }, (_, i) => [
        write(user.id, { number: i }),
        writeOwn(token, { profile: { number: i } }),
      ]).flat()
      for (const { status, text } of await Promise.all(writes)) expect(status, text).to.equal(200)
      expect(await attributesOf(user.id, token)).to.have.keys(['number', 'profile'])
    })

    it('a user can be created with them', async () => {
      const attributes = { plan: 'pro', profile: { name: 'Ann' } }
      const username = `created-at-${scheme}@users.example`
      const credentials = { username, password: phrases.first }
      const created = await auth.operate<ShownUser>('POST', '/admin/users', undefined, { ...credentials, attributes })
      expect(created.status, created.text).to.equal(201)
      expect(created.body.attributes).to.deep.equal(attributes)
      expect(await attributesOf(created.body.id, await auth.session(credentials))).to.deep.equal(attributes)
    })
  })
}

describe('attributes of users', () => {
  let auth: AuthApi
  let lines: LogLine[]
  before(async () => {
    const started = await startAuth()
    lines = started.lines
    auth = authApi(started)
  })
  after(closeServers)

  const write = (id: string, attributes: unknown) =>
    auth.operate<ShownUser>('PATCH', `/admin/users/${id}`, undefined, { attributes })
  const writeOwn = (token: string, attributes: unknown) =>
    auth.send<ShownUser>('PATCH', '/users/me', token, { attributes })
  const ofBytes = (bytes: number) => ({ x: '✓'.repeat(100) + 'x'.repeat(bytes - 308) })
  const nested = (depth: number): unknown =>
    depth === 0 ? 1 : depth % 2 ? { in: nested(depth - 1) } : [nested(depth - 1)]

  it('have at most 1024 bytes as JSON, and the profile at most 512', async () => {
    const { user, token } = await auth.newUser()
    expect((await write(user.id, ofBytes(1024))).status).to.equal(200)
    const tooLarge = await write(user.id, ofBytes(1025))
    expectProblem(tooLarge, 400, 'invalid_request')
    expect(tooLarge.body).to.include({ detail: 'attributes: expected a JSON object of at most 1024 bytes' })
    const withProfile = await writeOwn(token, { profile: {} })
    expectProblem(withProfile, 400, 'invalid_request')
    expect(withProfile.body).to.include({
      detail: 'attributes: expected at most 1024 bytes as JSON, together with those that stay',
    })
    await write(user.id, {})
    expect((await writeOwn(token, { profile: ofBytes(512) })).status).to.equal(200)
    for (const answer of [
      await writeOwn(token, { profile: ofBytes(513) }),
      await write(user.id, { profile: ofBytes(513) }),
    ]) {
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.body).to.include({ detail: 'attributes.profile: expected a JSON object of at most 512 bytes' })
    }
    // `"profile":` and a comma take 11 bytes.
    expect((await write(user.id, ofBytes(501))).status).to.equal(200)
    expectProblem(await write(user.id, ofBytes(502)), 400, 'invalid_request')
  })

  it('are 400 if they are no plain JSON object, and nothing changes', async () => {
    const { user, token } = await auth.newUser()
    await write(user.id, { plan: 'pro' })
    const object = 'expected a JSON object of at most'
    for (const [attributes, detail] of [
      ['a string', `attributes: ${object} 1024 bytes`],
      [[1], `attributes: ${object} 1024 bytes`],
      [null, `attributes: ${object} 1024 bytes`],
      [{ profile: 'Ann' }, `attributes.profile: ${object} 512 bytes`],
      [{ profile: null }, `attributes.profile: ${object} 512 bytes`],
      [nested(9), 'attributes: expected at most 8 objects or arrays within each other'],
      [JSON.parse('{"a":[{"__proto__":{"b":1}}]}'), 'The body is not a valid JSON object.'],
    ] as const) {
      const answer = await write(user.id, attributes)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.body, JSON.stringify(attributes)).to.include({ detail })
    }
    for (const [attributes, detail] of [
      [
        { profile: { name: 'Ann' }, plan: 'free' },
        'attributes: expected no member but profile; an operator sets the others',
      ],
      [{}, `attributes.profile: ${object} 512 bytes`],
      ['Ann', 'attributes: expected an object with the member profile'],
      [{ profile: [] }, `attributes.profile: ${object} 512 bytes`],
    ] as const) {
      const answer = await writeOwn(token, attributes)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.body, JSON.stringify(attributes)).to.include({ detail })
    }
    const infinite = await fetch(`${auth.url}/users/me`, {
      method: 'PATCH',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: '{"attributes":{"profile":{"x":[-1e400]}}}',
    })
    expect(infinite.status).to.equal(400)
    expect(await infinite.json()).to.include({ detail: 'attributes.profile: expected no number beyond 1.8e308' })
    expect((await auth.get<ShownUser>('/users/me', token)).body.attributes).to.deep.equal({ plan: 'pro' })
  })

  it('are changed without the password, in a request of their own', async () => {
    const { token } = await auth.newUser()
    const profile = { name: 'Ann' }
    const others = { currentPassword: phrases.first, password: phrases.second }
    const both = await auth.send('PATCH', '/users/me', token, { attributes: { profile }, ...others })
    expectProblem(both, 400, 'invalid_request')
    expect(both.body).to.include({ detail: 'expected one of attributes, username, email and password' })
    expect((await writeOwn(token, { profile })).status).to.equal(200)
  })

  it('change nothing if the operator’s request has a password that breaks a rule', async () => {
    const { user, token } = await auth.newUser()
    const change = { attributes: { plan: 'pro' }, password: 'short' }
    expectProblem(await auth.operate('PATCH', `/admin/users/${user.id}`, undefined, change), 400, 'invalid_request')
    expect((await auth.get<ShownUser>('/users/me', token)).body.attributes).to.deep.equal({})
  })

  it('are in no verdict, and each change is in the log without them', async () => {
    const { user, token } = await auth.newUser()
    await write(user.id, { plan: 'pro-CANARY' })
    expect(JSON.stringify(await auth.validate({ token }))).to.not.match(/CANARY|attributes/)
    const logged = lines.filter(({ event, userId }) => event === 'attributes_changed' && userId === user.id)
    expect(logged).to.have.lengthOf(1)
    expect(JSON.stringify(lines)).to.not.include('pro-CANARY')
  })
})
