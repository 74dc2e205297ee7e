// How every TokenStore deletes tokens, and ends all tokens of a user. Names no store; a fault found in one store gets a
// test here.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import type { TokenRecord, TokenStore } from '../../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../../services/auth/tokens/format.ts'
import { minute, start, tokenStoreCalls } from './tokenStoreCalls.ts'

export function tokenStoreEndContract(getStore: () => TokenStore): void {
  const { newHash, newToken, insert, inserted, touch, look, unknownRef, sweepAll } = tokenStoreCalls(getStore)

  describe('delete', () => {
    it('removes the token whatever its purpose, returns it once, and no later touch finds it', async () => {
      for (const purpose of [null, 'reset']) {
        const { ref, token } = await inserted({ purpose })
        expect(await getStore().delete(ref, start)).to.include({ id: token.id, userId: token.userId })
        expect(await getStore().delete(ref, start)).to.equal(null)
        expect(await touch(ref, start, purpose)).to.equal(null)
      }
    })

    it('removes nothing if the hash differs, while deleteById needs only the id', async () => {
      const { ref, token } = await inserted()
      expect(await getStore().delete({ ...ref, hash: newHash() }, start)).to.equal(null)
      expect(await touch(ref, start)).to.not.equal(null)
      expect(await getStore().deleteById(ref.id, start, null)).to.include({ id: token.id })
      expect(await getStore().deleteById(ref.id, start, null)).to.equal(null)
      expect(await touch(ref, start)).to.equal(null)
    })

    it('holds from its answer on, however many touches are in flight', async () => {
      const { ref } = await inserted()
      const racing = Array.from({ length: 20 }, () => touch(ref, start))
      await getStore().delete(ref, start)
      expect(await touch(ref, start)).to.equal(null)
      await Promise.all(racing)
      expect(await touch(ref, start)).to.equal(null)
    })
  })

  describe('deleteById with an owner', () => {
    it('removes a session of this user, and returns it once', async () => {
      const { ref, token } = await inserted()
      const owner = token.userId as string
      expect(await getStore().deleteById(ref.id, start, owner)).to.deep.equal(token)
      expect(await getStore().deleteById(ref.id, start, owner)).to.equal(null)
      expect(await touch(ref, start)).to.equal(null)
    })

    it('removes no token of another user or a guest, and none that is not a session', async () => {
      const owner = randomUUID()
      const others = [
        await inserted(),
        await inserted({ userId: null }),
        await inserted({ userId: owner, kind: 'fixed' }),
        await inserted({ userId: owner, kind: 'single-use' }),
        await inserted({ userId: owner, purpose: 'reset' }),
      ]
      for (const { ref, token } of others) {
        expect(await getStore().deleteById(ref.id, start, owner)).to.equal(null)
        expect(await look(ref, start, token.purpose)).to.deep.equal(token)
      }
      for (const odd of ['', '\ud800', "'; drop table x", '__proto__']) {
        expect(await getStore().deleteById(others[0]?.ref.id as string, start, odd)).to.equal(null)
      }
    })

    it('removes no session that is expired, ended or unknown', async () => {
      const owner = randomUUID()
      const [expired, ended] = [await inserted({ userId: owner }), await inserted({ userId: owner })]
      expect(await getStore().deleteById(expired.ref.id, start + minute, owner)).to.equal(null)
      await getStore().raiseFloor(owner, 2, null)
      expect(await getStore().deleteById(ended.ref.id, start, owner)).to.equal(null)
      expect(await getStore().deleteById(unknownRef().id, start, owner)).to.equal(null)
    })
  })

  describe('findRenewed', () => {
    const renewed = async (own = newHash(), members: Partial<TokenRecord> = {}) => {
      const { ref, token } = await inserted(members)
      const hash = newHash()
      expect(await getStore().renew(ref, hash, own, start)).to.not.equal(null)
      return { own, id: token.id, first: ref, current: { id: ref.id, hash }, token }
    }

    /** Ends the token as a log-out with an earlier secret does. */
    const endRenewed = async (id: string, own: string) =>
      (await getStore().findRenewed(id, own, start)) && getStore().deleteById(id, start, null)

    it('finds a token that was renewed with the lineage, and changes nothing', async () => {
      const { own, id, current, token } = await renewed()
      const { userId } = token
      for (let i = 0; i < 2; i++) {
        expect(await getStore().findRenewed(id, own, start)).to.include({ id, userId, refreshCount: 1 })
      }
      expect(await look(current, start)).to.deep.equal(await getStore().findRenewed(id, own, start))
    })

    it('finds a paused token, and one that has expired but is not swept', async () => {
      const { own, id, current } = await renewed()
      await getStore().change(id, { paused: true }, start)
      expect(await getStore().findRenewed(id, own, start)).to.include({ id, paused: true })
      await getStore().change(id, { paused: false }, start)
      expect(await touch(current, start + minute)).to.equal(null)
      expect(await getStore().findRenewed(id, own, start + minute)).to.include({ id })
    })

    it('lets `deleteById` end the token, which is returned once, and no later touch finds it', async () => {
      const { own, id, first, current, token } = await renewed()
      expect(await endRenewed(id, own)).to.include({ id, userId: token.userId, refreshCount: 1 })
      expect(await endRenewed(id, own)).to.equal(null)
      for (const ref of [first, current]) expect(await touch(ref, start)).to.equal(null)
      expect(await getStore().findByUser(token.userId as string, start)).to.deep.equal([])
      expect(await getStore().explain(current, start, null)).to.deep.equal({ reason: 'revoked', at: start })
    })

    it('finds it after any number of renewals', async () => {
      const { own, id, current } = await renewed()
      let ref = current
      for (let i = 1; i <= 20; i++) {
        const hash = newHash()
        await getStore().renew(ref, hash, own, start + i)
        ref = { id, hash }
      }
      expect(await getStore().findRenewed(id, own, start + 20)).to.include({ id, refreshCount: 21 })
      expect(await touch(ref, start + 20)).to.not.equal(null)
    })

    it('finds nothing with another lineage, with the id alone, or if the token was never renewed', async () => {
      const { own, id, current } = await renewed()
      const never = await inserted()
      const others = Array.from(
        { length: 20 },
        (_, i) => own.slice(0, i) + (own[i] === 'x' ? 'y' : 'x') + own.slice(i + 1),
      )
      for (const other of [...others, newHash(), current.hash]) {
        expect(await getStore().findRenewed(id, other, start)).to.equal(null)
      }
      expect(await getStore().findRenewed(never.ref.id, own, start)).to.equal(null)
      expect(await getStore().findRenewed(never.ref.id, never.ref.hash, start)).to.equal(null)
      expect(await getStore().findRenewed(unknownRef().id, own, start)).to.equal(null)
      for (const ref of [current, never.ref]) expect(await touch(ref, start)).to.not.equal(null)
    })

    it('finds nothing that was renewed after the given time', async () => {
      const { own, id, current } = await renewed()
      const last = { id, hash: newHash() }
      await getStore().renew(current, last.hash, own, start + 5000)
      expect(await getStore().findRenewed(id, own, start + 4999)).to.equal(null)
      expect(await touch(last, start + 9000)).to.not.equal(null)
      expect(await getStore().findRenewed(id, own, start + 5000)).to.include({ id })
    })

    it('leaves no trace of the renewals when a slot is used for another token', async () => {
      const { own, id } = await renewed()
      await getStore().deleteById(id, start, null)
      const userId = randomUUID()
      const next = await Promise.all(Array.from({ length: 5 }, () => inserted({ userId })))
      for (const { ref } of next) expect(await getStore().findRenewed(ref.id, own, start)).to.equal(null)
    })

    it('followed by `deleteById` wins over every concurrent renewal', async () => {
      for (let i = 0; i < 20; i++) {
        const { own, id, current } = await renewed()
        const hash = newHash()
        const [, ended] = await Promise.all([getStore().renew(current, hash, own, start), endRenewed(id, own)])
        expect(ended).to.include({ id })
        for (const ref of [current, { id, hash }]) expect(await touch(ref, start)).to.equal(null)
      }
    })
  })

  describe('raiseFloor', () => {
    const find = (userId: string) => getStore().findByUser(userId, start)
    const end = (userId: string, version: number) => getStore().raiseFloor(userId, version, null)

    it('ends the tokens below the floor, of every kind and purpose, and no others', async () => {
      const userId = randomUUID()
      const below = await Promise.all([inserted({ userId }), inserted({ userId, kind: 'fixed', purpose: 'reset' })])
      const { ref: at } = await inserted({ userId, credentialVersion: 2 })
      const { ref: others } = await inserted()
      await end(userId, 2)
      for (const { ref, token } of below) expect(await touch(ref, start, token.purpose)).to.equal(null)
      expect(await touch(at, start)).to.not.equal(null)
      expect(await touch(others, start)).to.not.equal(null)
    })

    it('lets no token in below the floor, so a concurrent log-in loses', async () => {
      const userId = randomUUID()
      await end(userId, 5)
      const { ref, outcome } = await insert(newToken({ userId, credentialVersion: 4 }))
      expect(outcome).to.equal('ended')
      expect(await touch(ref, start)).to.equal(null)
      expect((await insert(newToken({ userId, credentialVersion: 5 }))).outcome).to.equal('inserted')
    })

    it('never lowers the floor', async () => {
      const userId = randomUUID()
      await end(userId, 5)
      await end(userId, 3)
      expect((await insert(newToken({ userId, credentialVersion: 4 }))).outcome).to.equal('ended')
    })

    it('keeps the one token that is given, and moves it to the new version', async () => {
      const userId = randomUUID()
      const { ref, token } = await inserted({ userId })
      const { ref: other } = await inserted({ userId })
      await getStore().raiseFloor(userId, 2, ref.id)
      expect(await look(other, start)).to.equal(null)
      expect(await look(ref, start)).to.deep.equal({ ...token, credentialVersion: 2 })
      expect((await find(userId)).map(({ id }) => id)).to.deep.equal([ref.id])
      await getStore().raiseFloor(userId, 3, null)
      expect(await look(ref, start)).to.equal(null)
    })

    it('keeps no token that was ended, belongs to another user or does not exist', async () => {
      const userId = randomUUID()
      const { ref: ended } = await inserted({ userId })
      await end(userId, 2)
      const { ref: deleted } = await inserted({ userId, credentialVersion: 2 })
      await getStore().delete(deleted, start)
      const { ref: others, token: othersToken } = await inserted()
      for (const id of [ended.id, deleted.id, others.id, 'Test0000000000']) {
        await getStore().raiseFloor(userId, 3, id)
        for (const ref of [ended, deleted]) expect(await look(ref, start)).to.equal(null)
      }
      expect(await look(others, start)).to.deep.equal(othersToken)
    })

    it('leaves no token of the previous version, however many inserts are in flight', async () => {
      const userId = randomUUID()
      const tries = Array.from({ length: 20 }, () => newToken({ userId }))
      const half = (from: number) => tries.slice(from, from + 10).map(token => insert(token))
      const [, ...outcomes] = await Promise.all([end(userId, 2), ...half(0), ...half(10)])
      const refs = outcomes.map(({ ref }) => ref)
      expect(await getStore().touch(refs, start, null)).to.deep.equal(refs.map(() => null))
    })

    it('keeps the floor when the last token of the user is gone', async () => {
      const userId = randomUUID()
      const { ref } = await inserted({ userId })
      await end(userId, 2)
      await getStore().delete(ref, start)
      await sweepAll(start + 20 * minute)
      expect((await insert(newToken({ userId }))).outcome).to.equal('ended')
    })

    it('admits no token of before, however long ago the floor was raised', async () => {
      const [userId, hour] = [randomUUID(), 60 * minute]
      const lasting = { userId, expiresAt: start + 1000 * hour, absoluteExpiresAt: start + 1000 * hour }
      const { ref: old } = await inserted(lasting)
      const { ref: kept } = await inserted(lasting)
      await getStore().raiseFloor(userId, 2, kept.id)
      for (const at of [0, 23, 25, 50, 75]) {
        await sweepAll(start + at * hour)
        const outcome = at < 24 ? (await insert(newToken({ userId }))).outcome : 'ended'
        expect(outcome).to.equal('ended')
        const found = await getStore().touch([old, kept], start + at * hour, null)
        expect(found.map(Boolean)).to.deep.equal([false, true])
      }
    })
  })

  describe('findByUser', () => {
    const find = (userId: string, now: number) => getStore().findByUser(userId, now)

    it('lists the live tokens of this user only, oldest first', async () => {
      const userId = randomUUID()
      const tokens = []
      for (let i = 0; i < 5; i++) {
        const createdAt = start + i
        tokens.push(
          (await inserted({ userId, createdAt, id: drawTokenId(userId, createdAt), expiresAt: start + minute + i }))
            .token,
        )
      }
      await inserted()
      expect(await find(userId, start + 10)).to.deep.equal(tokens)
      expect(await find(userId, start + minute + 2)).to.deep.equal(tokens.slice(3))
      expect(await find(randomUUID(), start)).to.deep.equal([])
    })

    it('lists none for an id that no store can contain, such as one with a NUL or half a surrogate pair', async () => {
      await inserted({ userId: '\ufffd' })
      for (const userId of ['\0', 'a\0b', '', '\ud800', 'a\udc00']) expect(await find(userId, start)).to.deep.equal([])
    })

    it('lists no token that was deleted, consumed or ended', async () => {
      const userId = randomUUID()
      const [deleted, consumed] = [await inserted({ userId }), await inserted({ userId, kind: 'single-use' })]
      const kept = await inserted({ userId, credentialVersion: 3 })
      await inserted({ userId })
      await getStore().delete(deleted.ref, start)
      await touch(consumed.ref, start)
      await getStore().raiseFloor(userId, 2, null)
      expect((await find(userId, start)).map(({ id }) => id)).to.deep.equal([kept.token.id])
    })
  })
}
