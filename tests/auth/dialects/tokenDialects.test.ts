import { expect } from 'chai'
import { ask as askAsIs } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey } from '../../support/credentials.ts'
import {
  ask,
  badHeader,
  curl,
  expectNoSecretInLogs,
  logs,
  minute,
  said,
  secrets,
  start,
  uuidV4,
} from '../../support/dialects.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, startBusiness } from '../../support/servers.ts'

describe('the dialects for tokens without users', function () {
  this.slow(500)
  const clock = createClock()
  let opened: Awaited<ReturnType<typeof start>>

  before(async () => {
    opened = await start({}, clock.now)
    const started = await startBusiness(opened.authInternal)
    logs.push(started.lines)
  })

  after(closeServers)

  const sweep = () => askAsIs('DELETE', `${opened.authInternal}/tokens/expired`, adminKey)

  describe('token-provider', () => {
    const generate = async () => {
      const { status, body } = await curl('POST', `${opened.tokenProvider}/generate_token`)
      expect(status).to.equal(200)
      expect(body).to.have.all.keys('token')
      return String(body['token'])
    }
    const verify = async (token: string) =>
      said(await curl('GET', `${opened.tokenProvider}/verify_token`, { headers: { authorization: `Bearer ${token}` } }))
    const valid = (valid: boolean) => ({ status: 200, body: { valid } })

    it('issues a UUID of version 4 without a log-in, and accepts it', async () => {
      const token = await generate()
      expect(token).to.match(uuidV4)
      expect(await verify(token)).to.deep.equal(valid(true))
      expect(await verify(token.toUpperCase())).to.deep.equal(valid(true))
    })

    it('issues each UUID once, and reveals nothing of the token id in it', async () => {
      const tokens = await Promise.all(Array.from({ length: 300 }, generate))
      expect(new Set(tokens).size).to.equal(300)
      const issued = opened.lines.filter(({ event }) => event === 'token_issued').map(({ tokenId }) => String(tokenId))
      const asBytes = tokens.map(token => Buffer.from(token.replaceAll('-', ''), 'hex').toString('latin1'))
      expect(asBytes.some(bytes => issued.some(id => bytes.includes(id.slice(0, 4))))).to.equal(false)
    })

    it('is 200 and not valid for an unknown UUID, as documented', async () => {
      expect(await verify('f26c57d9-ec8c-b2dc-b90d-5891ee72ef6a')).to.deep.equal(valid(false))
      expect(await verify('00000000-0000-4000-8000-000000000000')).to.deep.equal(valid(false))
    })

    it('does not accept the UUIDs of an Auth with another ADMIN_KEY', async () => {
      const token = await generate()
      const { tokenProvider } = await start({ ADMIN_KEY: 'another-0123456789-zyxwvutsrqponmlkjihg' })
      const headers = { authorization: `Bearer ${token}` }
      expect((await curl('GET', `${tokenProvider}/verify_token`, { headers })).body).to.deep.equal({ valid: false })
    })

    const malformed: [string, Record<string, string>][] = [
      ['no header', {}],
      ['a header token', { token: 'f26c57d9-ec8c-42dc-b90d-5891ee72ef6a' }],
      ['another scheme', { authorization: 'Basic dXNlcjpwYXNzd29yZA==' }],
      ['no scheme', { authorization: 'f26c57d9-ec8c-42dc-b90d-5891ee72ef6a' }],
      ['no token', { authorization: 'Bearer ' }],
      ['text that is not a UUID', { authorization: 'Bearer xxx-xxx' }],
      ['a UUID and more', { authorization: 'Bearer f26c57d9-ec8c-42dc-b90d-5891ee72ef6a1' }],
      ['a UUID in braces', { authorization: 'Bearer {f26c57d9-ec8c-42dc-b90d-5891ee72ef6a}' }],
    ]
    for (const [what, headers] of malformed) {
      it(`is 400 in the words of its service for ${what}`, async () => {
        const answer = await curl('GET', `${opened.tokenProvider}/verify_token`, { headers })
        expect(said(answer)).to.deep.equal({ status: 400, body: { error: badHeader } })
      })
    }

    it('refuses two Authorization headers', async () => {
      const token = await generate()
      const header = `Authorization: Bearer ${token}\r\n`
      const bytes = `GET /verify_token HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${header}${header}\r\n`
      expect((await sendRaw(opened.tokenProvider, bytes)).status).to.equal(400)
    })

    it('is 401 at /, and asks for a valid URL', async () => {
      for (const method of ['GET', 'POST']) {
        const answer = await curl(method, `${opened.tokenProvider}/`)
        expect(said(answer)).to.deep.equal({ status: 401, body: { message: 'Please enter a valid URL.' } })
        expect(answer.headers.get('www-authenticate')).to.match(/^Bearer /)
      }
    })

    it('expires a token after TOKEN_EXPIRATION_TIME, to the millisecond, however often it is verified', async () => {
      const slow = createClock()
      const { tokenProvider, authInternal } = await start(
        { TOKEN_EXPIRATION_TIME: '5', TOKEN_CLEAR_FREQUENCY: '5' },
        slow.now,
      )
      const token = String((await curl('POST', `${tokenProvider}/generate_token`)).body['token'])
      const headers = { authorization: `Bearer ${token}` }
      const isValid = async () => (await curl('GET', `${tokenProvider}/verify_token`, { headers })).body['valid']
      for (const step of [0, 2500, 2499]) {
        slow.advance(step)
        await askAsIs('DELETE', `${authInternal}/tokens/expired`, adminKey)
        expect(await isValid()).to.equal(true)
      }
      slow.advance(1)
      expect(await isValid()).to.equal(false)
      await askAsIs('DELETE', `${authInternal}/tokens/expired`, adminKey)
      expect(await isValid()).to.equal(false)
    })

    it('expires a token after 60 seconds by default', async () => {
      const token = await generate()
      clock.advance(59_999)
      expect(await verify(token)).to.deep.equal(valid(true))
      clock.advance(1)
      expect(await verify(token)).to.deep.equal(valid(false))
    })
  })

  describe('token-manager', () => {
    const create = async () => {
      const headers = { 'content-type': 'application/json' } // the example of token-manager sends this without a body
      const { status, body } = await curl('POST', `${opened.tokenManager}/app/token`, { headers })
      expect(status).to.equal(200)
      expect(body).to.have.all.keys('status_code', 'token')
      expect(body['status_code']).to.equal(200)
      return String(body['token'])
    }
    const byPath = async (token: string) => said(await curl('GET', `${opened.tokenManager}/app/valid/${token}`))
    const byBody = async (body: unknown, path = 'token') =>
      said(await ask('POST', `${opened.tokenManager}/app/valid/${path}`, null, body))
    const status = (status: boolean) => ({ status: 200, body: { status_code: 200, status } })

    it('issues a token of digits, a colon and URL-safe characters without a log-in, and accepts it', async () => {
      const token = await create()
      expect(token).to.match(/^\d{6}:[\w-]{22,}$/)
      expect(await byPath(token)).to.deep.equal(status(true))
      expect(await byPath(encodeURIComponent(token))).to.deep.equal(status(true))
      expect(await byBody({ token })).to.deep.equal(status(true))
      expect(await byBody({ token, more: 1 }, '754321:whatever-is-here')).to.deep.equal(status(true))
    })

    it('is 200 and false for an unknown token', async () => {
      const token = await create()
      const [digits = '', rest] = token.split(':')
      const otherDigits = String(digits === '999999' ? 100_000 : Number(digits) + 1)
      for (const unknown of ['754321:xyz9AbC2DeF3GhI4JkL', `${otherDigits}:${rest}`, `${token}0`, token.slice(0, -1)]) {
        expect(await byPath(unknown)).to.deep.equal(status(false))
        expect(await byBody({ token: unknown })).to.deep.equal(status(false))
      }
    })

    const bad: [string, string | undefined][] = [
      ['no body', undefined],
      ['text that is not JSON', '{"token"'],
      ['no token', '{}'],
      ['a number', '{"token":1234567890123456789}'],
      ['fewer than 17 characters', '{"token":"123:abcdefghijkl"}'],
    ]
    for (const [what, body] of bad) {
      it(`is 422 with a list for ${what}, and repeats nothing of it`, async () => {
        const headers = { 'content-type': 'application/json' }
        const answer = await curl('POST', `${opened.tokenManager}/app/valid/x`, {
          headers,
          ...(body !== undefined && { body }),
        })
        expect(answer.status).to.equal(422)
        expect(answer.body['detail']).to.be.an('array').with.length(1)
        expect(answer.text).to.not.include('abcdefghijkl').and.not.include('12345')
      })
    }

    it('clears dead tokens only, without a key, in spite of the name of the route', async () => {
      const token = await create()
      const clear = async () => said(await curl('DELETE', `${opened.tokenManager}/app/clear/all/tokens`))
      expect(await clear()).to.deep.equal(status(true))
      expect(await byPath(token)).to.deep.equal(status(true))
    })

    it('expires a token after 60 minutes, however often it is validated, by path or by body', async () => {
      const token = await create()
      clock.advance(60 * minute - 1)
      await sweep()
      expect(await byPath(token)).to.deep.equal(status(true))
      expect(await byBody({ token })).to.deep.equal(status(true))
      clock.advance(1)
      expect(await byPath(token)).to.deep.equal(status(false))
      expect(await byBody({ token })).to.deep.equal(status(false))
    })

    it('expires a token after TOKEN_TTL_MINUTES if that is set', async () => {
      const slow = createClock()
      const { tokenManager } = await start({ TOKEN_TTL_MINUTES: '2' }, slow.now)
      const { body } = await curl('POST', `${tokenManager}/app/token`)
      slow.advance(2 * minute)
      const answer = await curl('GET', `${tokenManager}/app/valid/${body['token']}`)
      expect(said(answer)).to.deep.equal(status(false))
    })

    it('keeps the token in the URL out of the log, however it is encoded', async () => {
      const token = await create()
      const encoded = Array.from(token, character => `%${character.charCodeAt(0).toString(16)}`).join('')
      secrets.add(encoded)
      expect(await byPath(encoded)).to.deep.equal(status(true))
      const paths = opened.lines.filter(({ event, listener }) => event === 'request' && listener === 'tokenManager')
      const logged = JSON.stringify(paths)
      expect(logged).to.include('"/app/valid/…"')
      expect(logged).to.not.include('%')
    })
  })

  const issuers: [string, () => { create: string; isValid(token: string): Promise<boolean> }][] = [
    [
      'token-provider',
      () => ({
        create: `${opened.tokenProvider}/generate_token`,
        isValid: async token => {
          const headers = { authorization: `Bearer ${token}` }
          return (await curl('GET', `${opened.tokenProvider}/verify_token`, { headers })).body['valid'] === true
        },
      }),
    ],
    [
      'token-manager',
      () => ({
        create: `${opened.tokenManager}/app/token`,
        isValid: async token => {
          const path = `/app/valid/${encodeURIComponent(token)}`
          return (await curl('GET', opened.tokenManager + path)).body['status'] === true
        },
      }),
    ],
  ]
  for (const [name, of] of issuers) {
    describe(`the terms of a token of ${name}`, () => {
      const create = async (terms: object) => String((await ask('POST', of().create, null, terms)).body['token'])

      it('may be a shorter life', async () => {
        const [short, usual] = [await create({ ttl_seconds: 5 }), await create({})]
        clock.advance(5000)
        expect(await of().isValid(short)).to.equal(false)
        expect(await of().isValid(usual)).to.equal(true)
      })

      it('may be a single use', async () => {
        const [once, often] = [await create({ single_use: true }), await create({ single_use: false })]
        const seen = [await of().isValid(once), await of().isValid(once), await of().isValid(once)]
        expect(seen).to.deep.equal([true, false, false])
        expect([await of().isValid(often), await of().isValid(often)]).to.deep.equal([true, true])
      })

      for (const terms of [{ ttl_seconds: 0 }, { ttl_seconds: 1.5 }, { ttl_seconds: 4000 }, { ttl_seconds: '5' }]) {
        it(`are refused for ${JSON.stringify(terms)}`, async () => {
          const { status, body } = await ask('POST', of().create, null, terms)
          expect(status).to.equal(400)
          expect(body['detail']).to.match(/^ttl_seconds: expected a whole number of seconds, 1 to (60|3600)$/)
        })
      }

      it('are refused if single_use is no boolean', async () => {
        const { status, body } = await ask('POST', of().create, null, { single_use: 'yes' })
        expect([status, body['detail']]).to.deep.equal([400, 'single_use: expected true or false'])
      })

      it('are ignored in a body that is not JSON, as the older service does', async () => {
        const { status } = await curl('POST', of().create, { body: 'ttl_seconds=1' })
        expect(status).to.equal(200)
      })
    })
  }

  describe('the log', () => {
    it('has no token and no password, even at debug level, whatever was sent', () => expectNoSecretInLogs(20))
  })
})
