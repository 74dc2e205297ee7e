// What every TokenStore must do with tokens and users that have limits. Names no store; a fault found in one store gets a test
// here.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import {
  type Authority,
  type Found,
  isAdmitted,
  type Rate,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../../services/auth/stores/tokenPort.ts'
import { minute, start, tokenStoreCalls } from './tokenStoreCalls.ts'

const threeAtOnce: Rate = { perMinute: 60, burst: 3 }
const limitedFor = (retryAfterMs: number) => ({ limited: true, retryAfterMs })
const withRate = (version: number, rate: Rate | null, paused = false): Authority => ({
  version,
  roles: [],
  paused,
  rate,
})

export function tokenStoreLimitsContract(getStore: () => TokenStore): void {
  const { lineage, newHash, newToken, insert, inserted, look, sweepAll } = tokenStoreCalls(getStore)
  const touchAll = (refs: TokenRef[], now = start, purpose: string | null = null) =>
    getStore().touch(refs, now, purpose)
  const touch = async (ref: TokenRef, now = start, purpose: string | null = null): Promise<Found> =>
    (await touchAll([ref], now, purpose))[0] ?? null

  /** Touches until it is not admitted, and returns how often it was. */
  async function spend(ref: TokenRef, now = start): Promise<number> {
    for (let admitted = 0; ; admitted++) if (!isAdmitted(await touch(ref, now))) return admitted
  }

  describe('a rate', () => {
    it('lets its burst pass at once, and then as many as refill', async () => {
      const { ref } = await inserted({ rate: threeAtOnce })
      expect(await spend(ref)).to.equal(3)
      expect(await touch(ref)).to.deep.equal(limitedFor(1000))
      expect(await touch(ref, start + 999)).to.deep.equal(limitedFor(1))
      expect(await spend(ref, start + 1000)).to.equal(1)
      expect(await spend(ref, start + 3000)).to.equal(2)
      expect(await spend(ref, start + 50_000), 'never more than the burst').to.equal(3)
    })

    it('is shown with the token, and in each of its answers', async () => {
      const { ref, token } = await inserted({ rate: threeAtOnce })
      expect(await touch(ref)).to.deep.equal({ ...token, refreshCount: 1, expiresAt: start + minute })
      expect(await look(ref, start)).to.deep.include({ rate: threeAtOnce, usesLeft: null })
      expect((await getStore().findByUser(token.userId as string, start))[0]).to.deep.include({ rate: threeAtOnce })
    })

    it('neither uses nor extends a token that it refuses', async () => {
      const { ref } = await inserted({ rate: { perMinute: 1, burst: 1 } })
      const used = await touch(ref)
      expect(await touch(ref, start + 30_000)).to.deep.equal(limitedFor(30_000))
      expect(await look(ref, start + 30_000)).to.deep.equal(used)
    })

    it('does not keep a token alive, nor reveal a dead one', async () => {
      const { ref } = await inserted({ rate: { perMinute: 1, burst: 1 } })
      await touch(ref)
      expect(await touch({ ...ref, hash: newHash() })).to.equal(null)
      expect(await touch(ref, start, 'other')).to.equal(null)
      expect(await touch(ref, start + minute)).to.equal(null)
    })

    it('counts each mention in a batch, and answers in order', async () => {
      const [limited, free] = [await inserted({ rate: { perMinute: 60, burst: 2 } }), await inserted()]
      const refs = [limited.ref, free.ref, limited.ref, limited.ref, free.ref]
      const found = await touchAll(refs)
      expect(found.map(one => (isAdmitted(one) ? one.refreshCount : one))).to.deep.equal([1, 1, 2, limitedFor(1000), 2])
    })

    it('is exact under concurrent calls', async () => {
      const { ref } = await inserted({ rate: { perMinute: 1, burst: 7 } })
      const found = await Promise.all(Array.from({ length: 4 }, () => touchAll([ref, ref, ref])))
      expect(found.flat().filter(isAdmitted)).to.have.lengthOf(7)
    })

    it('limits neither looks nor what a user does at Auth', async () => {
      const { ref } = await inserted({ rate: { perMinute: 1, burst: 1 } })
      await spend(ref)
      for (let i = 0; i < 3; i++) {
        expect(await look(ref, start)).to.not.equal(null)
        expect(await getStore().touchSession(ref, start)).to.include({ refreshCount: 2 + i })
      }
      const renewed = { ...ref, hash: newHash() }
      expect(await getStore().renew(ref, renewed.hash, lineage, start)).to.include({ refreshCount: 5 })
      expect(await touch(renewed), 'a new secret has the same bucket').to.deep.equal(limitedFor(60_000))
      expect(await getStore().delete(renewed, start)).to.not.equal(null)
    })

    it('is set, changed and taken away with the next call', async () => {
      const { ref } = await inserted()
      const change = (rate: Rate | null) => getStore().change(ref.id, { rate }, start)
      expect(await change(threeAtOnce)).to.deep.include({ rate: threeAtOnce })
      expect(await spend(ref)).to.equal(3)
      await change(threeAtOnce)
      expect(await spend(ref), 'the same rate gives nothing back').to.equal(0)
      await change({ perMinute: 60, burst: 5 })
      expect(await spend(ref), 'another one begins with a full bucket').to.equal(5)
      await change(null)
      for (let i = 0; i < 10; i++) expect(await touch(ref)).to.deep.include({ rate: null })
    })

    it('allows no more to a call that arrives late', async () => {
      const { ref } = await inserted({ rate: threeAtOnce })
      expect(await spend(ref, start + 10_000)).to.equal(3)
      expect(await touch(ref, start + 5_000)).to.deep.equal(limitedFor(6_000))
    })
  })

  describe('a number of uses', () => {
    it('ends the token with the last one, and explains it', async () => {
      const { ref, token } = await inserted({ usesLeft: 2, kind: 'fixed' })
      expect(await touch(ref)).to.deep.equal({ ...token, usesLeft: 1, refreshCount: 1 })
      expect(await touch(ref)).to.deep.equal({ ...token, usesLeft: 0, refreshCount: 2 })
      expect(await touch(ref)).to.equal(null)
      expect(await look(ref, start)).to.equal(null)
      expect(await getStore().findByUser(token.userId as string, start)).to.deep.equal([])
      expect(await getStore().explain(ref, start, null)).to.deep.equal({ reason: 'consumed', at: start })
    })

    it('is exact in a batch and under concurrent calls', async () => {
      const [one, other] = [await inserted({ usesLeft: 2 }), await inserted({ usesLeft: 7 })]
      const batch = await touchAll([one.ref, one.ref, one.ref])
      expect(batch.map(token => token && isAdmitted(token) && token.usesLeft)).to.deep.equal([1, 0, null])
      const found = await Promise.all(Array.from({ length: 4 }, () => touchAll([other.ref, other.ref, other.ref])))
      expect(found.flat().filter(isAdmitted)).to.have.lengthOf(7)
      expect(found.flat().filter(token => !isAdmitted(token) && token !== null)).to.deep.equal([])
    })

    it('is used by what a rate lets pass only', async () => {
      const { ref } = await inserted({ usesLeft: 2, rate: { perMinute: 60, burst: 1 } })
      expect(await touchAll([ref, ref])).to.have.nested.property('[1].limited', true)
      expect(await touch(ref, start + 1000)).to.include({ usesLeft: 0 })
    })

    it('can be changed and taken away', async () => {
      const { ref } = await inserted({ usesLeft: 1 })
      expect(await getStore().change(ref.id, { usesLeft: 3 }, start)).to.include({ usesLeft: 3 })
      await touchAll([ref, ref])
      expect(await getStore().change(ref.id, { usesLeft: null }, start)).to.include({ usesLeft: null })
      expect(await spendSome(ref, 5)).to.equal(5)
    })

    it('counts for tokens with a purpose', async () => {
      const { ref } = await inserted({ usesLeft: 2, purpose: 'invite' })
      const found = await touchAll([ref, ref, ref], start, 'invite')
      expect(found.filter(isAdmitted)).to.have.lengthOf(2)
    })

    async function spendSome(ref: TokenRef, times: number): Promise<number> {
      const found = await touchAll(Array.from({ length: times }, () => ref))
      return found.filter(isAdmitted).length
    }
  })

  describe('the rate of a user', () => {
    it('counts all tokens of the user together, and those of nobody else', async () => {
      const userId = randomUUID()
      const own = [await inserted({ userId }), await inserted({ userId }), await inserted({ userId })]
      const stranger = await inserted()
      await getStore().setAuthority(userId, withRate(1, threeAtOnce))
      const [first, second, third] = own.map(({ ref }) => ref) as [TokenRef, TokenRef, TokenRef]
      expect(await touch(first)).to.deep.include({ authority: withRate(1, threeAtOnce) })
      const found = await touchAll([third, stranger.ref, second, first, stranger.ref])
      expect(found.map(one => (isAdmitted(one) ? one.id : one))).to.deep.equal([
        third.id,
        stranger.token.id,
        second.id,
        limitedFor(1000),
        stranger.token.id,
      ])
    })

    it('comes with an insert too, and lasts when the tokens end', async () => {
      const userId = randomUUID()
      const first = await inserted({ userId, authority: withRate(1, threeAtOnce) })
      expect(await spend(first.ref)).to.equal(3)
      await getStore().delete(first.ref, start)
      await sweepAll(start)
      const second = await inserted({ userId, authority: withRate(1, threeAtOnce) })
      expect(await touch(second.ref)).to.deep.equal(limitedFor(1000))
    })

    it('keeps its bucket when other rights change, and has a full one when it changes', async () => {
      const userId = randomUUID()
      const { ref } = await inserted({ userId, authority: withRate(1, threeAtOnce) })
      await spend(ref)
      await getStore().setAuthority(userId, { ...withRate(2, threeAtOnce), roles: ['admin'] })
      expect(await touch(ref)).to.deep.equal(limitedFor(1000))
      await getStore().setAuthority(userId, withRate(3, { perMinute: 60, burst: 2 }))
      expect(await spend(ref)).to.equal(2)
      await getStore().setAuthority(userId, withRate(4, null))
      for (let i = 0; i < 10; i++) expect(await touch(ref)).to.deep.include({ authority: withRate(4, null) })
    })

    it('takes from neither bucket if one of them is empty', async () => {
      const userId = randomUUID()
      await getStore().setAuthority(userId, withRate(1, { perMinute: 60, burst: 2 }))
      const slow = await inserted({ userId, rate: { perMinute: 1, burst: 1 } })
      const other = await inserted({ userId })
      expect(await spend(slow.ref)).to.equal(1)
      expect(await spend(other.ref), 'the refused touch took nothing from the user').to.equal(1)
    })

    it('is remembered until it has refilled, however long ago it was set', async () => {
      const day = 24 * 60 * minute
      const later = start + 2 * day
      const own = { userId: randomUUID(), authority: withRate(1, { perMinute: 1, burst: 3 }), expiresAt: later + day }
      const first = await inserted({ ...own, kind: 'fixed', absoluteExpiresAt: later + day })
      for (const now of [start, start + day]) await sweepAll(now)
      expect(await spend(first.ref, later - 1000)).to.equal(3)
      await getStore().delete(first.ref, later - 1000)
      await sweepAll(later)
      const second = await inserted({ ...own, absoluteExpiresAt: later + day })
      expect(await touch(second.ref, later)).to.deep.equal(limitedFor(59_000))
    })

    it('leaves a single-use token that it refuses where it is, and counts it towards the total', async () => {
      const own = { userId: randomUUID(), authority: withRate(1, { perMinute: 1, burst: 1 }) }
      const [usual, once] = [await inserted(own), await inserted({ ...own, kind: 'single-use' })]
      await touch(usual.ref)
      for (let i = 0; i < 3; i++) expect(await touch(once.ref)).to.deep.equal(limitedFor(60_000))
      expect(await look(once.ref, start)).to.deep.include({ refreshCount: 0 })
      const { outcome } = await insert(newToken(), { limits: { perUser: 10, total: 2 } })
      expect(outcome).to.equal('full')
      expect(isAdmitted(await touch(once.ref, start + minute - 1)), 'not before').to.equal(false)
    })

    it('does not count tokens with a purpose', async () => {
      const userId = randomUUID()
      await getStore().setAuthority(userId, withRate(1, { perMinute: 1, burst: 1 }))
      const { ref } = await inserted({ userId, purpose: 'reset' })
      for (let i = 0; i < 3; i++) expect(isAdmitted(await touch(ref, start, 'reset'))).to.equal(true)
    })

    it('is exact under concurrent calls', async () => {
      const userId = randomUUID()
      await getStore().setAuthority(userId, withRate(1, { perMinute: 1, burst: 7 }))
      const tokens: { ref: TokenRef; token: TokenRecord }[] = []
      for (let i = 0; i < 3; i++) tokens.push(await inserted({ userId }))
      const refs = tokens.map(({ ref }) => ref)
      const found = await Promise.all(Array.from({ length: 4 }, () => touchAll(refs)))
      expect(found.flat().filter(isAdmitted)).to.have.lengthOf(7)
    })
  })
}
