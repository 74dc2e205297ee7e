// Auth over HTTP: log-in, validation and log-out, used as documented.
import { expect } from 'chai'
import { post } from '../support/client.ts'
import { createClock } from '../support/clock.ts'
import { demo } from '../support/credentials.ts'
import { logIn, validate } from '../support/factories.ts'
import { closeServers, startAuth } from '../support/servers.ts'
import { until } from '../support/until.ts'

const ttlMs = 30_000

describe('Auth', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>
  before(async () => {
    auth = await startAuth({ now: clock.now })
  })
  after(closeServers)

  const verdictOn = async (token: string) => (await validate(auth.internalUrl, { token })).body
  const logOut = (token: string) =>
    fetch(`${auth.url}/logout`, { method: 'POST', headers: { authorization: `Bearer ${token}` } })

  describe('POST /login', () => {
    it('returns a token, its type, its idle expiry and its absolute end', async () => {
      const answer = await post(`${auth.url}/login`, demo)
      expect(answer.status).to.equal(200)
      const { body } = answer
      expect(body['token']).to.match(/^lk_[0-9A-Za-z]{63}$/)
      expect(body).to.deep.equal({
        token: body.token,
        tokenType: 'Bearer',
        expiresAt: clock.now() + ttlMs,
        expires_in: ttlMs / 1000,
        absoluteExpiresAt: clock.now() + 43_200_000,
      })
    })

    it('accepts a form too', async () => {
      const answer = await fetch(`${auth.url}/login`, { method: 'POST', body: new URLSearchParams(demo) })
      expect(answer.status).to.equal(200)
    })

    it('returns a different token each time, and all of them work', async () => {
      const tokens = [await logIn(auth.url), await logIn(auth.url)]
      expect(new Set(tokens).size).to.equal(2)
      for (const token of tokens) expect(await verdictOn(token)).to.include({ authenticated: true })
    })

    it('answers an unknown user and a wrong password with the same bytes', async () => {
      const requestId = 'the-same'
      const attempts = [
        { username: demo.username, password: 'wrong' },
        { username: 'nobody@example.com', password: demo.password },
      ]
      const answers = await Promise.all(
        attempts.map(async attempt => {
          const answer = await post(`${auth.url}/login`, attempt, { 'x-request-id': requestId })
          const headers = Object.fromEntries([...answer.headers].filter(([name]) => name !== 'date'))
          return { status: answer.status, headers, text: answer.text }
        }),
      )
      expect(answers[0]?.status).to.equal(401)
      expect(answers[0]?.text).to.include('invalid_credentials')
      expect(answers[0]).to.deep.equal(answers[1])
    })

    it('is 503 with Retry-After at once when the queue is full', async () => {
      const auth = await startAuth({ env: { PASSWORD_HASH_COST: '10' } })
      const attempts = Promise.all(
        Array.from({ length: 60 }, async (_, i) => {
          const startedAt = performance.now()
          const { status, headers } = await post(`${auth.url}/login`, { username: `nobody ${i}`, password: 'wrong' })
          return { status, retryAfter: headers.get('retry-after'), ms: performance.now() - startedAt }
        }),
      )
      // A password that is refused before hashing takes no place in the queue.
      const tooLong = () => post(`${auth.url}/login`, { username: 'nobody', password: 'a'.repeat(257) })
      for (let i = 0; i < 5; i++) expect((await tooLong()).status).to.equal(400)
      const answers = await attempts
      const refused = answers.filter(({ status }) => status === 503)
      const served = answers.filter(({ status }) => status === 401)
      expect(served.length).to.be.at.least(33)
      expect(refused.length)
        .to.equal(60 - served.length)
        .and.to.be.above(0)
      const slowestServed = Math.max(...served.map(({ ms }) => ms))
      for (const { retryAfter, ms } of refused) {
        expect(retryAfter).to.equal('2')
        expect(ms).to.be.below(slowestServed / 2)
      }
    })

    it('hashes nothing for a client that disconnected while it waited', async () => {
      const auth = await startAuth({ env: { PASSWORD_HASH_COST: '10' } })
      const busy = Array.from({ length: 5 }, () => post(`${auth.url}/login`, demo))
      const gone = new AbortController()
      const left = Array.from({ length: 20 }, () =>
        fetch(`${auth.url}/login`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ username: demo.username, password: 'wrong' }),
          signal: gone.signal,
        }).catch(() => null),
      )
      const failuresBefore = auth.lines.filter(({ event }) => event === 'login_failed').length
      await busy[0]
      gone.abort()
      await Promise.all([...busy, ...left])
      await logIn(auth.url)
      const failures = auth.lines.filter(({ event }) => event === 'login_failed').length - failuresBefore
      expect(failures).to.be.below(10) // it would be 20 if the disconnected log-ins had stayed in the queue
    })
  })

  describe('POST /validateToken', () => {
    it('returns the user and the expiry of a live token, and extends it', async () => {
      const token = await logIn(auth.url)
      clock.advance(ttlMs - 1)
      const verdict = (await verdictOn(token)) as Record<string, unknown>
      expect(verdict).to.deep.equal({
        authenticated: true,
        tokenId: verdict['tokenId'],
        kind: 'sliding',
        username: demo.username,
        userId: verdict['userId'],
        createdAt: clock.now() - ttlMs + 1,
        expiresAt: clock.now() + ttlMs,
        absoluteExpiresAt: clock.now() - ttlMs + 1 + 43_200_000,
        refreshCount: 1,
        roles: [],
        scope: null,
        keyName: null,
        actor: null,
      })
      clock.advance(ttlMs - 1)
      expect(await verdictOn(token)).to.include({ authenticated: true, refreshCount: 2 })
    })

    it('returns exactly {authenticated: false} for unknown, dead, revoked and ill-formed tokens', async () => {
      const [dead, revoked] = [await logIn(auth.url), await logIn(auth.url)]
      await logOut(revoked)
      clock.advance(ttlMs)
      for (const token of [dead, revoked, 'junk', '', '\0', 'lk_\r\n', `${dead}x`, 'x'.repeat(5000)]) {
        expect(await verdictOn(token)).to.deep.equal({ authenticated: false })
      }
    })

    it('returns the verdicts of many tokens in their order', async () => {
      const [first, second] = [await logIn(auth.url), await logIn(auth.url)]
      const tokens = [first, 'junk', second, first]
      const { verdicts } = (await validate<{ verdicts: { refreshCount?: number }[] }>(auth.internalUrl, { tokens }))
        .body
      expect(verdicts.map(({ refreshCount }) => refreshCount ?? 0)).to.deep.equal([1, 0, 1, 2])
    })

    it('returns at most 1.5 KB per token', async () => {
      const tokens = Array(256).fill(await logIn(auth.url))
      const { text } = await validate(auth.internalUrl, { tokens })
      expect(text.length / 256).to.be.below(1536)
    })
  })

  describe('POST /logout', () => {
    it('is 204 and revokes the token before it answers; a second log-out is 204 too', async () => {
      const token = await logIn(auth.url)
      expect((await logOut(token)).status).to.equal(204)
      expect(await verdictOn(token)).to.deep.equal({ authenticated: false })
      expect((await logOut(token)).status).to.equal(204)
    })

    it('revokes only the token that was sent', async () => {
      const [one, other] = [await logIn(auth.url), await logIn(auth.url)]
      await logOut(one)
      expect(await verdictOn(other)).to.include({ authenticated: true })
    })

    it('is 401 without a token', async () => {
      expect((await fetch(`${auth.url}/logout`, { method: 'POST' })).status).to.equal(401)
    })
  })

  it('sweeps dead tokens automatically and logs how many', async () => {
    const swift = await startAuth({ env: { SWEEP_INTERVAL_SECONDS: '1', TOKEN_TTL_SECONDS: '1' } })
    await logIn(swift.url)
    const swept = await until(() => swift.lines.find(({ event }) => event === 'tokens_swept'))
    expect(swept).to.include({ removed: 1, level: 'info' })
  })

  it('has no demo user in production unless one is configured', async () => {
    const production = await startAuth({ env: { NODE_ENV: 'production' } })
    expect((await post(`${production.url}/login`, demo)).status).to.equal(401)
  })
})
