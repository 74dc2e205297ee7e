// API keys and delegated tokens, as users, operators and services meet them.
import { expect } from 'chai'
import type { Admission } from '../../../packages/client/contract.ts'
import { type AuthApi, authApi, expectProblem, phrases } from '../../support/authApi.ts'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { until } from '../../support/until.ts'

const day = 86_400_000
const unknownId = '0'.repeat(14)

interface NewKey {
  id: string
  secret: string
  expiresAt: number | null
}

interface Key {
  id: string
  name: string | null
  parentId: string | null
  scope: string | null
  paused: boolean
  lastUsedAt: number | null
  useCount: number
}

interface Delegated {
  token: string
  tokenId: string
}

describe('keys', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>
  let client: AuthApi
  let session: string
  let userId: string

  before(async () => {
    auth = await startAuth({ now: clock.now, env: { TOKEN_LIMIT_PER_USER: '12' } })
    client = authApi(auth)
  })
  beforeEach(async () => {
    const { user, token } = await client.newUser()
    session = token
    userId = user.id
  })
  after(closeServers)

  async function create(terms: object = {}, bearer = session): Promise<NewKey> {
    const { status, body, text } = await client.post('/keys', bearer, { name: 'deploy', ...terms })
    expect(status, text).to.equal(201)
    return body as unknown as NewKey
  }

  async function delegate(bearer: string, terms: object = {}): Promise<Delegated> {
    const { status, body, text } = await client.post('/tokens/delegate', bearer, terms)
    expect(status, text).to.equal(201)
    return body as unknown as Delegated
  }

  const list = async () => (await client.get<{ keys: Key[] }>('/keys', session)).body.keys
  const validate = (token: string) => client.validate({ token })
  const admission = async (token: string) => (await validate(token)) as Admission
  const setRoles = async (roles: string[]) =>
    expect((await client.operate('PATCH', `/admin/users/${userId}`, undefined, { roles })).status).to.equal(200)

  describe('POST /keys', () => {
    it('creates a key, whose secret is recognised by its prefix and shown once', async () => {
      const { status, body, headers } = await client.post('/keys', session, { name: 'deploy' })
      expect(status).to.equal(201)
      const { secret, id } = body as unknown as NewKey
      const facts = { name: 'deploy', scope: null, rate: null, canary: false, createdAt: clock.now(), expiresAt: null }
      expect(body).to.deep.equal({ ...facts, id, secret })
      expect(secret).to.match(/^lk_key_[0-9A-Za-z]{63}$/)
      expect(secret.slice(7, 21)).to.equal(id)
      expect(headers.get('cache-control')).to.equal('no-store')
      const { text } = await client.get('/keys', session)
      expect(text).to.include(id).and.not.include(secret)
    })

    it('creates a key for its user, which ends when it says', async () => {
      const expiresAt = clock.now() + day
      const { secret } = await create({ expiresAt, scope: 'orders:read' })
      const expected = {
        authenticated: true,
        kind: 'fixed',
        userId,
        scope: 'orders:read',
        keyName: 'deploy',
        expiresAt,
      }
      expect(await validate(secret)).to.deep.include({ ...expected, actor: null })
      clock.advance(day - 1)
      expect(await validate(secret)).to.include({ authenticated: true })
      clock.advance(1)
      expect(await validate(secret)).to.deep.equal({ authenticated: false })
    })

    it('creates a key that never ends, and needs no use to stay', async () => {
      const { secret, expiresAt } = await create()
      expect(expiresAt).to.equal(null)
      clock.advance(20 * 365 * day)
      expect(await validate(secret)).to.include({ authenticated: true })
    })

    it('limits the rate of a key', async () => {
      const { secret } = await create({ rate: { perMinute: 60, burst: 1 } })
      expect(await validate(secret)).to.include({ authenticated: true })
      expect(await validate(secret)).to.deep.equal({ authenticated: false, limited: true, retryAfterMs: 1000 })
    })

    const wrong: [string, object, RegExp][] = [
      ['without a name', { name: undefined }, /^name: expected 1 to 64 characters/],
      ['with an empty name', { name: '' }, /^name: expected 1 to 64/],
      ['with a name of 65 characters', { name: 'x'.repeat(65) }, /^name: expected 1 to 64/],
      ['with a line break in the name', { name: 'a\nb' }, /^name: expected .* no control characters/],
      ['with a space at the end of the name', { name: 'a ' }, /^name: expected/],
      ['that has expired', { expiresAt: 1 }, /^expiresAt: expected an instant in the future/],
      ['that ends in seconds instead of milliseconds', { expiresAt: 1_900_000_000 }, /^expiresAt: .* milliseconds/],
      ['that ends after 2100', { expiresAt: Date.UTC(2101) }, /^expiresAt: .* before 2100/],
      ['with a malformed scope', { scope: 'a  b' }, /^scope: expected/],
      ['with a malformed rate', { rate: { perMinute: 0 } }, /^rate.perMinute: expected/],
      ['for another user', { userId: 'other' }, /userId/],
    ]
    for (const [what, terms, detail] of wrong) {
      it(`refuses a key ${what}`, async () => {
        const answer = await client.post('/keys', session, { name: 'deploy', ...terms })
        expectProblem(answer, 400, 'invalid_request')
        expect(answer.body['detail']).to.match(detail)
      })
    }

    it('accepts names in any script', async () => {
      for (const name of ['Büro 🚀', 'ключ', 'x'.repeat(64)]) {
        const { id } = await create({ name })
        expect((await list()).find(key => key.id === id)?.name).to.equal(name)
      }
    })

    it('gives a user no more keys than a quarter of the tokens that a user may have', async () => {
      for (let i = 0; i < 3; i++) await create()
      const answer = await client.post('/keys', session, { name: 'one more' })
      expectProblem(answer, 409, 'conflict')
      expect(answer.body['detail']).to.match(/has 3 keys/)
      expect(await client.isLive(session), 'the session stays').to.equal(true)
      await client.delete(`/keys/${(await list())[0]?.id}`, session)
      await create()
    })
  })

  describe('a key', () => {
    it('opens no route of Auth but the one that delegates, and is not used by trying', async () => {
      const { secret, id } = await create()
      const routes: [string, string, object?][] = [
        ['GET', '/keys'],
        ['POST', '/keys', { name: 'another' }],
        ['PATCH', `/keys/${id}`, { name: 'mine' }],
        ['DELETE', `/keys/${id}`],
        ['GET', '/sessions'],
        ['DELETE', '/sessions'],
        ['POST', '/renew'],
        ['GET', '/users/me'],
      ]
      for (const [method, path, body] of routes) {
        const { status } = await ask(method, client.url + path, secret, body)
        expect(status, `${method} ${path}`).to.equal(401)
      }
      expect(await list()).to.have.lengthOf(1)
      expect((await list())[0]).to.include({ useCount: 0, lastUsedAt: null })
    })

    it('has the roles of its user that its scope names, as they are at each request', async () => {
      const [scoped, free] = [await create({ scope: 'admin orders:read' }), await create()]
      expect((await admission(scoped.secret)).roles).to.deep.equal([])
      await setRoles(['admin', 'editor'])
      expect(await admission(scoped.secret)).to.deep.include({ roles: ['admin'], scope: 'admin orders:read' })
      expect(await admission(free.secret)).to.deep.include({ roles: ['admin', 'editor'], scope: null })
      await setRoles(['editor'])
      expect((await admission(scoped.secret)).roles).to.deep.equal([])
    })

    it('outlives the session that created it', async () => {
      const { secret } = await create()
      expect((await client.post('/logout', session)).status).to.equal(204)
      expect(await validate(secret)).to.include({ authenticated: true })
    })

    const endings: [string, () => Promise<{ status: number }>][] = [
      ['a change of the password', () => client.change(session, phrases.first, phrases.second)],
      ['the deletion of the user', () => client.remove(session, phrases.first)],
      ['the end of all tokens', () => client.delete('/sessions', session)],
      ['the operator', () => client.operate('DELETE', `/admin/users/${userId}/sessions`)],
    ]
    for (const [what, end] of endings) {
      it(`ends with ${what}`, async () => {
        const { secret } = await create()
        const { token } = await delegate(secret)
        expect((await end()).status).to.be.below(300)
        expect(await client.live([secret, token])).to.deep.equal([])
      })
    }
  })

  describe('GET, PATCH and DELETE /keys', () => {
    it('list the keys of the user, with their last use and how often they were used', async () => {
      const { secret } = await create({ scope: 'a' })
      clock.advance(1000)
      await validate(secret)
      await validate(secret)
      const [key] = await list()
      expect(key).to.deep.include({ name: 'deploy', parentId: null, scope: 'a', useCount: 2, lastUsedAt: clock.now() })
    })

    it('rename, restrict, pause and resume a key, and the next validation obeys', async () => {
      const { secret, id } = await create()
      const patch = (changes: object) => client.send('PATCH', `/keys/${id}`, session, { ...changes })
      expect((await patch({ name: 'backup', scope: 'a' })).body).to.include({ id, name: 'backup', scope: 'a' })
      expect(await validate(secret)).to.include({ keyName: 'backup', scope: 'a' })
      expect((await patch({ paused: true })).body).to.include({ paused: true })
      expect(await validate(secret)).to.deep.equal({ authenticated: false })
      await patch({ paused: false })
      expect(await validate(secret)).to.include({ authenticated: true })
      expectProblem(await patch({}), 400, 'invalid_request')
      expectProblem(await patch({ name: null }), 400, 'invalid_request')
    })

    it('end a key with everything that was delegated from it', async () => {
      const { secret, id } = await create()
      const { token } = await delegate(secret)
      expect((await client.delete(`/keys/${id}`, session)).status).to.equal(204)
      expect(await client.live([secret, token])).to.deep.equal([])
      expect(await list()).to.deep.equal([])
      expectProblem(await client.delete(`/keys/${id}`, session), 404, 'not_found')
    })

    it('do not find the keys of another user, nor sessions', async () => {
      const { token: other } = await client.newUser()
      const { id, secret } = await create({}, other)
      const own = (await client.get<{ sessions: { id: string }[] }>('/sessions', session)).body.sessions[0]?.id
      for (const which of [id, own, unknownId, 'junk', '%00']) {
        expectProblem(await client.delete(`/keys/${which}`, session), 404, 'not_found')
        expectProblem(await client.send('PATCH', `/keys/${which}`, session, { name: 'x' }), 404, 'not_found')
      }
      expect(await client.live([secret, session])).to.have.lengthOf(2)
    })
  })

  describe('the keys of all users', () => {
    it('can be listed, changed and ended by the operator', async () => {
      const { id, secret } = await create()
      const { body } = await client.operate<{ keys: Key[]; next: string | null }>('GET', `/keys?userId=${userId}`)
      expect(body.keys[0]).to.include({ id, userId, name: 'deploy' })
      const all: Key[] = []
      for (let next: string | null = ''; next !== null; ) {
        const page: { body: { keys: Key[]; next: string | null } } = await client.operate(
          'GET',
          `/keys?limit=3${next && `&after=${next}`}`,
        )
        all.push(...page.body.keys)
        next = page.body.next
      }
      expect(all.map(key => key.id)).to.include(id)
      expect(all.every(({ name, parentId }) => name !== null || parentId !== null)).to.equal(true)
      const changed = await client.operate('PATCH', `/keys/${id}`, undefined, { scope: 'a', name: 'other' })
      expect(changed.body).to.include({ scope: 'a', name: 'other', userId })
      expect(await validate(secret)).to.include({ scope: 'a' })
      expect((await client.operate('DELETE', `/keys/${id}`)).status).to.equal(204)
      expect(await validate(secret)).to.deep.equal({ authenticated: false })
    })

    it('can be created by the operator for a user', async () => {
      const { status, body } = await client.operate('POST', '/keys', undefined, { name: 'nightly', userId, scope: 'a' })
      expect(status).to.equal(201)
      expect(body).to.include({ name: 'nightly', userId, scope: 'a', expiresAt: null })
      expect(await validate(body['secret'] as string)).to.include({ userId, keyName: 'nightly' })
      const refused = await client.operate('POST', '/keys', undefined, { name: 'x', userId: 'unknown' })
      expectProblem(refused, 400, 'invalid_request')
      await client.operate('PATCH', `/admin/users/${userId}`, undefined, { disabled: true })
      expectProblem(await client.operate('POST', '/keys', undefined, { name: 'x', userId }), 409, 'conflict')
    })

    it('do not include sessions', async () => {
      const [own] = (await client.get<{ sessions: { id: string }[] }>('/sessions', session)).body.sessions
      expectProblem(await client.operate('DELETE', `/keys/${own?.id}`), 404, 'not_found')
      expectProblem(await client.operate('PATCH', `/keys/${own?.id}`, undefined, { name: 'x' }), 404, 'not_found')
      expectProblem(await client.operate('GET', '/keys?limit=0'), 400, 'invalid_request')
      expect(await client.isLive(session)).to.equal(true)
    })
  })

  describe('a canary', () => {
    const reports = () => auth.lines.filter(({ event }) => event === 'canary_used')

    it('opens nothing, and each use is reported, the first one as such', async () => {
      const { secret, id } = await create({ name: 'in the old backup', canary: true })
      expect(secret).to.match(/^lk_key_[0-9A-Za-z]{63}$/)
      expect(await validate(secret)).to.deep.equal({ authenticated: false })
      await until(async () => reports().length === 1)
      expect(reports()[0]).to.deep.include({
        tokenId: id,
        userId,
        name: 'in the old backup',
        useCount: 1,
        level: 'warn',
      })
      expectProblem(await client.post('/tokens/delegate', secret, {}), 401, 'invalid_token')
      expect((await client.get('/users/me', secret)).status).to.equal(401)
      await until(async () => reports().length === 3)
      expect(reports().map(({ useCount }) => useCount)).to.deep.equal([1, 2, 3])
      expect((await list())[0]).to.include({ id, canary: true, useCount: 3 })
    })

    it('is an event for canaries only', async () => {
      const before = reports().length
      const { secret } = await create()
      await client.get('/users/me', secret)
      await validate(await client.issueTo(userId, 'fixed', 'other'))
      await until(async () => auth.lines.some(({ reason }) => reason === 'other_purpose'))
      expect(reports()).to.have.lengthOf(before)
      expectProblem(await client.post('/keys', session, { name: 'x', canary: 'yes' }), 400, 'invalid_request')
    })
  })

  describe('POST /tokens/delegate', () => {
    it('issues a token for a session, which names the actor and ends with the session', async () => {
      const { token, tokenId } = await delegate(session, { name: 'agent', scope: 'orders:read', ttlSeconds: 60 })
      const verdict = await admission(token)
      expect(verdict).to.deep.include({ userId, scope: 'orders:read', keyName: null, actor: { sub: 'agent' } })
      expect(verdict).to.include({ kind: 'fixed', tokenId, expiresAt: clock.now() + 60_000 })
      expect(token).to.match(/^lk_[0-9A-Za-z]{63}$/)
      await client.post('/logout', session)
      expect(await validate(token)).to.deep.equal({ authenticated: false })
    })

    it('names the key behind the token, and its id if it has no name', async () => {
      const { secret } = await create()
      const { token, tokenId } = await delegate(secret)
      expect(await validate(token)).to.deep.include({ keyName: 'deploy', actor: { sub: tokenId } })
      const { body } = await client.operate('POST', '/introspect', undefined, { token })
      expect(body).to.deep.include({ active: true, act: { sub: tokenId }, sub: userId })
    })

    it('lets a token do only what its parent and the roles of its user allow at each request', async () => {
      await setRoles(['admin', 'editor'])
      const { secret, id } = await create({ scope: 'admin a b' })
      const { token } = await delegate(secret, { scope: 'admin a' })
      expect(await validate(token)).to.deep.include({ roles: ['admin'], scope: 'admin a' })
      await client.send('PATCH', `/keys/${id}`, session, { scope: 'b a' })
      expect(await validate(token)).to.deep.include({ roles: [], scope: 'a' })
      await client.send('PATCH', `/keys/${id}`, session, { scope: 'b' })
      expect(await validate(token)).to.deep.include({ roles: [], scope: '' })
      await client.send('PATCH', `/keys/${id}`, session, { scope: null })
      expect(await validate(token)).to.deep.include({ roles: ['admin'], scope: 'admin a' })
      await setRoles([])
      expect(await validate(token)).to.deep.include({ roles: [] })
    })

    it('is paused with its parent', async () => {
      const { secret, id } = await create()
      const { token } = await delegate(secret)
      await client.send('PATCH', `/keys/${id}`, session, { paused: true })
      expect(await client.live([secret, token])).to.deep.equal([])
      await client.send('PATCH', `/keys/${id}`, session, { paused: false })
      expect(await client.live([secret, token])).to.have.lengthOf(2)
    })

    it('shows the token to its user, who can end it', async () => {
      const { secret, id } = await create()
      const { token, tokenId } = await delegate(secret, { name: 'agent' })
      expect((await list()).find(key => key.id === tokenId)).to.include({ name: 'agent', parentId: id })
      expect((await client.delete(`/keys/${tokenId}`, session)).status).to.equal(204)
      expect(await client.live([secret, token])).to.deep.equal([secret])
    })

    it('lives for an hour, or as long as its parent if that has less left', async () => {
      const [short, long] = [await create({ expiresAt: clock.now() + 60_000 }), await create()]
      expect((await admission((await delegate(short.secret)).token)).expiresAt).to.equal(clock.now() + 60_000)
      expect((await admission((await delegate(long.secret)).token)).expiresAt).to.equal(clock.now() + 3_600_000)
    })

    const excesses: [string, object, RegExp][] = [
      ['a scope that its parent does not have', { scope: 'a c' }, /^scope: .* a b$/],
      ['no scope, if its parent has one', { scope: null }, /^scope: /],
      ['a longer life than its parent has left', { ttlSeconds: 61 }, /^ttlSeconds: expected at most 60/],
      ['more uses than its parent has left', { uses: 6 }, /^uses: expected at most 5/],
      ['any number of uses, if those of its parent are limited', { uses: null }, /^uses: /],
      ['a higher rate than its parent', { rate: { perMinute: 61, burst: 1 } }, /^rate: .* perMinute 60, burst 9$/],
      ['no rate, if its parent has one', { rate: null }, /^rate: /],
    ]
    for (const [what, terms, detail] of excesses) {
      it(`refuses to issue a token with ${what}`, async () => {
        const rate = { perMinute: 60, burst: 9 }
        const { secret, id } = await create({ scope: 'a b', expiresAt: clock.now() + 60_000, rate })
        await client.operate('PATCH', `/tokens/${id}`, undefined, { uses: 6 })
        const answer = await client.post('/tokens/delegate', secret, terms)
        expectProblem(answer, 400, 'invalid_request')
        expect(answer.body['detail']).to.match(detail)
        const within = { scope: 'b', ttlSeconds: 60, uses: 4, rate: { perMinute: 60, burst: 9 } }
        await delegate(secret, within)
      })
    }

    it('refuses every other token, which stays as it was', async () => {
      const { token: delegated } = await delegate(session)
      const once = await client.issueTo(userId, 'single-use')
      for (const token of [delegated, await client.issueTo(userId, 'fixed'), once, 'junk']) {
        expectProblem(await client.post('/tokens/delegate', token, {}), 401, 'invalid_token')
      }
      expect(await client.live([delegated, once])).to.have.lengthOf(2)
    })

    it('replaces the oldest delegated token of a user who has many, and no session and no key', async () => {
      const { secret } = await create()
      const tokens: string[] = []
      for (let i = 0; i < 6; i++) {
        clock.advance(1)
        tokens.push((await delegate(secret)).token)
      }
      expect(await client.live([session, secret, ...tokens])).to.deep.equal([session, secret, ...tokens.slice(1)])
    })
  })
})
