// Roles and scope at /forwardAuth and /introspect: what a proxy or a resource server can require, and what it learns.
import { expect } from 'chai'
import { type AuthApi, authApi } from '../../support/authApi.ts'
import { serviceKey } from '../../support/credentials.ts'
import { newUsername } from '../../support/factories.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, startAuth } from '../../support/servers.ts'

describe('roles and scope', () => {
  let auth: AuthApi
  let internalUrl: string
  let userId: string

  before(async () => {
    const started = await startAuth()
    auth = authApi(started)
    internalUrl = started.internalUrl
    const user = { username: newUsername(), password: 'a CANARY under a parasol', roles: ['admin', 'billing:read'] }
    userId = (await auth.operate<{ id: string }>('POST', '/admin/users', undefined, user)).body.id
  })
  after(closeServers)

  async function issue(terms: object = {}): Promise<string> {
    const body = { kind: 'fixed', ttlSeconds: 60, userId, ...terms }
    return (await auth.operate<{ token: string }>('POST', '/tokens', undefined, body)).body.token
  }

  describe('at /forwardAuth', () => {
    const ask = (query: string, token: string) =>
      fetch(`${internalUrl}/forwardAuth${query}`, { headers: { authorization: `Bearer ${token}` } })
    const rightsOf = ({ headers }: Response) => [headers.get('x-auth-roles'), headers.get('x-auth-scope')]

    it('are in headers that are never empty, for the service behind the proxy', async () => {
      for (const [terms, rights] of [
        [{}, ['admin,billing:read', '-']],
        [{ scope: 'orders:read orders:write' }, ['admin,billing:read', 'orders:read orders:write']],
        [{ scope: '-' }, ['admin,billing:read', '%2D']],
        [{ scope: '50%' }, ['admin,billing:read', '50%25']],
        [{ userId: undefined }, ['-', '-']],
      ] as const) {
        const answer = await ask('', await issue(terms))
        expect(answer.status).to.equal(204)
        expect(rightsOf(answer)).to.deep.equal(rights)
      }
    })

    it('admit a token that has all that the query names', async () => {
      const [session, key] = [await issue(), await issue({ scope: 'orders:read orders:write' })]
      for (const query of ['?role=admin', '?role=admin&role=billing:read', '?role=admin&scope=orders:write', '?x=1']) {
        expect((await ask(query, key)).status, query).to.equal(204)
      }
      for (const query of ['?scope=orders:read+orders:write', '?scope=orders:read&scope=orders:write']) {
        expect((await ask(query, key)).status, query).to.equal(204)
      }
      expect((await ask('?scope=anything', session)).status, 'a token without a scope').to.equal(204)
    })

    it('are 403 with the reason and the challenge of RFC 6750 otherwise', async () => {
      const key = await issue({ scope: 'orders:read' })
      for (const [query, scope, detail] of [
        ['?role=owner', '', 'This needs the role owner, which the user of this token does not have.'],
        [
          '?role=admin&role=owner',
          '',
          'This needs the roles admin, owner, which the user of this token does not have.',
        ],
        [
          '?role=admin&scope=orders:write',
          ', scope="orders:write"',
          'This needs the scope orders:write, which this token does not have.',
        ],
      ] as const) {
        const answer = await ask(query, key)
        expect(answer.status, query).to.equal(403)
        expect(answer.headers.get('www-authenticate')).to.equal(
          `Bearer realm="latchkey", error="insufficient_scope"${scope}`,
        )
        expect(rightsOf(answer)).to.deep.equal([null, null])
        expect(await answer.json()).to.include({ error: 'insufficient_scope', detail })
      }
    })

    it('are 401 before 403, and 400 for a query that names nothing valid, whatever the token', async () => {
      expect((await ask('?role=admin', 'unknown')).status).to.equal(401)
      for (const query of ['?role=', '?role=Admin', '?role=a,b', '?scope=', '?scope=a++b', '?scope=%22']) {
        for (const token of [await issue(), 'unknown']) {
          const answer = await ask(query, token)
          expect(answer.status, query).to.equal(400)
          expect(((await answer.json()) as { detail: string }).detail).to.match(
            /^The query is wrong: expected a (role|scope)/,
          )
        }
      }
    })

    it('obey a change at once', async () => {
      const key = await issue()
      expect((await ask('?role=admin', key)).status).to.equal(204)
      await auth.operate('PATCH', `/admin/users/${userId}`, undefined, { roles: ['billing:read'] })
      expect((await ask('?role=admin', key)).status).to.equal(403)
      await auth.operate('PATCH', `/admin/users/${userId}`, undefined, { roles: ['admin', 'billing:read'] })
      expect((await ask('?role=admin', key)).status).to.equal(204)
    })

    it('are not required by the query of the original request, which Envoy appends', async () => {
      const { status, headers } = await sendRaw(
        internalUrl,
        `GET /forwardAuth/orders?role=owner&scope=%22 HTTP/1.1\r\nHost: a\r\nConnection: close\r\ntoken: ${await issue()}\r\n\r\n`,
      )
      expect(status).to.equal(200)
      expect(headers.get('x-auth-roles')?.trim()).to.equal('admin,billing:read')
    })
  })

  describe('at /introspect', () => {
    async function introspect(token: string): Promise<Record<string, unknown>> {
      const answer = await fetch(`${internalUrl}/introspect`, {
        method: 'POST',
        headers: { authorization: `Bearer ${serviceKey}` },
        body: new URLSearchParams({ token }),
      })
      return (await answer.json()) as Record<string, unknown>
    }

    it('are members: roles as in RFC 9068, and scope as in RFC 7662 if the token has one', async () => {
      expect(await introspect(await issue({ scope: 'orders:read a' }))).to.deep.include({
        roles: ['admin', 'billing:read'],
        scope: 'orders:read a',
      })
      const session = await introspect(await issue())
      expect(session).to.deep.include({ active: true, roles: ['admin', 'billing:read'] })
      expect(session).to.not.have.property('scope')
      expect(await introspect(await issue({ userId: undefined }))).to.deep.include({ active: true, roles: [] })
    })
  })
})
