// What a TokenStore that several processes share must do. Names no store; `getStores` returns the stores of two processes.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import {
  type Found,
  isAdmitted,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../../services/auth/stores/tokenPort.ts'
import { lineage, type MadeToken, minute, newHash, newTokenAt, unlimited } from '../support/storeFixtures.ts'

// The real time, so that the tokens stay in a store that also expires keys by its own clock.
const start = Date.now()

const newToken = (members: Partial<TokenRecord> = {}) => newTokenAt(start, members)

async function inserted(store: TokenStore, members: Partial<TokenRecord> = {}): Promise<MadeToken> {
  const made = newToken(members)
  expect(await store.insert(made.ref, made.token, unlimited, start)).to.equal('inserted')
  return made
}

async function sweepRound(store: TokenStore, now: number): Promise<number> {
  for (let total = 0; ; ) {
    const { removed, done } = await store.deleteExpired(now, 20)
    total += removed
    if (done) return total
  }
}

export function sharedTokenStoreContract(getStores: () => [TokenStore, TokenStore]): void {
  const touch = async (store: TokenStore, ref: TokenRef) => (await store.touch([ref], start, null))[0]

  /** Makes `n` calls at the same time, alternately in the two processes. */
  function both<T>(n: number, call: (store: TokenStore, i: number) => Promise<T>): Promise<T[]> {
    const stores = getStores()
    return Promise.all(Array.from({ length: n }, (_, i) => call(stores[i % 2] as TokenStore, i)))
  }

  /** Like `both`, but with at most 20 calls at a time: a store on a slow disk could not answer more within its deadline. */
  async function bothInTurn<T>(n: number, call: (store: TokenStore) => Promise<T>): Promise<T[]> {
    const results: T[] = []
    while (results.length < n) results.push(...(await both(20, call)))
    return results
  }

  it('consumes a single-use token once', async () => {
    const [one, other] = getStores()
    for (let i = 0; i < 5; i++) {
      const { ref } = await inserted(i % 2 ? one : other, { kind: 'single-use' })
      const answers = await both(100, store => touch(store, ref) as Promise<TokenRecord | null>)
      expect(answers.filter(token => token !== null)).to.have.lengthOf(1)
    }
  })

  it('consumes each of many single-use tokens once', async () => {
    const issued = await both(20, store => inserted(store, { kind: 'single-use' }))
    const answers = await both(200, (store, i) => touch(store, issued[(i >> 1) % 20]?.ref as TokenRef))
    expect(answers.filter(token => token !== null)).to.have.lengthOf(20)
  })

  it('never exceeds a rate or a number of uses', async () => {
    const [one, other] = getStores()
    const userId = randomUUID()
    const rate = { perMinute: 1, burst: 30 }
    const ofUser = [await inserted(one, { userId }), await inserted(other, { userId })]
    await one.setAuthority(userId, { version: 1, roles: [], paused: false, rate })
    const limited = [await inserted(one, { rate }), await inserted(other, { usesLeft: 30 })]
    const refs = [...ofUser, ...limited].map(({ ref }) => ref)
    const found: Found[][] = []
    while (found.length < 60) found.push(...(await both(6, store => store.touch(refs, start, null))))
    const admitted = (i: number) => found.filter(batch => isAdmitted(batch[i] ?? null)).length
    expect([admitted(0) + admitted(1), admitted(2), admitted(3)]).to.deep.equal([30, 30, 30])
  })

  it('never lets a delegated token exceed the limits of its parent', async () => {
    const [one, other] = getStores()
    const parent = await inserted(one, { usesLeft: 30 })
    const { userId } = parent.token
    const members = { userId, kind: 'fixed', parent: { id: parent.ref.id, scope: null, name: null } } as const
    const refs = [parent, await inserted(one, members), await inserted(other, members)].map(({ ref }) => ref)
    const found: Found[][] = []
    while (found.length < 18) found.push(...(await both(6, store => store.touch(refs, start, null))))
    expect(found.flat().filter(found => isAdmitted(found))).to.have.lengthOf(30)
    expect(await touch(other, refs[1] as TokenRef)).to.equal(null)
  })

  it('lets one of two concurrent renewals win', async () => {
    const [one, other] = getStores()
    for (let i = 0; i < 20; i++) {
      const { ref } = await inserted(one)
      const hashes = [newHash(), newHash()] as const
      const answers = await both(2, (store, i) => store.renew(ref, hashes[i] as string, lineage, start))
      expect(answers.filter(token => token !== null)).to.have.lengthOf(1)
      const refs = [ref, ...hashes.map(hash => ({ ...ref, hash }))]
      const found = await other.look(refs, start, null)
      expect(found.map(token => token !== null)).to.deep.equal([false, ...answers.map(token => token !== null)])
    }
  })

  it('refuses from the very next touch a token that the other process has revoked', async () => {
    const [one, other] = getStores()
    for (let i = 0; i < 20; i++) {
      const [from, to] = i % 2 ? [one, other] : [other, one]
      const { ref, token } = await inserted(from)
      expect(await touch(to, ref)).to.include({ id: token.id })
      expect(await from.deleteById(token.id, start, i % 4 < 2 ? null : token.userId)).to.include({ id: token.id })
      expect(await touch(to, ref)).to.equal(null)
    }
  })

  it('leaves no live token when one process ends those of a user while the other issues', async () => {
    for (const [one, other] of [getStores(), getStores().toReversed() as [TokenStore, TokenStore]]) {
      for (let i = 0; i < 10; i++) {
        const userId = randomUUID()
        const issued = Array.from({ length: 20 }, () => newToken({ userId }))
        const inserts = issued.map(({ ref, token }) => other.insert(ref, token, unlimited, start))
        await inserts[i]
        await one.raiseFloor(userId, 2, null)
        expect(await Promise.all(inserts)).to.include('inserted')
        const refs = issued.map(({ ref }) => ref)
        expect(await one.touch(refs, start, null)).to.deep.equal(refs.map(() => null))
        expect(await other.findByUser(userId, start)).to.deep.equal([])
      }
    }
  })

  it('keeps exactly to the limit per user', async () => {
    const limits = { perUser: 5, total: Infinity }
    const insertBoth = (userId: string, kind: TokenRecord['kind']) =>
      both(60, (store, i) => {
        const { ref, token } = newToken({ userId, kind, createdAt: start + i })
        return store.insert(ref, token, limits, start)
      })
    const [first, second] = [randomUUID(), randomUUID()]
    const outcomes = await insertBoth(first, 'fixed')
    expect(outcomes.filter(outcome => outcome === 'inserted')).to.have.lengthOf(5)
    expect(outcomes.filter(outcome => outcome === 'full')).to.have.lengthOf(55)
    expect(new Set(await insertBoth(second, 'sliding'))).to.deep.equal(new Set(['inserted']))
    for (const userId of [first, second]) {
      expect(await getStores()[0].findByUser(userId, start)).to.have.lengthOf(5)
    }
  })

  it('sweeps in both processes: each dead token is removed once, and can still be explained', async () => {
    const [one, other] = getStores()
    const later = start + minute
    await sweepRound(one, later)
    const dead = await bothInTurn(300, store => inserted(store, { expiresAt: later }))
    const { ref: live } = await inserted(one)
    const removed = await both(2, store => sweepRound(store, later))
    expect(removed.reduce((sum, n) => sum + n)).to.equal(300)
    expect(await other.explain(dead[0]?.ref as TokenRef, later, null)).to.deep.equal({ reason: 'expired', at: later })
    expect(await other.look([live], later, null)).to.not.deep.equal([null])
  })
}
