// What every TokenStore must do. Names no store; a fault found in one gets its case here.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import {
  type TokenLimits,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
  usualLogin,
} from '../../services/auth/stores/ports.ts'
import { drawTokenId } from '../../services/auth/tokens/format.ts'

const minute = 60_000
// An hour ahead: a store that also expires by its own clock keeps what is inserted.
const start = Date.now() + 60 * minute

const unlimited: TokenLimits = { perUser: Infinity, total: Infinity }

export function tokenStoreContract(getStore: () => TokenStore): void {
  const lineage = Buffer.alloc(32, 7).toString('base64url') // of all renewals but those that are about it
  const newHash = () => Buffer.from(randomUUID().replaceAll('-', '').repeat(2), 'hex').toString('base64url')

  function newToken(members: Partial<TokenRecord> = {}): TokenRecord {
    const userId = members.userId === undefined ? randomUUID() : members.userId
    const token: TokenRecord = {
      id: drawTokenId(userId, start),
      kind: 'sliding',
      purpose: null,
      userId,
      username: userId === null ? null : 'somebody@example.com',
      credentialVersion: userId === null ? 0 : 1,
      createdAt: start,
      lastUsedAt: start,
      expiresAt: start + minute,
      absoluteExpiresAt: start + 10 * minute,
      ttlMs: minute,
      refreshCount: 0,
      loginId: null,
      ...members,
    }
    if (members.loginId === undefined) token.loginId = usualLogin(token)
    return token
  }

  async function insert(token: TokenRecord, { limits = unlimited, now = start } = {}) {
    const ref = { id: token.id, hash: newHash() }
    return { ref, token, outcome: await getStore().insert(ref, token, limits, now) }
  }

  async function inserted(members: Partial<TokenRecord> = {}) {
    const { ref, token, outcome } = await insert(newToken(members))
    expect(outcome).to.equal('inserted')
    return { ref, token }
  }

  async function touch(ref: TokenRef, now: number, purpose: string | null = null): Promise<TokenRecord | null> {
    const [token] = await getStore().touch([ref], now, purpose)
    return token as TokenRecord | null
  }

  async function look(ref: TokenRef, now: number, purpose: string | null = null): Promise<TokenRecord | null> {
    const [token] = await getStore().look([ref], now, purpose)
    return token as TokenRecord | null
  }

  const unknownRef = () => ({ id: drawTokenId(null, start), hash: newHash() })

  /** Sweeps whole rounds until one begins and ends without finding anything. */
  async function sweepAll(now: number): Promise<number> {
    let total = 0
    let slices = 0
    for (let removed = -1; removed !== 0; total += removed) {
      removed = 0
      for (let done = false; !done; ) {
        expect(++slices, 'slices of a sweep').to.be.below(10_000)
        const slice = await getStore().deleteExpired(now, 10)
        removed += slice.removed
        done = slice.done
      }
    }
    return total
  }

  describe('insert', () => {
    it('takes no second token of the same id, and leaves the first as it was', async () => {
      const { ref, token } = await inserted()
      expect((await insert(newToken({ id: token.id }))).outcome).to.equal('taken')
      expect(await touch(ref, start)).to.include({ userId: token.userId })
    })

    it('keeps the log-in that led to the token, be it its own, that of another token or none', async () => {
      const userId = randomUUID()
      for (const members of [{}, { kind: 'fixed' }, { purpose: 'refresh' }] as const) {
        for (const login of ['own', 'other', 'none']) {
          const id = drawTokenId(userId, start)
          const loginId = login === 'own' ? id : login === 'other' ? drawTokenId(userId, start) : null
          const { ref, token } = await inserted({ id, userId, loginId, ...members })
          const { purpose } = token
          expect(await look(ref, start, purpose)).to.deep.equal(token)
          const touched = { ...token, refreshCount: 1 }
          expect(await touch(ref, start, purpose)).to.deep.equal(touched)
          expect(await getStore().findByUser(userId, start)).to.deep.equal([touched])
          expect(await getStore().delete(ref, start)).to.deep.equal(touched)
        }
      }
    })

    it('gives no token the log-in of one that is gone', async () => {
      for (let i = 0; i < 3; i++) {
        const { ref } = await inserted({ loginId: null })
        await getStore().delete(ref, start)
        const next = await inserted()
        expect(await look(next.ref, start)).to.include({ loginId: next.ref.id })
      }
    })

    it('takes user ids and purposes like __proto__ and constructor for ordinary ones', async () => {
      for (const name of ['__proto__', 'constructor', 'toString']) {
        const { ref } = await inserted({ userId: name, purpose: name })
        expect(await touch(ref, start, name)).to.include({ userId: name, purpose: name })
      }
    })
  })

  describe('touch', () => {
    it('answers with the token as it was inserted, extended, and one refresh more', async () => {
      const { ref, token } = await inserted()
      const now = start + 10_000
      const extended = { ...token, expiresAt: now + minute, lastUsedAt: now }
      expect(await touch(ref, now)).to.deep.equal({ ...extended, refreshCount: 1 })
      expect(await touch(ref, now)).to.deep.equal({ ...extended, refreshCount: 2 })
    })

    it('answers null for a token that is unknown', async () => {
      expect(await touch(unknownRef(), start)).to.equal(null)
    })

    it('answers null where the id is right and the hash is not', async () => {
      const { ref } = await inserted()
      expect(await touch({ ...ref, hash: newHash() }, start)).to.equal(null)
      expect(await touch(ref, start)).to.include({ refreshCount: 1 })
    })

    it('answers null where any one of the first 20 characters of the hash is another: 120 bits are kept', async () => {
      const { ref } = await inserted()
      const others = Array.from(ref.hash.slice(0, 20), (character, i) => ({
        ...ref,
        hash: ref.hash.slice(0, i) + (character === 'x' ? 'y' : 'x') + ref.hash.slice(i + 1),
      }))
      expect(await getStore().touch(others, start, null)).to.deep.equal(others.map(() => null))
    })

    it('keeps a guest a guest', async () => {
      const { ref } = await inserted({ userId: null })
      expect(await touch(ref, start)).to.include({ userId: null, username: null, credentialVersion: 0 })
    })

    it('finds a token live one millisecond before expiresAt and dead at exactly expiresAt', async () => {
      const { ref: live } = await inserted()
      const { ref: dead } = await inserted()
      expect(await touch(live, start + minute - 1)).to.not.equal(null)
      expect(await touch(dead, start + minute)).to.equal(null)
    })

    it('never revives a dead token once it was swept, not even for an earlier now', async () => {
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

    it('never extends a fixed token, and counts its uses', async () => {
      for (const absoluteExpiresAt of [start + minute, start + 2 * minute]) {
        const { ref, token } = await inserted({ kind: 'fixed', absoluteExpiresAt })
        const now = start + minute - 1
        expect(await touch(ref, now)).to.deep.equal({ ...token, lastUsedAt: now, refreshCount: 1 })
        expect(await touch(ref, start + minute)).to.equal(null)
      }
    })

    it('admits a single-use token once', async () => {
      const { ref, token } = await inserted({ kind: 'single-use' })
      expect(await touch(ref, start)).to.include({ id: token.id, refreshCount: 1 })
      expect(await touch(ref, start)).to.equal(null)
    })

    it('admits a single-use token once, also for 200 at the same time and twice in a batch', async () => {
      const { ref } = await inserted({ kind: 'single-use' })
      const tries = Array.from({ length: 100 }, () => getStore().touch([ref, ref], start, null))
      expect((await Promise.all(tries)).flat().filter(Boolean)).to.have.length(1)
    })

    it('admits only for the purpose of the token, and neither extends nor consumes for another', async () => {
      for (const kind of ['sliding', 'fixed', 'single-use'] as const) {
        const { ref, token } = await inserted({ kind, purpose: 'reset' })
        expect(await touch(ref, start)).to.equal(null)
        expect(await touch(ref, start, 'confirm')).to.equal(null)
        expect(await touch(ref, start, 'reset')).to.include({ id: token.id, purpose: 'reset', refreshCount: 1 })
      }
      const { ref } = await inserted()
      expect(await touch(ref, start, 'reset')).to.equal(null)
    })

    it('answers a batch in its order, whatever is in it', async () => {
      const tokens = await Promise.all(Array.from({ length: 20 }, () => inserted()))
      const dead = await inserted({ expiresAt: start })
      const refs = [unknownRef(), ...tokens.map(({ ref }) => ref), dead.ref].reverse()
      const answers = await getStore().touch(refs, start, null)
      const expected = [null, ...tokens.map(({ token }) => token.id), null].reverse()
      expect(answers.map(answer => answer?.id ?? null)).to.deep.equal(expected)
    })

    it('touches a token twice that is twice in a batch', async () => {
      const { ref } = await inserted()
      const answers = await getStore().touch([ref, ref], start, null)
      expect(answers.map(answer => answer?.refreshCount)).to.deep.equal([1, 2])
    })

    it('answers an empty batch with nothing', async () => {
      expect(await getStore().touch([], start, null)).to.deep.equal([])
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

  describe('touchSession', () => {
    it('extends a session in one step, as touch does', async () => {
      const { ref, token } = await inserted()
      const now = start + 10_000
      const extended = { ...token, expiresAt: now + minute, lastUsedAt: now, refreshCount: 1 }
      expect(await getStore().touchSession(ref, now)).to.deep.equal(extended)
      expect(await look(ref, now)).to.deep.equal(extended)
    })

    it('accepts no token that is not a session, and neither extends nor consumes it', async () => {
      for (const members of [
        { kind: 'fixed' },
        { kind: 'single-use' },
        { purpose: 'reset' },
        { userId: null },
        { userId: null, kind: 'fixed' },
      ] as const) {
        const { ref, token } = await inserted(members)
        expect(await getStore().touchSession(ref, start + 1)).to.equal(null)
        expect(await look(ref, start + 1, token.purpose)).to.deep.equal(token)
      }
    })

    it('accepts no session that is dead, ended, unknown or of another hash', async () => {
      const userId = randomUUID()
      const [live, ended] = [await inserted(), await inserted({ userId })]
      await getStore().endUser(userId, 2, null)
      expect(await getStore().touchSession(ended.ref, start)).to.equal(null)
      expect(await getStore().touchSession(unknownRef(), start)).to.equal(null)
      expect(await getStore().touchSession({ ...live.ref, hash: newHash() }, start)).to.equal(null)
      expect(await getStore().touchSession(live.ref, start + minute)).to.equal(null)
      expect(await look(live.ref, start)).to.deep.equal(live.token)
    })
  })

  describe('look', () => {
    it('answers as touch does, in order, and changes nothing', async () => {
      const tokens = await Promise.all([inserted(), inserted({ kind: 'single-use' }), inserted({ kind: 'fixed' })])
      const refs = [unknownRef(), ...tokens.map(({ ref }) => ref)]
      for (let i = 0; i < 2; i++) {
        const seen = await getStore().look(refs, start + 1, null)
        expect(seen).to.deep.equal([null, ...tokens.map(({ token }) => token)])
      }
    })

    it('finds no token that is dead, ended, of another purpose or another hash', async () => {
      const userId = randomUUID()
      const [dead, bound, ended] = [await inserted(), await inserted({ purpose: 'reset' }), await inserted({ userId })]
      await getStore().endUser(userId, 2, null)
      expect(await look(dead.ref, start + minute)).to.equal(null)
      expect(await look(bound.ref, start)).to.equal(null)
      expect(await look(ended.ref, start)).to.equal(null)
      expect(await look({ ...dead.ref, hash: newHash() }, start)).to.equal(null)
      expect(await look(bound.ref, start, 'reset')).to.include({ refreshCount: 0 })
    })
  })

  describe('renew', () => {
    it('gives the session a new secret in one step: same id and absolute end, the old one dead', async () => {
      const { ref, token } = await inserted()
      const hash = newHash()
      const now = start + 1000
      const expected = { ...token, expiresAt: now + minute, lastUsedAt: now, refreshCount: 1 }
      expect(await getStore().renew(ref, hash, lineage, now)).to.deep.equal(expected)
      expect(await touch(ref, now)).to.equal(null)
      expect(await touch({ id: ref.id, hash }, now)).to.include({ id: token.id, refreshCount: 2 })
    })

    it('is no log-in: the one that led to the session stays', async () => {
      const userId = randomUUID()
      for (const loginId of [drawTokenId(userId, start - minute), null]) {
        const { ref } = await inserted({ userId, loginId })
        expect(await getStore().renew(ref, newHash(), lineage, start + 1000)).to.include({ loginId })
      }
    })

    it('lets one of many win: no two new secrets of one session', async () => {
      const { ref } = await inserted()
      const hashes = Array.from({ length: 20 }, newHash)
      const answers = await Promise.all(hashes.map(hash => getStore().renew(ref, hash, lineage, start)))
      expect(answers.filter(Boolean)).to.have.length(1)
      const found = await getStore().look(
        hashes.map(hash => ({ id: ref.id, hash })),
        start,
        null,
      )
      expect(found.filter(Boolean)).to.have.length(1)
    })

    it('is null for what is dead, deleted, of another kind or bound to a purpose, and changes none of them', async () => {
      const dead = await inserted()
      expect(await getStore().renew(dead.ref, newHash(), lineage, start + minute)).to.equal(null)
      const gone = await inserted()
      await getStore().delete(gone.ref, start)
      expect(await getStore().renew(gone.ref, newHash(), lineage, start)).to.equal(null)
      for (const members of [{ kind: 'fixed' }, { kind: 'single-use' }, { purpose: 'reset' }] as const) {
        const { ref } = await inserted(members)
        const { purpose = null } = members as { purpose?: string }
        expect(await getStore().renew(ref, newHash(), lineage, start)).to.equal(null)
        expect(await look(ref, start, purpose)).to.include({ refreshCount: 0 })
      }
    })

    it('never revives: of a renewal and a deletion at the same time the deletion holds', async () => {
      const { ref } = await inserted()
      const hash = newHash()
      await Promise.all([getStore().renew(ref, hash, lineage, start), getStore().deleteById(ref.id, start, null)])
      expect(await touch(ref, start)).to.equal(null)
      expect(await touch({ id: ref.id, hash }, start)).to.equal(null)
    })
  })

  describe('delete', () => {
    it('removes the token whatever its purpose, answers with it once, and no later touch finds it', async () => {
      for (const purpose of [null, 'reset']) {
        const { ref, token } = await inserted({ purpose })
        expect(await getStore().delete(ref, start)).to.include({ id: token.id, userId: token.userId })
        expect(await getStore().delete(ref, start)).to.equal(null)
        expect(await touch(ref, start, purpose)).to.equal(null)
      }
    })

    it('removes nothing where the hash is another, and by the id alone with deleteById', async () => {
      const { ref, token } = await inserted()
      expect(await getStore().delete({ ...ref, hash: newHash() }, start)).to.equal(null)
      expect(await touch(ref, start)).to.not.equal(null)
      expect(await getStore().deleteById(ref.id, start, null)).to.include({ id: token.id })
      expect(await getStore().deleteById(ref.id, start, null)).to.equal(null)
      expect(await touch(ref, start)).to.equal(null)
    })

    it('holds from its answer on, however many touches race it', async () => {
      const { ref } = await inserted()
      const racing = Array.from({ length: 20 }, () => touch(ref, start))
      await getStore().delete(ref, start)
      expect(await touch(ref, start)).to.equal(null)
      await Promise.all(racing)
      expect(await touch(ref, start)).to.equal(null)
    })
  })

  describe('deleteById with an owner', () => {
    it('removes a session of this user, and answers with it once', async () => {
      const { ref, token } = await inserted()
      const owner = token.userId as string
      expect(await getStore().deleteById(ref.id, start, owner)).to.deep.equal(token)
      expect(await getStore().deleteById(ref.id, start, owner)).to.equal(null)
      expect(await touch(ref, start)).to.equal(null)
    })

    it('removes nothing of another user, of a guest, or that is not a session', async () => {
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

    it('removes no session that is expired or ended, and none that is unknown', async () => {
      const owner = randomUUID()
      const [expired, ended] = [await inserted({ userId: owner }), await inserted({ userId: owner })]
      expect(await getStore().deleteById(expired.ref.id, start + minute, owner)).to.equal(null)
      await getStore().endUser(owner, 2, null)
      expect(await getStore().deleteById(ended.ref.id, start, owner)).to.equal(null)
      expect(await getStore().deleteById(unknownRef().id, start, owner)).to.equal(null)
    })
  })

  describe('deleteRenewed', () => {
    const renewed = async (own = newHash(), members: Partial<TokenRecord> = {}) => {
      const { ref, token } = await inserted(members)
      const hash = newHash()
      expect(await getStore().renew(ref, hash, own, start)).to.not.equal(null)
      return { own, id: token.id, first: ref, current: { id: ref.id, hash }, token }
    }

    it('removes a token that was renewed under the lineage, answers with it once, and no later touch finds it', async () => {
      const { own, id, first, current, token } = await renewed()
      expect(await getStore().deleteRenewed(id, own, start, start)).to.include({
        id,
        userId: token.userId,
        refreshCount: 1,
      })
      expect(await getStore().deleteRenewed(id, own, start, start)).to.equal(null)
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
      expect(await touch(ref, start + 20)).to.not.equal(null)
      expect(await getStore().deleteRenewed(id, own, start + 20, start + 20)).to.include({ id })
      expect(await touch(ref, start + 20)).to.equal(null)
    })

    it('removes nothing under another lineage, by its id alone, or of a token that was never renewed', async () => {
      const { own, id, current } = await renewed()
      const never = await inserted()
      const others = Array.from(
        { length: 20 },
        (_, i) => own.slice(0, i) + (own[i] === 'x' ? 'y' : 'x') + own.slice(i + 1),
      )
      for (const other of [...others, newHash(), current.hash]) {
        expect(await getStore().deleteRenewed(id, other, start, start)).to.equal(null)
      }
      expect(await getStore().deleteRenewed(never.ref.id, own, start, start)).to.equal(null)
      expect(await getStore().deleteRenewed(never.ref.id, never.ref.hash, start, start)).to.equal(null)
      expect(await getStore().deleteRenewed(unknownRef().id, own, start, start)).to.equal(null)
      for (const ref of [current, never.ref]) expect(await touch(ref, start)).to.not.equal(null)
    })

    it('removes nothing that was renewed again later than it says', async () => {
      const { own, id, current } = await renewed()
      const last = { id, hash: newHash() }
      await getStore().renew(current, last.hash, own, start + 5000)
      expect(await getStore().deleteRenewed(id, own, start + 4999, start + 9000)).to.equal(null)
      expect(await touch(last, start + 9000)).to.not.equal(null)
      expect(await getStore().deleteRenewed(id, own, start + 5000, start + 9000)).to.include({ id })
    })

    it('leaves the room of one token to the next, and nothing of its renewals', async () => {
      const { own, id } = await renewed()
      await getStore().deleteById(id, start, null)
      const userId = randomUUID()
      const next = await Promise.all(Array.from({ length: 5 }, () => inserted({ userId })))
      for (const { ref } of next) expect(await getStore().deleteRenewed(ref.id, own, start, start)).to.equal(null)
    })

    it('wins over every renewal that races it', async () => {
      for (let i = 0; i < 20; i++) {
        const { own, id, current } = await renewed()
        const hash = newHash()
        const [, ended] = await Promise.all([
          getStore().renew(current, hash, own, start),
          getStore().deleteRenewed(id, own, start, start),
        ])
        expect(ended).to.include({ id })
        for (const ref of [current, { id, hash }]) expect(await touch(ref, start)).to.equal(null)
      }
    })
  })

  describe('endUser', () => {
    const find = (userId: string) => getStore().findByUser(userId, start)
    const end = (userId: string, version: number) => getStore().endUser(userId, version, null)

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

    it('lets no token in below the floor: a login that races it loses', async () => {
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

    it('keeps the one token it is told to keep, which goes on under the new version', async () => {
      const userId = randomUUID()
      const { ref, token } = await inserted({ userId })
      const { ref: other } = await inserted({ userId })
      await getStore().endUser(userId, 2, ref.id)
      expect(await look(other, start)).to.equal(null)
      expect(await look(ref, start)).to.deep.equal({ ...token, credentialVersion: 2 })
      expect((await find(userId)).map(({ id }) => id)).to.deep.equal([ref.id])
      await getStore().endUser(userId, 3, null)
      expect(await look(ref, start)).to.equal(null)
    })

    it("keeps nothing that was ended, is another's or does not exist", async () => {
      const userId = randomUUID()
      const { ref: ended } = await inserted({ userId })
      await end(userId, 2)
      const { ref: deleted } = await inserted({ userId, credentialVersion: 2 })
      await getStore().delete(deleted, start)
      const { ref: others, token: othersToken } = await inserted()
      for (const id of [ended.id, deleted.id, others.id, 'Test0000000000']) {
        await getStore().endUser(userId, 3, id)
        for (const ref of [ended, deleted]) expect(await look(ref, start)).to.equal(null)
      }
      expect(await look(others, start)).to.deep.equal(othersToken)
    })

    it('leaves no token of the version before, however many inserts race it', async () => {
      const userId = randomUUID()
      const tries = Array.from({ length: 40 }, () => newToken({ userId }))
      const half = (from: number) => tries.slice(from, from + 20).map(token => insert(token))
      const [, ...outcomes] = await Promise.all([end(userId, 2), ...half(0), ...half(20)])
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
  })

  describe('findByUser', () => {
    const find = (userId: string, now: number) => getStore().findByUser(userId, now)

    it('lists the live tokens of the user, the oldest first, and of nobody else', async () => {
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

    it('lists none for an id that no store could have, such as one with a NUL or half a surrogate pair', async () => {
      await inserted({ userId: '\ufffd' })
      for (const userId of ['\0', 'a\0b', '', '\ud800', 'a\udc00']) expect(await find(userId, start)).to.deep.equal([])
    })

    it('lists none that was deleted, consumed or ended', async () => {
      const userId = randomUUID()
      const [deleted, consumed] = [await inserted({ userId }), await inserted({ userId, kind: 'single-use' })]
      const kept = await inserted({ userId, credentialVersion: 3 })
      await inserted({ userId })
      await getStore().delete(deleted.ref, start)
      await touch(consumed.ref, start)
      await getStore().endUser(userId, 2, null)
      expect((await find(userId, start)).map(({ id }) => id)).to.deep.equal([kept.token.id])
    })
  })

  describe('the limits', () => {
    it("end the oldest session of the user for one more, and nobody else's", async () => {
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

    it('count no dead token of the user', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 2 }
      await insert(newToken({ userId, expiresAt: start + 1 }), { limits })
      const { ref: live } = await insert(newToken({ userId }), { limits })
      await insert(newToken({ userId }), { limits, now: start + 1 })
      expect(await look(live, start + 1)).to.not.equal(null)
    })

    it('end no live session where a dead token makes room, be it the newest', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 2 }
      const { ref: live } = await insert(newToken({ userId }), { limits })
      await insert(newToken({ userId, expiresAt: start + 1 }), { limits })
      expect((await insert(newToken({ userId }), { limits, now: start + 1 })).outcome).to.equal('inserted')
      expect(await look(live, start + 1)).to.not.equal(null)
    })

    it('of a user are not those of the guests, who are nobody together', async () => {
      const limits = { ...unlimited, perUser: 2 }
      const guests = await Promise.all(Array.from({ length: 4 }, () => insert(newToken({ userId: null }), { limits })))
      for (const { ref } of guests) expect(await look(ref, start)).to.not.equal(null)
    })

    it('end nothing that is no session: then it is full', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 2 }
      const { ref: fixed } = await insert(newToken({ userId, kind: 'fixed' }), { limits })
      const { ref: bound } = await insert(newToken({ userId, purpose: 'reset' }), { limits })
      expect((await insert(newToken({ userId }), { limits })).outcome).to.equal('full')
      expect(await look(fixed, start)).to.not.equal(null)
      expect(await look(bound, start, 'reset')).to.not.equal(null)
    })

    it("let nothing in beyond the total, and end nobody's token for it", async () => {
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

    it('is half of the total: users have room when guests have none', async () => {
      for (const kind of ['fixed', 'single-use', 'sliding'] as const) {
        expect(await fill(2, start, { userId: null, kind, purpose: 'dialog' })).to.equal(kind === 'sliding' ? 1 : 2)
      }
      expect(await fill(1, start, { userId: null })).to.equal(0)
      expect(await fill(7, start, {})).to.equal(5)
      expect(await fill(1, start, { userId: null })).to.equal(0)
    })

    it('is no more than is left: users may have all of it', async () => {
      expect(await fill(9, start, {})).to.equal(9)
      expect(await fill(3, start, { userId: null })).to.equal(1)
    })

    it('is given back by guests that are ended, consumed or swept, and by nothing of a user', async () => {
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

    it('tells why a touch would refuse', async () => {
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
      await getStore().endUser(userId, 2, null)
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

    it('still knows that a token expired when it has been swept', async () => {
      const { ref } = await inserted()
      await sweepAll(start + 2 * minute)
      expect(await why(ref, start + 2 * minute)).to.deep.equal({ reason: 'expired', at: start + minute })
    })

    it('still knows that a token was ended with its user when it has been swept', async () => {
      const { ref, token } = await inserted()
      await getStore().endUser(token.userId as string, 2, null)
      await sweepAll(start)
      expect(await why(ref, start)).to.deep.equal({ reason: 'ended' })
    })

    it('still knows of what was dead when room was made for another', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 1 }
      const { ref } = await insert(newToken({ userId }), { limits })
      await insert(newToken({ userId }), { limits, now: start + 2 * minute })
      expect(await why(ref, start + 2 * minute)).to.deep.equal({ reason: 'expired', at: start + minute })
    })

    it('tells of a session that had to make room', async () => {
      const userId = randomUUID()
      const limits = { ...unlimited, perUser: 1 }
      const { ref } = await insert(newToken({ userId }), { limits })
      await insert(newToken({ userId }), { limits, now: start + 7 })
      expect(await why(ref, start + 8)).to.deep.equal({ reason: 'evicted', at: start + 7 })
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

    it("removes what is below its user's floor", async () => {
      const { token } = await inserted()
      await sweepAll(start)
      await getStore().endUser(token.userId as string, 2, null)
      expect(await sweepAll(start)).to.equal(1)
    })

    it('gives room back: what was removed does not count towards the total', async () => {
      await sweepAll(start + 20 * minute)
      await Promise.all(Array.from({ length: 10 }, () => inserted({ expiresAt: start + 1 })))
      const limits = { ...unlimited, total: 10 }
      expect((await insert(newToken(), { limits })).outcome).to.equal('full')
      await sweepAll(start + 1)
      expect((await insert(newToken(), { limits })).outcome).to.equal('inserted')
    })

    it('takes no longer for tokens that came and went: their room is used again', async () => {
      const slicesOfARound = async (): Promise<number> => {
        for (let slices = 1; ; slices++) if ((await getStore().deleteExpired(start, 10)).done) return slices
      }
      await sweepAll(start)
      const before = await slicesOfARound()
      for (let i = 0; i < 40; i++) {
        const tokens = await Promise.all(Array.from({ length: 25 }, () => inserted()))
        for (const { ref } of tokens) await getStore().delete(ref, start)
      }
      expect(await slicesOfARound()).to.be.at.most(before + 5) // 100 more, were each token given room of its own
    })

    it('spares a token that was touched before it came by', async () => {
      const { ref } = await inserted()
      await touch(ref, start + minute - 1)
      await sweepAll(start + minute)
      expect(await touch(ref, start + minute)).to.not.equal(null)
    })
  })

  describe('list', () => {
    it('shows every live token, page by page, and none that is dead, ended or deleted', async () => {
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
      await getStore().endUser(userId, 2, null)
      const found = new Map<string, TokenRecord>()
      let cursor: string | null = null
      for (let pages = 0; pages === 0 || cursor !== null; pages++) {
        expect(pages).to.be.below(1000)
        const page = await getStore().list(cursor, 4, start + 1)
        for (const token of page.tokens) found.set(token.id, token)
        cursor = page.next
      }
      expect([...found.values()]).to.have.deep.members(live.map(({ token }) => token))
    })

    it('takes any cursor', async () => {
      for (const cursor of ['x', '-1', '99999999999', '7:7', "'; drop table x", '__proto__']) {
        await getStore().list(cursor, 10, start)
      }
    })
  })

  describe('counts', () => {
    it('counts the tokens of each kind, the dead until they are swept', async () => {
      await sweepAll(start + 20 * minute)
      for (const kind of ['sliding', 'sliding', 'sliding', 'fixed', 'fixed', 'single-use'] as const)
        await inserted({ kind })
      const { ref } = await inserted()
      await inserted({ expiresAt: start + 1 })
      await getStore().delete(ref, start)
      await sweepAll(start + 1)
      expect(await getStore().counts()).to.deep.equal({ sliding: 3, fixed: 2, 'single-use': 1 })
    })

    it('counts a session once that was kept when the others of its user ended', async () => {
      await sweepAll(start + 20 * minute)
      const userId = randomUUID()
      const { token } = await inserted({ userId })
      await inserted({ userId })
      await getStore().endUser(userId, 2, token.id)
      await sweepAll(start)
      expect(await getStore().counts()).to.deep.equal({ sliding: 1, fixed: 0, 'single-use': 0 })
    })
  })

  describe('close', () => {
    it('can be repeated, and every other call rejects afterwards', async () => {
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
        () => store.deleteRenewed('Test0000000000', lineage, start, start),
        () => store.endUser(randomUUID(), 1, null),
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
