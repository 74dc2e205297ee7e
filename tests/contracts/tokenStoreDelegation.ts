// What every TokenStore must do with names and with delegated tokens. Names no store; a fault found in one store gets a test here.
import { expect } from 'chai'
import {
  type Found,
  isAdmitted,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../../services/auth/stores/tokenPort.ts'
import { minute, start, tokenStoreCalls } from './tokenStoreCalls.ts'

const limitedFor = (retryAfterMs: number) => ({ limited: true, retryAfterMs })

export function tokenStoreDelegationContract(getStore: () => TokenStore): void {
  const { newHash, newToken, insert, inserted, touch, look } = tokenStoreCalls(getStore)
  const touchAll = (refs: TokenRef[], now = start): Promise<Found[]> => getStore().touch(refs, now, null)

  /** A fixed token of the same user that lives as long as its parent may. */
  function childOf(parent: TokenRecord, members: Partial<TokenRecord> = {}): TokenRecord {
    const { id, scope, name, userId, username, absoluteExpiresAt } = parent
    const ends = { expiresAt: absoluteExpiresAt, absoluteExpiresAt, ttlMs: absoluteExpiresAt - start }
    return newToken({ kind: 'fixed', userId, username, parent: { id, scope, name }, ...ends, ...members })
  }

  async function family(ofParent: Partial<TokenRecord> = {}, ofChild: Partial<TokenRecord> = {}) {
    const parent = await inserted({ ...ofParent })
    const child = await insert(childOf(parent.token, ofChild))
    expect(child.outcome).to.equal('inserted')
    return { parent, child }
  }

  describe('the name of a token', () => {
    it('is returned with the token, and can be changed and removed', async () => {
      const { ref, token } = await inserted({ kind: 'fixed', name: 'deploy 🚀 "x"\\' })
      expect(await touch(ref, start)).to.deep.equal({ ...token, refreshCount: 1 })
      expect((await getStore().findByUser(token.userId as string, start))[0]).to.include({ name: token.name })
      expect(await getStore().change(ref.id, { name: 'backup' }, start)).to.include({ name: 'backup' })
      expect(await getStore().change(ref.id, { paused: false }, start)).to.include({ name: 'backup' })
      expect(await look(ref, start)).to.include({ name: 'backup' })
      expect(await getStore().change(ref.id, { name: null }, start)).to.include({ name: null })
    })

    it('stays with the scope and the limits beside it', async () => {
      const rights = { scope: 'a b', rate: { perMinute: 60, burst: 2 }, usesLeft: 9, paused: true }
      const { ref } = await inserted({ name: 'n', ...rights })
      const { ref: other } = await inserted({ name: 'n', paused: true })
      expect(await getStore().change(ref.id, {}, start)).to.deep.include({ name: 'n', ...rights })
      const resumed = await getStore().change(other.id, { paused: false }, start)
      expect(resumed).to.deep.include({ name: 'n', paused: false, rate: null, usesLeft: null, scope: null })
    })
  })

  describe('a delegated token', () => {
    it('shows its parent as it is now, and does not extend it', async () => {
      const { parent, child } = await family({ scope: 'a b', name: 'key' }, { scope: 'a', name: 'agent' })
      const shown = { id: parent.ref.id, scope: 'a b', name: 'key' }
      expect(await touch(child.ref, start + 1000)).to.deep.include({ parent: shown, scope: 'a', name: 'agent' })
      expect(await look(parent.ref, start + 1000)).to.deep.equal(parent.token)
      await getStore().change(parent.ref.id, { scope: 'b', name: 'other' }, start)
      const changed = { id: parent.ref.id, scope: 'b', name: 'other' }
      expect(await touch(child.ref, start)).to.deep.include({ parent: changed })
      expect(await look(child.ref, start)).to.deep.include({ parent: changed })
      const own = await getStore().findByUser(parent.token.userId as string, start)
      expect(own.find(({ id }) => id === child.ref.id)).to.deep.include({ parent: changed })
    })

    const endings: Record<string, (parent: { ref: TokenRef; token: TokenRecord }) => Promise<unknown>> = {
      deleted: ({ ref }) => getStore().delete(ref, start),
      'deleted by id': ({ ref }) => getStore().deleteById(ref.id, start, null),
      'deleted by its owner': ({ ref, token }) => getStore().deleteById(ref.id, start, token.userId),
      'ended by the floor': ({ token }) => getStore().raiseFloor(token.userId as string, 2, null),
      'kept while the floor ends the others': ({ ref, token }) =>
        getStore().raiseFloor(token.userId as string, 2, ref.id),
    }
    for (const [how, end] of Object.entries(endings)) {
      it(`is refused once its parent has been ${how}`, async () => {
        const { parent, child } = await family()
        await end(parent)
        expect(await look(child.ref, start)).to.equal(null)
        expect(await touchAll([child.ref, child.ref])).to.deep.equal([null, null])
        const own = await getStore().findByUser(parent.token.userId as string, start)
        expect(own.map(({ id }) => id)).not.to.include(child.ref.id)
        expect(await getStore().change(child.ref.id, { paused: false }, start)).to.equal(null)
        const { reason } = await getStore().explain(child.ref, start, null)
        expect(reason).to.be.oneOf(['parent_ended', 'ended'])
      })
    }

    it('is refused once its parent has expired, even by a call that arrives late', async () => {
      const { parent, child } = await family()
      const end = parent.token.expiresAt
      expect(await touch(child.ref, end - 1)).to.include({ refreshCount: 1 })
      expect(await touch(child.ref, end)).to.equal(null)
      expect(await getStore().explain(child.ref, end, null)).to.include({ reason: 'parent_ended' })
      expect(await touch(child.ref, end - 1)).to.equal(null)
      expect(await touch(parent.ref, end - 1), 'its end is final').to.equal(null)
    })

    it('is refused by a late look too, after a look found the parent expired', async () => {
      const { parent, child } = await family()
      const end = parent.token.expiresAt
      expect(await look(child.ref, end)).to.equal(null)
      expect(await look(child.ref, end - 1)).to.equal(null)
      expect(await look(parent.ref, end - 1)).to.equal(null)
    })

    it('lives on when its parent is extended or renewed', async () => {
      const { parent, child } = await family()
      await touch(parent.ref, start + minute / 2)
      await getStore().renew(parent.ref, newHash(), newHash(), start + minute / 2)
      expect(await touch(child.ref, start + minute)).to.include({ refreshCount: 1 })
    })

    it('is paused while its parent is', async () => {
      const { parent, child } = await family()
      await getStore().change(parent.ref.id, { paused: true }, start)
      expect(await touch(child.ref, start)).to.equal(null)
      expect(await getStore().explain(child.ref, start, null)).to.deep.equal({ reason: 'paused' })
      await getStore().change(parent.ref.id, { paused: false }, start)
      expect(await touch(child.ref, start)).to.include({ refreshCount: 1 })
    })

    it('takes from the rate of its parent, together with the parent and its other children', async () => {
      const { parent, child } = await family({ rate: { perMinute: 60, burst: 3 } })
      const sibling = await insert(childOf(parent.token, { rate: { perMinute: 60, burst: 1 } }))
      const found = await touchAll([child.ref, parent.ref, sibling.ref, child.ref, parent.ref, sibling.ref])
      expect(found.slice(0, 3).every(isAdmitted)).to.equal(true)
      expect(found.slice(3)).to.deep.equal([limitedFor(1000), limitedFor(1000), limitedFor(1000)])
      expect(await touch(child.ref, start + 1000)).to.include({ refreshCount: 2 })
      expect(await touch(parent.ref, start + 1000)).to.deep.equal(limitedFor(1000))
    })

    it('takes from the uses of its parent, whose last one ends both', async () => {
      const { parent, child } = await family({ usesLeft: 3, scope: 'a' })
      expect(await touch(child.ref, start)).to.include({ usesLeft: null, refreshCount: 1 })
      expect(await look(parent.ref, start)).to.include({ usesLeft: 2, refreshCount: 0 })
      const [own, last, none] = await touchAll([parent.ref, child.ref, child.ref])
      expect(own).to.include({ usesLeft: 1 })
      expect(last).to.deep.include({ refreshCount: 2, parent: { id: parent.ref.id, scope: 'a', name: null } })
      expect(none).to.equal(null)
      expect(await touch(parent.ref, start)).to.equal(null)
      expect(await touch(child.ref, start)).to.equal(null)
      expect((await getStore().counts()).sliding).to.equal(0)
    })

    it('has limits of its own besides', async () => {
      const { parent, child } = await family({ usesLeft: 5 }, { usesLeft: 2 })
      expect(await touch(child.ref, start)).to.include({ usesLeft: 1 })
      expect(await touch(child.ref, start)).to.include({ usesLeft: 0 })
      expect(await touch(child.ref, start)).to.equal(null)
      expect(await touch(parent.ref, start)).to.include({ usesLeft: 2 })
    })

    it('takes no more than its parent allows under concurrent calls', async () => {
      const { parent, child } = await family({ usesLeft: 10 })
      const sibling = await insert(childOf(parent.token))
      const refs = [child.ref, parent.ref, sibling.ref]
      const calls = await Promise.all(Array.from({ length: 8 }, () => touchAll(refs)))
      expect(calls.flat().filter(isAdmitted)).to.have.lengthOf(10)
    })

    it('cannot be inserted once its parent has ended', async () => {
      const parent = await inserted()
      expect((await insert(childOf(parent.token), { now: parent.token.expiresAt })).outcome).to.equal('ended')
      await getStore().delete(parent.ref, start)
      expect((await insert(childOf(parent.token))).outcome).to.equal('ended')
    })
  })

  describe('the tokens of a user that programs hold', () => {
    const limits = { perUser: 4, total: 100 }

    it('may be half of the tokens of a user: a delegated one makes room for the next, a key does not', async () => {
      const session = await inserted()
      const { userId, username } = session.token
      const key = newToken({ kind: 'fixed', userId, username, name: 'key' })
      expect((await insert(key, { limits })).outcome).to.equal('inserted')
      const first = await insert(childOf(session.token, { createdAt: start + 1 }), { limits })
      const second = await insert(childOf(key, { createdAt: start + 2 }), { limits })
      expect(second.outcome).to.equal('inserted')
      expect(await look(first.ref, start + 3)).to.equal(null)
      expect(await look(session.ref, start + 3), 'no session is evicted').not.to.equal(null)
      const another = newToken({ kind: 'fixed', userId, username, name: 'another' })
      expect((await insert(another, { limits })).outcome).to.equal('inserted')
      expect(await look(second.ref, start + 3)).to.equal(null)
      expect((await insert(newToken({ ...key, id: newToken({ userId }).id }), { limits })).outcome).to.equal('full')
      expect((await insert(childOf(key), { limits })).outcome).to.equal('full')
      for (let i = 0; i < 3; i++) {
        const { outcome } = await insert(newToken({ userId, username, createdAt: start + 4 + i }), { limits })
        expect(outcome, 'a log-in still works').to.equal('inserted')
      }
    })

    it('do not evict the session that they are delegated from', async () => {
      const parent = await inserted({ createdAt: start })
      const { userId, username } = parent.token
      const others = [await inserted({ userId, username, createdAt: start + 1 })]
      for (let i = 2; i < 4; i++) others.push(await inserted({ userId, username, createdAt: start + i }))
      expect((await insert(childOf(parent.token, { createdAt: start + 5 }), { limits })).outcome).to.equal('inserted')
      expect(await look(parent.ref, start + 5)).not.to.equal(null)
      expect(await look((others[0] as { ref: TokenRef }).ref, start + 5)).to.equal(null)
    })
  })
}
