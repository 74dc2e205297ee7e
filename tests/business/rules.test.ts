// The routes of Business that need a role or a scope, and their rules in the shadow.
import { expect } from 'chai'
import type { Admission } from '../../packages/client/contract.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { serviceKey } from '../support/credentials.ts'
import { admissionOf, type FakeAuth, startFakeAuth } from '../support/fakeAuth.ts'
import { closeServers, startBusiness } from '../support/servers.ts'

const granted: Record<string, Pick<Admission, 'roles' | 'scope'>> = {
  admin: { roles: ['admin', 'editor'], scope: null },
  editor: { roles: ['editor'], scope: null },
  writer: { roles: [], scope: 'orders:read orders:write' },
  reader: { roles: ['admin'], scope: 'orders:read' },
  bare: { roles: [], scope: '' },
}

describe('the rules of Business', () => {
  let auth: FakeAuth
  let business: Awaited<ReturnType<typeof startBusiness>>

  before(async () => {
    auth = await startFakeAuth()
    business = await startBusiness(auth.url)
  })

  beforeEach(() => {
    auth.reset()
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

  after(async () => {
    await closeServers()
    await auth.stop()
  })

  async function ask(url: string, route: string, token: string, body?: unknown) {
    const [method = '', path = ''] = route.split(' ')
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json', 'x-request-id': 'mine' }
    const json = body === undefined ? null : JSON.stringify(body)
    const answer = await fetch(`${url}${path}`, { method, headers, body: json })
    return { status: answer.status, headers: answer.headers, body: (await answer.json()) as Record<string, unknown> }
  }

  const getAdminData = (token: string, url = business.url) => ask(url, 'GET /admin/data', token)
  const order = (token: string, body: unknown = { item: 'a book', quantity: 2 }, url = business.url) =>
    ask(url, 'POST /orders', token, body)

  it('GET /admin/data needs the role admin', async () => {
    const { status, body } = await getAdminData('admin')
    expect(status).to.equal(200)
    expect(body).to.deep.equal({ data: 'Hello, admin!', roles: ['admin', 'editor'] })
    for (const token of ['editor', 'writer']) {
      const refused = await getAdminData(token)
      expect(refused.status, token).to.equal(403)
      expect(refused.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey", error="insufficient_scope"')
      expect(refused.headers.get('cache-control')).to.equal('no-store')
      expect(refused.body).to.deep.equal({
        type: '/problems/insufficient_scope',
        title: 'Insufficient scope',
        status: 403,
        detail: 'This needs the role admin, which the user of this token does not have.',
        error: 'insufficient_scope',
        requestId: 'mine',
      })
    }
  })

  it('POST /orders needs the scope orders:write, or a token without a scope', async () => {
    for (const token of ['writer', 'editor']) {
      const { status, body } = await order(token)
      expect(status).to.equal(201)
      expect(body).to.include({ item: 'a book', quantity: 2, orderedBy: token })
    }
    for (const token of ['reader', 'bare']) {
      const { status, headers, body } = await order(token)
      expect(status, token).to.equal(403)
      expect(headers.get('www-authenticate')).to.equal(
        'Bearer realm="latchkey", error="insufficient_scope", scope="orders:write"',
      )
      expect(body['detail']).to.equal('This needs the scope orders:write, which this token does not have.')
    }
  })

  it('POST /orders says what is wrong with a body, but not to a token without the scope', async () => {
    for (const body of [
      {},
      { item: '', quantity: 1 },
      { item: 'x', quantity: 0 },
      { item: 'x', quantity: 1, more: 1 },
    ]) {
      expect((await order('writer', body)).status, JSON.stringify(body)).to.equal(400)
      expect((await order('reader', body)).status).to.equal(403)
    }
  })

  it('are not reached without a live token', async () => {
    for (const { status } of [await getAdminData('dead'), await order('dead')]) expect(status).to.equal(401)
    auth.behave(call => call.reply({ status: 500 }))
    for (const { status } of [await getAdminData('admin'), await order('writer')]) expect(status).to.equal(503)
  })

  it('obey a change of roles and of scope on the next request', async () => {
    expect([(await getAdminData('admin')).status, (await order('writer')).status]).to.deep.equal([200, 201])
    auth.behave(call => call.reply({ body: { verdicts: [{ ...admissionOf('x'), roles: [], scope: 'orders:read' }] } }))
    expect([(await getAdminData('admin')).status, (await order('writer')).status]).to.deep.equal([403, 403])
  })

  it('no rule guards /data', async () => {
    for (const token of Object.keys(granted)) expect((await ask(business.url, 'GET /data', token)).status).to.equal(200)
  })

  it('the description says what is needed', async () => {
    const document = await ask(business.url, 'GET /openapi.json', 'none')
    const { get } = (
      document.body['paths'] as Record<string, Record<string, { description: string; security: unknown }>>
    )['/admin/data'] as { get: { description: string; security: unknown } }
    expect(get.description).to.match(/The user needs the role `admin`\.$/)
    expect(get.security).to.deep.equal([{ bearer: ['admin'] }, { tokenHeader: ['admin'] }])
  })

  describe('in the shadow', () => {
    const metric = async (url: string) =>
      [
        ...(await (await fetch(`${url}/metrics`)).text()).matchAll(/^latchkey_shadow_refusals_total\{rule="[^"].*$/gm),
      ].flat()
    const rulesOf = async (url: string) => (await ask(url, 'GET /shadowRules', 'none')).body['rules'] as object[]

    it('are none by default', async () => {
      expect(await rulesOf(business.internalUrl)).to.deep.equal([])
      expect(await metric(business.internalUrl)).to.deep.equal([])
      expect(business.lines.filter(({ event }) => event === 'rules_in_shadow')).to.deep.equal([])
    })

    it('refuse nothing, and count whom they would have refused', async () => {
      let now = 1000
      const shadow = await startBusiness(auth.url, { SHADOW_RULES: 'scope:orders:write' }, () => now)
      const rule = 'scope:orders:write'
      now += 60_000
      expect(await rulesOf(shadow.internalUrl)).to.deep.equal([
        { rule, countedMs: 60_000, met: 0, unmet: 0, last: null },
      ])
      expect(await metric(shadow.internalUrl)).to.deep.equal([`latchkey_shadow_refusals_total{rule="${rule}"} 0`])

      for (const token of ['writer', 'reader', 'reader', 'editor']) {
        expect((await order(token, undefined, shadow.url)).status, token).to.equal(201)
      }
      now += 5000
      expect(await rulesOf(shadow.internalUrl)).to.deep.equal([
        {
          ...{ rule, countedMs: 65_000, met: 2, unmet: 2 },
          last: { requestId: 'mine', tokenId: 'id-of-reader', userId: 'user-of-reader', agoMs: 5000 },
        },
      ])
      expect(await metric(shadow.internalUrl)).to.deep.equal([`latchkey_shadow_refusals_total{rule="${rule}"} 2`])
      expect((await getAdminData('editor', shadow.url)).status).to.equal(403)
      expect((await order('dead', undefined, shadow.url)).status).to.equal(401)
      expect(shadow.lines.filter(({ event }) => event === 'rules_in_shadow')).to.have.length(1)
    })

    it('must be rules of a route', () => {
      const read = (SHADOW_RULES: string) => readBusinessConfig({ SERVICE_KEY: serviceKey, SHADOW_RULES }).shadowRules
      expect(read('role:admin, scope:orders:write')).to.deep.equal(['role:admin', 'scope:orders:write'])
      expect(() => read('role:admim')).to.throw(
        'expected some of these, separated by commas: role:admin, scope:orders:write',
      )
    })
  })
})
