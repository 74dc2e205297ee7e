// What every TokenStore does with a call that arrives late, with an earlier `now` than a call before it. Names no store; a
// fault found in one store gets a test here.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import type { TokenRecord, TokenRef, TokenStore } from '../../services/auth/stores/tokenPort.ts'
import { minute, start, tokenStoreCalls, unlimited } from './tokenStoreCalls.ts'

export function tokenStoreLateContract(getStore: () => TokenStore): void {
  const { lineage, newHash, newToken, insert, inserted, touch, look, sweepAll } = tokenStoreCalls(getStore)
  const end = start + minute

  /** Each of them finds that the token expired, and refuses it or leaves it out. */
  const refusals: Record<string, (token: TokenRecord, ref: TokenRef) => Promise<unknown>> = {
    touch: ({ purpose }, ref) => touch(ref, end, purpose),
    'touch for another purpose': (_, ref) => touch(ref, end, 'another'),
    touchSession: (_, ref) => getStore().touchSession(ref, end),
    look: ({ purpose }, ref) => look(ref, end, purpose),
    renew: (_, ref) => getStore().renew(ref, newHash(), lineage, end),
    'deleteById with an owner': ({ userId }, ref) => getStore().deleteById(ref.id, end, userId),
    findByUser: async ({ userId }) => (await getStore().findByUser(userId as string, end))[0] ?? null,
  }

  async function expectRefused(ref: TokenRef, { purpose, userId }: TokenRecord, now: number): Promise<void> {
    expect(await look(ref, now, purpose)).to.equal(null)
    expect(await touch(ref, now, purpose)).to.equal(null)
    expect(await getStore().touchSession(ref, now)).to.equal(null)
    expect(await getStore().renew(ref, newHash(), lineage, now)).to.equal(null)
    expect(await getStore().deleteById(ref.id, now, userId ?? 'another')).to.equal(null)
    if (userId !== null) expect(await getStore().findByUser(userId, now)).to.deep.equal([])
    expect(await getStore().explain(ref, now, purpose)).to.deep.equal({ reason: 'expired', at: end })
  }

  describe('a token that was refused because it had expired', () => {
    for (const [name, refuse] of Object.entries(refusals)) {
      it(`by ${name} is never admitted again, not even by a call with an earlier now`, async () => {
        const { ref, token } = await inserted()
        expect(await refuse(token, ref)).to.equal(null)
        await expectRefused(ref, token, end - 1)
        await expectRefused(ref, token, start)
      })
    }

    it('is refused whatever its kind and purpose, and if it is a guest’s', async () => {
      for (const kind of ['sliding', 'fixed', 'single-use'] as const) {
        for (const members of [{}, { purpose: 'reset' }, { userId: null }]) {
          const { ref, token } = await inserted({ kind, ...members })
          expect(await touch(ref, end, token.purpose)).to.equal(null)
          await expectRefused(ref, token, start)
        }
      }
    })

    it('is refused even if it is twice in the batch, and no other token of the batch ends with it', async () => {
      const [first, second] = [await inserted(), await inserted()]
      const live = await inserted({ expiresAt: end + 1 })
      const single = await inserted({ kind: 'single-use', expiresAt: end + 1 })
      const refs = [first.ref, live.ref, second.ref, first.ref, single.ref, live.ref]
      const answers = (await getStore().touch(refs, end, null)) as (TokenRecord | null)[]
      expect(answers.map(answer => answer?.refreshCount ?? null)).to.deep.equal([null, 1, null, null, 1, 2])
      for (const { ref, token } of [first, second]) await expectRefused(ref, token, start)
      expect(await touch(live.ref, start)).to.include({ refreshCount: 3, expiresAt: end + minute })
      const looked = await Promise.all([inserted(), inserted({ expiresAt: end + 1 })])
      const seen = await getStore().look([looked[0].ref, looked[1].ref, looked[0].ref], end, null)
      expect(seen).to.deep.equal([null, looked[1].token, null])
      await expectRefused(looked[0].ref, looked[0].token, start)
    })

    it('is refused with its new secret too, and is not renewed a second time', async () => {
      const { ref } = await inserted()
      const renewed = { id: ref.id, hash: newHash() }
      const token = (await getStore().renew(ref, renewed.hash, lineage, start)) as TokenRecord
      expect(await touch(renewed, end)).to.equal(null)
      await expectRefused(renewed, token, start)
    })

    it('is not raised to life by a floor', async () => {
      const { ref, token } = await inserted()
      expect(await touch(ref, end)).to.equal(null)
      await getStore().raiseFloor(token.userId as string, 2, token.id)
      await expectRefused(ref, token, start)
    })

    it('does not count towards the limit of its user', async () => {
      const userId = randomUUID()
      const [expired, live] = [await inserted({ userId }), await inserted({ userId })]
      await touch(live.ref, start + 1)
      expect(await touch(expired.ref, end)).to.equal(null)
      await insert(newToken({ userId }), { limits: { ...unlimited, perUser: 2 } })
      expect(await look(live.ref, start)).to.not.equal(null)
    })

    it('is counted until it is swept, by the sweep too, and can still be explained after it', async () => {
      await sweepAll(start + 20 * minute)
      const { ref, token } = await inserted()
      expect(await touch(ref, end)).to.equal(null)
      expect((await insert(newToken(), { limits: { ...unlimited, total: 1 } })).outcome).to.equal('full')
      expect(await sweepAll(end)).to.equal(1)
      await expectRefused(ref, token, start)
      expect((await insert(newToken(), { limits: { ...unlimited, total: 1 } })).outcome).to.equal('inserted')
    })

    it('is still returned as it was when it is deleted before it is swept', async () => {
      const { ref, token } = await inserted()
      expect(await touch(ref, end)).to.equal(null)
      expect(await getStore().delete(ref, end)).to.deep.equal(token)
    })

    it('stays refused, whichever of many concurrent calls arrives last', async () => {
      for (let i = 0; i < 30; i++) {
        const { ref, token } = await inserted()
        const late = Array.from({ length: 3 }, () => () => touch(ref, end - 1))
        const calls = i % 2 === 0 ? [() => touch(ref, end), ...late] : [...late, () => touch(ref, end)]
        const answers = await Promise.all(calls.map(call => call()))
        const wasRefused = answers[i % 2 === 0 ? 0 : 3] === null
        if (wasRefused) await expectRefused(ref, token, end - 1)
        else expect(await look(ref, end)).to.include({ expiresAt: end + minute })
      }
    })
  })

  describe('a token that expired unnoticed', () => {
    it('is admitted by a call that was sent while it was live', async () => {
      const { ref } = await inserted()
      expect(await touch({ ...ref, hash: newHash() }, end)).to.equal(null)
      expect(await touch(ref, end - 1)).to.include({ expiresAt: end - 1 + minute })
    })
  })
}
