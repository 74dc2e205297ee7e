// What every TokenStore must do. Names no store; a fault found in one gets its case here.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import type { TokenRecord, TokenRef, TokenStore } from '../../services/auth/stores/ports.ts'

const minute = 60_000
// An hour ahead: a store that also expires by its own clock keeps what is inserted.
const start = Date.now() + 60 * minute

export function tokenStoreContract(getStore: () => TokenStore): void {
  function newRef(tag = 'Test'): TokenRef {
    return { tag, hash: Buffer.from(randomUUID().replaceAll('-', '').repeat(2), 'hex').toString('base64url') }
  }

  function newToken(members: Partial<TokenRecord> = {}): TokenRecord {
    return {
      id: randomUUID().replaceAll('-', '').slice(0, 16),
      kind: 'sliding',
      userId: randomUUID(),
      username: 'somebody@example.com',
      credentialVersion: 1,
      createdAt: start,
      expiresAt: start + minute,
      absoluteExpiresAt: start + 10 * minute,
      ttlMs: minute,
      refreshCount: 0,
      ...members,
    }
  }

  async function inserted(members: Partial<TokenRecord> = {}) {
    const ref = newRef()
    const token = newToken(members)
    expect(await getStore().insert(ref, token)).to.equal(true)
    return { ref, token }
  }

  async function touch(ref: TokenRef, now: number): Promise<TokenRecord | null> {
    const [token] = await getStore().touch([ref], now)
    return token as TokenRecord | null
  }

  /** Sweeps whole rounds until one begins and ends without finding anything. */
  async function sweepAll(now: number): Promise<number> {
    let total = 0
    for (let removed = -1; removed !== 0; total += removed) {
      removed = 0
      for (let done = false; !done; ) {
        const slice = await getStore().deleteExpired(now, 10)
        removed += slice.removed
        done = slice.done
      }
    }
    return total
  }

  describe('touch', () => {
    it('answers with the token as it was inserted, extended, and one refresh more', async () => {
      const { ref, token } = await inserted()
      const now = start + 10_000
      expect(await touch(ref, now)).to.deep.equal({ ...token, expiresAt: now + minute, refreshCount: 1 })
      expect(await touch(ref, now)).to.deep.equal({ ...token, expiresAt: now + minute, refreshCount: 2 })
    })

    it('answers null for a token that is unknown', async () => {
      expect(await touch(newRef(), start)).to.equal(null)
    })

    it('keeps a guest a guest', async () => {
      const { ref } = await inserted({ userId: null, username: null, credentialVersion: 0 })
      expect(await touch(ref, start)).to.include({ userId: null, username: null, credentialVersion: 0 })
    })

    it('finds a token live one millisecond before expiresAt and dead at exactly expiresAt', async () => {
      const { ref: live } = await inserted()
      const { ref: dead } = await inserted()
      expect(await touch(live, start + minute - 1)).to.not.equal(null)
      expect(await touch(dead, start + minute)).to.equal(null)
    })

    it('never revives a dead token, not even for an earlier now', async () => {
      const { ref } = await inserted()
      expect(await touch(ref, start + minute)).to.equal(null)
      await sweepAll(start + minute)
      expect(await touch(ref, start)).to.equal(null)
    })

    it('never extends a token past its absolute end', async () => {
      const { ref, token } = await inserted({ absoluteExpiresAt: start + minute + 5 })
      expect(await touch(ref, start + 10)).to.include({ expiresAt: token.absoluteExpiresAt })
      expect(await touch(ref, start + minute + 4)).to.include({ expiresAt: token.absoluteExpiresAt })
      expect(await touch(ref, start + minute + 5)).to.equal(null)
    })

    it('answers a batch in its order, whatever is in it', async () => {
      const tokens = await Promise.all(Array.from({ length: 20 }, () => inserted()))
      const dead = await inserted({ expiresAt: start })
      const unknown = newRef()
      const refs = [unknown, ...tokens.map(({ ref }) => ref), dead.ref].reverse()
      const answers = await getStore().touch(refs, start)
      const expected = [null, ...tokens.map(({ token }) => token.id), null].reverse()
      expect(answers.map(answer => answer?.id ?? null)).to.deep.equal(expected)
    })

    it('touches a token twice that is twice in a batch', async () => {
      const { ref } = await inserted()
      const answers = await getStore().touch([ref, ref], start)
      expect(answers.map(answer => answer?.refreshCount)).to.deep.equal([1, 2])
    })

    it('answers an empty batch with nothing', async () => {
      expect(await getStore().touch([], start)).to.deep.equal([])
    })

    it('counts every one of many at the same time', async () => {
      const { ref } = await inserted()
      const counts = await Promise.all(Array.from({ length: 50 }, async () => (await touch(ref, start))?.refreshCount))
      expect(counts.toSorted((a, b) => Number(a) - Number(b))).to.deep.equal(counts.map((_, i) => i + 1))
    })

    it('hands out copies: what a caller does to an answer changes nothing', async () => {
      const { ref, token } = await inserted()
      token.expiresAt = 0
      const first = (await touch(ref, start)) as TokenRecord
      first.expiresAt = 0
      first.credentialVersion = 0
      expect(await touch(ref, start)).to.include({ refreshCount: 2, credentialVersion: 1 })
    })
  })

  describe('delete', () => {
    it('removes the token, answers with it once, and no later touch finds it', async () => {
      const { ref, token } = await inserted()
      expect(await getStore().delete(ref)).to.include({ id: token.id, userId: token.userId })
      expect(await getStore().delete(ref)).to.equal(null)
      expect(await touch(ref, start)).to.equal(null)
    })

    it('holds from its answer on, however many touches race it', async () => {
      const { ref } = await inserted()
      const racing = Array.from({ length: 20 }, () => touch(ref, start))
      await getStore().delete(ref)
      expect(await touch(ref, start)).to.equal(null)
      await Promise.all(racing)
      expect(await touch(ref, start)).to.equal(null)
    })
  })

  describe('endUser', () => {
    it('ends the tokens below the floor and no others', async () => {
      const userId = randomUUID()
      const { ref: below } = await inserted({ userId, credentialVersion: 1 })
      const { ref: at } = await inserted({ userId, credentialVersion: 2 })
      const { ref: others } = await inserted({ credentialVersion: 1 })
      await getStore().endUser('Test', userId, 2)
      expect(await touch(below, start)).to.equal(null)
      expect(await touch(at, start)).to.not.equal(null)
      expect(await touch(others, start)).to.not.equal(null)
    })

    it('lets no token in below the floor: a login that races it loses', async () => {
      const userId = randomUUID()
      await getStore().endUser('Test', userId, 5)
      const ref = newRef()
      expect(await getStore().insert(ref, newToken({ userId, credentialVersion: 4 }))).to.equal(false)
      expect(await touch(ref, start)).to.equal(null)
      expect(await getStore().insert(newRef(), newToken({ userId, credentialVersion: 5 }))).to.equal(true)
    })

    it('never lowers the floor', async () => {
      const userId = randomUUID()
      await getStore().endUser('Test', userId, 5)
      await getStore().endUser('Test', userId, 3)
      expect(await getStore().insert(newRef(), newToken({ userId, credentialVersion: 4 }))).to.equal(false)
    })

    it('leaves no token of the version before, however many inserts race it', async () => {
      const userId = randomUUID()
      const refs = Array.from({ length: 20 }, () => newRef())
      const insert = (ref: TokenRef) => getStore().insert(ref, newToken({ userId, credentialVersion: 1 }))
      await Promise.all([...refs.map(insert), getStore().endUser('Test', userId, 2), ...refs.map(insert)])
      expect(await getStore().touch(refs, start)).to.deep.equal(refs.map(() => null))
    })
  })

  describe('deleteExpired', () => {
    it('removes the dead, spares the live, and counts what it removed', async () => {
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

    it('spares a token that was touched before it came by', async () => {
      const { ref } = await inserted()
      await touch(ref, start + minute - 1)
      await sweepAll(start + minute)
      expect(await touch(ref, start + minute)).to.not.equal(null)
    })
  })

  describe('close', () => {
    it('can be repeated, and every other call rejects afterwards', async () => {
      const store = getStore()
      await store.close()
      await store.close()
      const calls = [
        () => store.insert(newRef(), newToken()),
        () => store.touch([newRef()], start),
        () => store.delete(newRef()),
        () => store.endUser('Test', randomUUID(), 1),
        () => store.deleteExpired(start, 1),
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
