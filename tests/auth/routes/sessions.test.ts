// Auth over HTTP: what users do with their sessions and operators with tokens, and how every kind of token ends.
import { expect } from 'chai'
import type { Admission, TokenKind, Verdict } from '../../../packages/client/contract.ts'
import { sessionRequirement } from '../../../services/auth/guards/requireSession.ts'
import { renewRoute } from '../../../services/auth/routes/renew.ts'
import { sessionRoutes } from '../../../services/auth/routes/sessions.ts'
import { openTokenStore, openUserStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { drawSecret, drawTokenId } from '../../../services/auth/tokens/format.ts'
import { createTokens, type IssuedToken, type TokenOwner } from '../../../services/auth/tokens/tokens.ts'
import { localClient, openPasswords } from '../../../services/auth/users/passwords.ts'
import { createUsers } from '../../../services/auth/users/users.ts'
import { createListener } from '../../../shared/http/listener.ts'
import { post } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, demo, serviceKey } from '../../support/credentials.ts'
import { logIn } from '../../support/factories.ts'
import { collectLog } from '../../support/log.ts'
import { closeServers, openTestAuth, startAuth } from '../../support/servers.ts'
import { freshPlace, schemesHere } from '../../support/stores.ts'
import { wideInvalidTokens } from '../../support/throttles.ts'
import { until } from '../../support/until.ts'

const ttlMs = 30_000
const absoluteTtlMs = 43_200_000
const junkIds = ['junk', '%00', '..%2f', '%E0%A4%A', '0'.repeat(14), '0'.repeat(4000), 'lk_', '__proto__', '*']

interface Answer<T = Record<string, unknown>> {
  status: number
  headers: Headers
  text: string
  /** Of an answer that has one. */
  body: T
}

interface SessionEntry {
  id: string
  createdAt: number
  lastUsedAt: number
  expiresAt: number
  absoluteExpiresAt: number
  refreshCount: number
  current: boolean
}

interface Issued {
  token: string
  tokenId: string
  expiresAt: number
  absoluteExpiresAt: number
}

interface Terms {
  kind: TokenKind
  ttlSeconds?: number
  absoluteTtlSeconds?: number
  userId?: string
  purpose?: string
}

/** Asks on a connection of its own, so that servers close at once. */
async function ask<T = Record<string, unknown>>(
  method: string,
  url: string,
  bearer: string | null,
  body?: unknown,
): Promise<Answer<T>> {
  const headers = new Headers({ connection: 'close' })
  if (bearer !== null) headers.set('authorization', `Bearer ${bearer}`)
  if (body !== undefined) headers.set('content-type', 'application/json')
  const answer = await fetch(url, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) })
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, text, body: (text === '' ? {} : JSON.parse(text)) as T }
}

/** What the tests ask of an Auth. */
function clientOf({ url, internalUrl }: { url: string; internalUrl: string }) {
  const validate = async (body: object, key = serviceKey) =>
    (await ask<Verdict>('POST', `${internalUrl}/validateToken`, key, body)).body
  return {
    post: (path: string, bearer: string | null, body?: unknown) => ask('POST', url + path, bearer, body),
    delete: (path: string, bearer: string | null) => ask('DELETE', url + path, bearer),
    operate: (method: string, path: string, key: string | null = adminKey, body?: unknown) =>
      ask(method, internalUrl + path, key, body),
    validate,

    /** Whether a look admits the token: nothing is extended, nothing consumed. */
    isLive: async (token: string, purpose?: string) =>
      (await validate({ token, touch: false, ...(purpose !== undefined && { purpose }) })).authenticated,

    validateMany: async (body: { tokens: string[]; purpose?: string; touch?: boolean }) =>
      (await ask<{ verdicts: Verdict[] }>('POST', `${internalUrl}/validateToken`, serviceKey, body)).body.verdicts,

    async logIn(): Promise<string> {
      const { status, body, text } = await ask('POST', `${url}/login`, null, demo)
      expect(status, text).to.equal(200)
      return body['token'] as string
    },

    async issue(terms: Terms): Promise<Issued> {
      const { status, body, text } = await ask<Issued>('POST', `${internalUrl}/tokens`, adminKey, {
        ttlSeconds: 600,
        ...terms,
      })
      expect(status, text).to.equal(201)
      return body
    },

    async list(token: string): Promise<SessionEntry[]> {
      const { status, body, text } = await ask<{ sessions: SessionEntry[] }>('GET', `${url}/sessions`, token)
      expect(status, text).to.equal(200)
      return body.sessions
    },
  }
}

type Client = ReturnType<typeof clientOf>

/** Whose token it is and what it is called, without touching it. */
async function admissionOf(client: Client, token: string): Promise<Admission> {
  const verdict = await client.validate({ token, touch: false })
  expect(verdict.authenticated).to.equal(true)
  return verdict as Admission
}

function expectProblem({ status, headers, body }: Answer, expected: number, error: string): void {
  expect(status).to.equal(expected)
  expect(headers.get('content-type')).to.equal('application/problem+json')
  expect(body).to.include({ status: expected, error })
}

function expectInvalidToken(answer: Answer): void {
  expectProblem(answer, 401, 'invalid_token')
  expect(answer.headers.get('www-authenticate')).to.equal('Bearer realm="latchkey", error="invalid_token"')
}

describe('sessions', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>
  let client: Client
  let userId: string

  before(async () => {
    auth = await startAuth({ now: clock.now })
    client = clientOf(auth)
    userId = (await admissionOf(client, await client.logIn())).userId as string
  })
  afterEach('no secret is in the log, and nothing failed inside', () => {
    expect(JSON.stringify(auth.lines)).to.not.match(/lk_\w{14}/)
    expect(auth.lines.filter(({ level, channel }) => /error|warn/.test(level) && channel !== 'security')).to.deep.equal(
      [],
    )
  })
  after(closeServers)

  /** A session without the cost of a hash. */
  const openSession = async () => (await client.issue({ kind: 'sliding', ttlSeconds: ttlMs / 1000, userId })).token

  describe('POST /renew', () => {
    const renew = (token: string) => client.post('/renew', token)

    it('answers as /login does: a new secret for the same session, with the same id and absolute end', async () => {
      const login = (await client.post('/login', null, demo)).body
      const old = login['token'] as string
      const { tokenId } = await admissionOf(client, old)
      clock.advance(ttlMs - 1)
      const { status, body } = await renew(old)
      expect(status).to.equal(200)
      expect(body['token']).to.match(/^lk_[0-9A-Za-z]{63}$/)
      expect(body['token']).to.not.equal(old)
      expect(body).to.deep.equal({
        token: body['token'],
        tokenType: 'Bearer',
        expiresAt: clock.now() + ttlMs,
        absoluteExpiresAt: login['absoluteExpiresAt'],
      })
      const current = (await client.list(body['token'] as string)).find(({ current }) => current)
      expect(current).to.include({ id: tokenId, absoluteExpiresAt: login['absoluteExpiresAt'] })
    })

    it('kills the old secret in the same step, everywhere, and spares the new one', async () => {
      const old = await client.logIn()
      const { body } = await renew(old)
      expectInvalidToken(await ask('GET', `${auth.url}/sessions`, old))
      expectInvalidToken(await renew(old))
      expect(await client.validate({ token: old })).to.deep.equal({ authenticated: false })
      expect(await client.validate({ token: body['token'] })).to.include({ authenticated: true })
    })

    it('never goes beyond the absolute end, however often', async () => {
      const long = await client.issue({ kind: 'sliding', ttlSeconds: 60, absoluteTtlSeconds: 90, userId })
      clock.advance(59_000)
      const renewed = await renew(long.token)
      expect(renewed.body).to.include({ expiresAt: long.absoluteExpiresAt, absoluteExpiresAt: long.absoluteExpiresAt })
      clock.advance(31_000)
      expectInvalidToken(await renew(renewed.body['token'] as string))

      let token = await client.logIn()
      const { absoluteExpiresAt } = await admissionOf(client, token)
      for (let i = 0; i < 3; i++) {
        clock.advance(1000)
        token = (await renew(token)).body['token'] as string
      }
      expect((await admissionOf(client, token)).absoluteExpiresAt).to.equal(absoluteExpiresAt)
    })

    it('has one winner, however many renew at the same time', async () => {
      for (const rivals of [2, 20]) {
        const old = await client.logIn()
        const answers = await Promise.all(Array.from({ length: rivals }, () => renew(old)))
        const winners = answers.filter(({ status }) => status === 200)
        expect(winners).to.have.length(1)
        for (const loser of answers) if (loser !== winners[0]) expectInvalidToken(loser)
        expect(await client.isLive(winners[0]?.body['token'] as string)).to.equal(true)
        expect(await client.isLive(old)).to.equal(false)
      }
    })

    it('is 401 for a dead session, and revives none', async () => {
      const token = await client.logIn()
      clock.advance(ttlMs)
      expectInvalidToken(await renew(token))
      expect(await client.isLive(token)).to.equal(false)
    })
  })

  describe('a secret that was renewed away', () => {
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
    ] as [string, (token: string) => Promise<Answer>][]) {
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
      it(`ends the session at ${route}, when it comes more than ten seconds after the renewal, and is reported`, async () => {
        const first = await long()
        const second = await renew(first)
        const last = await renew(second)
        const { tokenId } = await admissionOf(client, last)
        clock.advance(graceMs)
        const before = reuses().length
        await use(first)
        await dies(last)
        expect(reuses().slice(before)).to.have.length(1)
        expect(reuses().at(-1)).to.include({ level: 'warn', channel: 'security', tokenId, userId })
      })

      it(`is only refused at ${route} within ten seconds: a request in flight logs no client out`, async () => {
        const first = await long()
        const last = await renew(first)
        clock.advance(graceMs - 1)
        const before = reuses().length
        for (let i = 0; i < 3; i++) await use(first)
        await client.validate({ token: first }) // a use that is refused later than those before
        expect(await client.isLive(last)).to.equal(true)
        expect(reuses()).to.have.length(before)
      })
    }

    it('changes nothing where it is only looked at', async () => {
      const first = await long()
      const last = await renew(first)
      clock.advance(30_000)
      expect(await client.isLive(first)).to.equal(false)
      expect((await ask('POST', `${auth.internalUrl}/introspect`, serviceKey, { token: first })).body).to.deep.equal({
        active: false,
      })
      expect(await client.isLive(last)).to.equal(true)
    })

    it('ends nothing for a secret that the session never had', async () => {
      const first = await long()
      const last = await renew(first)
      clock.advance(30_000)
      const { tokenId } = await admissionOf(client, last)
      const guess = drawSecret(tokenId)
      await client.validate({ token: guess })
      await client.post('/logout', guess)
      await client.post('/revoke', null, { token: guess })
      expect(await client.isLive(last)).to.equal(true)
    })

    it('is counted', async () => {
      const text = await (await fetch(`${auth.internalUrl}/metrics`)).text()
      expect(text).to.match(/^latchkey_renewed_secrets_reused_total [1-9]/m)
    })
  })

  describe('GET /sessions', () => {
    it('lists mine with exactly these members, the oldest first, and marks the current one', async () => {
      await client.operate('DELETE', `/admin/users/${userId}/sessions`)
      const start = clock.now()
      const first = await client.logIn()
      clock.advance(1000)
      const second = await client.logIn()
      clock.advance(1000)
      const third = await client.logIn()
      clock.advance(1000)
      await client.validate({ token: first })
      clock.advance(1000)
      const ids: string[] = []
      for (const token of [first, second, third]) ids.push((await admissionOf(client, token)).tokenId)
      expect(await client.list(second)).to.deep.equal([
        {
          id: ids[0],
          createdAt: start,
          lastUsedAt: start + 3000,
          expiresAt: start + 3000 + ttlMs,
          absoluteExpiresAt: start + absoluteTtlMs,
          refreshCount: 1,
          current: false,
        },
        {
          id: ids[1],
          createdAt: start + 1000,
          lastUsedAt: start + 4000,
          expiresAt: start + 4000 + ttlMs,
          absoluteExpiresAt: start + 1000 + absoluteTtlMs,
          refreshCount: 1,
          current: true,
        },
        {
          id: ids[2],
          createdAt: start + 2000,
          lastUsedAt: start + 2000,
          expiresAt: start + 2000 + ttlMs,
          absoluteExpiresAt: start + 2000 + absoluteTtlMs,
          refreshCount: 0,
          current: false,
        },
      ])
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
      for (const token of tokens) ids.push((await admissionOf(client, token)).tokenId)
      expect((await client.list(tokens[0] as string)).map(({ id }) => id)).to.deep.equal(ids)
    })

    it('never shows a secret, nor tokens that are no sessions', async () => {
      const token = await client.logIn()
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

    it('slides the caller and nobody else', async () => {
      const [caller, other] = [await openSession(), await openSession()]
      const before = await admissionOf(client, other)
      clock.advance(1000)
      await client.list(caller)
      expect(await admissionOf(client, caller)).to.include({ expiresAt: clock.now() + ttlMs, refreshCount: 1 })
      expect(await admissionOf(client, other)).to.deep.equal(before)
    })

    it('does not list the dead', async () => {
      const dead = (await admissionOf(client, await openSession())).tokenId
      clock.advance(ttlMs)
      const ids = (await client.list(await openSession())).map(({ id }) => id)
      expect(ids).to.have.length(1)
      expect(ids).to.not.include(dead)
    })
  })

  describe('DELETE /sessions/:id', () => {
    it('ends one of mine: refused on its next request; again it is 404', async () => {
      const [mine, lost, bystander] = [await client.logIn(), await client.logIn(), await client.logIn()]
      const { tokenId } = await admissionOf(client, lost)
      const { status, text } = await client.delete(`/sessions/${tokenId}`, mine)
      expect({ status, text }).to.deep.equal({ status: 204, text: '' })
      expect(await client.validate({ token: lost })).to.deep.equal({ authenticated: false })
      expectInvalidToken(await ask('GET', `${auth.url}/sessions`, lost))
      expectProblem(await client.delete(`/sessions/${tokenId}`, mine), 404, 'not_found')
      for (const token of [mine, bystander]) expect(await client.isLive(token)).to.equal(true)
    })

    it('ends the current one too', async () => {
      const token = await client.logIn()
      const { tokenId } = await admissionOf(client, token)
      expect((await client.delete(`/sessions/${tokenId}`, token)).status).to.equal(204)
      expectInvalidToken(await client.delete(`/sessions/${tokenId}`, token))
    })

    it('is 404 for what is no session of mine, which stays', async () => {
      const token = await client.logIn()
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
    it('ends all of mine, the current one included, and leaves what others have', async () => {
      const mine = [await client.logIn(), await client.logIn(), await client.logIn()]
      const guest = await client.issue({ kind: 'sliding' })
      expect((await client.delete('/sessions', mine[1] as string)).status).to.equal(204)
      for (const token of mine) {
        expect(await client.validate({ token })).to.deep.equal({ authenticated: false })
        expectInvalidToken(await ask('GET', `${auth.url}/sessions`, token))
      }
      expect(await client.isLive(guest.token)).to.equal(true)
    })

    it('leaves the user free to log in again, and to do it again', async () => {
      for (let round = 0; round < 3; round++) {
        const token = await client.logIn()
        expect(await client.list(token)).to.have.length(1)
        expect((await client.delete('/sessions', token)).status).to.equal(204)
        expect(await client.isLive(token)).to.equal(false)
      }
      expect(await client.isLive(await client.logIn())).to.equal(true)
    })
  })

  describe('a bearer is a session', () => {
    const others: [what: string, terms: Terms, ofUser: boolean][] = [
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
      it(`${what} is 401 on every route that takes one, and neither extended nor consumed by it`, async () => {
        const { token } = await client.issue({ ...terms, ...(ofUser && { userId }) })
        const session = await openSession()
        const look = { token, touch: false, ...(terms.purpose !== undefined && { purpose: terms.purpose }) }
        const before = await client.validate(look)
        expect(before).to.include({ authenticated: true, refreshCount: 0 })
        clock.advance(1000)
        for (const route of routes) {
          const [method, path] = route.split(' ') as [string, string]
          const { tokenId } = await admissionOf(client, session)
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

    it('is needed: without one every route is 401', async () => {
      for (const route of routes) {
        const [method, path] = route.split(' ') as [string, string]
        expectProblem(await ask(method, auth.url + path, null), 401, 'invalid_token')
      }
    })
  })

  describe('POST /tokens', () => {
    const issued: [what: string, terms: Terms & { ttlSeconds: number }, ofUser: boolean, absoluteSeconds: number][] = [
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
        }
        const purpose = terms.purpose ?? null
        expect(body).to.deep.equal({ token: body['token'], tokenType: 'Bearer', purpose, ...facts })
        const look = { token: body['token'], touch: false, ...(terms.purpose && { purpose: terms.purpose }) }
        expect(await client.validate(look)).to.deep.equal({ authenticated: true, refreshCount: 0, ...facts })
      })
    }

    it('ends a fixed token after its time, however often it is validated', async () => {
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
      ['a kind that is none of its own', { ...good, kind: 'constructor' }, 'kind'],
      ['no time to live', { kind: 'fixed' }, 'ttlSeconds'],
      ['no seconds', { ...good, ttlSeconds: 0 }, 'ttlSeconds'],
      ['negative seconds', { ...good, ttlSeconds: -1 }, 'ttlSeconds'],
      ['half a second', { ...good, ttlSeconds: 0.5 }, 'ttlSeconds'],
      ['seconds as text', { ...good, ttlSeconds: '60' }, 'ttlSeconds'],
      ['more than ten years', { ...good, ttlSeconds: 10 * 365 * 86_400 + 1 }, 'ttlSeconds'],
      ['more seconds than a number holds', { ...good, ttlSeconds: 1e300 }, 'ttlSeconds'],
      ['null seconds', { ...good, ttlSeconds: null }, 'ttlSeconds'],
      ['an absolute end of no seconds', { ...good, absoluteTtlSeconds: 0 }, 'absoluteTtlSeconds'],
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
      ['a user by name', { ...good, userId: demo.username }, 'userId'],
      ['a user without a name', { ...good, userId: '' }, 'userId'],
      ['a user of another kind', { ...good, userId: '__proto__' }, 'userId'],
      ['a null user', { ...good, userId: null }, 'userId'],
      ['a number as user', { ...good, userId: 1 }, 'userId'],
      ['an empty purpose', { ...good, purpose: '' }, 'purpose'],
      ['a purpose with a space', { ...good, purpose: 'a b' }, 'purpose'],
      ['a purpose with a line break at its end', { ...good, purpose: 'reset\n' }, 'purpose'],
      ['a purpose of 65 characters', { ...good, purpose: 'p'.repeat(65) }, 'purpose'],
      ['a null purpose', { ...good, purpose: null }, 'purpose'],
      ['an unknown member', { ...good, ttlSecs: 60 }, 'ttlSecs'],
      ["a member that is the answer's", { ...good, expiresAt: 1 }, 'expiresAt'],
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
      it(`is needed for ${route}: nothing else opens it, and what was asked for is not done`, async () => {
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

    it('opens /validateToken too', async () => {
      const token = await openSession()
      expect(await client.validate({ token }, adminKey)).to.include({ authenticated: true })
    })
  })

  describe('POST /validateToken', () => {
    it('admits a token with a purpose for that purpose only, and one without for none', async () => {
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

    it('does not extend or consume what it refuses for its purpose', async () => {
      const once = await client.issue({ kind: 'single-use', purpose: 'reset' })
      for (const purpose of [undefined, 'confirm']) {
        await client.validate({ token: once.token, ...(purpose !== undefined && { purpose }) })
      }
      expect(await client.validate({ token: once.token, purpose: 'reset' })).to.include({ authenticated: true })
    })

    it('looks with touch: false: nothing is extended, nothing consumed, however often', async () => {
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

    it('admits a single-use token for its first mention in a batch', async () => {
      const { token } = await client.issue({ kind: 'single-use' })
      const session = await openSession()
      const verdicts = await client.validateMany({ tokens: [session, token, session, token, token] })
      expect(verdicts.map(({ authenticated }) => authenticated)).to.deep.equal([true, true, true, false, false])
    })

    for (const purpose of [undefined, 'reset']) {
      it(`admits a single-use token ${purpose ? 'with a purpose ' : ''}exactly once, of 200 tries at the same time`, async () => {
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
    it('ends a token of any kind and purpose, 204; again it is 404', async () => {
      const tokens: [Issued, string | undefined][] = [
        [await client.issue({ kind: 'sliding' }), undefined],
        [await client.issue({ kind: 'fixed', userId }), undefined],
        [await client.issue({ kind: 'single-use', userId, purpose: 'reset' }), 'reset'],
      ]
      const session = await openSession()
      tokens.push([{ ...(await admissionOf(client, session)), token: session }, undefined])
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
    it('sweeps now and answers how many were removed; the live stay', async () => {
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

  describe('DELETE /admin/users/:id/sessions', () => {
    const endAll = (id: string) => client.operate('DELETE', `/admin/users/${id}/sessions`)

    it("ends all of a user's tokens, 204, also where there is none any more, and leaves what others have", async () => {
      const sessions = [await openSession(), await openSession()]
      const fixed = await client.issue({ kind: 'fixed', userId })
      const guest = await client.issue({ kind: 'fixed' })
      for (let i = 0; i < 2; i++) expect((await endAll(userId)).status).to.equal(204)
      for (const token of [...sessions, fixed.token]) expect(await client.isLive(token)).to.equal(false)
      expect(await client.isLive(guest.token)).to.equal(true)
      expect(await client.isLive(await client.logIn())).to.equal(true)
    })

    for (const id of ['nobody', '__proto__', 'null', '%00', '%E0%A4%A', demo.username]) {
      it(`is 404 for the user ${id}`, async () => {
        expectProblem(await endAll(id), 404, 'not_found')
      })
    }

    it('beats a log-in that races it: what was verified before and answered after opens nothing', async () => {
      const slow = clientOf(await startAuth({ env: { PASSWORD_HASH_COST: '10' } }))
      const { userId } = await admissionOf(slow, await slow.logIn())
      const logins = Array.from({ length: 6 }, () => slow.post('/login', null, demo))
      await logins[0] // one hashes at a time: by now the others have found the user and wait
      expect((await slow.operate('DELETE', `/admin/users/${userId}/sessions`)).status).to.equal(204)
      const answers = await Promise.all(logins)
      const late = answers.filter(({ status }) => status === 401)
      expect(late.length).to.be.at.least(3)
      for (const answer of late) expect(answer.body).to.include({ error: 'invalid_credentials' })
      for (const { status, body } of answers) {
        if (status === 200) expect(await slow.isLive(body['token'] as string)).to.equal(false)
      }
      expect(await slow.isLive(await slow.logIn())).to.equal(true)
    })
  })

  describe('a revocation holds from the moment its answer is sent, whatever is in flight', () => {
    const ways: [how: string, revoke: (token: string, helper: string) => Promise<Answer>][] = [
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

  describe('the log tells why a token was refused', () => {
    const issue = async (terms: Partial<Terms> = {}) => (await client.issue({ kind: 'fixed', ...terms })).token
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
          const token = await client.logIn()
          await client.post('/logout', token)
          clock.advance(3000)
          return token
        },
        { secondsAgo: 3 },
      ],
      [
        'renewed',
        async () => {
          const token = await client.logIn()
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
          const token = await client.logIn()
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

    it('and the client gets the same bytes for all of them', async () => {
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

describe('the limits of tokens', () => {
  const clock = createClock()
  after(closeServers)

  it("TOKEN_LIMIT_PER_USER: for one more the user's oldest session ends, and others' stay", async () => {
    const auth = await startAuth({ env: { TOKEN_LIMIT_PER_USER: '3' }, now: clock.now })
    const client = clientOf(auth)
    const guests: Issued[] = []
    for (let i = 0; i < 5; i++) guests.push(await client.issue({ kind: 'sliding' }))
    const tokens: string[] = []
    for (let i = 0; i < 5; i++) {
      tokens.push(await client.logIn())
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

  it('TOKEN_LIMIT_PER_USER: makes room with what is dead first, and ends no token that is not a session', async () => {
    const client = clientOf(await startAuth({ env: { TOKEN_LIMIT_PER_USER: '3' }, now: clock.now }))
    const session = await client.logIn()
    const userId = (await admissionOf(client, session)).userId as string
    await client.issue({ kind: 'fixed', ttlSeconds: 1, userId })
    clock.advance(1000)
    const fixed = await client.issue({ kind: 'fixed', userId })
    const second = await client.logIn()
    expect(await client.isLive(session)).to.equal(true)
    const third = await client.logIn()
    const live: boolean[] = []
    for (const token of [session, fixed.token, second, third]) live.push(await client.isLive(token))
    expect(live).to.deep.equal([false, true, true, true])
  })

  it('TOKEN_LIMIT: guests have half of it, and never keep a user out', async () => {
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

  it('TOKEN_LIMIT: beyond it log-ins and POST /tokens are 503 with Retry-After, all else goes on', async () => {
    const auth = await startAuth({ env: { TOKEN_LIMIT: '2' }, now: clock.now })
    const client = clientOf(auth)
    const [one, other] = [await client.logIn(), await client.logIn()]
    const userId = (await admissionOf(client, one)).userId
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
    expect(await client.isLive(await client.logIn())).to.equal(true)
    expectProblem(await client.post('/login', null, demo), 503, 'unavailable')
    clock.advance(ttlMs)
    expect((await client.operate('DELETE', '/tokens/expired')).body).to.deep.equal({ removed: 2 })
    expect(await client.isLive(await client.logIn())).to.equal(true)
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
    const observe = () => {}
    const passwords = await openPasswords({ cost: 10, workers: 1, maxQueue: 10, maxPerAccount: 1000 })
    const users = createUsers({
      store: await openUserStore(),
      passwords,
      rules: { minLength: 15 },
      addressesOnly: false,
      endTokens: (...of) => tokens.endUser(...of),
      now: clock.now,
      observe,
    })
    tokens = createTokens({ store: await openTokenStore(), now: clock.now, ttlMs, absoluteTtlMs, limits, observe })
    owners = []
    for (const username of ['anna@example.com', 'bert@example.com']) {
      owners.push(
        (await users.insert({
          username,
          passwordHash: await users.hash({ username, password: 'correct horse' }, localClient),
        })) as TokenOwner,
      )
    }
    const requireSession = sessionRequirement(tokens, wideInvalidTokens())
    const sessions = sessionRoutes(users, tokens)
    const listener = createListener(
      {
        'POST /renew': [renewRoute(tokens, wideInvalidTokens())],
        'GET /sessions': [requireSession, sessions.list],
        'DELETE /sessions/:id': [requireSession, sessions.endOne],
        'DELETE /sessions': [requireSession, sessions.endMine],
      },
      {
        name: 'sessions',
        portSetting: 'AUTH_PORT',
        log: collectLog('auth').log,
        accessLog: 'off',
        monotonicNow: () => performance.now(),
      },
    )
    url = await listener.listen(0, '127.0.0.1')
    closing.push(() => listener.close({ lameDuckMs: 0, drainMs: 1000 }), passwords.close)
  })
  after(async () => {
    for (const close of closing) await close()
  })

  const logIn = async (owner: number) =>
    ((await tokens.issueSession(owners[owner] as TokenOwner)) as IssuedToken).secret
  const isLive = async (token: string) => (await tokens.validate([token], { purpose: null, touch: false }))[0] !== null

  it("are listed to their own user only, and another's is 404 and stays", async () => {
    const [anna, bert] = [await logIn(0), await logIn(1)]
    const { body } = await ask<{ sessions: SessionEntry[] }>('GET', `${url}/sessions`, anna)
    expect(body.sessions.map(({ id }) => id)).to.deep.equal([anna.slice(3, 17)])
    expectProblem(await ask('DELETE', `${url}/sessions/${bert.slice(3, 17)}`, anna), 404, 'not_found')
    expect(await isLive(bert)).to.equal(true)
  })

  it('say nothing of whether an id exists that is not mine', async () => {
    const [anna, bert] = [await logIn(0), await logIn(1)]
    const answers: string[] = []
    for (const id of [bert.slice(3, 17), '0'.repeat(14)]) {
      const { text, body } = await ask('DELETE', `${url}/sessions/${id}`, anna)
      answers.push(text.replace(String(body['requestId']), ''))
    }
    expect(answers[0]).to.equal(answers[1])
  })

  it("end all at once for one user and leave the other's", async () => {
    const [anna, bert] = [await logIn(0), await logIn(1)]
    expect((await ask('DELETE', `${url}/sessions`, anna)).status).to.equal(204)
    expect([await isLive(anna), await isLive(bert)]).to.deep.equal([false, true])
  })

  it("are never evicted for another user's", async () => {
    const bert = await logIn(1)
    const owner = { ...(owners[0] as TokenOwner), credentialVersion: 9 }
    for (let i = 0; i < 10; i++) expect(await tokens.issueSession(owner)).to.not.equal(null)
    expect(await isLive(bert)).to.equal(true)
  })
})

describe('ids that no store could have', () => {
  afterEach(closeServers)

  const ids = ['%00', 'a%00b', '%EF%BF%BD', '%ED%A0%80', '%F0%9F%94%91']
  for (const scheme of ['memory', 'sqlite', 'postgres', 'redis']) {
    it(`are nobody's at ${scheme}, and no fault`, async function () {
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

describe('GET /tokens', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>
  interface Page {
    counts: Record<string, number>
    tokens: { id: string; userId: string | null }[]
    next: string | null
  }
  const read = async (query: string, key = adminKey) => {
    const answer = await fetch(`${auth.internalUrl}/tokens${query}`, { headers: { authorization: `Bearer ${key}` } })
    return { status: answer.status, body: (await answer.json()) as Page }
  }

  before(async () => {
    auth = await startAuth({ now: clock.now })
  })
  after(closeServers)

  it('shows the operator the counts by kind and every live token, page by page, and no secret', async () => {
    const secrets = await Promise.all(Array.from({ length: 5 }, () => logIn(auth.url)))
    const issued = await post(
      `${auth.internalUrl}/tokens`,
      { kind: 'fixed', ttlSeconds: 60, purpose: 'reset' },
      { authorization: `Bearer ${adminKey}` },
    )
    const { token: fixed } = issued.body as { token: string }
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

  it("shows one user's with userId, and nobody's for one that does not exist", async () => {
    const userId = (await read('')).body.tokens.find(token => token.userId !== null)?.userId
    expect((await read(`?userId=${userId}`)).body.tokens).to.have.length(5)
    expect((await read('?userId=nobody')).body.tokens).to.deep.equal([])
  })

  it('is for ADMIN_KEY only, and refuses a query that it does not know', async () => {
    expect((await read('', serviceKey)).status).to.equal(401)
    for (const query of ['?limit=0', '?limit=201', '?after=%00', '?x=1', '?limit=1&limit=2']) {
      expect((await read(query)).status, query).to.equal(400)
    }
  })
})
