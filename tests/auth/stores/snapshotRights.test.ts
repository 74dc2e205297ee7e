// What a snapshot of the memory store keeps of what tokens and users may do.
import { join } from 'node:path'
import { expect } from 'chai'
import { openSnapshotStore } from '../../../services/auth/stores/memory/snapshot.ts'
import { type Authority, noAuthority, type TokenRecord } from '../../../services/auth/stores/tokenPort.ts'
import { adminKey } from '../../support/credentials.ts'
import { newFolder, removeFolders } from '../../support/scratchFolders.ts'
import { minute, newTokenAt, unlimited } from '../../support/storeFixtures.ts'

const start = 1_800_000_000_000
const rate = { perMinute: 1, burst: 2 }
const beyond = { limited: true, retryAfterMs: minute }

describe('a snapshot of rights', () => {
  let file: string
  beforeEach(() => {
    file = join(newFolder(), 'tokens')
  })
  after(removeFolders)

  /** All users have this authority. */
  const open = async (authority: Authority = noAuthority) => {
    const ownerOf = async () => ({ credentialVersion: 1, authority })
    return (await openSnapshotStore({ file, key: adminKey, ownerOf, now: () => start })).store
  }

  it('keeps scope and pause of each token, and takes what the user may do from the user', async () => {
    const store = await open()
    const before = { version: 3, roles: ['admin'], paused: false, rate: null }
    const scoped = newTokenAt(start, { userId: 'anna', kind: 'fixed', scope: 'orders:read', authority: before })
    const paused = newTokenAt(start, { userId: 'anna', paused: true })
    for (const { ref, token } of [scoped, paused]) await store.insert(ref, token, unlimited, start)
    await store.close()
    const authority = { version: 4, roles: ['editor'], paused: false, rate: null }
    const again = await open(authority)
    expect(await again.look([scoped.ref], start, null)).to.deep.equal([{ ...scoped.token, authority }])
    expect(await again.explain(paused.ref, start, null)).to.deep.equal({ reason: 'paused' })
    await again.close()
  })

  it('keeps the rate and the uses of each token, and what is left of both', async () => {
    const store = await open()
    const { ref, token } = newTokenAt(start, { kind: 'fixed', rate, usesLeft: 5 })
    await store.insert(ref, token, unlimited, start)
    await store.touch([ref], start, null)
    await store.close()
    const again = await open()
    const second = { ...token, refreshCount: 2, usesLeft: 3 }
    expect(await again.touch([ref, ref], start, null)).to.deep.equal([second, beyond])
    await again.close()
  })

  it('keeps names, and the parents of delegated tokens', async () => {
    const store = await open()
    const key = newTokenAt(start, { userId: 'anna', kind: 'fixed', name: 'deploy', scope: 'a' })
    const parent = { id: key.ref.id, scope: 'a', name: 'deploy' }
    const child = newTokenAt(start, { userId: 'anna', kind: 'fixed', parent })
    for (const { ref, token } of [key, child]) await store.insert(ref, token, unlimited, start)
    await store.close()
    const again = await open()
    expect(await again.look([key.ref, child.ref], start, null)).to.deep.equal([key.token, child.token])
    await again.delete(key.ref, start)
    expect(await again.look([child.ref], start, null)).to.deep.equal([null])
    await again.close()
  })

  for (const [what, now, expected] of [
    ['what is left of the rate of a user, whose roles may have changed', { version: 9, rate }, [minute, minute]],
    ['nothing of a rate that was changed meanwhile', { version: 9, rate: { perMinute: 1, burst: 1 } }, [0, minute]],
    ['nothing of a rate that was taken away', { version: 9, rate: null }, [0, 0]],
  ] as const) {
    it(`keeps ${what}`, async () => {
      const store = await open()
      const authority = { version: 3, roles: [], paused: false, rate }
      const made = ['fixed', 'sliding'].map(kind =>
        newTokenAt(start, { userId: 'anna', kind: kind as TokenRecord['kind'], authority }),
      )
      for (const { ref, token } of made) await store.insert(ref, token, unlimited, start)
      const refs = made.map(({ ref }) => ref)
      await store.touch(refs, start, null)
      await store.close()
      const again = await open({ roles: ['admin'], paused: false, ...now })
      const found = await again.touch(refs, start, null)
      expect(
        found.map(one => (one && typeof one === 'object' && 'limited' in one ? one.retryAfterMs : 0)),
      ).to.deep.equal(expected)
      await again.close()
    })
  }
})
