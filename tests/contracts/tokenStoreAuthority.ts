// What every TokenStore must do with what users and their tokens may do. Names no store; a fault found in one store gets a test
// here.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import {
  type Authority,
  noAuthority,
  type TokenRecord,
  type TokenRef,
  type TokenStore,
} from '../../services/auth/stores/tokenPort.ts'
import { pauseByScope } from '../../services/auth/tokens/selection.ts'
import { minute, start, tokenStoreCalls, unlimited } from './tokenStoreCalls.ts'

const authorityOf = (version: number, roles: string[], paused = false): Authority => ({
  version,
  roles,
  paused,
  rate: null,
})

export function tokenStoreAuthorityContract(getStore: () => TokenStore): void {
  const { lineage, newHash, newToken, insert, inserted, touch, look, sweepAll } = tokenStoreCalls(getStore)

  describe('setAuthority', () => {
    it('reaches every token of the user with the next call, and those of nobody else', async () => {
      const userId = randomUUID()
      const [one, other, stranger] = [await inserted({ userId }), await inserted({ userId }), await inserted()]
      expect(await touch(one.ref, start)).to.deep.include({ authority: noAuthority })
      const admin = authorityOf(1, ['admin', 'billing:read'])
      await getStore().setAuthority(userId, admin)
      expect(await touch(one.ref, start)).to.deep.include({ authority: admin })
      expect(await look(other.ref, start)).to.deep.include({ authority: admin })
      expect(await getStore().touchSession(other.ref, start)).to.deep.include({ authority: admin })
      expect(await getStore().renew(one.ref, newHash(), lineage, start)).to.deep.include({ authority: admin })
      expect((await getStore().findByUser(userId, start)).map(({ authority }) => authority)).to.deep.equal([
        admin,
        admin,
      ])
      expect(await touch(stranger.ref, start)).to.deep.include({ authority: noAuthority })
    })

    it('takes roles away again, all of them too', async () => {
      const { ref, token } = await inserted()
      for (const [version, roles] of [['admin', 'editor'], ['editor'], []].entries()) {
        await getStore().setAuthority(token.userId as string, authorityOf(version + 1, roles))
        expect((await touch(ref, start))?.authority).to.deep.equal(authorityOf(version + 1, roles))
      }
    })

    it('ignores a version that is not higher, so that a late write undoes nothing', async () => {
      const { ref, token } = await inserted()
      const userId = token.userId as string
      await getStore().setAuthority(userId, authorityOf(3, ['editor']))
      await getStore().setAuthority(userId, authorityOf(2, ['admin']))
      await getStore().setAuthority(userId, authorityOf(3, ['admin']))
      expect((await touch(ref, start))?.authority).to.deep.equal(authorityOf(3, ['editor']))
      await Promise.all(
        [9, 4, 7, 5, 8, 6].map(version => getStore().setAuthority(userId, authorityOf(version, [`role-${version}`]))),
      )
      expect((await touch(ref, start))?.authority).to.deep.equal(authorityOf(9, ['role-9']))
    })

    it('holds for a user who has no token yet, against an insert that read the user before', async () => {
      const userId = randomUUID()
      await getStore().setAuthority(userId, authorityOf(2, []))
      const { ref } = await inserted({ userId, authority: authorityOf(1, ['admin']) })
      expect((await touch(ref, start))?.authority).to.deep.equal(authorityOf(2, []))
    })

    it('comes with an insert too, and is newer there', async () => {
      const userId = randomUUID()
      const first = await inserted({ userId })
      await inserted({ userId, authority: authorityOf(1, ['admin']) })
      expect((await touch(first.ref, start))?.authority).to.deep.equal(authorityOf(1, ['admin']))
    })

    it('survives the end of all tokens of the user and a sweep', async () => {
      const { ref, token } = await inserted()
      const userId = token.userId as string
      await getStore().setAuthority(userId, authorityOf(2, ['editor']))
      await getStore().delete(ref, start)
      await sweepAll(start + 20 * minute)
      const later = await inserted({ userId, authority: authorityOf(1, ['admin']) })
      expect((await touch(later.ref, start))?.authority).to.deep.equal(authorityOf(2, ['editor']))
    })

    it('does not interfere with the floor, nor the floor with it', async () => {
      const { ref, token } = await inserted()
      const userId = token.userId as string
      const admin = authorityOf(1, ['admin'])
      await getStore().setAuthority(userId, admin)
      await getStore().raiseFloor(userId, 2, ref.id)
      expect(await touch(ref, start)).to.deep.include({ credentialVersion: 2, authority: admin })
      await getStore().setAuthority(userId, authorityOf(2, []))
      expect((await insert(newToken({ userId, credentialVersion: 1 }))).outcome).to.equal('ended')
      await getStore().raiseFloor(userId, 3, null)
      expect(await touch(ref, start)).to.equal(null)
    })

    it('keeps sixteen roles of sixty-four characters', async () => {
      const { ref, token } = await inserted()
      const roles = Array.from({ length: 16 }, (_, i) => `${i}`.padStart(64, 'r'))
      await getStore().setAuthority(token.userId as string, authorityOf(1, roles))
      expect((await touch(ref, start))?.authority.roles).to.deep.equal(roles)
    })
  })

  describe('a pause', () => {
    /** Every way to use a token. */
    const uses = (ref: TokenRef) => [
      touch(ref, start),
      look(ref, start),
      getStore().touchSession(ref, start),
      getStore().renew(ref, newHash(), lineage, start),
    ]

    it('of a user refuses every token, without using or ending it, until it is over', async () => {
      const userId = randomUUID()
      const session = await inserted({ userId })
      const once = await inserted({ userId, kind: 'single-use' })
      await getStore().setAuthority(userId, authorityOf(1, ['admin'], true))
      for (const use of uses(session.ref)) expect(await use).to.equal(null)
      expect(await touch(once.ref, start)).to.equal(null)
      expect(await getStore().explain(session.ref, start, null)).to.deep.equal({ reason: 'paused' })
      expect(await getStore().findByUser(userId, start), 'they are still listed').to.have.lengthOf(2)
      await getStore().setAuthority(userId, authorityOf(2, ['admin']))
      expect(await touch(session.ref, start)).to.include({ refreshCount: 1 })
      expect(await touch(once.ref, start)).to.include({ refreshCount: 1 })
    })

    it('of a token refuses it alone, until it is over', async () => {
      const userId = randomUUID()
      const [paused, other] = [await inserted({ userId }), await inserted({ userId })]
      expect(await getStore().change(paused.ref.id, { paused: true }, start)).to.deep.equal({
        ...paused.token,
        paused: true,
      })
      for (const use of uses(paused.ref)) expect(await use).to.equal(null)
      expect(await getStore().explain(paused.ref, start, null)).to.deep.equal({ reason: 'paused' })
      expect(await touch(other.ref, start)).to.not.equal(null)
      await getStore().change(paused.ref.id, { paused: false }, start)
      expect(await touch(paused.ref, start)).to.deep.equal({ ...paused.token, refreshCount: 1 })
    })

    it('does not keep a token alive', async () => {
      const { ref } = await inserted()
      await getStore().change(ref.id, { paused: true }, start)
      expect(await getStore().explain(ref, start + minute, null)).to.deep.equal({
        reason: 'expired',
        at: start + minute,
      })
      expect(await getStore().change(ref.id, { paused: false }, start + minute)).to.equal(null)
      await sweepAll(start + 2 * minute)
      expect(await getStore().change(ref.id, { paused: false }, start)).to.equal(null)
    })

    it('does not stop a token from being revoked', async () => {
      const { ref } = await inserted()
      await getStore().change(ref.id, { paused: true }, start)
      expect(await getStore().delete(ref, start)).to.include({ id: ref.id, paused: true })
    })
  })

  describe('scope', () => {
    it('is returned as it was inserted, with a purpose and another log-in too', async () => {
      const scope = 'orders:read https://example.com/a!b~c'
      const userId = randomUUID()
      const loginId = newToken({ userId }).id
      const { ref, token } = await inserted({ userId, kind: 'fixed', purpose: 'export', scope, loginId })
      expect(await look(ref, start, 'export')).to.deep.equal(token)
      expect(await touch(ref, start, null)).to.equal(null)
    })

    it('can be changed and removed, with everything else as it was', async () => {
      const { ref, token } = await inserted({ kind: 'fixed', scope: 'orders:read' })
      for (const scope of ['orders:write '.repeat(16).trim(), null]) {
        expect(await getStore().change(ref.id, { scope }, start)).to.deep.equal({ ...token, scope })
        expect(await look(ref, start)).to.deep.equal({ ...token, scope })
      }
    })

    it('stays with a session that is renewed, evicted and listed', async () => {
      const { ref, token } = await inserted({ scope: 'orders:read' })
      const hash = newHash()
      expect(await getStore().renew(ref, hash, lineage, start)).to.include({ scope: 'orders:read' })
      expect(await getStore().findByUser(token.userId as string, start)).to.have.nested.property(
        '[0].scope',
        'orders:read',
      )
      const next = newToken({ userId: token.userId })
      await getStore().insert({ id: next.id, hash }, next, { ...unlimited, perUser: 1 }, start)
      expect(await getStore().explain(ref, start, null)).to.include({ reason: 'evicted' })
    })
  })

  describe('change', () => {
    it('changes a token of any kind and purpose, of a guest too', async () => {
      for (const members of [
        { purpose: 'reset' },
        { kind: 'single-use' },
        { userId: null, kind: 'fixed' },
      ] as Partial<TokenRecord>[]) {
        const { ref } = await inserted(members)
        expect(await getStore().change(ref.id, { scope: 'a' }, start)).to.include({ id: ref.id, scope: 'a' })
      }
    })

    it('reaches, with list, every token of a scope, while others are inserted and deleted', async () => {
      const members = { kind: 'fixed', scope: 'orders:read orders:write' } as const
      const targets = []
      for (let i = 0; i < 24; i++) targets.push(await inserted(i % 2 === 0 ? members : { ...members, userId: null }))
      const [other, ending] = [await inserted({ ...members, scope: 'orders:read' }), await inserted(members)]
      const tokens: Parameters<typeof pauseByScope>[0] = {
        async list(cursor) {
          const page = await getStore().list(cursor, 5, start)
          await inserted({ scope: 'orders:read' })
          if (cursor === null) await getStore().delete(ending.ref, start)
          return page
        },
        change: (id, changes) => getStore().change(id, changes, start),
      }
      for (const paused of [true, false]) {
        expect(await pauseByScope(tokens, 'orders:write', paused)).to.equal(24)
        for (const { ref } of targets) expect((await look(ref, start)) === null).to.equal(paused)
        expect(await look(other.ref, start)).to.include({ paused: false })
      }
    })

    it('changes no token that is unknown, dead or below the floor', async () => {
      const { ref, token } = await inserted()
      expect(await getStore().change(newToken().id, { paused: true }, start)).to.equal(null)
      expect(await getStore().change(ref.id, { paused: true }, start + minute)).to.equal(null)
      await getStore().raiseFloor(token.userId as string, 2, null)
      expect(await getStore().change(ref.id, { paused: true }, start)).to.equal(null)
    })
  })

  describe('pause', () => {
    it('pauses a token of any kind and purpose once, until it is resumed', async () => {
      for (const members of [{}, { kind: 'fixed', purpose: 'reset' }, { kind: 'single-use', userId: null }] as const) {
        const { ref, token } = await inserted(members)
        expect(await getStore().pause(ref.id, start)).to.deep.equal({ ...token, paused: true })
        expect(await getStore().pause(ref.id, start)).to.equal(null)
        expect(await touch(ref, start, token.purpose)).to.equal(null)
        await getStore().change(ref.id, { paused: false }, start)
        expect(await look(ref, start, token.purpose)).to.deep.equal(token)
        expect(await getStore().pause(ref.id, start)).to.include({ id: ref.id, paused: true })
      }
    })

    it('returns the token to one of many concurrent calls', async () => {
      for (let i = 0; i < 10; i++) {
        const { ref } = await inserted()
        const answers = await Promise.all(Array.from({ length: 8 }, () => getStore().pause(ref.id, start)))
        expect(answers.filter(answer => answer !== null)).to.have.length(1)
      }
    })

    it('pauses no token that is unknown, dead or below the floor', async () => {
      const { ref, token } = await inserted()
      expect(await getStore().pause(newToken().id, start)).to.equal(null)
      expect(await getStore().pause(ref.id, start + minute)).to.equal(null)
      await getStore().raiseFloor(token.userId as string, 2, null)
      expect(await getStore().pause(ref.id, start)).to.equal(null)
    })
  })
}
