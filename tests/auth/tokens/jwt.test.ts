// TOKEN_FORMAT=jwt: JWTs that other services can verify and that end like opaque tokens. RFC 9068, RFC 8725, RFC 7517.
import { execFileSync, spawnSync } from 'node:child_process'
import { createPrivateKey, createPublicKey } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader, type JWK, jwtVerify, SignJWT } from 'jose'
import { makeTokenKey } from '../../../commands/keys/tokenKey.ts'
import { post } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo } from '../../support/credentials.ts'
import { isLive, logIn, validate } from '../../support/factories.ts'
import { newFolder, removeFolders } from '../../support/scratchFolders.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'
import { freshPlace } from '../../support/stores.ts'

type Key = JWK & { alg: string; kid: string }

const clock = createClock()
const edKey = makeTokenKey('EdDSA') as Key
const hsKey = makeTokenKey('HS256') as Key
const PUBLIC_URL = 'https://auth.example.com'

const start = (...keys: Key[]) => startOn({}, ...keys)

const startOn = (stores: Record<string, string>, ...keys: Key[]) =>
  startAuth({
    now: clock.now,
    env: { TOKEN_FORMAT: 'jwt', TOKEN_KEYS: JSON.stringify({ keys }), TOKEN_AUDIENCE: 'orders', PUBLIC_URL, ...stores },
  })

const rewrite = (token: string, part: 0 | 1, change: (members: Record<string, unknown>) => void) => {
  const parts = token.split('.')
  const members = JSON.parse(Buffer.from(parts[part] as string, 'base64url').toString())
  change(members)
  parts[part] = Buffer.from(JSON.stringify(members)).toString('base64url')
  return parts.join('.')
}

describe('tokens that are JWTs', () => {
  after(closeServers)

  for (const [name, key] of Object.entries({ EdDSA: edKey, HS256: hsKey })) {
    it(`are signed with ${name}, with the header and the claims of RFC 9068`, async () => {
      const auth = await start(key)
      const token = await logIn(auth.url)
      expect(decodeProtectedHeader(token)).to.deep.equal({ alg: name, typ: 'at+jwt', kid: key.kid })
      const verifier =
        key.kty === 'oct'
          ? Buffer.from(key.k as string, 'base64url')
          : createPublicKey(createPrivateKey({ key, format: 'jwk' } as never))
      const { payload } = await jwtVerify(token, verifier, {
        issuer: PUBLIC_URL,
        audience: 'orders',
        currentDate: new Date(clock.now()),
      })
      const seconds = Math.floor(clock.now() / 1000)
      expect(payload).to.include({
        iat: seconds,
        nbf: seconds,
        exp: seconds + 43_200,
        username: demo.username,
        client_id: 'latchkey',
      })
      expect(payload.sub).to.match(/^demo-/)
      expect(payload.jti).to.match(/^[0-9A-Za-z]{14}$/)
    })
  }

  it('slide, expire, renew and end like opaque tokens; exp is the absolute end', async () => {
    const auth = await start(edKey)
    const business = await startBusiness(auth.internalUrl)
    const data = async (token: string) => (await fetch(`${business.url}/data`, { headers: { token } })).status
    const token = await logIn(auth.url)
    for (let i = 0; i < 3; i++) {
      clock.advance(29_000)
      expect(await data(token)).to.equal(200)
    }
    const renewed = await post(`${auth.url}/renew`, {}, { authorization: `Bearer ${token}` })
    const { token: next } = renewed.body as { token: string }
    expect(decodeJwt(next)).to.include({ jti: decodeJwt(token).jti, exp: decodeJwt(token).exp })
    expect([await data(token), await data(next)]).to.deep.equal([401, 200])
    expect((await post(`${auth.url}/logout`, {}, { authorization: `Bearer ${next}` })).status).to.equal(204)
    expect(await data(next)).to.equal(401)
    const idle = await logIn(auth.url)
    clock.advance(30_000)
    expect(await data(idle)).to.equal(401)
  })

  it('end their session by any secret that it has had, and by no other', async () => {
    const auth = await start(edKey)
    const renew = async (token: string) => {
      const answer = await post(`${auth.url}/renew`, {}, { authorization: `Bearer ${token}` })
      return (answer.body as { token: string }).token
    }
    const logOut = (token: string) => post(`${auth.url}/logout`, {}, { authorization: `Bearer ${token}` })
    const first = await logIn(auth.url)
    const last = await renew(await renew(first))
    const claim = (name: string, value: unknown) => (claims: Record<string, unknown>) => {
      claims[name] = value
    }
    const strange = [
      rewrite(first, 1, claim('nonce', 'AAAAAAAAAAAAAAAA')),
      rewrite(last, 1, claim('lineage', 'AAAAAAAAAAAAAAAA')),
      rewrite(last, 1, claim('lineage', undefined)),
      rewrite(first, 1, claim('nonce', { toString: 'x' })),
    ]
    for (const token of strange) {
      expect((await logOut(token)).status).to.equal(204)
      expect(await isLive(auth.internalUrl, last)).to.equal(true)
    }
    expect((await logOut(first)).status).to.equal(204)
    expect(await isLive(auth.internalUrl, last)).to.equal(false)
  })

  it('verify with the published keys, which contain nothing private', async () => {
    const auth = await start(edKey, hsKey)
    const answer = await fetch(`${auth.url}/.well-known/jwks.json`)
    expect(answer.headers.get('cache-control')).to.equal('no-store') // no cache may show a key after it was removed
    const { keys } = (await answer.json()) as { keys: JWK[] }
    expect(keys).to.deep.equal([{ kty: 'OKP', crv: 'Ed25519', x: edKey.x, alg: 'EdDSA', kid: edKey.kid, use: 'sig' }])
    await jwtVerify(await logIn(auth.url), createLocalJWKSet({ keys }), { currentDate: new Date(clock.now()) })
  })

  it('are signed with the first key; tokens signed with a later key are valid until it is removed', async () => {
    const newKey = makeTokenKey('EdDSA') as Key
    const { url, remove } = await freshPlace('sqlite')
    const stores = { USER_STORE_URL: url, TOKEN_STORE_URL: url }
    const token = await logIn((await startOn(stores, edKey)).url)

    const during = await startOn(stores, newKey, edKey)
    const next = await logIn(during.url)
    expect([token, next].map(jwt => decodeProtectedHeader(jwt).kid)).to.deep.equal([edKey.kid, newKey.kid])
    expect([await isLive(during.internalUrl, token), await isLive(during.internalUrl, next)]).to.deep.equal([
      true,
      true,
    ])
    const { keys } = (await (await fetch(`${during.url}/.well-known/jwks.json`)).json()) as { keys: JWK[] }
    expect(keys.map(({ kid }) => kid)).to.deep.equal([newKey.kid, edKey.kid])

    const after = await startOn(stores, newKey)
    expect([await isLive(after.internalUrl, token), await isLive(after.internalUrl, next)]).to.deep.equal([false, true])
    await closeServers()
    await remove()
  })

  it('are refused in every forged form, without an internal error', async () => {
    const auth = await start(edKey, hsKey)
    const token = await logIn(auth.url)
    const claims = decodeJwt(token)
    const stranger = makeTokenKey('EdDSA') as Key
    const sign = (key: Key, header: Record<string, unknown>, more: object = {}) =>
      new SignJWT({ ...claims, ...more })
        .setProtectedHeader({ alg: key.alg, typ: 'at+jwt', kid: key.kid, ...header })
        .sign(
          key.kty === 'oct'
            ? Buffer.from(key.k as string, 'base64url')
            : createPrivateKey({ key, format: 'jwk' } as never),
        )
    const publicBytes = Buffer.from(edKey.x as string, 'base64url')
    const forged: Record<string, string> = {
      'alg none': rewrite(token, 0, header => Object.assign(header, { alg: 'none' })),
      'alg none, no signature': `${rewrite(token, 0, header => Object.assign(header, { alg: 'none' }))
        .split('.')
        .slice(0, 2)
        .join('.')}.`,
      'the public key as an HMAC key': await new SignJWT(claims)
        .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt', kid: edKey.kid })
        .sign(publicBytes),
      'an embedded key': await sign(stranger, { kid: edKey.kid, jwk: { kty: 'OKP', crv: 'Ed25519', x: stranger.x } }),
      'a stranger under our kid': await sign(stranger, { kid: edKey.kid }),
      'an unknown kid': await sign(stranger, {}),
      'a kid that is a path': await sign(stranger, { kid: '../../dev/null' }),
      crit: rewrite(token, 0, header => Object.assign(header, { crit: ['exp'] })),
      'our own key, not issued': await sign(edKey, {}, { nonce: 'another' }),
      'typ JWT': rewrite(token, 0, header => Object.assign(header, { typ: 'JWT' })),
      'another aud': rewrite(token, 1, claims => Object.assign(claims, { aud: 'other' })),
      'another iss': rewrite(token, 1, claims => Object.assign(claims, { iss: 'https://evil.example' })),
      'another sub': rewrite(token, 1, claims => Object.assign(claims, { sub: 'admin' })),
      'a later exp': rewrite(token, 1, claims => Object.assign(claims, { exp: 9e9 })),
      'no jti': rewrite(token, 1, claims => delete claims['jti']),
      'a jti that is a list': rewrite(token, 1, claims => Object.assign(claims, { jti: [1] })),
      'another bit of the signature': token.slice(0, -3) + (token.at(-3) === 'A' ? 'B' : 'A') + token.slice(-2),
      'the signature padded': `${token}=`,
      'no JSON': 'e30.bm90IGpzb24.c2ln',
      'not base64url': '!!!.***.###',
      'four parts': `${token}.x`,
      'two parts': token.split('.').slice(0, 2).join('.'),
      dots: '...',
      huge: `${'a'.repeat(1_000_00)}.b.c`,
      'invalid UTF-8': `${Buffer.from([0xff, 0xfe]).toString('base64url')}.e30.x`,
      'an opaque one': 'lk_0123456789abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQ',
    }
    for (const [name, secret] of Object.entries(forged)) {
      expect(await isLive(auth.internalUrl, secret), name).to.equal(false)
      const answer = await fetch(`${auth.url}/sessions`, {
        headers: { authorization: `Bearer ${secret.slice(0, 8000)}` },
      })
      expect(answer.status, name).to.equal(401)
    }
    expect(await isLive(auth.internalUrl, token)).to.equal(true)
  })

  it('can be of any kind: a guest has no user, and a single-use token is accepted once', async () => {
    const auth = await start(edKey)
    const answer = await post(
      `${auth.internalUrl}/tokens`,
      { kind: 'single-use', ttlSeconds: 60 },
      { authorization: `Bearer ${adminKey}` },
    )
    const { token } = answer.body as { token: string }
    const claims = decodeJwt(token)
    expect(claims.sub).to.equal(claims.jti)
    const verdicts = []
    for (let i = 0; i < 2; i++) verdicts.push((await validate(auth.internalUrl, { token })).body['authenticated'])
    expect(verdicts).to.deep.equal([true, false])
  })

  it('are off by default: there is no JWKS', async () => {
    const auth = await startAuth()
    expect((await fetch(`${auth.url}/.well-known/jwks.json`)).status).to.equal(404)
  })
})

describe('npm run token-keys', () => {
  after(removeFolders)

  const run = (...args: string[]) =>
    JSON.parse(
      execFileSync(process.execPath, ['commands/latchkey.ts', 'token-keys', ...args], { encoding: 'utf8' }),
    ) as {
      keys: Key[]
    }

  it('creates a key of either kind', () => {
    expect(run().keys[0]).to.include({ kty: 'OKP', crv: 'Ed25519', alg: 'EdDSA' })
    expect(Buffer.from(run('--algorithm', 'HS256').keys[0]?.k as string, 'base64url')).to.have.length(32)
  })

  it('quotes nothing of a file that is no set of keys', () => {
    const file = join(newFolder(), 'keys.json')
    for (const text of ['hunter2-hunter2', '{"k": "hunter2"}', '{"keys": [{"k": "hunter2"}']) {
      writeFileSync(file, text)
      const args = ['commands/latchkey.ts', 'token-keys', '--add-to', file]
      const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
      expect({ status, stdout }).to.deep.equal({ status: 1, stdout: '' })
      expect(stderr).to.equal(`--add-to: expected a JWK Set, {"keys": […]}; ${file} is something else.\n`)
    }
  })
})
