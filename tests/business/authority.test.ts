// A change of roles or scope at a real Auth, as a client of Business sees it: the very next request obeys.
import { expect } from 'chai'
import { type AuthClient, openAuthClient } from '../../packages/client/authClient.ts'
import type { HoldEnd } from '../../packages/client/holds.ts'
import { type AuthApi, authApi } from '../support/authApi.ts'
import { serviceKey } from '../support/credentials.ts'
import { newUsername } from '../support/factories.ts'
import { collectLog } from '../support/log.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'
import { slackMs } from '../support/slack.ts'
import { until } from '../support/until.ts'

describe('a change of what a token may do', () => {
  let auth: AuthApi
  let businesses: string[]
  let client: AuthClient

  before(async () => {
    const started = await startAuth()
    auth = authApi(started)
    businesses = [(await startBusiness(started.internalUrl)).url, (await startBusiness(started.internalUrl)).url]
    const { log } = collectLog('client')
    client = openAuthClient({ url: started.internalUrl, key: serviceKey, log, monotonicNow: () => performance.now() })
  })
  after(async () => {
    await client.close()
    await closeServers()
  })

  async function newUser(roles: string[] = []) {
    const credentials = { username: newUsername(), password: 'a CANARY under a parasol' }
    const { body } = await auth.operate<{ id: string }>('POST', '/admin/users', undefined, { ...credentials, roles })
    const token = (await auth.logIn(credentials)).body['token'] as string
    return { id: body.id, token }
  }

  const setRoles = (id: string, roles: string[]) => auth.operate('PATCH', `/admin/users/${id}`, undefined, { roles })

  async function statuses(method: string, path: string, token: string): Promise<number[]> {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
    const body = method === 'POST' ? JSON.stringify({ item: 'a book', quantity: 1 }) : null
    return Promise.all(businesses.map(async url => (await fetch(`${url}${path}`, { method, headers, body })).status))
  }

  it('opens and closes GET /admin/data in every Business, while GET /data stays open', async () => {
    const { id, token } = await newUser()
    for (const [roles, status] of [
      [[], 403],
      [['admin'], 200],
      [['editor'], 403],
      [['editor', 'admin'], 200],
    ] as const) {
      await setRoles(id, [...roles])
      expect(await statuses('GET', '/admin/data', token)).to.deep.equal([status, status])
      expect(await statuses('GET', '/data', token)).to.deep.equal([200, 200])
    }
  })

  it('opens and closes POST /orders for a token with a scope, and a session may order anyway', async () => {
    const { id, token: session } = await newUser()
    const terms = { kind: 'fixed', ttlSeconds: 60, userId: id, scope: 'orders:read' }
    const { body } = await auth.operate<{ token: string; tokenId: string }>('POST', '/tokens', undefined, terms)
    for (const [scope, status] of [
      ['orders:read', 403],
      ['orders:read orders:write', 201],
      ['orders:writes', 403],
      [null, 201],
    ] as const) {
      await auth.operate('PATCH', `/tokens/${body.tokenId}`, undefined, { scope })
      expect(await statuses('POST', '/orders', body.token), `${scope}`).to.deep.equal([status, status])
      expect(await statuses('POST', '/orders', session)).to.deep.equal([201, 201])
    }
  })

  it('ends a held connection that needs the role within two seconds, and no other', async () => {
    const { id, token } = await newUser(['admin'])
    const ends: HoldEnd[] = []
    client.hold(token, { role: 'admin', onEnd: reason => ends.push(reason) })
    const other = client.hold(token, { onEnd: reason => ends.push(reason) })
    await until(async () => (await setRoles(id, ['admin', 'editor'])).status === 200)
    expect(ends).to.deep.equal([])
    const startedAt = performance.now()
    await setRoles(id, [])
    await until(() => ends.length > 0)
    expect(ends).to.deep.equal(['insufficient_scope'])
    expect(performance.now() - startedAt).to.be.below(2000 + slackMs)
    expect(client.holds()).to.equal(1)
    other.release()
  })
})
