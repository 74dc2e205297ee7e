// POST /validateToken with `held`: tokens of open connections, which are looked at beside those of requests.
import { expect } from 'chai'
import type { Verdict } from '../../../packages/client/contract.ts'
import { validateToken } from '../../../services/auth/routes/validateToken.ts'
import { openTokenStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { createTokens } from '../../../services/auth/tokens/tokens.ts'
import { createListener } from '../../../shared/http/listener.ts'
import type { Handler } from '../../../shared/http/types.ts'
import { type AuthApi, authApi, expectProblem } from '../../support/authApi.ts'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { collectLog } from '../../support/log.ts'
import { closeServers, startAuth } from '../../support/servers.ts'

interface Both {
  verdicts: Verdict[]
  held: Verdict[] | null
}

describe('held tokens at POST /validateToken', () => {
  const clock = createClock()
  let monotonic = 5_000_000
  let auth: Awaited<ReturnType<typeof startAuth>>
  let client: AuthApi

  before(async () => {
    auth = await startAuth({ now: clock.now, monotonicNow: () => monotonic })
    client = authApi(auth)
  })
  after(closeServers)

  const validate = async (body: object) => (await client.validate(body)) as unknown as Both

  for (const kind of ['sliding', 'fixed', 'single-use'] as const) {
    it(`neither extends nor consumes a held token that is ${kind}, whatever touch says`, async () => {
      const { token, expiresAt } = await client.issue({ kind, ttlSeconds: 60 })
      clock.advance(1000)
      for (const touch of [undefined, true, false]) {
        const { verdicts, held } = await validate({ held: [token, token], ...(touch !== undefined && { touch }) })
        expect(verdicts).to.deep.equal([])
        expect(held).to.have.length(2)
        for (const one of held ?? []) {
          expect(one).to.include({ authenticated: true, kind, expiresAt, refreshCount: 0 })
        }
      }
      expect(await client.validate({ token })).to.include({ authenticated: true, refreshCount: 1 })
    })
  }

  it('answers tokens and held tokens each in their own order, and extends only the former', async () => {
    const [asked, kept] = [await client.issue({ kind: 'sliding' }), await client.issue({ kind: 'sliding' })]
    clock.advance(1000)
    const { verdicts, held } = await validate({ tokens: ['a', asked.token], held: [kept.token, 'b', asked.token] })
    expect(verdicts).to.have.length(2)
    expect(verdicts[0]).to.deep.equal({ authenticated: false })
    expect(verdicts[1]).to.include({ tokenId: asked.tokenId, expiresAt: asked.expiresAt + 1000, refreshCount: 1 })
    expect(held?.[0]).to.include({ tokenId: kept.tokenId, expiresAt: kept.expiresAt, refreshCount: 0 })
    expect(held?.[1]).to.deep.equal({ authenticated: false })
    expect(held?.[2]).to.include({ authenticated: true, tokenId: asked.tokenId })
  })

  it('refuses a held token once it is revoked or has expired', async () => {
    const [revoked, expiring] = [await client.issue({ kind: 'fixed' }), await client.issue({ ttlSeconds: 60 })]
    await client.operate('DELETE', `/tokens/${revoked.tokenId}`)
    clock.advance(59_999)
    const question = { held: [revoked.token, expiring.token] }
    expect((await validate(question)).held?.map(({ authenticated }) => authenticated)).to.deep.equal([false, true])
    clock.advance(1)
    expect((await validate(question)).held?.map(({ authenticated }) => authenticated)).to.deep.equal([false, false])
  })

  it('refuses a held token of another purpose than that of the call', async () => {
    const { token } = await client.issue({ kind: 'fixed', purpose: 'reset' })
    expect((await validate({ held: [token] })).held).to.deep.equal([{ authenticated: false }])
    expect((await validate({ held: [token], purpose: 'reset' })).held?.[0]).to.include({ authenticated: true })
  })

  it('accepts 256 tokens in all', async () => {
    const full = { tokens: Array(100).fill('a'), held: Array(156).fill('b') }
    const { verdicts, held } = await validate(full)
    expect([verdicts.length, held?.length]).to.deep.equal([100, 156])
    const answer = await client.operate('POST', '/validateToken', undefined, { ...full, tokens: Array(101).fill('a') })
    expectProblem(answer, 400, 'invalid_request')
    expect(answer.body['detail']).to.equal('expected at most 256 tokens, including held ones')
  })

  const refused: [what: string, body: object, detail: RegExp][] = [
    ['a held token beside a single one', { token: 'a', held: ['b'] }, /^expected either token or tokens$/],
    ['no held tokens', { tokens: ['a'], held: [] }, /^held: expected 1 to 256 tokens$/],
    ['no tokens beside held ones', { tokens: [], held: ['a'] }, /^tokens: expected 1 to 256 tokens$/],
    ['257 held tokens', { held: Array(257).fill('a') }, /^held: expected 1 to 256 tokens/],
    ['held tokens that are null', { tokens: ['a'], held: null }, /^held: expected an array of strings$/],
    ['held tokens that are a string', { held: 'a' }, /^held: expected an array of strings$/],
    ['a number among held tokens', { held: ['a', 1] }, /^held\.1: expected a string$/],
  ]
  for (const [what, body, detail] of refused) {
    it(`is 400 for ${what}`, async () => {
      const answer = await client.operate('POST', '/validateToken', undefined, body)
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.body['detail']).to.match(detail)
    })
  }

  it('are shown by the metric latchkey_held_tokens, as looks per second over ten seconds', async () => {
    const shown = async () => {
      const { text } = await ask('GET', `${auth.internalUrl}/metrics`)
      return Number(/^latchkey_held_tokens (\d+)$/m.exec(text)?.[1])
    }
    monotonic += 60_000
    expect(await shown()).to.equal(0)
    for (let second = 0; second < 10; second++) {
      await validate({ tokens: ['a'], held: Array(7).fill('b') })
      await validate({ held: Array(5).fill('b') })
      monotonic += 1000
    }
    expect(await shown()).to.equal(12)
    monotonic += 5000
    expect(await shown()).to.equal(6)
    monotonic += 1_000_000
    expect(await shown()).to.equal(0)
  })
})

describe('a token store that answers touches but no looks', () => {
  it('costs the requests of a call nothing: held is null; a call with held tokens alone is 503', async () => {
    const { log } = collectLog('auth')
    const store = await openTokenStore()
    const look = () => Promise.reject(new Error('no look'))
    const common = { now: Date.now, ttlMs: 60_000, absoluteTtlMs: 60_000, emit: () => {} }
    const tokens = createTokens({ store: { ...store, look }, limits: { perUser: 5, total: 5 }, ...common })
    const listener = createListener(
      { [validateToken.path]: [validateToken.handler({ tokens }) as Handler] },
      { name: 'auth', portSetting: 'AUTH_PORT', log, accessLog: 'errors', monotonicNow: () => performance.now() },
    )
    const url = `${await listener.listen(0, '127.0.0.1')}/validateToken`
    const terms = { kind: 'sliding', purpose: null, owner: null, login: null, ttlMs: 60_000, absoluteTtlMs: 60_000 }
    const issued = await tokens.issue(terms as Parameters<typeof tokens.issue>[0])
    const secret = issued?.secret
    const { body } = await ask<Both>('POST', url, null, { tokens: [secret], held: [secret] })
    expect(body.verdicts[0]).to.include({ authenticated: true, refreshCount: 1 })
    expect(body.held).to.equal(null)
    expect((await ask('POST', url, null, { held: [secret] })).status).to.be.at.least(500)
    await listener.close({ lameDuckMs: 0, drainMs: 100 })
    await store.close()
  })
})
