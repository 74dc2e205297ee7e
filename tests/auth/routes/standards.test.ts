// RFC 7662 introspection, RFC 7009 revocation, RFC 6750 challenges, forwardAuth and traceparent, with the RFCs' own examples.
import { expect } from 'chai'
import { post } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { isLive as isLiveAt, issueToken, logIn, type TokenTerms } from '../../support/factories.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'

type Auth = Awaited<ReturnType<typeof startAuth>>

const clock = createClock()
let auth: Auth

const introspect = (body: string, key = serviceKey, type = 'application/x-www-form-urlencoded') =>
  fetch(`${auth.internalUrl}/introspect`, {
    method: 'POST',
    headers: { 'content-type': type, accept: 'application/json', authorization: `Bearer ${key}` },
    body,
  })
const revoke = (body: string, headers: Record<string, string> = {}) =>
  fetch(`${auth.url}/revoke`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
    body,
  })
const issue = async (terms: TokenTerms) => (await issueToken(auth.internalUrl, terms)).token
const isLive = (token: string, purpose?: string) => isLiveAt(auth.internalUrl, token, purpose)

describe('the standards', () => {
  before(async () => {
    auth = await startAuth({ now: clock.now })
  })
  after(closeServers)

  describe('POST /introspect (RFC 7662)', () => {
    it('returns the members of the RFC for an active token, in seconds, and extends nothing', async () => {
      const token = await logIn(auth.url)
      const issuedAt = Math.floor(clock.now() / 1000)
      clock.advance(10_000)
      for (let i = 0; i < 2; i++) {
        // The example of RFC 7662, section 2.1, with its hint.
        const answer = await introspect(`token=${token}&token_type_hint=access_token`)
        expect(answer.status).to.equal(200)
        expect(answer.headers.get('cache-control')).to.equal('no-store')
        const { sub, ...rest } = (await answer.json()) as Record<string, unknown>
        expect(sub).to.match(/^demo-/)
        expect(rest).to.deep.equal({
          active: true,
          token_type: 'Bearer',
          iat: issuedAt,
          exp: issuedAt + 30,
          iss: 'http://localhost:0',
          jti: token.slice(3, 17),
          username: demo.username,
          kind: 'sliding',
          roles: [],
        })
      }
    })

    it('returns exactly { active: false } for every token that opens nothing, like the example of section 2.2', async () => {
      const dead = await logIn(auth.url)
      const purposeful = await issue({ kind: 'fixed', ttlSeconds: 60, purpose: 'reset' })
      clock.advance(30_000)
      for (const token of ['mF_9.B5f-4.1JqM', dead, purposeful, 'x'.repeat(5000), '%00', serviceKey]) {
        const answer = await introspect(`token=${encodeURIComponent(token)}`)
        expect(answer.status, token).to.equal(200)
        expect(await answer.json(), token).to.deep.equal({ active: false })
      }
    })

    it('consumes no single-use token, and returns neither sub nor username for a guest', async () => {
      const token = await issue({ kind: 'single-use', ttlSeconds: 60 })
      for (let i = 0; i < 2; i++) {
        const body = (await (await introspect(`token=${token}`)).json()) as object
        expect(body).to.include({ active: true, kind: 'single-use' })
        expect(body).to.not.have.any.keys('sub', 'username')
      }
    })

    it('refuses a client without a key before it looks at the token, which prevents token scanning (sections 2.1 and 4)', async () => {
      const token = await logIn(auth.url)
      const bodies = []
      for (const [key, secret] of [
        ['none', token],
        [token, token],
        ['none', 'x'],
        [adminKey.slice(1), token],
      ] as const) {
        const answer = await introspect(`token=${secret}`, key)
        expect(answer.status).to.equal(401)
        expect(answer.headers.get('www-authenticate')).to.include('Bearer')
        bodies.push((await answer.text()).replace(/"requestId":"[^"]*"/, ''))
      }
      expect(new Set(bodies).size).to.equal(1)
      expect((await introspect(`token=${token}`, adminKey)).status).to.equal(200)
    })

    describe('with HTTP Basic (section 2.1; RFC 6749, section 2.3.1)', () => {
      const basicOf = (user: string, password: string) =>
        `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
      const ask = async (headers: [string, string][], path = '/introspect') => {
        const head = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')
        const body = 'token=x'
        const type = 'Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n'
        const length = `Content-Length: ${body.length}\r\n`
        return sendRaw(auth.internalUrl, `POST ${path} HTTP/1.1\r\nHost: a\r\n${head}${type}${length}\r\n${body}`)
      }
      const encode = (text: string) => text.replace(/./gs, char => `%${char.charCodeAt(0).toString(16)}`)

      for (const [what, header] of [
        ['any client id and the service key', basicOf('my-service', serviceKey)],
        ['the scheme in another case', basicOf('x', serviceKey).replace('Basic', 'bAsIc')],
        ['both form-urlencoded', basicOf('my%20service%3A', encode(serviceKey))],
        ['a client id with a space as +', basicOf('my+service', serviceKey)],
        ['the admin key', basicOf('x', adminKey)],
      ] as const) {
        it(`accepts ${what}`, async () => {
          const { status, body } = await ask([['Authorization', header]])
          expect([status, JSON.parse(body)]).to.deep.equal([200, { active: false }])
        })
      }

      it('accepts the previous key, and a key that contains +, encoded or not', async () => {
        const previous = 'CANARY+previous+service+key/0123456789=='
        const { internalUrl } = await startAuth({ env: { SERVICE_KEY_PREVIOUS: previous } })
        for (const password of [previous, encodeURIComponent(previous)]) {
          const headers = { authorization: basicOf('x', password), 'content-type': 'application/x-www-form-urlencoded' }
          const answer = await fetch(`${internalUrl}/introspect`, { method: 'POST', headers, body: 'token=x' })
          expect(answer.status, password).to.equal(200)
        }
      })

      for (const [what, header] of [
        ['a wrong key', basicOf('x', serviceKey.slice(1))],
        ['no client id', basicOf('', serviceKey)],
        ['no password', basicOf('x', '')],
        ['the key as the client id', basicOf(serviceKey, 'x')],
        ['no colon', `Basic ${Buffer.from(serviceKey).toString('base64')}`],
        ['text that is not base64', `Basic x:${serviceKey}`],
        ['a percent sign that encodes nothing', basicOf('x', `${serviceKey}%`)],
        ['bytes that are not UTF-8', `Basic ${Buffer.from([120, 58, 255, 254]).toString('base64')}`],
        ['nothing after the scheme', 'Basic'],
        ['only blanks after the scheme', 'Basic   '],
      ] as const) {
        it(`is 401 for ${what}, and names the accepted schemes`, async () => {
          const { status, headers, body } = await ask([['Authorization', header]])
          expect(status).to.equal(401)
          const challenge = headers.get('www-authenticate')
          expect(challenge).to.equal(
            'Bearer realm="latchkey-internal", error="invalid_token", Basic realm="latchkey-internal", charset="UTF-8"',
          )
          expect(JSON.parse(body)).to.include({
            error: 'invalid_token',
            detail:
              'A key is needed here: Authorization: Bearer <SERVICE_KEY>, or Basic with any client id as the user name and SERVICE_KEY as the password.',
          })
        })
      }

      it('is 400 for two keys, whatever their schemes', async () => {
        const [basic, bearer] = [basicOf('x', serviceKey), `Bearer ${serviceKey}`]
        for (const headers of [
          ['Authorization', basic, 'Authorization', basic],
          ['Authorization', basic, 'Authorization', bearer],
          ['Authorization', bearer, 'Authorization', basic],
          ['Authorization', basic, 'token', serviceKey],
        ] as const) {
          const [first, second, third, fourth] = headers
          const { status, body } = await ask([
            [first, second],
            [third, fourth],
          ])
          expect([status, JSON.parse(body).error]).to.deep.equal([400, 'invalid_request'])
        }
      })

      it('logs that a key was wrong, without the key', async () => {
        const before = auth.lines.length
        await ask([['Authorization', basicOf('x', 'CANARY wrong')]])
        const found = auth.lines.slice(before).filter(({ event }) => event === 'key_refused')
        expect(found.map(({ key, reason }) => [key, reason])).to.deep.equal([['SERVICE_KEY', 'wrong']])
      })

      it('is not accepted on routes for Business or an operator, whose challenge does not offer it', async () => {
        for (const path of ['/validateToken', '/tokens']) {
          const { status, headers, body } = await ask([['Authorization', basicOf('x', adminKey)]], path)
          expect([status, headers.get('www-authenticate')]).to.deep.equal([401, 'Bearer realm="latchkey-internal"'])
          expect(JSON.parse(body).detail).to.match(
            /^A key is needed here: Authorization: Bearer <(SERVICE|ADMIN)_KEY>\.$/,
          )
        }
      })
    })

    it('accepts JSON too, ignores unknown members, and requires a token', async () => {
      const token = await logIn(auth.url)
      const answer = await introspect(JSON.stringify({ token, resource: 'x' }), serviceKey, 'application/json')
      expect(await answer.json()).to.include({ active: true })
      expect((await introspect('token_type_hint=access_token')).status).to.equal(400)
      expect((await introspect(`token=${token}&token=${token}`)).status).to.equal(400)
      expect((await introspect('token=x', serviceKey, 'text/plain')).status).to.equal(415)
    })
  })

  describe('POST /revoke (RFC 7009)', () => {
    it('ends the token before it answers, as in the example of section 2.1', async () => {
      const token = await logIn(auth.url)
      const answer = await revoke(`token=${token}&token_type_hint=refresh_token`)
      expect(answer.status).to.equal(200)
      expect(await isLive(token)).to.equal(false)
    })

    it('ends tokens of every kind and purpose for any client that holds one', async () => {
      const all: TokenTerms[] = [
        { kind: 'fixed', ttlSeconds: 60 },
        { kind: 'single-use', ttlSeconds: 60, purpose: 'reset' },
        { kind: 'sliding', ttlSeconds: 60 },
      ]
      for (const terms of all) {
        const token = await issue(terms)
        expect(await isLive(token, terms.purpose)).to.equal(true)
        expect((await revoke(`token=${token}`)).status).to.equal(200)
        expect(await isLive(token, terms.purpose)).to.equal(false)
      }
    })

    it('is 200 for a token that does not exist (section 2.2), and ignores credentials', async () => {
      const token = await logIn(auth.url)
      for (const body of [`token=${token}`, `token=${token}`, 'token=45ghiukldjahdnhzdauz', 'token=']) {
        expect((await revoke(body, { authorization: 'Bearer whatever' })).status, body).to.equal(200)
      }
    })

    it('requires one token: otherwise it is 400 invalid_request (section 2.2.1)', async () => {
      for (const body of ['x=1', 'token=a&token=b']) {
        const answer = await revoke(body)
        expect(answer.status).to.equal(400)
        expect(await answer.json()).to.include({ error: 'invalid_request' })
      }
    })
  })

  describe('the challenge of a 401 (RFC 6750 section 3)', () => {
    const challengeOf = async (headers: Record<string, string>) =>
      (await fetch(`${auth.url}/sessions`, { headers })).headers.get('www-authenticate')

    it('names invalid_token if a token was sent, and otherwise no error (section 3.1)', async () => {
      expect(await challengeOf({})).to.equal('Bearer realm="latchkey"')
      expect(await challengeOf({ authorization: 'Basic dXNlcjpwYXNz' })).to.equal('Bearer realm="latchkey"')
      for (const token of ['mF_9.B5f-4.1JqM', 'not a b64token!']) {
        expect(await challengeOf({ authorization: `Bearer ${token}` })).to.equal(
          'Bearer realm="latchkey", error="invalid_token"',
        )
      }
    })
  })

  describe('/forwardAuth', () => {
    const ask = (headers: Record<string, string>) => fetch(`${auth.internalUrl}/forwardAuth`, { headers })

    it('is 204 with the user of the token, and extends it as /data would', async () => {
      const token = await logIn(auth.url)
      clock.advance(29_000)
      const answer = await ask({ authorization: `Bearer ${token}` })
      expect(answer.status).to.equal(204)
      expect(answer.headers.get('x-auth-user')).to.equal(demo.username)
      clock.advance(29_000)
      expect((await ask({ token })).status).to.equal(204)
    })

    it('is 401, and never 400, for all that /data would refuse', async () => {
      const token = await logIn(auth.url)
      const headers: Record<string, string>[] = [
        {},
        { token: 'x' },
        { token, authorization: `Bearer ${token}` },
        { token: serviceKey },
      ]
      for (const sent of headers) expect((await ask(sent)).status).to.equal(401)
    })

    it('returns "-" for a guest, which no user can get, and percent-encodes a username that is not ASCII', async () => {
      const guest = await issue({ kind: 'sliding', ttlSeconds: 60 })
      // The header must not be empty: some proxies keep the client's own header if Auth's is missing or empty.
      const { headers } = await ask({ token: guest })
      expect([headers.get('x-auth-user-id'), headers.get('x-auth-user')]).to.deep.equal(['-', '-'])
      const dash = { username: '-', password: 'CANARY walrus gherkin plinth' }
      expect((await post(`${auth.url}/users`, dash)).status).to.equal(201)
      const ofDash = await ask({ token: await logIn(auth.url, dash) })
      expect(ofDash.headers.get('x-auth-user')).to.equal('%2D')
      expect(ofDash.headers.get('x-auth-user-id')).to.match(/^[\w-]{30,}$/)
      const credentials = { username: '☃ 50%é', password: 'CANARY walrus gherkin plinth' }
      expect((await post(`${auth.url}/users`, credentials)).status).to.equal(201)
      const answer = await ask({ token: await logIn(auth.url, credentials) })
      const written = answer.headers.get('x-auth-user') as string
      expect(written).to.match(/^[\x20-\x7e]+$/)
      expect(decodeURIComponent(written)).to.equal('☃ 50%é')
    })
  })

  describe('/forwardAuth/ followed by a path', () => {
    const ask = (request: string, headers: string) =>
      sendRaw(auth.internalUrl, `${request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${headers}\r\n`)

    it('is 200, the only status that Envoy passes on, for the method and path of any request', async () => {
      const token = await logIn(auth.url)
      for (const request of [
        'GET /forwardAuth/',
        'POST /forwardAuth/orders',
        'PUT /forwardAuth/orders/7?x=1',
        'PATCH /forwardAuth//a%2fb/%ff%',
        'DELETE /forwardAuth/../tokens/expired',
        'OPTIONS /forwardAuth/orders',
        'PROPFIND /forwardAuth/orders',
      ]) {
        const answer = await ask(request, `Authorization: Bearer ${token}\r\nContent-Length: 0\r\n`)
        expect([request, answer.status]).to.deep.equal([request, 200])
        expect(answer.headers.get('x-auth-user')?.trim()).to.equal(demo.username)
        expect((await ask(request, '')).status).to.equal(401)
        expect((await ask(request, `Authorization: Bearer ${adminKey}\r\n`)).status).to.equal(401)
      }
      const head = await ask('HEAD /forwardAuth/orders', `token: ${token}\r\n`)
      expect([head.status, head.body]).to.deep.equal([200, ''])
    })

    it('does not read the body of a request', async () => {
      const token = await logIn(auth.url)
      const headers = `token: ${token}\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n`
      for (const [path, status] of [
        ['/forwardAuth', 204],
        ['/forwardAuth/orders', 200],
      ] as const) {
        expect((await ask(`POST ${path}`, `${headers}\r\n{"token":"x"`)).status).to.equal(status)
      }
    })

    it('is the only route that accepts a path after it, and none in front of it', async () => {
      const token = await logIn(auth.url)
      for (const path of ['/forwardAuthX', '/x/forwardAuth', '/forwardauth/orders', '/introspect/orders']) {
        expect((await ask(`GET ${path}`, `token: ${token}\r\n`)).status, path).to.equal(404)
      }
      const { status } = await ask('GET /forwardAuth/orders', `token: ${token}\r\n`)
      expect(status).to.equal(200)
      expect((await fetch(`${auth.url}/forwardAuth/orders`, { headers: { token } })).status).to.equal(404)
    })
  })

  describe('traceparent (W3C Trace Context)', () => {
    const trace = '4bf92f3577b34da6a3ce929d0e0e4736'
    const traceparent = `00-${trace}-00f067aa0ba902b7-01`

    it('is logged by Business, passed on to Auth, and logged there', async () => {
      const business = await startBusiness(auth.internalUrl)
      const token = await logIn(auth.url)
      await fetch(`${business.url}/data`, { headers: { token, traceparent } })
      for (const { lines } of [business, auth]) {
        expect(lines.filter(line => line.event === 'request' && line['traceId'] === trace)).to.have.length(1)
      }
    })

    it('is ignored if it is malformed', async () => {
      const business = await startBusiness(auth.internalUrl)
      for (const bad of [
        'x',
        `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`,
        traceparent.toUpperCase(),
        `ff-${trace}-00f067aa0ba902b7-01`,
        `${traceparent}-more`,
      ]) {
        await fetch(`${business.url}/data`, { headers: { token: 'x', traceparent: bad } })
      }
      await sendRaw(
        business.url,
        `GET /data HTTP/1.1\r\nHost: x\r\ntraceparent: ${traceparent}\r\ntraceparent: ${traceparent}\r\nConnection: close\r\n\r\n`,
      )
      expect(business.lines.filter(line => line['traceId'] !== undefined)).to.deep.equal([])
    })
  })
})
