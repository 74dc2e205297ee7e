// Sessions over HTTP: renewing, listing and ending them, and which clients may do so.
import { expect } from 'chai'
import { requireSession } from '../../../services/auth/guards/requireSession.ts'
import { renew } from '../../../services/auth/routes/renew.ts'
import { listSessions, revokeOwnSessions, revokeSession } from '../../../services/auth/routes/sessions.ts'
import { openTokenStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { openUserStore } from '../../../services/auth/stores/memory/userStore.ts'
import { drawSecret, drawTokenId } from '../../../services/auth/tokens/format.ts'
import {
  createTokens,
  type IssuedToken as IssuedSession,
  type TokenOwner,
} from '../../../services/auth/tokens/tokens.ts'
import { localClient, openPasswords } from '../../../services/auth/users/passwords.ts'
import { createUsers } from '../../../services/auth/users/users.ts'
import { createListener } from '../../../shared/http/listener.ts'
import { mountRoutes } from '../../../shared/http/route.ts'
import { type AuthApi, authApi, expectInvalidToken, expectProblem, type SessionEntry } from '../../support/authApi.ts'
import { type Answer, ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import type { TokenTerms } from '../../support/factories.ts'
import { hashThreads } from '../../support/hashThreads.ts'
import { collectLog } from '../../support/log.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { wideInvalidTokens } from '../../support/throttles.ts'
import { until } from '../../support/until.ts'

const ttlMs = 30_000
const absoluteTtlMs = 43_200_000

const junkIds = ['junk', '%00', '..%2f', '%E0%A4%A', '0'.repeat(14), '0'.repeat(4000), 'lk_', '__proto__', '*']

describe('sessions', () => {
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

  describe('POST /renew', () => {
    const renew = (token: string) => client.post('/renew', token)

    it('returns a new secret like /login, for the same session with the same id and absolute end', async () => {
      const login = (await client.post('/login', null, demo)).body
      const old = login['token'] as string
      const { tokenId } = await client.admissionOf(old)
      clock.advance(ttlMs - 1)
      const { status, body } = await renew(old)
      expect(status).to.equal(200)
      expect(body['token']).to.match(/^lk_[0-9A-Za-z]{63}$/)
      expect(body['token']).to.not.equal(old)
      expect(body).to.deep.equal({
        token: body['token'],
        tokenType: 'Bearer',
        expiresAt: clock.now() + ttlMs,
        expires_in: ttlMs / 1000,
        absoluteExpiresAt: login['absoluteExpiresAt'],
      })
      const current = (await client.list(body['token'] as string)).find(({ current }) => current)
      expect(current).to.include({ id: tokenId, absoluteExpiresAt: login['absoluteExpiresAt'] })
    })

    it('ends the old secret in the same step, on every route, and not the new one', async () => {
      const old = await client.session()
      const { body } = await renew(old)
      expectInvalidToken(await ask('GET', `${auth.url}/sessions`, old))
      expectInvalidToken(await renew(old))
      expect(await client.validate({ token: old })).to.deep.equal({ authenticated: false })
      expect(await client.validate({ token: body['token'] })).to.include({ authenticated: true })
    })

    it('never extends a session beyond its absolute end', async () => {
      const long = await client.issue({ kind: 'sliding', ttlSeconds: 60, absoluteTtlSeconds: 90, userId })
      clock.advance(59_000)
      const renewed = await renew(long.token)
      expect(renewed.body).to.include({ expiresAt: long.absoluteExpiresAt, absoluteExpiresAt: long.absoluteExpiresAt })
      clock.advance(31_000)
      expectInvalidToken(await renew(renewed.body['token'] as string))

      let token = await client.session()
      const { absoluteExpiresAt } = await client.admissionOf(token)
      for (let i = 0; i < 3; i++) {
        clock.advance(1000)
        token = (await renew(token)).body['token'] as string
      }
      expect((await client.admissionOf(token)).absoluteExpiresAt).to.equal(absoluteExpiresAt)
    })

    it('succeeds for one of many clients that renew at the same time', async () => {
      for (const rivals of [2, 20]) {
        const old = await client.session()
        const answers = await Promise.all(Array.from({ length: rivals }, () => renew(old)))
        const winners = answers.filter(({ status }) => status === 200)
        expect(winners).to.have.length(1)
        for (const loser of answers) if (loser !== winners[0]) expectInvalidToken(loser)
        expect(await client.isLive(winners[0]?.body['token'] as string)).to.equal(true)
        expect(await client.isLive(old)).to.equal(false)
      }
    })

    it('is 401 for a dead session, and does not revive it', async () => {
      const token = await client.session()
      clock.advance(ttlMs)
      expectInvalidToken(await renew(token))
      expect(await client.isLive(token)).to.equal(false)
    })
  })

  describe('a secret that was replaced by a renewal', () => {
    const renew = async (token: string) => (await client.post('/renew', token)).body['token'] as string
    const graceMs = 10_000
    const long = async () =>
      (await client.issue({ kind: 'sliding', ttlSeconds: 60, absoluteTtlSeconds: 600, userId })).token
    const reuses = () => auth.lines.filter(({ event }) => event === 'renewed_secret_reused')
    /** The session ends right after the answer that refuses the earlier secret. */
    const dies = (token: string) => until(async () => !(await client.isLive(token)))

    for (const [route, end] of [
      ['POST /logout', token => client.post('/logout', token)],
      ['POST /revoke', token => client.post('/revoke', null, { token })],
    ] as [string, (token: string) => Promise<Answer<unknown>>][]) {
      it(`ends the session with ${route}, however often it was renewed and however long ago`, async () => {
        for (const [renewals, ageMs] of [
          [1, 0],
          [2, 0],
          [5, 0],
          [1, 30_000],
          [3, 30_000],
        ] as const) {
          const own = await long()
          let stolen = own
          for (let i = 0; i < renewals; i++) stolen = await renew(stolen)
          clock.advance(ageMs)
          expect(await client.isLive(stolen)).to.equal(true)
          expect((await end(own)).status).to.be.oneOf([200, 204])
          expect(await client.isLive(stolen)).to.equal(false)
          expectInvalidToken(await client.post('/renew', stolen))
        }
      })

      it(`loses every race of a renewal against ${route}`, async () => {
        for (let i = 0; i < 10; i++) {
          const own = await openSession()
          const [renewed] = await Promise.all([client.post('/renew', own), end(own)])
          const next = renewed.body['token']
          if (renewed.status === 200) expect(await client.isLive(next as string)).to.equal(false)
          expect(await client.isLive(own)).to.equal(false)
        }
      })
    }

    const uses: [string, (token: string) => Promise<unknown>][] = [
      ['POST /validateToken', token => client.validate({ token })],
      ['GET /sessions', token => ask('GET', `${auth.url}/sessions`, token)],
      ['POST /renew', token => client.post('/renew', token)],
      ['/forwardAuth', token => ask('GET', `${auth.internalUrl}/forwardAuth`, token)],
    ]
    for (const [route, use] of uses) {
      it(`ends the session at ${route}, and is logged, more than ten seconds after the renewal`, async () => {
        const first = await long()
        const second = await renew(first)
        const last = await renew(second)
        const { tokenId } = await client.admissionOf(last)
        clock.advance(graceMs)
        const before = reuses().length
        await use(first)
        await dies(last)
        expect(reuses().slice(before)).to.have.length(1)
        expect(reuses().at(-1)).to.include({ level: 'warn', channel: 'security', tokenId, userId })
      })

      it(`is only refused at ${route} within ten seconds, so that a request in flight logs no client out`, async () => {
        const first = await long()
        const last = await renew(first)
        clock.advance(graceMs - 1)
        const before = reuses().length
        for (let i = 0; i < 3; i++) await use(first)
        await client.validate({ token: first }) // once this is refused, the earlier uses are over too
        expect(await client.isLive(last)).to.equal(true)
        expect(reuses()).to.have.length(before)
      })
    }

    it('changes nothing if it is only looked at', async () => {
      const first = await long()
      const last = await renew(first)
      clock.advance(30_000)
      expect(await client.isLive(first)).to.equal(false)
      expect((await ask('POST', `${auth.internalUrl}/introspect`, serviceKey, { token: first })).body).to.deep.equal({
        active: false,
      })
      expect(await client.isLive(last)).to.equal(true)
    })

    it('ends nothing if the session never had it', async () => {
      const first = await long()
      const last = await renew(first)
      clock.advance(30_000)
      const { tokenId } = await client.admissionOf(last)
      const guess = drawSecret(tokenId)
      await client.validate({ token: guess })
      await client.post('/logout', guess)
      await client.post('/revoke', null, { token: guess })
      expect(await client.isLive(last)).to.equal(true)
    })

    it('is counted in the metrics when it is reused', async () => {
      const text = await (await fetch(`${auth.internalUrl}/metrics`)).text()
      expect(text).to.match(/^latchkey_renewed_secrets_reused_total [1-9]/m)
    })
  })

  describe('GET /sessions', () => {
    it('lists the sessions of the caller with exactly these members, oldest first, and marks the current one', async () => {
      await client.operate('DELETE', `/admin/users/${userId}/sessions`)
      const start = clock.now()
      const first = await client.session()
      clock.advance(1000)
      const second = await client.session()
      clock.advance(1000)
      const third = await client.session()
      clock.advance(1000)
      await client.validate({ token: first })
      clock.advance(1000)
      const ids: string[] = []
      for (const token of [first, second, third]) ids.push((await client.admissionOf(token)).tokenId)
      expect(await client.list(second)).to.deep.equal([
        {
          id: ids[0],
          createdAt: start,
          lastUsedAt: start + 3000,
          expiresAt: start + 3000 + ttlMs,
          absoluteExpiresAt: start + absoluteTtlMs,
          refreshCount: 1,
          paused: false,
          current: false,
        },
        {
          id: ids[1],
          createdAt: start + 1000,
          lastUsedAt: start + 4000,
          expiresAt: start + 4000 + ttlMs,
          absoluteExpiresAt: start + 1000 + absoluteTtlMs,
          refreshCount: 1,
          paused: false,
          current: true,
        },
        {
          id: ids[2],
          createdAt: start + 2000,
          lastUsedAt: start + 2000,
          expiresAt: start + 2000 + ttlMs,
          absoluteExpiresAt: start + 2000 + absoluteTtlMs,
          refreshCount: 0,
          paused: false,
          current: false,
        },
      ])
    })

    it('shows a paused session, which its user can still end', async () => {
      const [own, paused] = [await openSession(), (await client.admissionOf(await openSession())).tokenId]
      const shown = async () => (await client.list(own)).find(({ id }) => id === paused)?.paused
      expect(await shown()).to.equal(false)
      await ask('PATCH', `${auth.internalUrl}/tokens/${paused}`, adminKey, { paused: true })
      expect(await shown()).to.equal(true)
      expect((await client.delete(`/sessions/${paused}`, own)).status).to.equal(204)
      expect(await shown()).to.equal(undefined)
    })

    it('keeps the order when sessions in between have ended', async () => {
      await client.operate('DELETE', `/admin/users/${userId}/sessions`)
      const tokens: string[] = []
      for (let i = 0; i < 3; i++) tokens.push(await openSession())
      await client.post('/logout', tokens[1] as string)
      await client.operate('DELETE', '/tokens/expired')
      tokens.splice(1, 1)
      for (let i = 0; i < 2; i++) tokens.push(await openSession())
      const ids: string[] = []
      for (const token of tokens) ids.push((await client.admissionOf(token)).tokenId)
      expect((await client.list(tokens[0] as string)).map(({ id }) => id)).to.deep.equal(ids)
    })

    it('shows no secret, and no token that is not a session', async () => {
      const token = await client.session()
      const others = [
        await client.issue({ kind: 'fixed', userId }),
        await client.issue({ kind: 'single-use', userId }),
        await client.issue({ kind: 'sliding', userId, purpose: 'reset' }),
        await client.issue({ kind: 'sliding' }),
      ]
      const { text } = await ask('GET', `${auth.url}/sessions`, token)
      expect(text).to.not.include('lk_')
      for (const { tokenId } of others) expect(text).to.not.include(tokenId)
    })

    it('extends the session of the caller and no other', async () => {
      const [caller, other] = [await openSession(), await openSession()]
      const before = await client.admissionOf(other)
      clock.advance(1000)
      await client.list(caller)
      expect(await client.admissionOf(caller)).to.include({ expiresAt: clock.now() + ttlMs, refreshCount: 1 })
      expect(await client.admissionOf(other)).to.deep.equal(before)
    })

    it('does not list dead sessions', async () => {
      const dead = (await client.admissionOf(await openSession())).tokenId
      clock.advance(ttlMs)
      const ids = (await client.list(await openSession())).map(({ id }) => id)
      expect(ids).to.have.length(1)
      expect(ids).to.not.include(dead)
    })
  })

  describe('DELETE /sessions/:id', () => {
    it('ends a session of the caller, which the next request obeys; a second call is 404', async () => {
      const [mine, lost, bystander] = [await client.session(), await client.session(), await client.session()]
      const { tokenId } = await client.admissionOf(lost)
      const { status, text } = await client.delete(`/sessions/${tokenId}`, mine)
      expect({ status, text }).to.deep.equal({ status: 204, text: '' })
      expect(await client.validate({ token: lost })).to.deep.equal({ authenticated: false })
      expectInvalidToken(await ask('GET', `${auth.url}/sessions`, lost))
      expectProblem(await client.delete(`/sessions/${tokenId}`, mine), 404, 'not_found')
      for (const token of [mine, bystander]) expect(await client.isLive(token)).to.equal(true)
    })

    it('can end the current session', async () => {
      const token = await client.session()
      const { tokenId } = await client.admissionOf(token)
      expect((await client.delete(`/sessions/${tokenId}`, token)).status).to.equal(204)
      expectInvalidToken(await client.delete(`/sessions/${tokenId}`, token))
    })

    it('is 404 for a token that is not a session of the caller, and does not end it', async () => {
      const token = await client.session()
      const others = [
        await client.issue({ kind: 'sliding' }),
        await client.issue({ kind: 'fixed', userId }),
        await client.issue({ kind: 'single-use', userId }),
        await client.issue({ kind: 'sliding', userId, purpose: 'reset' }),
      ]
      for (const { tokenId } of others) {
        expectProblem(await client.delete(`/sessions/${tokenId}`, token), 404, 'not_found')
      }
      for (const [i, other] of others.entries()) {
        expect(await client.isLive(other.token, i === 3 ? 'reset' : undefined)).to.equal(true)
      }
    })

    for (const id of [...junkIds, drawTokenId(null, clock.now())]) {
      it(`is 404 for the id ${id.slice(0, 20)}`, async () => {
        expectProblem(await client.delete(`/sessions/${id}`, await openSession()), 404, 'not_found')
      })
    }
  })

  describe('DELETE /sessions', () => {
    it('ends all sessions of the caller, including the current one, and no others', async () => {
      const mine = [await client.session(), await client.session(), await client.session()]
      const guest = await client.issue({ kind: 'sliding' })
      expect((await client.delete('/sessions', mine[1] as string)).status).to.equal(204)
      for (const token of mine) {
        expect(await client.validate({ token })).to.deep.equal({ authenticated: false })
        expectInvalidToken(await ask('GET', `${auth.url}/sessions`, token))
      }
      expect(await client.isLive(guest.token)).to.equal(true)
    })

    it('lets the user log in again and repeat it', async () => {
      for (let round = 0; round < 3; round++) {
        const token = await client.session()
        expect(await client.list(token)).to.have.length(1)
        expect((await client.delete('/sessions', token)).status).to.equal(204)
        expect(await client.isLive(token)).to.equal(false)
      }
      expect(await client.isLive(await client.session())).to.equal(true)
    })
  })

  describe('the bearer token must be a session:', () => {
    const others: [what: string, terms: TokenTerms, ofUser: boolean][] = [
      ['a fixed token', { kind: 'fixed' }, true],
      ['a single-use token', { kind: 'single-use' }, true],
      ['a sliding token with a purpose', { kind: 'sliding', purpose: 'reset' }, true],
      ['a fixed token with a purpose', { kind: 'fixed', purpose: 'confirm' }, true],
      ['a single-use token with a purpose', { kind: 'single-use', purpose: 'reset' }, true],
      ["a guest's sliding token", { kind: 'sliding' }, false],
      ["a guest's single-use token", { kind: 'single-use' }, false],
    ]
    const routes = ['GET /sessions', 'DELETE /sessions', 'DELETE /sessions/:id', 'POST /renew', 'POST /logout']
    for (const [what, terms, ofUser] of others) {
      it(`${what} is 401 on every route that requires one, and is neither extended nor consumed`, async () => {
        const { token } = await client.issue({ ...terms, ...(ofUser && { userId }) })
        const session = await openSession()
        const look = { token, touch: false, ...(terms.purpose !== undefined && { purpose: terms.purpose }) }
        const before = await client.validate(look)
        expect(before).to.include({ authenticated: true, refreshCount: 0 })
        clock.advance(1000)
        for (const route of routes) {
          const [method, path] = route.split(' ') as [string, string]
          const { tokenId } = await client.admissionOf(session)
          expectInvalidToken(await ask(method, auth.url + path.replace(':id', tokenId), token))
        }
        expect(await client.validate(look)).to.deep.equal(before)
        expect(await client.isLive(session)).to.equal(true)
      })
    }

    for (const [what, bearer] of [
      ['the service key', serviceKey],
      ['the admin key', adminKey],
    ]) {
      it(`${what} opens no public route`, async () => {
        for (const route of routes.slice(0, 4)) {
          const [method, path] = route.split(' ') as [string, string]
          expectInvalidToken(await ask(method, auth.url + path.replace(':id', '0'.repeat(14)), bearer as string))
        }
      })
    }

    it('no token is 401 on every route', async () => {
      for (const route of routes) {
        const [method, path] = route.split(' ') as [string, string]
        expectProblem(await ask(method, auth.url + path, null), 401, 'invalid_token')
      }
    })
  })
})

describe('sessions of two users', () => {
  const clock = createClock()
  const closing: (() => Promise<void>)[] = []
  let url: string
  let tokens: ReturnType<typeof createTokens>
  let owners: TokenOwner[]

  before(async () => {
    const limits = { perUser: 3, total: 100 }
    const emit = () => {}
    const passwords = await openPasswords({ cost: 10, threads: hashThreads, maxQueue: 10, maxPerAccount: 1000 })
    const users = createUsers({
      store: await openUserStore(),
      passwords,
      rules: { minLength: 15 },
      addressesOnly: false,
      revokeTokens: (...of) => tokens.revokeByUser(...of),
      now: clock.now,
      emit,
    })
    tokens = createTokens({ store: await openTokenStore(), now: clock.now, ttlMs, absoluteTtlMs, limits, emit })
    owners = []
    for (const username of ['anna@example.com', 'bert@example.com']) {
      owners.push(
        (await users.insert({
          username,
          passwordHash: await users.hash({ username, password: 'correct horse' }, localClient),
        })) as TokenOwner,
      )
    }
    const session = requireSession(tokens, wideInvalidTokens())
    const routes = mountRoutes(
      { renew, listSessions, revokeSession, revokeOwnSessions },
      { users, tokens, invalidTokens: wideInvalidTokens() },
      { none: null, bearer: null, session, serviceKey: null, client: null, adminKey: null },
    )
    const listener = createListener(routes, {
      name: 'sessions',
      portSetting: 'AUTH_PORT',
      log: collectLog('auth').log,
      accessLog: 'off',
      monotonicNow: () => performance.now(),
    })
    url = await listener.listen(0, '127.0.0.1')
    closing.push(() => listener.close({ lameDuckMs: 0, drainMs: 1000 }))
  })
  after(async () => {
    for (const close of closing) await close()
  })

  const logIn = async (owner: number) =>
    ((await tokens.issueSession(owners[owner] as TokenOwner)) as IssuedSession).secret
  const isLive = async (token: string) =>
    (await tokens.validateAll([token], { purpose: null, touch: false }))[0] !== null

  it('are listed for their own user only, and cannot be ended by the other: 404', async () => {
    const [anna, bert] = [await logIn(0), await logIn(1)]
    const { body } = await ask<{ sessions: SessionEntry[] }>('GET', `${url}/sessions`, anna)
    expect(body.sessions.map(({ id }) => id)).to.deep.equal([anna.slice(3, 17)])
    expectProblem(await ask('DELETE', `${url}/sessions/${bert.slice(3, 17)}`, anna), 404, 'not_found')
    expect(await isLive(bert)).to.equal(true)
  })

  it('do not reveal whether the id of another user exists', async () => {
    const [anna, bert] = [await logIn(0), await logIn(1)]
    const answers: string[] = []
    for (const id of [bert.slice(3, 17), '0'.repeat(14)]) {
      const { text, body } = await ask('DELETE', `${url}/sessions/${id}`, anna)
      answers.push(text.replace(String(body['requestId']), ''))
    }
    expect(answers[0]).to.equal(answers[1])
  })

  it('end all at once for one user and not for the other', async () => {
    const [anna, bert] = [await logIn(0), await logIn(1)]
    expect((await ask('DELETE', `${url}/sessions`, anna)).status).to.equal(204)
    expect([await isLive(anna), await isLive(bert)]).to.deep.equal([false, true])
  })

  it('are never evicted for those of another user', async () => {
    const bert = await logIn(1)
    const owner = { ...(owners[0] as TokenOwner), credentialVersion: 9 }
    for (let i = 0; i < 10; i++) expect(await tokens.issueSession(owner)).to.not.equal(null)
    expect(await isLive(bert)).to.equal(true)
  })
})
