// The guards of every framework: who passes, what the others get, and that a request is validated once.
import { expect } from 'chai'
import type { Admission } from '../../packages/client/contract.ts'
import { latchkey as forHono } from '../../packages/client/hono.ts'
import { latchkey } from '../../packages/client/index.ts'
import type { ShadowRefusal, ShadowRule } from '../../packages/client/shadowRules.ts'
import { serviceKey } from '../support/credentials.ts'
import { admissionOf, type FakeAuth, startFakeAuth } from '../support/fakeAuth.ts'
import { type GuardService, services } from '../support/guardServices.ts'

const log = { info: () => {}, warn: () => {} }

/** What the fake Auth says of each token. Every other token is refused. */
const granted: Record<string, Pick<Admission, 'roles' | 'scope'> & Partial<Admission>> = {
  admin: { roles: ['editor', 'admin'], scope: null },
  editor: { roles: ['editor'], scope: null },
  nearly: { roles: ['admin2', 'Admin', 'admi'], scope: 'orders:writes orders' },
  key: { roles: ['admin'], scope: 'orders:read orders:write' },
  reader: { roles: ['admin'], scope: 'orders:read' },
  bare: { roles: [], scope: '' },
  agent: { roles: ['admin'], scope: 'orders:read orders:write', keyName: 'deploy', actor: { sub: 'agent' } },
}

const challenge = 'Bearer realm="latchkey", error="insufficient_scope"'

describe('the guards of the client', () => {
  let auth: FakeAuth
  const refusals: ShadowRefusal[] = []

  before(async () => {
    auth = await startFakeAuth()
  })

  beforeEach(() => {
    auth.reset()
    refusals.length = 0
    auth.behave(call =>
      call.reply({
        body: {
          verdicts: call.tokens.map(token =>
            granted[token] ? { ...admissionOf(token), ...granted[token] } : { authenticated: false },
          ),
        },
      }),
    )
  })

  after(() => auth.stop())

  for (const [framework, start] of Object.entries(services)) {
    describe(`of ${framework}`, () => {
      let service: GuardService

      before(async () => {
        service = await start({ url: auth.url, key: serviceKey, log, onShadow: one => void refusals.push(one) })
      })

      after(() => service.close())

      async function get(path: string, token?: string) {
        const headers = { 'X-Request-Id': 'my-request', ...(token && { Authorization: `Bearer ${token}` }) }
        const answer = await fetch(`${service.url}${path}`, { headers })
        const body = (await answer.json()) as Record<string, unknown>
        return { status: answer.status, headers: answer.headers, body }
      }

      it('admit a role and a scope that are granted, and show whom the token belongs to', async () => {
        for (const [path, token] of [
          ['/role', 'admin'],
          ['/role', 'reader'],
          ['/scope', 'key'],
          ['/behind', 'key'],
          ['/role', 'agent'],
          ['/behind', 'agent'],
        ] as const) {
          const { status, body } = await get(path, token)
          expect(status, `${path} ${token}`).to.equal(200)
          const userId = `user-of-${token}`
          expect(body).to.deep.equal({ userId, keyName: null, actor: null, ...granted[token] })
        }
      })

      it('admit a session at every scope', async () => {
        for (const path of ['/scope', '/shadow']) expect((await get(path, 'editor')).status).to.equal(200)
        expect((await get('/behind', 'admin')).status).to.equal(200)
      })

      it('admit no token with an empty scope where a scope is needed, and count it in the shadow', async () => {
        const { unmet } = service.shadowRules()[0] as ShadowRule
        for (const path of ['/scope', '/behind']) expect((await get(path, 'bare')).status, path).to.equal(403)
        const { status, body } = await get('/shadow', 'bare')
        expect([status, body['scope']]).to.deep.equal([200, ''])
        expect(service.shadowRules()[0]?.unmet).to.equal(unmet + 1)
      })

      it('are 403 without the role, and say which is needed', async () => {
        for (const token of ['editor', 'nearly', 'bare']) {
          const { status, headers, body } = await get('/role', token)
          expect(status, token).to.equal(403)
          expect(headers.get('www-authenticate')).to.equal(challenge)
          expect(body['error']).to.equal('insufficient_scope')
          expect(body['detail']).to.equal('This needs the role admin, which the user of this token does not have.')
        }
      })

      it('are 403 without the scope, which the challenge names', async () => {
        for (const token of ['reader', 'nearly', 'bare']) {
          const { status, headers, body } = await get('/scope', token)
          expect(status, token).to.equal(403)
          expect(headers.get('www-authenticate')).to.equal(`${challenge}, scope="orders:read orders:write"`)
          expect(body['error']).to.equal('insufficient_scope')
          expect(body['detail']).to.equal(
            'This needs the scopes orders:read orders:write, which this token does not have.',
          )
        }
      })

      // Without a framework the service writes the answer itself.
      const itWritesAnswers = framework === 'none' ? () => null : it
      itWritesAnswers('answer a refusal with a problem document that no cache stores', async () => {
        for (const [path, token] of [
          ['/role', 'editor'],
          ['/behind', 'reader'],
        ]) {
          const { status, headers, body } = await get(path as string, token)
          expect(status).to.equal(403)
          expect(headers.get('content-type')).to.match(/^application\/problem\+json/)
          expect(headers.get('cache-control')).to.equal('no-store')
          expect(headers.get('x-request-id')).to.equal('my-request')
          expect(body).to.include({ status: 403, title: 'Forbidden', requestId: 'my-request' })
        }
      })

      it('refuse like requireToken without a live token', async () => {
        for (const path of ['/role', '/scope', '/behind', '/shadow']) {
          expect((await get(path)).status).to.equal(401)
          const { status, headers } = await get(path, 'dead')
          expect(status).to.equal(401)
          expect(headers.get('www-authenticate')).to.equal('Bearer realm="latchkey", error="invalid_token"')
        }
        auth.behave(call => call.reply({ status: 500 }))
        for (const path of ['/role', '/behind', '/shadow']) expect((await get(path, 'admin')).status).to.equal(503)
      })

      it('validate a request once, however many there are, and the next request again', async () => {
        for (const token of ['key', 'reader', 'key']) await get('/behind', token)
        expect(auth.tokens()).to.deep.equal(['key', 'reader', 'key'])
        await get('/role', 'admin')
        expect(auth.tokens()).to.have.length(4)
      })

      it('obey a role that was taken away on the next request', async () => {
        expect((await get('/role', 'admin')).status).to.equal(200)
        auth.behave(call => call.reply({ body: { verdicts: [{ ...admissionOf('admin'), roles: [] }] } }))
        expect((await get('/role', 'admin')).status).to.equal(403)
      })

      it('refuse nothing in the shadow, and count whom they would have refused', async () => {
        const { met, unmet } = service.shadowRules()[0] as ShadowRule
        for (const token of ['key', 'reader', 'editor']) expect((await get('/shadow', token)).status).to.equal(200)
        const request = { requestId: 'my-request', tokenId: 'id-of-reader', userId: 'user-of-reader' }
        expect(refusals).to.deep.equal([{ rule: 'scope:orders:write', ...request }])
        const [first, ...others] = service.shadowRules()
        const { countedMs, last, ...counts } = first as ShadowRule
        expect(counts).to.deep.equal({ rule: 'scope:orders:write', met: met + 2, unmet: unmet + 1 })
        expect(last).to.include(request)
        expect(last?.agoMs).to.be.within(0, countedMs)
        expect(others).to.deep.equal([])
      })
    })
  }

  it('throw at once for a wrong name or option, and say what is expected', () => {
    const client = latchkey({ url: auth.url, key: serviceKey, log })
    const role = /expected a role such as admin: 1 to 64 of the characters/
    const scope = /expected a scope such as orders:write: visible ASCII characters/
    for (const name of [
      '',
      'Admin',
      'a b',
      'a,b',
      '-a',
      'ä',
      'a'.repeat(65),
      7,
      null,
      undefined,
      [],
      [7],
      ['a', 'B'],
      {},
    ]) {
      expect(() => client.requireRole(name as never), JSON.stringify(name)).to.throw(TypeError, role)
    }
    for (const name of ['', 'a b', 'a"', 'a\\', 'ä', '\x7f', 7, [], [7], ['a', ''], Array(17).fill('a')]) {
      expect(() => client.requireScope(name as never), JSON.stringify(name)).to.throw(TypeError, scope)
    }
    for (const option of [{ shadwo: true }, { shadow: 'false' }, { shadow: 1 }]) {
      expect(() => client.requireRole('admin', option as never), JSON.stringify(option)).to.throw(TypeError, /shadow/)
    }
    client.requireScope(Array(16).fill('a'))
    for (const name of ['a', '0', 'latchkey:operator', 'a'.repeat(64)]) client.requireRole(name)
    for (const name of ['!', '*', 'https://example.com/orders', 'a'.repeat(256)]) client.requireScope(name)
    expect(client.shadowRules()).to.deep.equal([])
  })

  it('list a shadow rule before it has counted anything, and two of the same name as one', async () => {
    const client = latchkey({ url: auth.url, key: serviceKey, log })
    const guards = [0, 1].map(() => client.requireRole(['admin', 'editor'], { shadow: true }))
    const [zero] = client.shadowRules()
    expect(zero).to.deep.include({ rule: 'role:admin editor', met: 0, unmet: 0, last: null })
    for (const guard of guards) await guard({ rawHeaders: ['token', 'editor'] })
    expect(client.shadowRules()).to.have.length(1)
    expect(client.shadowRules()[0]).to.include({ met: 0, unmet: 2 })
    await client.close()
  })

  it('name all roles that are needed', async () => {
    const client = latchkey({ url: auth.url, key: serviceKey, log })
    const refused = await client
      .requireRole(['admin', 'auditor'])({ rawHeaders: ['token', 'admin'] })
      .catch(error => error)
    expect(refused.message).to.equal('This needs the roles admin, auditor, which the user of this token does not have.')
    await client.close()
  })

  it('count in the shadow without onShadow, under the request id of the client', async () => {
    const warnings: string[] = []
    const client = latchkey({
      ...{ url: auth.url, key: serviceKey },
      log: { info: () => {}, warn: event => warnings.push(event) },
    })
    const request = { rawHeaders: ['token', 'editor', 'X-Request-Id', 'mine'] }
    await client.requireRole('admin', { shadow: true })(request, await client.authenticate(request))
    expect(client.shadowRules()[0]?.last).to.include({ requestId: 'mine' })
    expect(warnings).to.deep.equal([])
    expect(auth.tokens()).to.deep.equal(['editor'])
    await client.close()
  })

  it('let a request pass in the shadow although onShadow throws, and log that', async () => {
    const warnings: unknown[] = []
    const onShadow = () => {
      throw new Error('of the hook')
    }
    const client = latchkey({
      ...{ url: auth.url, key: serviceKey, onShadow },
      log: { info: () => {}, warn: (event, { cause }) => warnings.push([event, String(cause)]) },
    })
    const guard = client.requireRole('admin', { shadow: true })
    expect(await guard({ rawHeaders: ['token', 'editor'] })).to.include({ username: 'editor' })
    expect(warnings).to.deep.equal([['on_shadow_failed', 'Error: of the hook']])
    await client.close()
  })

  it('ask again if the verdict of a request is that of another client', async () => {
    const options = { url: auth.url, key: serviceKey, log }
    const [one, other] = [forHono(options), forHono(options)]
    const { Hono } = await import('hono')
    const app = new Hono().get('/', one.requireToken(), other.requireRole('admin'), c => c.text('ok'))
    expect((await app.request('/', { headers: { token: 'admin' } })).status).to.equal(200)
    expect(auth.tokens()).to.deep.equal(['admin', 'admin'])
    await Promise.all([one.close(), other.close()])
  })

  it('believe no `auth` that other middleware has set', async () => {
    const client = forHono({ url: auth.url, key: serviceKey, log })
    const { Hono } = await import('hono')
    const app = new Hono()
      .use(async (c, next) => {
        c.set('auth' as never, { ...admissionOf('admin'), roles: ['admin'] } as never)
        await next()
      })
      .get('/', client.requireRole('admin'), c => c.text('ok'))
    expect((await app.request('/', { headers: { token: 'editor' } })).status).to.equal(403)
    await client.close()
  })
})
