// stores/memory/slotIndex.ts: finds what was added and not removed, however large the index is and however hashes collide.
import { expect } from 'chai'
import fc from 'fast-check'
import { createSlotIndex } from '../../../services/auth/stores/memory/slotIndex.ts'
import { openTokenStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { noAuthority, type TokenRecord } from '../../../services/auth/stores/tokenPort.ts'

const notFound = -1

/** Distributions of token hashes, made from 32 random bits. */
const spreads: Record<string, { hashOf: (random: number) => number; slots: number }> = {
  'evenly, over several splits': { hashOf: random => random, slots: 50_000 },
  'over an eighth of the range, so that only some segments split': {
    hashOf: random => ((random >>> 3) | 0xa0000000) >>> 0,
    slots: 30_000,
  },
  'in one cluster that goes over the end of its segment': {
    hashOf: random => ((random & 0xffff0000) | (8180 + (random % 20))) >>> 0,
    slots: 3000,
  },
  'all alike': { hashOf: () => 0xdeadbeef, slots: 500 },
}

describe('the index of the memory store', () => {
  for (const [spread, { hashOf, slots }] of Object.entries(spreads)) {
    it(`finds each slot that was added and not removed, with hashes spread ${spread}`, () => {
      fc.assert(
        fc.property(fc.integer({ min: 1 }), seed => expectLikeMap(seed, hashOf, slots)),
        { numRuns: 2 },
      )
    })
  }

  it('works alike if room for all or some of the entries was reserved', () => {
    for (const reserved of [0, 1, 5000, 100_000]) {
      const hashOf = (slot: number) => Math.imul(slot, 0x9e3779b1) >>> 0
      const index = createSlotIndex(hashOf)
      index.reserve(reserved)
      for (let slot = 0; slot < 20_000; slot++) index.add(hashOf(slot), slot)
      for (let slot = 0; slot < 20_000; slot += 2) index.remove(hashOf(slot), slot)
      const isRight = (slot: number) =>
        index.find(hashOf(slot), found => found === slot) === (slot % 2 ? slot : notFound)
      expect(Array.from({ length: 20_000 }, (_, slot) => slot).filter(slot => !isRight(slot))).to.deep.equal([])
    }
  })

  it('offers the slots of a hash one by one until one is accepted', () => {
    const index = createSlotIndex(() => 7)
    for (const slot of [5, 3, 9]) index.add(7, slot)
    const seen: number[] = []
    expect(index.find(7, slot => seen.push(slot) === 3)).to.equal(seen[2])
    expect(seen).to.have.members([5, 3, 9])
    expect(index.find(7, () => false)).to.equal(notFound)
    expect(index.find(8, slot => slot === 77)).to.equal(notFound)
  })

  it('handles slot 0 and the highest possible slot like any other', () => {
    const index = createSlotIndex(() => 1)
    for (const slot of [0, 0x7fffffff]) {
      index.add(1, slot)
      expect(index.find(1, found => found === slot)).to.equal(slot)
      index.remove(1, slot)
      expect(index.find(1, found => found === slot)).to.equal(notFound)
    }
  })
})

describe('the memory store', () => {
  const unlimited = { perUser: Infinity, total: Infinity }
  const hash = 'A'.repeat(43)
  const guest: Omit<TokenRecord, 'id'> = {
    kind: 'fixed',
    purpose: null,
    userId: null,
    username: null,
    credentialVersion: 0,
    createdAt: 0,
    lastUsedAt: 0,
    expiresAt: 1000,
    absoluteExpiresAt: 1000,
    ttlMs: 1000,
    refreshCount: 0,
    loginId: null,
    scope: null,
    paused: false,
    rate: null,
    usesLeft: null,
    name: null,
    parent: null,
    authority: noAuthority,
  }

  it('distinguishes ids that differ only in the user, the second or the random part', async () => {
    const store = await openTokenStore()
    const parts = Array.from({ length: 30 }, (_, i) => String(i))
    // So many ids that the index often probes one of them while it looks for another.
    const ids = parts.flatMap(tag =>
      parts.flatMap(time => parts.map(end => tag.padStart(4, '0') + time.padStart(5, '0') + end.padStart(5, '0'))),
    )
    let taken = 0
    for (const id of ids) {
      if ((await store.insert({ id, hash }, { ...guest, id }, unlimited, 0)) !== 'inserted') taken++
    }
    expect(taken).to.equal(0)
    await store.close()
  })

  it('can explain the last 10 000 ended tokens', async () => {
    const store = await openTokenStore()
    const ids = Array.from({ length: 10_001 }, (_, i) => `user00abc${String(i).padStart(5, '0')}`)
    for (const id of ids) {
      await store.insert({ id, hash }, { ...guest, id }, unlimited, 0)
      await store.delete({ id, hash }, 0)
    }
    const whyNot = async (id: string) => (await store.explain({ id, hash }, 0, null)).reason
    const [oldest = '', next = ''] = ids
    expect([await whyNot(oldest), await whyNot(next)]).to.deep.equal(['unknown', 'revoked'])
    await store.close()
  })
})

/**
 * Fills the index, removes half, fills it again and empties it, in random order, and checks every entry after each
 * phase.
 */
function expectLikeMap(seed: number, hashOf: (random: number) => number, slots: number): void {
  const random = createRandom(seed)
  const hashes = Uint32Array.from({ length: slots }, () => hashOf(random()))
  const index = createSlotIndex(slot => hashes[slot] as number)
  const model = new Map<number, number>()

  for (const share of [0.95, 0.4, 0.9, 0]) {
    for (let i = 0; i < slots; i++) {
      const slot = random() % slots
      const isWanted = random() / 2 ** 32 < share
      if (isWanted === model.has(slot)) continue
      change(slot, isWanted)
    }
    for (let slot = 0; share === 0 && slot < slots; slot++) if (model.has(slot)) change(slot, false)
    const lost: number[] = []
    for (let slot = 0; slot < slots; slot++) {
      const found = index.find(hashes[slot] as number, other => other === slot)
      if (found !== (model.has(slot) ? slot : notFound)) lost.push(slot)
    }
    expect(lost, `slots that are not as they should be, ${share} of them being there`).to.deep.equal([])
  }

  function change(slot: number, isWanted: boolean): void {
    const hash = hashes[slot] as number
    if (isWanted) {
      index.add(hash, slot)
      model.set(slot, hash)
    } else {
      // Check first that the entry is found: removing a lost entry would search for ever.
      expect(index.find(hash, other => other === slot)).to.equal(slot)
      index.remove(hash, slot)
      model.delete(slot)
    }
  }
}

/** xorshift32: 32 bits per call, repeatable by seed. */
function createRandom(seed: number): () => number {
  let state = seed >>> 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    state >>>= 0
    return state
  }
}
