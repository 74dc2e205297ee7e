// How every kind of token ends: revoked, refused with a reason in the log, evicted by a limit.
import { expect } from 'chai'
import { drawSecret, drawTokenId } from '../../../services/auth/tokens/format.ts'
import { type AuthApi, authApi, expectProblem } from '../../support/authApi.ts'
import { type Answer, ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo } from '../../support/credentials.ts'
import { type IssuedToken, logIn, type TokenTerms } from '../../support/factories.ts'
import { closeServers, openTestAuth, startAuth } from '../../support/servers.ts'

const ttlMs = 30_000

describe('revocation', () => {
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

  describe('DELETE /admin/users/:id/sessions', () => {
    const endAll = (id: string) => client.operate('DELETE', `/admin/users/${id}/sessions`)

    it('ends all tokens of the user with 204, even if there are none left, and no others', async () => {
      const sessions = [await openSession(), await openSession()]
      const fixed = await client.issue({ kind: 'fixed', userId })
      const guest = await client.issue({ kind: 'fixed' })
      for (let i = 0; i < 2; i++) expect((await endAll(userId)).status).to.equal(204)
      for (const token of [...sessions, fixed.token]) expect(await client.isLive(token)).to.equal(false)
      expect(await client.isLive(guest.token)).to.equal(true)
      expect(await client.isLive(await client.session())).to.equal(true)
    })

    for (const id of ['nobody', '__proto__', 'null', '%00', '%E0%A4%A', demo.username]) {
      it(`is 404 for the user ${id}`, async () => {
        expectProblem(await endAll(id), 404, 'not_found')
      })
    }

    it('beats concurrent log-ins: a password verified before it yields no live token after it', async () => {
      const slow = authApi(await startAuth({ env: { PASSWORD_HASH_COST: '10' } }))
      const { userId } = await slow.admissionOf(await slow.session())
      const logins = Array.from({ length: 6 }, () => slow.post('/login', null, demo))
      await logins[0] // only one log-in hashes at a time, so the other five log-ins have looked up the user and are waiting
      expect((await slow.operate('DELETE', `/admin/users/${userId}/sessions`)).status).to.equal(204)
      const answers = await Promise.all(logins)
      const late = answers.filter(({ status }) => status === 401)
      expect(late.length).to.be.at.least(3)
      for (const answer of late) expect(answer.body).to.include({ error: 'invalid_credentials' })
      for (const { status, body } of answers) {
        if (status === 200) expect(await slow.isLive(body['token'] as string)).to.equal(false)
      }
      expect(await slow.isLive(await slow.session())).to.equal(true)
    })
  })

  describe('a revocation holds from its answer on, whatever is in flight', () => {
    const ways: [how: string, revoke: (token: string, helper: string) => Promise<Answer<unknown>>][] = [
      ['POST /logout', token => client.post('/logout', token)],
      ['POST /renew', token => client.post('/renew', token)],
      ['DELETE /sessions/:id', (token, helper) => client.delete(`/sessions/${token.slice(3, 17)}`, helper)],
      ['DELETE /sessions', (_, helper) => client.delete('/sessions', helper)],
      ['DELETE /tokens/:id', token => client.operate('DELETE', `/tokens/${token.slice(3, 17)}`)],
      ['DELETE /admin/users/:id/sessions', () => client.operate('DELETE', `/admin/users/${userId}/sessions`)],
    ]
    for (const [how, revoke] of ways) {
      it(`by ${how}`, async () => {
        const [token, helper] = [await openSession(), await openSession()]
        let revoked = false
        let left = 300
        const asked = { before: 0, after: 0 }
        const admitted = { before: 0, after: 0 }
        const askOnAndOn = async (i: number) => {
          while (left > 0) {
            const when = revoked ? 'after' : 'before'
            if (revoked) left--
            asked[when]++
            const verdicts =
              i % 3 === 0 ? await client.validateMany({ tokens: [token, token] }) : [await client.validate({ token })]
            if (verdicts.some(({ authenticated }) => authenticated)) admitted[when]++
          }
        }
        const askers = Array.from({ length: 16 }, (_, i) => askOnAndOn(i))
        while (admitted.before < 20) await new Promise(setImmediate)
        expect((await revoke(token, helper)).status).to.be.oneOf([200, 204])
        revoked = true
        await Promise.all(askers)
        expect(asked.after).to.be.at.least(300)
        expect(admitted.after).to.equal(0)
      })
    }
  })

  describe('the log names why a token was refused', () => {
    const issue = async (terms: TokenTerms = {}) => (await client.issue({ kind: 'fixed', ...terms })).token
    const ways: [reason: string, make: () => Promise<string>, more?: Record<string, unknown>][] = [
      ['never_existed', async () => drawSecret(drawTokenId(null, clock.now()))],
      ['before_restart', async () => drawSecret(drawTokenId(null, 1_799_999_990_000))],
      [
        'expired',
        async () => {
          const token = await issue({ ttlSeconds: 5 })
          clock.advance(12_000)
          return token
        },
        { secondsAgo: 7 },
      ],
      [
        'expired',
        async () => {
          const token = await issue({ ttlSeconds: 5 })
          clock.advance(12_000)
          await client.operate('DELETE', '/tokens/expired')
          return token
        },
        { secondsAgo: 7 },
      ],
      [
        'revoked',
        async () => {
          const token = await client.session()
          await client.post('/logout', token)
          clock.advance(3000)
          return token
        },
        { secondsAgo: 3 },
      ],
      [
        'renewed',
        async () => {
          const token = await client.session()
          await client.post('/renew', token)
          return token
        },
        { secondsAgo: 0 },
      ],
      [
        'consumed',
        async () => {
          const token = await issue({ kind: 'single-use' })
          await client.validate({ token })
          return token
        },
        { secondsAgo: 0 },
      ],
      [
        'all_sessions_revoked',
        async () => {
          const token = await client.session()
          await client.delete('/sessions', token)
          return token
        },
      ],
      ['other_purpose', () => issue({ purpose: 'reset' })],
    ]
    for (const [reason, make, more = {}] of ways) {
      it(`${reason}${more['secondsAgo'] ? `, ${more['secondsAgo']} seconds ago` : ''}`, async () => {
        const token = await make()
        const seen = auth.lines.length
        expect(await client.validate({ token })).to.deep.equal({ authenticated: false })
        const line = await refusalIn(auth.lines, seen)
        const { time: _, requestId: _id, address: _from, ...told } = line
        expect(told).to.deep.equal({
          level: 'info',
          service: 'auth',
          event: 'token_refused',
          channel: 'security',
          by: 'SERVICE_KEY',
          tokenId: token.slice(3, 17),
          reason,
          ...more,
        })
      })
    }

    it('and the client gets the same bytes for every reason', async () => {
      const texts = new Set<string>()
      for (const [, make] of ways) {
        const answer = await ask('GET', `${auth.url}/sessions`, await make())
        texts.add(answer.text.replace(String(answer.body['requestId']), ''))
      }
      expect(texts.size).to.equal(1)
    })
  })
})

async function refusalIn(lines: Awaited<ReturnType<typeof startAuth>>['lines'], from: number) {
  const found = () => lines.slice(from).find(({ event }) => event === 'token_refused')
  for (let turn = 0; !found() && turn < 100; turn++) await new Promise(setImmediate)
  return found() as NonNullable<ReturnType<typeof found>>
}

describe('the limits on tokens', () => {
  const clock = createClock()
  after(closeServers)

  it('TOKEN_LIMIT_PER_USER: one more session ends the oldest of the user, and no token of others', async () => {
    const auth = await startAuth({ env: { TOKEN_LIMIT_PER_USER: '3' }, now: clock.now })
    const client = authApi(auth)
    const guests: IssuedToken[] = []
    for (let i = 0; i < 5; i++) guests.push(await client.issue({ kind: 'sliding' }))
    const tokens: string[] = []
    for (let i = 0; i < 5; i++) {
      tokens.push(await client.session())
      clock.advance(1)
      const live: boolean[] = []
      for (const token of tokens) live.push(await client.isLive(token))
      expect(live).to.deep.equal(tokens.map((_, nth) => nth > i - 3))
    }
    expect(await client.list(tokens[4] as string)).to.have.length(3)
    for (const { token } of guests) expect(await client.isLive(token)).to.equal(true)
    const seen = auth.lines.length
    await client.validate({ token: tokens[0] })
    expect(await refusalIn(auth.lines, seen)).to.include({ reason: 'evicted', tokenId: tokens[0]?.slice(3, 17) })
  })

  it('TOKEN_LIMIT_PER_USER: removes dead tokens first, and ends only sessions', async () => {
    const client = authApi(await startAuth({ env: { TOKEN_LIMIT_PER_USER: '3' }, now: clock.now }))
    const session = await client.session()
    const userId = (await client.admissionOf(session)).userId as string
    await client.issue({ kind: 'fixed', ttlSeconds: 1, userId })
    clock.advance(1000)
    const fixed = await client.issue({ kind: 'fixed', userId })
    const second = await client.session()
    expect(await client.isLive(session)).to.equal(true)
    const third = await client.session()
    const live: boolean[] = []
    for (const token of [session, fixed.token, second, third]) live.push(await client.isLive(token))
    expect(live).to.deep.equal([false, true, true, true])
  })

  it('TOKEN_LIMIT: guests get at most half of it, so they never keep a user out', async () => {
    const env = { TOKEN_LIMIT: '5', DIALECTS: 'token-provider:0' }
    const { service } = await openTestAuth({ env, now: clock.now })
    const { auth, authInternal, tokenProvider } = (await service.listen()) as Record<string, string>
    const body = { kind: 'fixed', ttlSeconds: 60 }
    const statuses = []
    for (let i = 0; i < 3; i++) {
      statuses.push((await ask('POST', `${tokenProvider}/generate_token`, null, {})).status)
      statuses.push((await ask('POST', `${authInternal}/tokens`, adminKey, body)).status)
    }
    expect(statuses).to.deep.equal([200, 201, 200, 503, 503, 503])
    for (let i = 0; i < 2; i++) await logIn(auth as string)
    expect((await ask('POST', `${auth}/login`, null, demo)).status).to.equal(503)
  })

  it('TOKEN_LIMIT: beyond it log-ins and POST /tokens are 503 with Retry-After, and all else works', async () => {
    const auth = await startAuth({ env: { TOKEN_LIMIT: '2' }, now: clock.now })
    const client = authApi(auth)
    const [one, other] = [await client.session(), await client.session()]
    const userId = (await client.admissionOf(one)).userId
    for (let i = 0; i < 2; i++) {
      const answers = [
        await client.post('/login', null, demo),
        await client.operate('POST', '/tokens', adminKey, { kind: 'fixed', ttlSeconds: 60 }),
        await client.operate('POST', '/tokens', adminKey, { kind: 'fixed', ttlSeconds: 60, userId }),
      ]
      for (const answer of answers) {
        expectProblem(answer, 503, 'unavailable')
        expect(Number(answer.headers.get('retry-after'))).to.be.at.least(1)
      }
      expectProblem(await client.post('/login', null, { ...demo, password: 'wrong' }), 401, 'invalid_credentials')
      for (const token of [one, other]) expect(await client.validate({ token })).to.include({ authenticated: true })
    }
    const renewed = (await client.post('/renew', one)).body['token'] as string
    expect((await client.post('/logout', renewed)).status).to.equal(204)
    expect(await client.isLive(await client.session())).to.equal(true)
    expectProblem(await client.post('/login', null, demo), 503, 'unavailable')
    clock.advance(ttlMs)
    expect((await client.operate('DELETE', '/tokens/expired')).body).to.deep.equal({ removed: 2 })
    expect(await client.isLive(await client.session())).to.equal(true)
  })
})
