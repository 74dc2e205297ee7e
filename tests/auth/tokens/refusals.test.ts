// What happens to a session if an earlier secret of it is used: it ends, or it is paused.
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { noAuthority, type TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import type { TokenEvent } from '../../../services/auth/tokens/events.ts'
import type { OnReuse } from '../../../services/auth/tokens/refusals.ts'
import { createTokens, type IssuedToken, type Tokens, type TokenTerms } from '../../../services/auth/tokens/tokens.ts'
import { createClock } from '../../support/clock.ts'

const ttlMs = 60_000
const absoluteTtlMs = 600_000
const reuseGraceMs = 10_000
const owner = { id: 'user-1', username: 'somebody@example.com', credentialVersion: 1, authority: noAuthority }
const use = { purpose: null, touch: true }

for (const [onReuse, action] of [
  ['end', 'ended'],
  ['pause', 'paused'],
] as const) {
  describe(`a session that is ${action} when an earlier secret is used`, () => {
    let store: TokenStore
    let tokens: Tokens
    let events: TokenEvent[]
    const clock = createClock()

    const open = (own: TokenStore, how: OnReuse = onReuse) => {
      const limits = { perUser: 50, total: 100 }
      const emit = (event: TokenEvent) => events.push(event)
      return createTokens({ store: own, now: clock.now, ttlMs, absoluteTtlMs, limits, onReuse: how, emit })
    }

    beforeEach(async () => {
      store = await openTokenStore()
      events = []
      tokens = open(store)
    })

    const issue = async (terms: Partial<TokenTerms>) =>
      (await tokens.issue({
        kind: 'fixed',
        purpose: null,
        owner,
        login: null,
        ttlMs,
        absoluteTtlMs,
        ...terms,
      })) as IssuedToken

    /** A session that was renewed so long ago that no request with the first secret is in flight. */
    async function renewed(login: TokenTerms['login'] = 'now') {
      const first = await issue({ kind: 'sliding', login })
      const last = (await tokens.renew(first.secret)) as IssuedToken
      clock.advance(reuseGraceMs)
      return { id: first.token.id, first: first.secret, last: last.secret }
    }

    /** Resolves when what follows the refusal is over: each step of the memory store takes one microtask or two. */
    const settled = () => new Promise(setImmediate)
    const accepts = async (secret: string, purpose: string | null = null) =>
      (await tokens.validate(secret, { purpose, touch: true })) !== null
    const reuses = () => events.filter(({ type }) => type === 'renewed_secret_reused')

    it('refuses the next use of its current secret, and reports once what was done', async () => {
      const { id, first, last } = await renewed()
      expect(await tokens.validate(first, use)).to.equal(null)
      await settled()
      expect(await accepts(last)).to.equal(false)
      for (let i = 0; i < 3; i++) expect(await accepts(first)).to.equal(false)
      await settled()
      expect(reuses()).to.deep.equal([{ type: 'renewed_secret_reused', tokenId: id, userId: owner.id, action }])
      const which = onReuse === 'end' ? 'revoked' : 'changed'
      expect(events.filter(({ type }) => type === which)).to.have.length(1)
    })

    it('reports it once if many requests bring the secret at the same time, also to two processes', async () => {
      const { first } = await renewed()
      const other = open(store)
      await Promise.all(Array.from({ length: 20 }, (_, i) => (i % 2 ? other : tokens).validate(first, use)))
      await settled()
      expect(reuses()).to.have.length(1)
    })

    it('takes the other tokens of its log-in with it, and those that were delegated from it, and no others', async () => {
      const root = await issue({ kind: 'sliding', purpose: 'refresh', login: 'now' })
      const sibling = await issue({ kind: 'sliding', login: root.token })
      const { first } = await renewed(root.token)
      const parent = await tokens.validate(sibling.secret, use)
      const delegated = await issue({ parent, login: parent })
      const others = [await issue({ kind: 'sliding', login: 'now' }), await issue({ name: 'a key' })]
      await tokens.validate(first, use)
      await settled()
      expect(await accepts(root.secret, 'refresh')).to.equal(false)
      for (const { secret } of [sibling, delegated]) expect(await accepts(secret)).to.equal(false)
      for (const { secret } of others) expect(await accepts(secret)).to.equal(true)
    })

    it('is left alone if it has expired, or ended with all sessions of the user', async () => {
      const { first } = await renewed()
      clock.advance(ttlMs)
      await tokens.validate(first, use)
      await settled()
      const second = await renewed()
      await tokens.revokeByUser(owner.id, 2, null)
      await tokens.validate(second.first, use)
      await settled()
      expect(reuses()).to.deep.equal([])
    })

    it('is found at the next use if the store did not answer the first time', async () => {
      const { first, last } = await renewed()
      for (const method of ['findRenewed', onReuse === 'end' ? 'deleteById' : 'pause']) {
        const away = open({ ...store, [method]: () => Promise.reject(new Error('the store is away')) })
        await away.validate(first, use)
        await settled()
        expect(await accepts(last)).to.equal(true)
      }
      await tokens.validate(first, use)
      await settled()
      expect(await accepts(last)).to.equal(false)
      expect(reuses()).to.have.length(1)
    })

    if (onReuse === 'end') return

    it('is valid again once it is resumed, and is paused again by the next use of an earlier secret', async () => {
      const { id, first, last } = await renewed()
      for (let i = 1; i <= 2; i++) {
        await tokens.validate(first, use)
        await settled()
        expect(await accepts(last)).to.equal(false)
        expect(reuses()).to.have.length(i)
        expect(await tokens.change(id, { paused: false })).to.include({ id, paused: false })
        expect(await accepts(last)).to.equal(true)
      }
    })

    it('can be ended by its user, by a log-out with any of its secrets, and by time', async () => {
      const ends = [
        ({ id }) => tokens.revokeById(id, owner.id),
        ({ first }) => tokens.revokeSession(first),
        ({ last }) => tokens.revokeSession(last),
        async () => clock.advance(ttlMs),
      ] satisfies ((session: Awaited<ReturnType<typeof renewed>>) => Promise<unknown>)[]
      for (const end of ends) {
        const session = await renewed()
        await tokens.validate(session.first, use)
        await settled()
        await end(session)
        expect(await tokens.change(session.id, { paused: false })).to.equal(null)
        expect(await accepts(session.last)).to.equal(false)
      }
    })
  })
}
