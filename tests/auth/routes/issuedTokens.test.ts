// /tokens and /validateToken: how operators issue, find and end tokens, and how these tokens are validated.
import { expect } from 'chai'
import { drawTokenId } from '../../../services/auth/tokens/format.ts'
import { type AuthApi, authApi, expectProblem } from '../../support/authApi.ts'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { type IssuedToken, issueToken, logIn, type TokenTerms } from '../../support/factories.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { freshPlace, schemesHere } from '../../support/stores.ts'

const ttlMs = 30_000

const junkIds = ['junk', '%00', '..%2f', '%E0%A4%A', '0'.repeat(14), '0'.repeat(4000), 'lk_', '__proto__', '*']

describe('tokens', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>
  let client: AuthApi
  let userId: string

  before(async () => {
    auth = await startAuth({ now: clock.now })
    client = authApi(auth)
    userId = (await client.admissionOf(await client.session())).userId as string
  })
  afterEach('the log has no secret and no internal error', () => {
    expect(JSON.stringify(auth.lines)).to.not.match(/lk_\w{14}/)
    expect(auth.lines.filter(({ level, channel }) => /error|warn/.test(level) && channel !== 'security')).to.deep.equal(
      [],
    )
  })
  after(closeServers)

  /** Issues a session without a log-in, which would hash a password. */
  const openSession = async () => (await client.issue({ kind: 'sliding', ttlSeconds: ttlMs / 1000, userId })).token

  describe('POST /tokens', () => {
    const issued: [
      what: string,
      terms: TokenTerms & { ttlSeconds: number },
      ofUser: boolean,
      absoluteSeconds: number,
    ][] = [
      ['a sliding token for a user', { kind: 'sliding', ttlSeconds: 60 }, true, 43_200],
      ['a sliding token for a guest', { kind: 'sliding', ttlSeconds: 60 }, false, 43_200],
      ['a sliding token that outlives sessions', { kind: 'sliding', ttlSeconds: 90_000 }, false, 90_000],
      ['a sliding token with its own end', { kind: 'sliding', ttlSeconds: 60, absoluteTtlSeconds: 60 }, true, 60],
      ['a fixed token for a user', { kind: 'fixed', ttlSeconds: 1 }, true, 1],
      ['a fixed token for a guest', { kind: 'fixed', ttlSeconds: 86_400 * 365 }, false, 86_400 * 365],
      ['a single-use token for a user', { kind: 'single-use', ttlSeconds: 600 }, true, 600],
      ['a single-use token with a purpose', { kind: 'single-use', ttlSeconds: 600, purpose: 're-set_1.x' }, true, 600],
      ['a sliding token with a purpose', { kind: 'sliding', ttlSeconds: 600, purpose: 'p'.repeat(64) }, false, 43_200],
    ]
    for (const [what, terms, ofUser, absoluteSeconds] of issued) {
      it(`issues ${what}`, async () => {
        const owner = ofUser ? { userId } : {}
        const { status, body } = await client.operate('POST', '/tokens', adminKey, { ...terms, ...owner })
        expect(status).to.equal(201)
        expect(body['token']).to.match(/^lk_[0-9A-Za-z]{63}$/)
        const facts = {
          tokenId: (body['token'] as string).slice(3, 17),
          kind: terms.kind,
          userId: ofUser ? userId : null,
          username: ofUser ? demo.username : null,
          createdAt: clock.now(),
          expiresAt: clock.now() + terms.ttlSeconds * 1000,
          absoluteExpiresAt: clock.now() + absoluteSeconds * 1000,
          scope: null,
        }
        const purpose = terms.purpose ?? null
        const limits = { rate: null, usesLeft: null }
        expect(body).to.deep.equal({ token: body['token'], tokenType: 'Bearer', purpose, ...facts, ...limits })
        const look = { token: body['token'], touch: false, ...(terms.purpose && { purpose: terms.purpose }) }
        const rights = { roles: [], keyName: null, actor: null }
        expect(await client.validate(look)).to.deep.equal({ authenticated: true, refreshCount: 0, ...rights, ...facts })
      })
    }

    it('expires a fixed token after its time, however often it is validated', async () => {
      const { token, expiresAt } = await client.issue({ kind: 'fixed', ttlSeconds: 60 })
      clock.advance(59_999)
      expect(await client.validate({ token })).to.include({ authenticated: true, expiresAt, refreshCount: 1 })
      clock.advance(1)
      expect(await client.validate({ token })).to.deep.equal({ authenticated: false })
    })

    const good = { kind: 'sliding', ttlSeconds: 60 }
    const refused: [what: string, body: Record<string, unknown>, member: string][] = [
      ['no kind', { ttlSeconds: 60 }, 'kind'],
      ['an unknown kind', { ...good, kind: 'eternal' }, 'kind'],
      ['a kind in capitals', { ...good, kind: 'Sliding' }, 'kind'],
      ['a kind that names an inherited property', { ...good, kind: 'constructor' }, 'kind'],
      ['no time to live', { kind: 'fixed' }, 'ttlSeconds'],
      ['zero seconds', { ...good, ttlSeconds: 0 }, 'ttlSeconds'],
      ['negative seconds', { ...good, ttlSeconds: -1 }, 'ttlSeconds'],
      ['half a second', { ...good, ttlSeconds: 0.5 }, 'ttlSeconds'],
      ['seconds as text', { ...good, ttlSeconds: '60' }, 'ttlSeconds'],
      ['more than ten years', { ...good, ttlSeconds: 10 * 365 * 86_400 + 1 }, 'ttlSeconds'],
      ['more seconds than a number holds', { ...good, ttlSeconds: 1e300 }, 'ttlSeconds'],
      ['null seconds', { ...good, ttlSeconds: null }, 'ttlSeconds'],
      ['an absolute end after zero seconds', { ...good, absoluteTtlSeconds: 0 }, 'absoluteTtlSeconds'],
      ['an absolute end as text', { ...good, absoluteTtlSeconds: '90' }, 'absoluteTtlSeconds'],
      ['an absolute end before the idle time', { ...good, absoluteTtlSeconds: 59 }, 'absoluteTtlSeconds'],
      [
        'an absolute end for a fixed token',
        { kind: 'fixed', ttlSeconds: 60, absoluteTtlSeconds: 90 },
        'absoluteTtlSeconds',
      ],
      [
        'an absolute end for a single-use token',
        { kind: 'single-use', ttlSeconds: 60, absoluteTtlSeconds: 60 },
        'absoluteTtlSeconds',
      ],
      ['an unknown user', { ...good, userId: 'nobody' }, 'userId'],
      ['a username instead of an id', { ...good, userId: demo.username }, 'userId'],
      ['an empty user id', { ...good, userId: '' }, 'userId'],
      ['__proto__ as the user id', { ...good, userId: '__proto__' }, 'userId'],
      ['a null user', { ...good, userId: null }, 'userId'],
      ['a number as the user id', { ...good, userId: 1 }, 'userId'],
      ['an empty purpose', { ...good, purpose: '' }, 'purpose'],
      ['a purpose with a space', { ...good, purpose: 'a b' }, 'purpose'],
      ['a purpose that ends with a line break', { ...good, purpose: 'reset\n' }, 'purpose'],
      ['a purpose of 65 characters', { ...good, purpose: 'p'.repeat(65) }, 'purpose'],
      ['a null purpose', { ...good, purpose: null }, 'purpose'],
      ['an unknown member', { ...good, ttlSecs: 60 }, 'ttlSecs'],
      ['a member of the response', { ...good, expiresAt: 1 }, 'expiresAt'],
    ]
    for (const [what, body, member] of refused) {
      it(`is 400 for ${what} and names ${member}`, async () => {
        const answer = await client.operate('POST', '/tokens', adminKey, body)
        expectProblem(answer, 400, 'invalid_request')
        expect(answer.body['detail']).to.include(member)
      })
    }
  })

  describe('the admin key', () => {
    const routes = [
      'POST /tokens',
      'DELETE /tokens/00000000000000',
      'DELETE /tokens/expired',
      'DELETE /admin/users/nobody/sessions',
    ]
    for (const route of routes) {
      it(`is required for ${route}: with any other key nothing changes`, async () => {
        const [method, path] = route.split(' ') as [string, string]
        const session = await openSession()
        const ownPath = path.replace('nobody', userId).replace('00000000000000', session.slice(3, 17))
        const body = method === 'POST' ? { kind: 'fixed', ttlSeconds: 60 } : undefined
        for (const key of [null, serviceKey, session, adminKey.slice(0, -1), `${adminKey}x`]) {
          const answer = await client.operate(method, ownPath, key, body)
          expectProblem(answer, 401, 'invalid_token')
          expect(answer.headers.get('www-authenticate')).to.match(/^Bearer realm="latchkey/)
        }
        expect(await client.isLive(session)).to.equal(true)
      })
    }

    it('is accepted by /validateToken too', async () => {
      const token = await openSession()
      expect(await client.validate({ token }, adminKey)).to.include({ authenticated: true })
    })
  })

  describe('POST /validateToken', () => {
    it('admits a token with a purpose for that purpose only, and a token without one for no purpose', async () => {
      const reset = await client.issue({ kind: 'sliding', purpose: 'reset' })
      const plain = await client.issue({ kind: 'sliding' })
      const questions: [token: string, purpose: string | undefined, admitted: boolean][] = [
        [reset.token, 'reset', true],
        [reset.token, undefined, false],
        [reset.token, 'confirm', false],
        [reset.token, 'Reset', false],
        [plain.token, undefined, true],
        [plain.token, 'reset', false],
      ]
      for (const [token, purpose, admitted] of questions) {
        const verdict = await client.validate({ token, ...(purpose !== undefined && { purpose }) })
        if (admitted) expect(verdict).to.include({ authenticated: true })
        else expect(verdict).to.deep.equal({ authenticated: false })
      }
      const tokens = [plain.token, reset.token]
      const verdicts = await client.validateMany({ tokens, purpose: 'reset' })
      expect(verdicts.map(({ authenticated }) => authenticated)).to.deep.equal([false, true])
    })

    it('neither extends nor consumes a token that it refuses for its purpose', async () => {
      const once = await client.issue({ kind: 'single-use', purpose: 'reset' })
      for (const purpose of [undefined, 'confirm']) {
        await client.validate({ token: once.token, ...(purpose !== undefined && { purpose }) })
      }
      expect(await client.validate({ token: once.token, purpose: 'reset' })).to.include({ authenticated: true })
    })

    it('with touch: false, neither extends nor consumes a token', async () => {
      for (const kind of ['sliding', 'fixed', 'single-use'] as const) {
        const { token, expiresAt } = await client.issue({ kind, ttlSeconds: 60 })
        clock.advance(1000)
        for (let i = 0; i < 3; i++) {
          const [first, second] = await client.validateMany({ tokens: [token, token], touch: false })
          expect(first).to.include({ authenticated: true, kind, expiresAt, refreshCount: 0 })
          expect(second).to.deep.equal(first)
        }
        expect(await client.validate({ token })).to.include({ authenticated: true, kind, refreshCount: 1 })
        const again = kind === 'single-use' ? { authenticated: false } : { authenticated: true, refreshCount: 2 }
        expect(await client.validate({ token })).to.include(again)
      }
    })

    it('admits a single-use token only at its first place in a batch', async () => {
      const { token } = await client.issue({ kind: 'single-use' })
      const session = await openSession()
      const verdicts = await client.validateMany({ tokens: [session, token, session, token, token] })
      expect(verdicts.map(({ authenticated }) => authenticated)).to.deep.equal([true, true, true, false, false])
    })

    for (const purpose of [undefined, 'reset']) {
      it(`admits a single-use token ${purpose ? 'with a purpose ' : ''}exactly once when it is sent 200 times at once`, async () => {
        for (let round = 0; round < 3; round++) {
          const bound = purpose === undefined ? {} : { purpose }
          const { token } = await client.issue({ kind: 'single-use', ...bound })
          const bystander = await client.issue({ kind: 'fixed', ...bound })
          const verdicts = await Promise.all(
            Array.from({ length: 100 }, async (_, i) => {
              if (i % 2 === 0) return [await client.validate({ token, ...bound })]
              return client.validateMany({ tokens: [token, bystander.token, token, token], ...bound })
            }),
          )
          const admitted = verdicts.flat().filter(verdict => verdict.authenticated && verdict.kind === 'single-use')
          expect(verdicts.flat()).to.have.length(50 + 4 * 50)
          expect(admitted).to.have.length(1)
          expect(verdicts.flat().filter(({ authenticated }) => authenticated)).to.have.length(1 + 50)
        }
      })
    }
  })

  describe('DELETE /tokens/:id', () => {
    it('revokes a token of any kind and purpose with 204; a second call is 404', async () => {
      const tokens: [IssuedToken, string | undefined][] = [
        [await client.issue({ kind: 'sliding' }), undefined],
        [await client.issue({ kind: 'fixed', userId }), undefined],
        [await client.issue({ kind: 'single-use', userId, purpose: 'reset' }), 'reset'],
      ]
      const session = await openSession()
      tokens.push([{ ...(await client.admissionOf(session)), token: session }, undefined])
      for (const [{ token, tokenId }, purpose] of tokens) {
        expect(await client.isLive(token, purpose)).to.equal(true)
        expect((await client.operate('DELETE', `/tokens/${tokenId}`)).status).to.equal(204)
        expect(await client.isLive(token, purpose)).to.equal(false)
        expectProblem(await client.operate('DELETE', `/tokens/${tokenId}`), 404, 'not_found')
      }
    })

    for (const id of [...junkIds, drawTokenId(null, clock.now())]) {
      it(`is 404 for the id ${id.slice(0, 20)}`, async () => {
        expectProblem(await client.operate('DELETE', `/tokens/${id}`), 404, 'not_found')
      })
    }
  })

  describe('DELETE /tokens/expired', () => {
    it('sweeps at once, keeps live tokens, and returns how many were removed', async () => {
      await client.operate('DELETE', '/tokens/expired')
      for (let i = 0; i < 7; i++) await client.issue({ kind: 'fixed', ttlSeconds: 10 })
      const live = await client.issue({ kind: 'fixed', ttlSeconds: 11 })
      clock.advance(10_000)
      const swept = auth.lines.filter(({ event }) => event === 'tokens_swept').length
      const { status, body } = await client.operate('DELETE', '/tokens/expired')
      expect(status).to.equal(200)
      expect(Object.keys(body)).to.deep.equal(['removed'])
      expect(body['removed']).to.be.at.least(7)
      expect(auth.lines.filter(({ event }) => event === 'tokens_swept').length).to.equal(swept + 1)
      expect((await client.operate('DELETE', '/tokens/expired')).body).to.deep.equal({ removed: 0 })
      expect(await client.isLive(live.token)).to.equal(true)
    })
  })
})

describe('GET /tokens', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>
  interface Page {
    counts: Record<string, number>
    tokens: { id: string; userId: string | null }[]
    next: string | null
  }
  const read = (query: string, key = adminKey) => ask<Page>('GET', `${auth.internalUrl}/tokens${query}`, key)

  before(async () => {
    auth = await startAuth({ now: clock.now })
  })
  after(closeServers)

  it('lists every live token page by page, with counts by kind and without a secret', async () => {
    const secrets = await Promise.all(Array.from({ length: 5 }, () => logIn(auth.url)))
    const { token: fixed } = await issueToken(auth.internalUrl, { ttlSeconds: 60, purpose: 'reset' })
    const ids = new Set<string>()
    let next: string | null = null
    for (let pages = 0; pages === 0 || next !== null; pages++) {
      expect(pages).to.be.below(10)
      const page = await read(`?limit=2${next === null ? '' : `&after=${next}`}`)
      expect(page.body.counts).to.deep.equal({ sliding: 5, fixed: 1, 'single-use': 0 })
      for (const { id } of page.body.tokens) ids.add(id)
      for (const secret of [...secrets, fixed]) expect(JSON.stringify(page.body)).to.not.include(secret.slice(17))
      next = page.body.next
    }
    expect([...ids]).to.have.members([...secrets, fixed].map(secret => secret.slice(3, 17)))
  })

  it('lists the tokens of one user with userId, and none for an unknown user', async () => {
    const userId = (await read('')).body.tokens.find(token => token.userId !== null)?.userId
    expect((await read(`?userId=${userId}`)).body.tokens).to.have.length(5)
    expect((await read('?userId=nobody')).body.tokens).to.deep.equal([])
  })

  it('requires ADMIN_KEY, and is 400 for an unknown or invalid query', async () => {
    expect((await read('', serviceKey)).status).to.equal(401)
    for (const query of ['?limit=0', '?limit=201', '?after=%00', '?x=1', '?limit=1&limit=2']) {
      expect((await read(query)).status, query).to.equal(400)
    }
  })
})

describe('ids that no store can contain', () => {
  afterEach(closeServers)

  const ids = ['%00', 'a%00b', '%EF%BF%BD', '%ED%A0%80', '%F0%9F%94%91']
  for (const scheme of ['memory', 'sqlite', 'postgres', 'redis']) {
    it(`match nothing and cause no error at ${scheme}`, async function () {
      if ((await schemesHere([scheme])).length === 0) return this.skip()
      const place = await freshPlace(scheme)
      const users = scheme === 'redis' ? 'memory:' : place.url
      const { internalUrl, lines, service } = await startAuth({
        env: { TOKEN_STORE_URL: place.url, USER_STORE_URL: users },
      })
      const operate = async (method: string, path: string, body?: unknown) =>
        (await ask(method, internalUrl + path, adminKey, body)).status
      for (const id of ids) {
        expect(await operate('GET', `/tokens?userId=${id}`), `/tokens?userId=${id}`).to.be.oneOf([200, 400])
        expect(await operate('GET', `/admin/users?after=${id}`)).to.be.oneOf([200, 400])
        expect(await operate('DELETE', `/admin/users/${id}`)).to.be.oneOf([400, 404])
        expect(await operate('DELETE', `/admin/users/${id}/sessions`)).to.be.oneOf([400, 404])
        expect(await operate('DELETE', `/tokens/${id}`)).to.be.oneOf([400, 404])
      }
      for (const userId of ['\0', 'a\0b', '\ud800', 'a\udc00', '\ufffd']) {
        expect(await operate('POST', '/tokens', { kind: 'fixed', ttlSeconds: 1, userId })).to.equal(400)
        for (const token of [`lk_${userId}`, userId]) {
          const { status } = await ask('POST', `${internalUrl}/validateToken`, serviceKey, { token })
          expect(status).to.be.oneOf([200, 400])
        }
      }
      expect(lines.filter(({ level }) => level === 'error')).to.deep.equal([])
      expect(lines.filter(({ event }) => /failed|dependency/.test(event))).to.deep.equal([])
      await service.close()
      await place.remove()
    })
  }
})
