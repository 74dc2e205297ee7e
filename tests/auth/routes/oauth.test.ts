// POST /oauth/token and its metadata, with raw requests and with the clients that people use.
import { expect } from 'chai'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { type AuthApi, authApi, expectProblem } from '../../support/authApi.ts'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { serviceKey } from '../../support/credentials.ts'
import { freePort } from '../../support/freePort.ts'
import { closeServers, startAuth } from '../../support/servers.ts'

const exchangeGrant = 'urn:ietf:params:oauth:grant-type:token-exchange'
const accessToken = 'urn:ietf:params:oauth:token-type:access_token'

describe('OAuth', () => {
  const clock = createClock()
  let client: AuthApi
  let url: string
  let session: string
  let userId: string
  let key: { id: string; secret: string }

  before(async () => {
    const port = await freePort()
    url = `http://localhost:${port}`
    client = authApi(await startAuth({ now: clock.now, env: { AUTH_PORT: String(port), PUBLIC_URL: url } }))
  })
  beforeEach(async () => {
    const { user, token } = await client.newUser()
    session = token
    userId = user.id
    key = await createKey({ name: 'deploy', scope: 'orders:read orders:write' })
  })
  after(closeServers)

  const createKey = async (terms: object) =>
    (await client.post('/keys', session, terms)).body as unknown as { id: string; secret: string }

  const basic = (id: string, secret: string) => ({
    authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`,
  })

  async function request(form: Record<string, string>, headers: Record<string, string> = {}) {
    const sent = { 'content-type': 'application/x-www-form-urlencoded', ...headers }
    const answer = await fetch(`${client.url}/oauth/token`, {
      method: 'POST',
      headers: sent,
      body: new URLSearchParams(form),
    })
    const text = await answer.text()
    return { status: answer.status, headers: answer.headers, body: JSON.parse(text) as Record<string, unknown>, text }
  }

  const withKey = (form: Record<string, string> = {}) =>
    request({ grant_type: 'client_credentials', client_id: key.id, client_secret: key.secret, ...form })
  const exchange = (form: Record<string, string> = {}) =>
    request({ grant_type: exchangeGrant, subject_token: session, subject_token_type: accessToken, ...form })
  const validate = (token: unknown) => client.validate({ token })

  /** The form of RFC 6749, section 5.2. */
  function expectRefusal(answer: Awaited<ReturnType<typeof request>>, status: number, error: string): void {
    expect(answer.status, answer.text).to.equal(status)
    expect(answer.headers.get('content-type')).to.match(/^application\/json/)
    expect(answer.body).to.have.keys('error', 'error_description')
    expect(answer.body['error']).to.equal(error)
  }

  describe('client_credentials', () => {
    it('issues an access token that does what the key may do, and ends with it', async () => {
      const { status, body, headers } = await withKey()
      expect(status).to.equal(200)
      expect(headers.get('cache-control')).to.equal('no-store')
      expect(body).to.deep.equal({
        access_token: body['access_token'],
        token_type: 'Bearer',
        expires_in: 3600,
        scope: 'orders:read orders:write',
      })
      expect(await validate(body['access_token'])).to.deep.include({ authenticated: true, userId, keyName: 'deploy' })
      await client.delete(`/keys/${key.id}`, session)
      expect(await validate(body['access_token'])).to.deep.equal({ authenticated: false })
    })

    it('takes the credentials in HTTP Basic too, encoded or not, and narrows the scope', async () => {
      for (const secret of [key.secret, key.secret.replaceAll('_', '%5F')]) {
        const form = { grant_type: 'client_credentials', scope: 'orders:read' }
        const { status, body } = await request(form, basic(key.id, secret))
        expect(status).to.equal(200)
        expect(body['scope']).to.equal('orders:read')
      }
    })

    it('is a use of the key', async () => {
      await withKey()
      const { body } = await client.get<{ keys: { id: string; useCount: number }[] }>('/keys', session)
      expect(body.keys.find(({ id }) => id === key.id)?.useCount).to.equal(1)
    })

    it('gives an access token no longer a life than the key has left', async () => {
      key = await createKey({ name: 'short', expiresAt: clock.now() + 90_500 })
      expect((await withKey()).body)
        .to.include({ expires_in: 90 })
        .and.not.to.have.property('scope')
    })

    it('refuses wrong credentials with 401, and a session with its own id', async () => {
      const other = await createKey({ name: 'other' })
      for (const [id, secret] of [
        [key.id, other.secret],
        ['unknown', key.secret],
        [key.id, 'junk'],
        [session.slice(3, 17), session],
      ] as const) {
        const answer = await withKey({ client_id: id, client_secret: secret })
        expectRefusal(answer, 401, 'invalid_client')
        expect(answer.headers.get('www-authenticate')).to.match(/^Basic /)
        expectRefusal(await request({ grant_type: 'client_credentials' }, basic(id, secret)), 401, 'invalid_client')
      }
      expectRefusal(await request({ grant_type: 'client_credentials' }), 401, 'invalid_client')
      expect((await client.get<{ keys: { useCount: number }[] }>('/keys', session)).body.keys.map(k => k.useCount))
        .to //
        .deep.equal([0, 0])
    })

    it('refuses a scope beyond that of the key, and a malformed one', async () => {
      for (const scope of ['orders:read admin', 'a  b', 'a"b'])
        expectRefusal(await withKey({ scope }), 400, 'invalid_scope')
    })

    it('refuses a paused key, and obeys its rate', async () => {
      await client.send('PATCH', `/keys/${key.id}`, session, { rate: { perMinute: 1, burst: 1 } })
      expect((await withKey()).status).to.equal(200)
      const limited = await withKey()
      expect(limited.status).to.equal(429)
      expect(limited.headers.get('retry-after')).to.equal('60')
      await client.send('PATCH', `/keys/${key.id}`, session, { rate: null, paused: true })
      expectRefusal(await withKey(), 401, 'invalid_client')
    })

    it('refuses malformed requests in the form of OAuth', async () => {
      expectRefusal(await request({}), 400, 'invalid_request')
      expectRefusal(await request({ grant_type: 'password' }), 400, 'unsupported_grant_type')
      expectRefusal(await request({ grant_type: 'client_credentials', client_id: key.id }), 401, 'invalid_client')
      const form = { grant_type: 'client_credentials', client_secret: key.secret }
      expectRefusal(await request(form, basic(key.id, key.secret)), 400, 'invalid_request')
      const json = await ask('POST', `${client.url}/oauth/token`, null, { grant_type: 7 })
      expect([json.status, json.body['error']]).to.deep.equal([400, 'invalid_request'])
    })
  })

  describe('token exchange (RFC 8693)', () => {
    it('exchanges a session for a weaker token, which ends with it', async () => {
      const { status, body } = await exchange({ scope: 'orders:read', requested_token_type: accessToken })
      expect(status).to.equal(200)
      const facts = { token_type: 'Bearer', issued_token_type: accessToken, scope: 'orders:read', expires_in: 3600 }
      expect(body).to.deep.equal({ access_token: body['access_token'], ...facts })
      expect(await validate(body['access_token'])).to.deep.include({ userId, scope: 'orders:read', keyName: null })
      await client.post('/logout', session)
      expect(await validate(body['access_token'])).to.deep.equal({ authenticated: false })
    })

    it('names the actor: of the actor token, or the key of the client', async () => {
      const actor = { actor_token: key.secret, actor_token_type: accessToken }
      expect(await validate((await exchange(actor)).body['access_token'])).to.deep.include({ actor: { sub: 'deploy' } })
      const { user, token } = await client.newUser()
      const ofUser = await exchange({ actor_token: token, actor_token_type: accessToken })
      expect(await validate(ofUser.body['access_token'])).to.deep.include({ userId, actor: { sub: user.username } })
      const ofClient = await exchange({ client_id: key.id, client_secret: key.secret })
      expect(await validate(ofClient.body['access_token'])).to.deep.include({ actor: { sub: 'deploy' } })
    })

    it('exchanges a key, within its scope', async () => {
      const { body } = await exchange({ subject_token: key.secret, scope: 'orders:write' })
      expect(await validate(body['access_token'])).to.deep.include({ scope: 'orders:write', keyName: 'deploy' })
      expectRefusal(await exchange({ subject_token: key.secret, scope: 'admin' }), 400, 'invalid_scope')
    })

    it('refuses what it cannot exchange', async () => {
      const { body } = await exchange()
      for (const subject of [body['access_token'] as string, 'junk', await client.issueTo(userId, 'fixed')]) {
        expectRefusal(await exchange({ subject_token: subject }), 400, 'invalid_request')
      }
      const jwt = 'urn:ietf:params:oauth:token-type:jwt'
      expectRefusal(await exchange({ subject_token_type: jwt }), 400, 'invalid_request')
      expectRefusal(await exchange({ requested_token_type: jwt }), 400, 'invalid_request')
      expectRefusal(await exchange({ actor_token: key.secret }), 400, 'invalid_request')
      expectRefusal(await exchange({ actor_token: 'x', actor_token_type: accessToken }), 400, 'invalid_request')
      expectRefusal(await exchange({ audience: 'orders' }), 400, 'invalid_target')
      expectRefusal(await exchange({ client_id: key.id, client_secret: 'wrong' }), 401, 'invalid_client')
    })
  })

  it('describes itself (RFC 8414)', async () => {
    const { status, body } = await ask('GET', `${client.url}/.well-known/oauth-authorization-server`)
    expect(status).to.equal(200)
    expect(body).to.deep.include({ issuer: url, token_endpoint: `${url}/oauth/token`, response_types_supported: [] })
    expect(body).to.not.have.property('jwks_uri')
  })

  it('limits the wrong credentials of an address', async () => {
    const strict = authApi(await startAuth({ env: { INVALID_TOKEN_LIMIT_PER_ADDRESS: '2' } }))
    const form = { grant_type: 'client_credentials', client_id: 'x', client_secret: 'junk' }
    const statuses: number[] = []
    for (let i = 0; i < 3; i++) statuses.push((await ask('POST', `${strict.url}/oauth/token`, null, form)).status)
    expect(statuses).to.deep.equal([401, 401, 429])
    expectProblem(await ask('POST', `${strict.url}/oauth/token`, null, form), 429, 'too_many_requests')
  })

  describe('with openid-client', () => {
    for (const [how, authenticate] of [
      ['client_secret_basic', openid.ClientSecretBasic],
      ['client_secret_post', openid.ClientSecretPost],
    ] as const) {
      it(`discovers the server, and gets access tokens with ${how}`, async () => {
        const options = { algorithm: 'oauth2' as const, execute: [openid.allowInsecureRequests] }
        const config = await openid.discovery(new URL(url), key.id, key.secret, authenticate(), options)
        const tokens = await openid.clientCredentialsGrant(config, { scope: 'orders:read' })
        expect(tokens.expiresIn()).to.be.within(3590, 3600)
        expect(await validate(tokens.access_token)).to.include({ authenticated: true, scope: 'orders:read' })
        const exchanged = await openid.genericGrantRequest(config, exchangeGrant, {
          subject_token: session,
          subject_token_type: accessToken,
        })
        expect(await validate(exchanged.access_token)).to.deep.include({ userId, actor: { sub: 'deploy' } })
        await openid.tokenRevocation(config, tokens.access_token)
        expect(await validate(tokens.access_token)).to.deep.equal({ authenticated: false })
        const refused = await openid.clientCredentialsGrant(config, { scope: 'admin' }).catch((error: unknown) => error)
        expect(refused).to.be.instanceOf(openid.ResponseBodyError).and.include({ error: 'invalid_scope' })
      })
    }

    it('introspects an access token with the service key', async () => {
      const { body } = await withKey()
      const config = new openid.Configuration(
        { issuer: url, introspection_endpoint: `${client.internalUrl}/introspect` },
        'orders',
        serviceKey,
        openid.ClientSecretBasic(),
      )
      openid.allowInsecureRequests(config)
      const found = await openid.tokenIntrospection(config, body['access_token'] as string)
      expect(found).to.include({ active: true, sub: userId, scope: 'orders:read orders:write' })
      expect(found['act']).to.deep.equal({ sub: 'deploy' })
    })
  })

  it('answers oauth4webapi as it expects', async () => {
    const issuer = new URL(url)
    const insecure = { [oauth.allowInsecureRequests]: true }
    const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure })
    const server = await oauth.processDiscoveryResponse(issuer, found)
    const who = { client_id: key.id }
    const send = (secret: string) =>
      oauth.clientCredentialsGrantRequest(server, who, oauth.ClientSecretBasic(secret), {}, insecure)
    const tokens = await oauth.processClientCredentialsResponse(server, who, await send(key.secret))
    expect(await validate(tokens.access_token)).to.include({ authenticated: true })
    const wrong = await oauth.processClientCredentialsResponse(server, who, await send('wrong')).catch(error => error)
    expect(wrong).to.be.instanceOf(oauth.WWWAuthenticateChallengeError)
  })
})
