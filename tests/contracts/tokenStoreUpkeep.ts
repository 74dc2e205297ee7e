// How every TokenStore keeps to limits, explains refusals, sweeps, lists, counts and closes. Names no store; a fault
// found in one store gets a test here.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import type { TokenRecord, TokenRef, TokenStore } from '../../services/auth/stores/tokenPort.ts'
import { minute, start, tokenStoreCalls, unlimited } from './tokenStoreCalls.ts'

export function tokenStoreUpkeepContract(getStore: () => TokenStore): void {
  const { lineage, newHash, newToken, insert, inserted, touch, look, unknownRef, sweepAll } = tokenStoreCalls(getStore)

  describe('the limits', () => {
    it('end the oldest session of the user for a new one, and no token of others', async () => {
      const userId = randomUUID()
      const other = await inserted()
      const limits = { ...unlimited, perUser: 3 }
      const own = []
      for (let i = 0; i < 5; i++) {
        const { ref, outcome } = await insert(newToken({ userId, createdAt: start + i }), { limits, now: start + i })
        expect(outcome).to.equal('inserted')
        own.push(ref)
      }
      const live = await getStore().look(own, start + 5, null)
      expect(live.map(Boolean)).to.deep.equal([false, false, true, true, true])
      expect(await look(other.ref, start)).to.not.equal(null)
    })

    it('do not count dead tokens of the user', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 2 }
      await insert(newToken({ userId, expiresAt: start + 1 }), { limits })
      const { ref: live } = await insert(newToken({ userId }), { limits })
      await insert(newToken({ userId }), { limits, now: start + 1 })
      expect(await look(live, start + 1)).to.not.equal(null)
    })

    it('end no live session if a dead token makes room, even if that is the newest', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 2 }
      const { ref: live } = await insert(newToken({ userId }), { limits })
      await insert(newToken({ userId, expiresAt: start + 1 }), { limits })
      expect((await insert(newToken({ userId }), { limits, now: start + 1 })).outcome).to.equal('inserted')
      expect(await look(live, start + 1)).to.not.equal(null)
    })

    it('per user do not apply to guests, who are not one user', async () => {
      const limits = { ...unlimited, perUser: 2 }
      const guests = await Promise.all(Array.from({ length: 4 }, () => insert(newToken({ userId: null }), { limits })))
      for (const { ref } of guests) expect(await look(ref, start)).to.not.equal(null)
    })

    it('end nothing but sessions: without one the store is full', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 2 }
      const { ref: fixed } = await insert(newToken({ userId, kind: 'fixed' }), { limits })
      const { ref: bound } = await insert(newToken({ userId, purpose: 'reset' }), { limits })
      expect((await insert(newToken({ userId }), { limits })).outcome).to.equal('full')
      expect(await look(fixed, start)).to.not.equal(null)
      expect(await look(bound, start, 'reset')).to.not.equal(null)
    })

    it('let no token in beyond the total, and end none for it', async () => {
      const limits = { ...unlimited, total: 0 }
      const { ref } = await inserted()
      const { ref: refused, outcome } = await insert(newToken(), { limits })
      expect(outcome).to.equal('full')
      expect(await look(refused, start)).to.equal(null)
      expect(await look(ref, start)).to.not.equal(null)
    })
  })

  describe('the share of the guests', () => {
    const total = 10
    const fill = async (count: number, now: number, members: Partial<TokenRecord>) => {
      const outcomes: string[] = []
      for (let i = 0; i < count; i++) {
        const { outcome } = await insert(newToken(members), { limits: { ...unlimited, total }, now })
        outcomes.push(outcome)
      }
      return outcomes.filter(outcome => outcome === 'inserted').length
    }

    beforeEach(async () => {
      await sweepAll(start + 20 * minute)
    })

    it('is at most half of the total: users have room when guests have none', async () => {
      for (const kind of ['fixed', 'single-use', 'sliding'] as const) {
        expect(await fill(2, start, { userId: null, kind, purpose: 'dialog' })).to.equal(kind === 'sliding' ? 1 : 2)
      }
      expect(await fill(1, start, { userId: null })).to.equal(0)
      expect(await fill(7, start, {})).to.equal(5)
      expect(await fill(1, start, { userId: null })).to.equal(0)
    })

    it('is at most what is left: users may use the whole total', async () => {
      expect(await fill(9, start, {})).to.equal(9)
      expect(await fill(3, start, { userId: null })).to.equal(1)
    })

    it('is freed by guest tokens that are ended, consumed or swept, and by no token of a user', async () => {
      const guests = [
        await inserted({ userId: null }),
        await inserted({ userId: null }),
        await inserted({ userId: null, kind: 'single-use' }),
        await inserted({ userId: null, expiresAt: start + 1 }),
        await inserted({ userId: null }),
      ] as const
      const users = [await inserted(), await inserted({ kind: 'single-use' }), await inserted({ expiresAt: start + 1 })]
      expect(await fill(1, start, { userId: null })).to.equal(0)
      await getStore().delete((users[0] as (typeof guests)[0]).ref, start)
      await touch((users[1] as (typeof guests)[0]).ref, start)
      expect(await fill(1, start, { userId: null })).to.equal(0)
      await getStore().delete(guests[0].ref, start)
      await getStore().deleteById(guests[1].ref.id, start, null)
      await touch(guests[2].ref, start)
      await sweepAll(start + 1)
      expect(await fill(6, start + 1, { userId: null })).to.equal(4)
      expect(await fill(9, start + 1, {})).to.equal(5)
    })
  })

  describe('explain', () => {
    const why = (ref: TokenRef, now: number, purpose: string | null = null) => getStore().explain(ref, now, purpose)

    it('returns why a touch would refuse', async () => {
      const userId = randomUUID()
      const [expired, revoked, byId, renewed, consumed, bound, ended] = await Promise.all([
        inserted(),
        inserted(),
        inserted(),
        inserted(),
        inserted({ kind: 'single-use' }),
        inserted({ purpose: 'reset' }),
        inserted({ userId }),
      ])
      await getStore().delete(revoked.ref, start + 1)
      await getStore().deleteById(byId.ref.id, start + 2, null)
      await getStore().renew(renewed.ref, newHash(), lineage, start + 3)
      await touch(consumed.ref, start + 4)
      await getStore().raiseFloor(userId, 2, null)
      const live = await inserted()
      expect(await why(live.ref, start)).to.deep.equal({ reason: 'live' })
      expect(await why(unknownRef(), start)).to.deep.equal({ reason: 'unknown' })
      expect(await why(expired.ref, start + 2 * minute)).to.deep.equal({ reason: 'expired', at: start + minute })
      expect(await why(revoked.ref, start + 9)).to.deep.equal({ reason: 'revoked', at: start + 1 })
      expect(await why(byId.ref, start + 9)).to.deep.equal({ reason: 'revoked', at: start + 2 })
      expect(await why(renewed.ref, start + 9)).to.deep.equal({ reason: 'renewed', at: start + 3 })
      expect(await why(consumed.ref, start + 9)).to.deep.equal({ reason: 'consumed', at: start + 4 })
      expect(await why(bound.ref, start)).to.deep.equal({ reason: 'other_purpose' })
      expect(await why(ended.ref, start)).to.deep.equal({ reason: 'ended' })
    })

    it('still returns that a token expired after it has been swept', async () => {
      const { ref } = await inserted()
      await sweepAll(start + 2 * minute)
      expect(await why(ref, start + 2 * minute)).to.deep.equal({ reason: 'expired', at: start + minute })
    })

    it('still returns that a token ended with all of its user after it has been swept', async () => {
      const { ref, token } = await inserted()
      await getStore().raiseFloor(token.userId as string, 2, null)
      await sweepAll(start)
      expect(await why(ref, start)).to.deep.equal({ reason: 'ended' })
    })

    it('still returns that a token expired after it made room for another', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 1 }
      const { ref } = await insert(newToken({ userId }), { limits })
      await insert(newToken({ userId }), { limits, now: start + 2 * minute })
      expect(await why(ref, start + 2 * minute)).to.deep.equal({ reason: 'expired', at: start + minute })
    })

    it('returns that a session was evicted', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 1 }
      const { ref } = await insert(newToken({ userId }), { limits })
      await insert(newToken({ userId }), { limits, now: start + 7 })
      expect(await why(ref, start + 8)).to.deep.equal({ reason: 'evicted', at: start + 7 })
    })
  })

  describe('deleteExpired', () => {
    it('removes dead tokens, keeps live ones, and returns how many it removed', async () => {
      await sweepAll(start)
      const dead = await Promise.all(Array.from({ length: 25 }, () => inserted({ expiresAt: start + 1 })))
      const live = await Promise.all(Array.from({ length: 25 }, () => inserted({ expiresAt: start + 2 })))
      expect(await sweepAll(start + 1)).to.equal(25)
      expect(await sweepAll(start + 1)).to.equal(0)
      for (const { ref } of dead) expect(await touch(ref, start)).to.equal(null)
      for (const { ref } of live) expect(await touch(ref, start + 1)).to.not.equal(null)
    })

    it('removes no more than its limit in one slice', async () => {
      await sweepAll(start)
      await Promise.all(Array.from({ length: 30 }, () => inserted({ expiresAt: start + 1 })))
      const first = await getStore().deleteExpired(start + 1, 10)
      expect(first.removed).to.be.at.most(10)
      expect(first.removed + (await sweepAll(start + 1))).to.equal(30)
    })

    it('removes tokens below the floor of their user', async () => {
      const { token } = await inserted()
      await sweepAll(start)
      await getStore().raiseFloor(token.userId as string, 2, null)
      expect(await sweepAll(start)).to.equal(1)
    })

    it('makes room: removed tokens do not count towards the total', async () => {
      await sweepAll(start + 20 * minute)
      await Promise.all(Array.from({ length: 10 }, () => inserted({ expiresAt: start + 1 })))
      const limits = { ...unlimited, total: 10 }
      expect((await insert(newToken(), { limits })).outcome).to.equal('full')
      await sweepAll(start + 1)
      expect((await insert(newToken(), { limits })).outcome).to.equal('inserted')
    })

    it('takes no longer after tokens came and went, because their slots are reused', async () => {
      const slicesOfARound = async (): Promise<number> => {
        for (let slices = 1; ; slices++) if ((await getStore().deleteExpired(start, 10)).done) return slices
      }
      await sweepAll(start)
      const before = await slicesOfARound()
      for (let i = 0; i < 20; i++) {
        const tokens = await Promise.all(Array.from({ length: 10 }, () => inserted()))
        for (const { ref } of tokens) await getStore().delete(ref, start)
      }
      // The round would take 20 slices more if each token had a new slot.
      expect(await slicesOfARound()).to.be.at.most(before + 5)
    })

    it('keeps a token that was touched before the sweep reached it', async () => {
      const { ref } = await inserted()
      await touch(ref, start + minute - 1)
      await sweepAll(start + minute)
      expect(await touch(ref, start + minute)).to.not.equal(null)
    })
  })

  describe('list', () => {
    it('returns every live token, page by page, and none that is dead, ended or deleted', async () => {
      await sweepAll(start + 20 * minute)
      const userId = randomUUID()
      const live = await Promise.all(Array.from({ length: 17 }, () => inserted()))
      live.push(
        await inserted({ userId: null, kind: 'fixed' }),
        await inserted({ kind: 'single-use', purpose: 'reset' }),
      )
      await inserted({ expiresAt: start + 1 })
      const { ref: deleted } = await inserted()
      await inserted({ userId })
      await getStore().delete(deleted, start)
      await getStore().raiseFloor(userId, 2, null)
      const found = new Map<string, TokenRecord>()
      let cursor: string | null = null
      for (let pages = 0; pages === 0 || cursor !== null; pages++) {
        expect(pages).to.be.below(10_000)
        const page = await getStore().list(cursor, 4, start + 1)
        for (const token of page.tokens) found.set(token.id, token)
        cursor = page.next
      }
      expect([...found.values()]).to.have.deep.members(live.map(({ token }) => token))
    })

    it('accepts any cursor', async () => {
      for (const cursor of ['x', '-1', '99999999999', '7:7', "'; drop table x", '__proto__']) {
        await getStore().list(cursor, 10, start)
      }
    })
  })

  describe('readClock', () => {
    it('returns the time of the server of the store, or null if it has no clock of its own', async () => {
      const before = Date.now()
      const at = await getStore().readClock()
      // All stores of the tests run on this machine.
      if (at !== null) expect(at).to.be.within(before - 1, Date.now() + 1)
    })
  })

  describe('counts', () => {
    it('counts the tokens of each kind, including dead ones until they are swept', async () => {
      await sweepAll(start + 20 * minute)
      for (const kind of ['sliding', 'sliding', 'sliding', 'fixed', 'fixed', 'single-use'] as const)
        await inserted({ kind })
      const { ref } = await inserted()
      await inserted({ expiresAt: start + 1 })
      await getStore().delete(ref, start)
      await sweepAll(start + 1)
      expect(await getStore().counts()).to.deep.equal({ sliding: 3, fixed: 2, 'single-use': 1 })
    })

    it('counts a session only once if it was kept when the others of its user ended', async () => {
      await sweepAll(start + 20 * minute)
      const userId = randomUUID()
      const { token } = await inserted({ userId })
      await inserted({ userId })
      await getStore().raiseFloor(userId, 2, token.id)
      await sweepAll(start)
      expect(await getStore().counts()).to.deep.equal({ sliding: 1, fixed: 0, 'single-use': 0 })
    })
  })

  describe('close', () => {
    it('can be called twice, and every other call rejects afterwards', async () => {
      const store = getStore()
      await store.close()
      await store.close()
      const calls = [
        () => store.insert(unknownRef(), newToken(), unlimited, start),
        () => store.touch([unknownRef()], start, null),
        () => store.touchSession(unknownRef(), start),
        () => store.look([unknownRef()], start, null),
        () => store.renew(unknownRef(), newHash(), lineage, start),
        () => store.delete(unknownRef(), start),
        () => store.deleteById('Test0000000000', start, null),
        () => store.findRenewed('Test0000000000', lineage, start),
        () => store.pause('Test0000000000', start),
        () => store.raiseFloor(randomUUID(), 1, null),
        () => store.findByUser(randomUUID(), start),
        () => store.explain(unknownRef(), start, null),
        () => store.deleteExpired(start, 1),
        () => store.list(null, 1, start),
        () => store.counts(),
      ]
      for (const call of calls) {
        const outcome = await call().then(
          () => 'answered',
          () => 'rejected',
        )
        expect(outcome).to.equal('rejected')
      }
    })
  })
}
