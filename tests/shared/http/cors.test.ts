// CORS: by default no page of another origin can call a service; with CORS_ORIGINS, pages of the listed origins can.
import { expect } from 'chai'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'

const app = 'https://app.example.com'
const local = 'http://localhost:5173'
const preflight = { 'access-control-request-method': 'GET', 'access-control-request-headers': 'authorization' }

describe('CORS', () => {
  let url: string
  let authUrl: string
  let closedUrl: string

  before(async () => {
    const env = { CORS_ORIGINS: `${app}, ${local}` }
    authUrl = (await startAuth({ env })).url
    url = (await startBusiness('http://127.0.0.1:1', env)).url
    closedUrl = (await startBusiness('http://127.0.0.1:1')).url
  })
  after(closeServers)

  async function call(base: string, origin: string | null, { method = 'GET', path = '/data', headers = {} } = {}) {
    const sent = { connection: 'close', ...headers, ...(origin !== null && { origin }) }
    const answer = await fetch(`${base}${path}`, { method, headers: sent })
    const access = [...answer.headers].filter(([name]) => name.startsWith('access-control-'))
    return { status: answer.status, vary: answer.headers.get('vary'), access: Object.fromEntries(access), answer }
  }

  it('is off by default: no answer has its headers, not even to a preflight', async () => {
    for (const [method, status] of [
      ['GET', 401],
      ['OPTIONS', 200],
    ] as const) {
      const answer = await call(closedUrl, app, { method, headers: preflight })
      expect(answer).to.deep.include({ status, vary: null, access: {} })
    }
  })

  for (const origin of [app, local]) {
    it(`lets pages of ${origin} read answers and errors, never with credentials`, async () => {
      const access = {
        'access-control-allow-origin': origin,
        'access-control-expose-headers': 'X-Request-Id, Retry-After, RateLimit, WWW-Authenticate, Server-Timing',
      }
      expect(await call(url, origin)).to.deep.include({ status: 401, vary: 'Origin', access })
      expect(await call(url, origin, { path: '/health' })).to.deep.include({ status: 200, vary: 'Origin', access })
      expect(await call(url, origin, { path: '/nothing' })).to.deep.include({ status: 404, vary: 'Origin', access })
    })

    it(`answers a preflight from ${origin} with 204 and the methods and headers of the API`, async () => {
      for (const [base, path] of [
        [url, '/data'],
        [authUrl, '/login'],
        [authUrl, '/sessions/x'],
      ] as const) {
        const { answer, ...rest } = await call(base, origin, { method: 'OPTIONS', path, headers: preflight })
        expect(rest).to.deep.equal({
          status: 204,
          vary: 'Origin',
          access: {
            'access-control-allow-origin': origin,
            'access-control-allow-methods': 'GET, HEAD, POST, PATCH, DELETE',
            'access-control-allow-headers': 'Authorization, token, Content-Type, X-Request-Id',
            'access-control-max-age': '600',
          },
        })
        expect(await answer.text()).to.equal('')
        expect(answer.headers.has('content-type')).to.equal(false)
      }
    })
  }

  const others = [
    null,
    'null',
    '*',
    'http://app.example.com',
    'https://app.example.com:8443',
    'https://app.example.com:443',
    'https://app.example.com.evil.example',
    'https://evil-app.example.com',
    'https://evil.app.example.com',
    'https://app.example.co',
    'https://app.example.com/',
    'https://APP.EXAMPLE.COM',
    'https://app.example.com https://evil.example',
    'https://app.example.com@evil.example',
    'http://localhost:51730',
    'http://localhost',
    'file://',
  ]
  for (const origin of others) {
    it(`sends no header to the origin ${origin}`, async () => {
      expect(await call(url, origin)).to.deep.include({ status: 401, vary: 'Origin', access: {} })
      const asked = await call(url, origin, { method: 'OPTIONS', headers: preflight })
      expect(asked).to.deep.include({ status: 200, vary: 'Origin', access: {} })
    })
  }

  it('does not change an OPTIONS request that is no preflight: 200 with Allow', async () => {
    const { status, answer } = await call(url, app, { method: 'OPTIONS' })
    expect([status, answer.headers.get('allow')]).to.deep.equal([200, 'HEAD, GET'])
  })

  it('lets the same pages and no others read /openapi.json', async () => {
    const allowedTo = async (base: string, origin: string) => {
      const { status, access, answer } = await call(base, origin, { path: '/openapi.json' })
      expect(await answer.json()).to.have.property('openapi')
      return [status, access['access-control-allow-origin']]
    }
    for (const base of [url, authUrl]) {
      expect(await allowedTo(base, app)).to.deep.equal([200, app])
      expect(await allowedTo(base, 'https://evil.example')).to.deep.equal([200, undefined])
    }
    expect(await allowedTo(closedUrl, app)).to.deep.equal([200, undefined])
  })

  it('is not on an internal listener', async () => {
    const { internalUrl } = await startAuth({ env: { CORS_ORIGINS: app } })
    expect(await call(internalUrl, app, { path: '/health' })).to.deep.include({ status: 200, vary: null, access: {} })
  })
})
