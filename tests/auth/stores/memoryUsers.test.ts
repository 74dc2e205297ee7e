// stores/memory/: the users of the memory store and their packed names.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import fc from 'fast-check'
import { createNames, type UserNames } from '../../../services/auth/stores/memory/names.ts'
import { openTokenStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { noAuthority, type TokenRecord, type TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../../../services/auth/tokens/format.ts'
import { createRandom } from '../../support/random.ts'

const unlimited = { perUser: Infinity, total: Infinity }
const hash = 'A'.repeat(43)
const now = Date.UTC(2027)

describe('the names of the memory store', () => {
  /** Letters of one byte, of two, of none in UTF-8 (a lone surrogate), and NUL. */
  const letters = { ascii: 'az\0 ', latin1: 'é\xff\x80', wide: 'ж漢\u{1f511}', 'half a pair': 'a\ud83d' }

  for (const [script, alphabet] of Object.entries(letters)) {
    it(`keep texts of every length: ${script}`, () => {
      const names = createNames()
      const text = (length: number) => alphabet.repeat(length).slice(0, length)
      const made = Array.from({ length: 70 }, (_, length): UserNames[] => [
        { userId: text(length), username: text(69 - length) },
        { userId: text(length), username: 'anna@example.com' },
        { userId: 'anna', username: text(length) },
        { userId: text(length), username: null },
      ]).flat()
      const refs = made.map(names.put)
      expect(refs.map(names.read)).to.deep.equal(made)
    })
  }

  it('keep the longest texts, and refuse longer ones', () => {
    const names = createNames()
    const longest = { userId: 'ж'.repeat(32_767), username: '漢'.repeat(32_767) }
    const refs = Array.from({ length: 20 }, () => names.put(longest)) // several pages
    for (const ref of refs) expect(names.read(ref)).to.deep.equal(longest)
    for (const key of ['userId', 'username']) {
      expect(() => names.put({ ...longest, [key]: 'a'.repeat(32_768) })).to.throw(RangeError, 'longer than 32767')
    }
  })

  it('recognise an id, and no other that is longer, shorter or differs in one letter', () => {
    const names = createNames()
    for (const userId of ['anna', 'ännä', 'аннa', '']) {
      const ref = names.put({ userId, username: 'nanna' })
      expect(names.hasId(ref, userId)).to.equal(true)
      const others = ['anna', 'annb', 'ännä', 'ännà', 'аннa', 'аннб', 'ann', 'annan', '', '\u0161nna', 'a\u016ena']
      for (const other of others) expect(names.hasId(ref, other)).to.equal(other === userId)
    }
  })

  it('stay as they are while others come and go', () => {
    const text = fc.string({ unit: 'binary', maxLength: 12 })
    const change = fc.record({
      put: fc.record({ userId: text, username: fc.option(text) }),
      free: fc.nat(),
      times: fc.nat(2),
    })
    fc.assert(
      fc.property(fc.array(change, { maxLength: 200, size: 'max' }), changes => {
        const names = createNames()
        const model = new Map<number, UserNames>()
        for (const { put, free, times } of changes) {
          const ref = names.put(put)
          expect(model.has(ref), 'a record at the place of another').to.equal(false)
          model.set(ref, put)
          for (let i = 0; i < times && model.size > 0; i++) {
            const freed = [...model.keys()][free % model.size] as number
            names.read(freed)
            names.free(freed)
            model.delete(freed)
          }
          for (const [ref, expected] of model) expect(names.read(ref)).to.deep.equal(expected)
        }
      }),
      { numRuns: 30 },
    )
  })

  it('use the place of a freed record again for one of the same size', () => {
    const names = createNames()
    const put = (i: number) => names.put({ userId: `user-${i % 10}`, username: 'ж'.repeat(i % 3) })
    const highest = Math.max(...Array.from({ length: 30 }, (_, i) => put(i)))
    let last = put(0)
    for (let i = 1; i < 1000; i++) {
      names.free(last)
      last = put(i)
      expect(last).to.be.at.most(highest + 30)
    }
  })
})

describe('the memory store with many users', () => {
  let store: TokenStore
  beforeEach(async () => {
    store = await openTokenStore()
  })
  afterEach(() => store.close())

  function newToken(userId: string, members: Partial<TokenRecord> = {}): TokenRecord {
    const id = drawTokenId(userId, now)
    return {
      id,
      kind: 'sliding',
      purpose: null,
      userId,
      username: `${userId}@example.com`,
      credentialVersion: 1,
      createdAt: now,
      loginId: id,
      lastUsedAt: now,
      expiresAt: now + 1000,
      absoluteExpiresAt: now + 10_000,
      ttlMs: 1000,
      refreshCount: 0,
      scope: null,
      paused: false,
      rate: null,
      usesLeft: null,
      name: null,
      parent: null,
      authority: noAuthority,
      ...members,
    }
  }

  async function insert(userId: string, members: Partial<TokenRecord> = {}): Promise<TokenRecord> {
    const token = newToken(userId, members)
    expect(await store.insert({ id: token.id, hash }, token, unlimited, now)).to.equal('inserted')
    return token
  }

  const look = async (id: string) => (await store.look([{ id, hash }], now, null))[0]

  it('finds the tokens of each of 30 000 users, in order, while users come and go', async () => {
    const random = createRandom(7)
    const userIds = Array.from({ length: 30_000 }, (_, i) => (i % 3 === 0 ? randomUUID() : `${i}-käufer-жанна`))
    const model = new Map<string, TokenRecord[]>(userIds.map(userId => [userId, []]))
    for (let i = 0; i < 90_000; i++) {
      const userId = random.pick(userIds)
      const own = model.get(userId) as TokenRecord[]
      const isCrowded = i % 30_000 > 20_000 // in the last third of each round, more tokens go than come
      if (random.chance(isCrowded ? 0.2 : 0.7)) own.push(await insert(userId))
      else if (own.length > 0) await store.delete({ id: (own.shift() as TokenRecord).id, hash }, now)
    }
    for (const [userId, own] of model) {
      const found = await store.findByUser(userId, now)
      if (JSON.stringify(found) !== JSON.stringify(own)) expect(found).to.deep.equal(own)
    }
  }).timeout(60_000)

  it('uses the latest username for all tokens of the user', async () => {
    const first = await insert('anna')
    await insert('bert')
    for (const username of ['anna', 'a', '', 'Анна', null, `anna@${'long.'.repeat(40)}example.com`]) {
      const { id } = await insert('anna', { username })
      expect(await look(first.id)).to.include({ userId: 'anna', username })
      expect(await look(id)).to.include({ userId: 'anna', username })
    }
    expect((await store.findByUser('bert', now))[0]).to.include({ username: 'bert@example.com' })
  })

  it('keeps the floor and nothing else of a user whose tokens are gone', async () => {
    await store.raiseFloor('anna', 3, null)
    for (const credentialVersion of [3, 4]) {
      const { id } = await insert('anna', { credentialVersion })
      await store.delete({ id, hash }, now)
      const old = newToken('anna', { credentialVersion: 2 })
      expect(await store.insert({ id: old.id, hash }, old, unlimited, now)).to.equal('ended')
    }
    expect(await store.findByUser('anna', now)).to.deep.equal([])
  })

  it('forgets floors that were set more than a day ago, in slices', async () => {
    const day = 24 * 3_600_000
    const sweep = async (at: number, limit: number) => {
      for (let slices = 1; ; slices++) if ((await store.deleteExpired(at, limit)).done) return slices
    }
    const ids = Array.from({ length: 50 }, (_, i) => `user-${i}`)
    await sweep(now, 10)
    for (const id of ids) await store.raiseFloor(id, 3, null)
    await sweep(now + day, 10)
    await store.raiseFloor('user-0', 4, null)
    expect(await sweep(now + 2 * day, 10)).to.equal(5) // 49 floors
    const outcomes = []
    for (const id of ids) {
      const token = newToken(id, { credentialVersion: 2 })
      outcomes.push(await store.insert({ id: token.id, hash }, token, unlimited, now))
    }
    expect(outcomes).to.deep.equal(['ended', ...Array(49).fill('inserted')])
    const again = await Promise.all(ids.map(id => store.findByUser(id, now)))
    expect(again.map(tokens => tokens.length)).to.deep.equal([0, ...Array(49).fill(1)])
  })

  it('gives the place of a forgotten user to another, without their floor or tokens', async () => {
    for (let i = 0; i < 100; i++) {
      const token = await insert(`user-${i}`)
      expect(await store.findByUser(`user-${i}`, now)).to.deep.equal([token])
      expect(await store.findByUser(`user-${i - 1}`, now)).to.deep.equal([])
      if (i % 10 === 0) await store.raiseFloor(`floor-${i}`, 2, null)
      await store.delete({ id: token.id, hash }, now)
    }
    await insert('user-1', { credentialVersion: 0 })
  })

  it('replaces the only token of a user, who is forgotten meanwhile', async () => {
    const limits = { perUser: 1, total: Infinity }
    await insert('anna')
    const next = newToken('anna')
    expect(await store.insert({ id: next.id, hash }, next, limits, now)).to.equal('inserted')
    expect(await store.findByUser('anna', now)).to.deep.equal([next])
  })

  it('inserts nothing if a name is too long', async () => {
    const token = newToken('a'.repeat(40_000))
    const failure = await store.insert({ id: token.id, hash }, token, unlimited, now).catch((error: Error) => error)
    expect(failure).to.be.instanceOf(RangeError)
    expect(await store.counts()).to.deep.equal({ sliding: 0, fixed: 0, 'single-use': 0 })
    expect(await look(token.id)).to.equal(null)
    expect(await look((await insert('anna')).id)).to.include({ userId: 'anna' })
  })

  it('keeps instants to the millisecond, from the epoch to the year 9999', async () => {
    const instants = [0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, now, now + 1, Date.UTC(9999, 11, 31)]
    for (const createdAt of instants) {
      for (const lastUsedAt of instants) {
        const members = { createdAt, lastUsedAt, absoluteExpiresAt: Math.max(createdAt, now) + 7, expiresAt: now + 7 }
        const token = await insert('anna', { ...members, refreshCount: 2 ** 32 - 1 })
        expect(await look(token.id)).to.deep.equal(token)
      }
    }
  })

  it('keeps as many different terms as there are tokens, and forgets them with their tokens', async () => {
    for (let round = 0; round < 2; round++) {
      const made = []
      for (let i = 0; i < 2000; i++) made.push(await insert(`user-${i % 50}`, { ttlMs: i, purpose: null }))
      for (const token of made) expect(await look(token.id)).to.deep.equal(token)
      for (const { id } of made) await store.delete({ id, hash }, now)
    }
    expect(await store.counts()).to.deep.equal({ sliding: 0, fixed: 0, 'single-use': 0 })
  })

  it('distinguishes a token without a purpose from one whose purpose is empty', async () => {
    const token = await insert('anna', { purpose: '' })
    expect(await look(token.id)).to.equal(null)
    await insert('anna')
    expect((await store.look([{ id: token.id, hash }], now, ''))[0]).to.deep.equal(token)
  })
})
