// How every TokenStore inserts, touches, looks at and renews tokens. Names no store; a fault found in one store gets a test here.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import type { TokenRecord, TokenStore } from '../../services/auth/stores/tokenPort.ts'
import { drawTokenId } from '../../services/auth/tokens/format.ts'
import { answered } from '../support/storeFixtures.ts'
import { minute, start, tokenStoreCalls } from './tokenStoreCalls.ts'

export function tokenStoreUseContract(getStore: () => TokenStore): void {
  const { lineage, newHash, newToken, insert, inserted, touch, look, unknownRef, sweepAll } = tokenStoreCalls(getStore)

  describe('insert', () => {
    it('rejects a second token with the same id, and leaves the first unchanged', async () => {
      const { ref, token } = await inserted()
      expect((await insert(newToken({ id: token.id }))).outcome).to.equal('taken')
      expect(await touch(ref, start)).to.include({ userId: token.userId })
    })

    it('stores the log-in that led to the token: its own, that of another token, or none', async () => {
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

    it('gives no token the log-in of a deleted one', async () => {
      for (let i = 0; i < 3; i++) {
        const { ref } = await inserted({ loginId: null })
        await getStore().delete(ref, start)
        const next = await inserted()
        expect(await look(next.ref, start)).to.include({ loginId: next.ref.id })
      }
    })

    it('accepts user ids and purposes like __proto__ and constructor', async () => {
      for (const name of ['__proto__', 'constructor', 'toString']) {
        const { ref } = await inserted({ userId: name, purpose: name })
        expect(await touch(ref, start, name)).to.include({ userId: name, purpose: name })
      }
    })
  })

  describe('touch', () => {
    it('returns the token as it was inserted, extended and with one more refresh', async () => {
      const { ref, token } = await inserted()
      const now = start + 10_000
      const extended = { ...token, expiresAt: now + minute, lastUsedAt: now }
      expect(await touch(ref, now)).to.deep.equal({ ...extended, refreshCount: 1 })
      expect(await touch(ref, now)).to.deep.equal({ ...extended, refreshCount: 2 })
    })

    it('returns null for an unknown token', async () => {
      expect(await touch(unknownRef(), start)).to.equal(null)
    })

    it('returns null if only the id is right', async () => {
      const { ref } = await inserted()
      expect(await touch({ ...ref, hash: newHash() }, start)).to.equal(null)
      expect(await touch(ref, start)).to.include({ refreshCount: 1 })
    })

    it('returns null if any of the first 20 characters of the hash differs, because 120 bits are stored', async () => {
      const { ref } = await inserted()
      const others = Array.from(ref.hash.slice(0, 20), (character, i) => ({
        ...ref,
        hash: ref.hash.slice(0, i) + (character === 'x' ? 'y' : 'x') + ref.hash.slice(i + 1),
      }))
      expect(await getStore().touch(others, start, null)).to.deep.equal(others.map(() => null))
    })

    it('returns no user for a guest', async () => {
      const { ref } = await inserted({ userId: null })
      expect(await touch(ref, start)).to.include({ userId: null, username: null, credentialVersion: 0 })
    })

    it('finds a token live one millisecond before expiresAt and dead at exactly expiresAt', async () => {
      const { ref: live } = await inserted()
      const { ref: dead } = await inserted()
      expect(await touch(live, start + minute - 1)).to.not.equal(null)
      expect(await touch(dead, start + minute)).to.equal(null)
    })

    it('never revives a dead token that was swept, not even for an earlier now', async () => {
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

    it('never shortens a token when a touch arrives late, with an earlier now', async () => {
      const { ref } = await inserted()
      const now = start + 30_000
      expect(await touch(ref, now)).to.include({ expiresAt: now + minute })
      expect(await touch(ref, start)).to.include({ expiresAt: now + minute })
      expect(await touch(ref, start + minute + 1)).to.not.equal(null)
    })

    it('never extends a fixed token, but counts its uses', async () => {
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

    it('admits a single-use token once, even if it is touched 200 times at once and twice in a batch', async () => {
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

    it('returns the tokens of a batch in its order, whatever it contains', async () => {
      const tokens = await Promise.all(Array.from({ length: 20 }, () => inserted()))
      const dead = await inserted({ expiresAt: start })
      const refs = [unknownRef(), ...tokens.map(({ ref }) => ref), dead.ref].reverse()
      const answers = await getStore().touch(refs, start, null)
      const expected = [null, ...tokens.map(({ token }) => token.id), null].reverse()
      expect(answered(answers).map(answer => answer?.id ?? null)).to.deep.equal(expected)
    })

    it('touches a token twice if it is twice in a batch', async () => {
      const { ref } = await inserted()
      const answers = await getStore().touch([ref, ref], start, null)
      expect(answered(answers).map(answer => answer?.refreshCount)).to.deep.equal([1, 2])
    })

    it('returns nothing for an empty batch', async () => {
      expect(await getStore().touch([], start, null)).to.deep.equal([])
    })

    it('counts each of many concurrent touches', async () => {
      const { ref } = await inserted()
      const counts = await Promise.all(Array.from({ length: 50 }, async () => (await touch(ref, start))?.refreshCount))
      expect(counts.toSorted((a, b) => Number(a) - Number(b))).to.deep.equal(counts.map((_, i) => i + 1))
    })

    it('returns copies, so that the caller cannot change the stored token', async () => {
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
      await getStore().raiseFloor(userId, 2, null)
      expect(await getStore().touchSession(ended.ref, start)).to.equal(null)
      expect(await getStore().touchSession(unknownRef(), start)).to.equal(null)
      expect(await getStore().touchSession({ ...live.ref, hash: newHash() }, start)).to.equal(null)
      expect(await look(live.ref, start)).to.deep.equal(live.token)
      expect(await getStore().touchSession(live.ref, start + minute)).to.equal(null)
    })
  })

  describe('look', () => {
    it('returns the same as touch, in order, and changes nothing', async () => {
      const tokens = await Promise.all([inserted(), inserted({ kind: 'single-use' }), inserted({ kind: 'fixed' })])
      const refs = [unknownRef(), ...tokens.map(({ ref }) => ref)]
      for (let i = 0; i < 2; i++) {
        const seen = await getStore().look(refs, start + 1, null)
        expect(seen).to.deep.equal([null, ...tokens.map(({ token }) => token)])
      }
    })

    it('finds no token that is dead, ended, for another purpose or of another hash', async () => {
      const userId = randomUUID()
      const [dead, bound, ended] = [await inserted(), await inserted({ purpose: 'reset' }), await inserted({ userId })]
      await getStore().raiseFloor(userId, 2, null)
      expect(await look(dead.ref, start + minute)).to.equal(null)
      expect(await look(bound.ref, start)).to.equal(null)
      expect(await look(ended.ref, start)).to.equal(null)
      expect(await look({ ...dead.ref, hash: newHash() }, start)).to.equal(null)
      expect(await look(bound.ref, start, 'reset')).to.include({ refreshCount: 0 })
    })
  })

  describe('renew', () => {
    it('replaces the secret in one step: the id and the absolute end stay, and the old secret is dead', async () => {
      const { ref, token } = await inserted()
      const hash = newHash()
      const now = start + 1000
      const expected = { ...token, expiresAt: now + minute, lastUsedAt: now, refreshCount: 1 }
      expect(await getStore().renew(ref, hash, lineage, now)).to.deep.equal(expected)
      expect(await touch(ref, now)).to.equal(null)
      expect(await touch({ id: ref.id, hash }, now)).to.include({ id: token.id, refreshCount: 2 })
    })

    it('keeps the log-in that led to the session', async () => {
      const userId = randomUUID()
      for (const loginId of [drawTokenId(userId, start - minute), null]) {
        const { ref } = await inserted({ userId, loginId })
        expect(await getStore().renew(ref, newHash(), lineage, start + 1000)).to.include({ loginId })
      }
    })

    it('succeeds for one of many concurrent calls, so that no session has two secrets', async () => {
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

    it('is null for a token that is dead, deleted, not sliding or bound to a purpose, and does not change it', async () => {
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

    it('never revives a token: a concurrent deletion wins', async () => {
      const { ref } = await inserted()
      const hash = newHash()
      await Promise.all([getStore().renew(ref, hash, lineage, start), getStore().deleteById(ref.id, start, null)])
      expect(await touch(ref, start)).to.equal(null)
      expect(await touch({ id: ref.id, hash }, start)).to.equal(null)
    })
  })
}
