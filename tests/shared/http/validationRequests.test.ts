// POST /validateToken: its keys, its body and its exact responses.
import { expect } from 'chai'
import { demo, serviceKey } from '../../support/credentials.ts'
import {
  ask,
  bytesOf,
  expectProblem,
  json,
  previousKey,
  type Question,
  quietMs,
  startHttpSuite,
} from '../../support/httpSuite.ts'
import { sendRaw } from '../../support/raw.ts'

describe('HTTP of the internal listener', () => {
  const suite = startHttpSuite()
  const { clock, validate, logIn } = suite

  describe('POST /validateToken', () => {
    const authorizations: [
      what: string,
      authorization: () => Record<string, string> | Promise<Record<string, string>>,
    ][] = [
      ['no key', () => ({})],
      ['an empty key', () => ({ authorization: 'Bearer ' })],
      ['a wrong key', () => ({ authorization: `Bearer ${'x'.repeat(serviceKey.length)}` })],
      ['the beginning of our key', () => ({ authorization: `Bearer ${serviceKey.slice(0, -1)}` })],
      ['our key with one more character', () => ({ authorization: `Bearer ${serviceKey}x` })],
      ['our key in capitals', () => ({ authorization: `Bearer ${serviceKey.toUpperCase()}` })],
      ['our key under another scheme', () => ({ authorization: `Basic ${serviceKey}` })],
      ["a user's token", async () => ({ authorization: `Bearer ${await logIn()}` })],
      ["a user's token in the header token", async () => ({ token: await logIn() })],
    ]
    for (const [what, authorization] of authorizations) {
      it(`is 401 with ${what}, before the body is read`, async () => {
        const headers = await authorization()
        const path = `${suite.auth.internalUrl}/validateToken`
        const bodies: Question[] = [
          { headers: { ...headers, ...json }, body: '{"token":"a"}' },
          { headers: { ...headers, ...json }, body: '{' },
          { headers: { ...headers, ...json }, body: 'a'.repeat(600 * 1024) },
          { headers: { ...headers, 'content-type': 'text/plain' }, body: 'a' },
          { headers },
        ]
        for (const question of bodies) {
          const answer = await ask(path, question)
          expectProblem(answer, 401, /Authorization: Bearer/, 'invalid_token')
          expect(answer.headers.get('www-authenticate')).to.match(/^Bearer realm="/)
        }
      })
    }

    it('accepts the key and, during rotation, the previous one', async () => {
      for (const key of [serviceKey, previousKey]) {
        expect(await validate('{"token":"a"}', { authorization: `Bearer ${key}` })).to.include({
          status: 200,
          body: '{"authenticated":false}',
        })
      }
    })

    it('is 400 with two keys, even if one is right', async () => {
      const headers = [`Authorization: Bearer ${serviceKey}`, 'Authorization: Bearer wrong']
      const answer = await sendRaw(suite.auth.internalUrl, bytesOf('POST /validateToken HTTP/1.1', headers), quietMs)
      expectProblem(answer, 400, /token once/)
    })

    it('does not exist on the public listener, nor public routes on the internal one', async () => {
      const headers = { ...json, authorization: `Bearer ${serviceKey}` }
      expectProblem(await ask(`${suite.auth.url}/validateToken`, { headers, body: '{"token":"a"}' }), 404, /nothing/)
      for (const path of ['/login', '/logout', '/sessions']) {
        expectProblem(await ask(`${suite.auth.internalUrl}${path}`, { headers, body: '{}' }), 404, /nothing/)
      }
    })

    it('does not accept a key as a token: logging out with one revokes nothing', async () => {
      const token = await logIn()
      const answer = await ask(`${suite.auth.url}/logout`, { headers: { authorization: `Bearer ${serviceKey}` } })
      expect(answer.status).to.equal(204)
      expect((await validate(JSON.stringify({ token: serviceKey }))).body).to.equal('{"authenticated":false}')
      expect((await validate(JSON.stringify({ token }))).body).to.include('"authenticated":true')
    })

    const refused: [what: string, body: string, detail: RegExp][] = [
      ['neither token nor tokens', '{}', /^expected either token or tokens$/],
      ['both token and tokens', '{"token":"a","tokens":["a"]}', /^expected either token or tokens$/],
      ['a token that is null', '{"token":null}', /^token: expected a string$/],
      ['a token that is a number', '{"token":1}', /^token: expected a string$/],
      ['a token that is an array', '{"token":["a"]}', /^token: expected a string$/],
      ['a token that is an object', '{"token":{"$ne":1}}', /^token: expected a string$/],
      ['tokens that are null', '{"tokens":null}', /^tokens: expected an array of strings$/],
      ['tokens that are a string', '{"tokens":"a"}', /^tokens: expected an array of strings$/],
      ['tokens that look like an array', '{"tokens":{"0":"a","length":1}}', /^tokens: expected an array of strings$/],
      ['no tokens', '{"tokens":[]}', /^tokens: expected 1 to 256 tokens$/],
      ['257 tokens', JSON.stringify({ tokens: Array(257).fill('a') }), /^tokens: expected 1 to 256 tokens$/],
      ['null among tokens', '{"tokens":["a",null]}', /^tokens\.1: expected a string$/],
      ['a number among tokens', '{"tokens":["a","b",1e999]}', /^tokens\.2: expected a string$/],
      ['tokens among tokens', '{"tokens":[["a"]]}', /^tokens\.0: expected a string$/],
      ['an object among tokens', '{"tokens":[{}]}', /^tokens\.0: expected a string$/],
      ['an unknown member', '{"token":"a","userId":"b"}', /userId/],
      ['the member __proto__', '{"token":"a","__proto__":{"tokens":["a"]}}', /./],
      ['an array', '["a"]', /expected object/],
    ]
    for (const [what, body, detail] of refused) {
      it(`is 400 for ${what}, and no token in it is extended`, async () => {
        expectProblem(await validate(body), 400, detail)
      })
    }

    it('accepts 256 tokens', async () => {
      const { body } = await validate(JSON.stringify({ tokens: Array(256).fill('a') }))
      expect(JSON.parse(body)).to.deep.equal({ verdicts: Array(256).fill({ authenticated: false }) })
    })

    it('returns exactly the members of the contract for a live token, and exactly {authenticated: false} for others', async () => {
      const token = await logIn()
      const createdAt = clock.now()
      clock.advance(1000)
      const { headers, body } = await validate(JSON.stringify({ token }))
      expect(headers.get('content-type')).to.equal('application/json; charset=utf-8')
      const { tokenId, userId, ...rest } = JSON.parse(body) as Record<string, unknown>
      expect(rest).to.deep.equal({
        authenticated: true,
        kind: 'sliding',
        username: demo.username,
        createdAt,
        expiresAt: clock.now() + 30_000,
        absoluteExpiresAt: createdAt + 43_200_000,
        refreshCount: 1,
        roles: [],
        scope: null,
        keyName: null,
        actor: null,
      })
      expect(tokenId).to.match(/^[0-9A-Za-z]{14}$/)
      expect(userId).to.match(/^demo-[0-9a-f]{27}$/)
      expect(body).not.to.include(token)
      clock.advance(30_000)
      expect((await validate(JSON.stringify({ token }))).body).to.equal('{"authenticated":false}')
    })

    it('returns {authenticated: false} for malformed strings, each in its place', async () => {
      const [first, second] = [await logIn(), await logIn()]
      const changed = `${first.slice(0, -1)}${first.endsWith('0') ? '1' : '0'}`
      const ill = [
        '',
        ' ',
        'a',
        'lk_',
        changed,
        `${first} `,
        `${first}\r\n`,
        'é',
        '\ud800',
        '\0',
        '__proto__',
        'a'.repeat(3000),
      ]
      const { body } = await validate(JSON.stringify({ tokens: [first, ...ill, second, first] }))
      const { verdicts } = JSON.parse(body) as { verdicts: Record<string, unknown>[] }
      expect(verdicts.slice(1, -2)).to.deep.equal(ill.map(() => ({ authenticated: false })))
      const live = [verdicts[0], verdicts.at(-2), verdicts.at(-1)]
      expect(live.map(verdict => verdict?.['refreshCount'])).to.deep.equal([1, 1, 2])
      expect(live[0]?.['tokenId']).to.equal(live[2]?.['tokenId']).and.not.to.equal(live[1]?.['tokenId'])
      for (const token of ill)
        expect((await validate(JSON.stringify({ token }))).body).to.equal('{"authenticated":false}')
    })
  })
})
