// What every UsageStore must do. Names no store; `getStores` returns two on the same data, or the same one twice.
import { expect } from 'chai'
import type { KeyUse, UsageSpan, UsageStore } from '../../services/auth/stores/usagePort.ts'
import { drawTokenId } from '../../services/auth/tokens/format.ts'

export const keptDays = 3

const minute = 60_000
const hour = 60 * minute
const day = 24 * hour
const start = Date.UTC(2027, 0, 15, 8)

const newKeyId = (userId = 'user-1') => drawTokenId(userId, start)
const use = (keyId: string): KeyUse => ({ keyId, isDelegated: false })
const delegated = (keyId: string): KeyUse => ({ keyId, isDelegated: true })
const bucket = (startsAt: number, count: number, delegatedCount = 0) => ({ startsAt, count, delegatedCount })

export function usageStoreContract(getStores: () => [UsageStore, UsageStore]): void {
  const add = (uses: KeyUse[], now: number) => getStores()[0].add(uses, now)
  const read = (keyId: string, span: UsageSpan, now: number) => getStores()[1].read(keyId, span, now)

  async function sweep(now: number, limit = 1000): Promise<number> {
    for (let steps = 1; ; steps++) if (await getStores()[0].deleteExpired(now, limit)) return steps
  }

  it('counts each use in its minute and its hour of UTC, which begin at their first millisecond', async () => {
    const key = newKeyId()
    for (const at of [start, start + 1, start + minute - 1, start + minute, start + hour - 1, start + hour]) {
      await add([use(key)], at)
    }
    const minutes = [
      bucket(start, 3),
      bucket(start + minute, 1),
      bucket(start + 59 * minute, 1),
      bucket(start + hour, 1),
    ]
    expect(await read(key, 'minute', start + hour)).to.deep.equal(minutes)
    expect(await read(key, 'hour', start + hour)).to.deep.equal([bucket(start, 5), bucket(start + hour, 1)])
  })

  it('adds up the uses of a batch, and counts those of delegated tokens apart', async () => {
    const [one, other, third] = [newKeyId(), newKeyId('user-2'), newKeyId()]
    await add([use(one), delegated(other), use(one), delegated(one), use(other), delegated(third)], start)
    await add([delegated(other), use(one)], start + 1)
    for (const span of ['minute', 'hour'] as const) {
      expect(await read(one, span, start)).to.deep.equal([bucket(start, 3, 1)])
      expect(await read(other, span, start)).to.deep.equal([bucket(start, 1, 2)])
      expect(await read(third, span, start)).to.deep.equal([bucket(start, 0, 1)])
    }
  })

  it('has no bucket for a key, a minute or an hour without uses', async () => {
    const key = newKeyId()
    await add([use(key)], start)
    await add([use(key)], start + 5 * hour)
    expect(await read(key, 'hour', start + 5 * hour)).to.have.lengthOf(2)
    expect(await read(newKeyId(), 'hour', start)).to.deep.equal([])
    await add([], start)
  })

  it('returns the oldest bucket first, although a late call brings an earlier one', async () => {
    const key = newKeyId()
    for (const at of [start + 23 * hour, start + hour, start + 2 * minute, start]) await add([use(key)], at)
    const starts = (await read(key, 'minute', start + day)).map(({ startsAt }) => startsAt)
    expect(starts).to.deep.equal([start, start + 2 * minute, start + hour, start + 23 * hour])
    const hours = [bucket(start, 2), bucket(start + hour, 1), bucket(start + 23 * hour, 1)]
    expect(await read(key, 'hour', start + day)).to.deep.equal(hours)
  })

  it('returns what a process has counted whose clock is ahead', async () => {
    const key = newKeyId()
    await add([use(key)], start)
    expect(await read(key, 'minute', start - 1000)).to.deep.equal([bucket(start, 1)])
    expect(await read(key, 'hour', start - 1000)).to.deep.equal([bucket(start, 1)])
  })

  it('keeps minutes for a day and hours for the days it was opened with, and then for as long as the last bucket takes', async () => {
    const key = newKeyId()
    await add([use(key)], start)
    const ends = { minute: start + day + minute, hour: start + keptDays * day + hour }
    for (const span of ['minute', 'hour'] as const) {
      expect(await read(key, span, ends[span] - 1), span).to.deep.equal([bucket(start, 1)])
      expect(await read(key, span, ends[span]), span).to.deep.equal([])
    }
  })

  it('removes what is no longer kept in bounded steps, and nothing else', async () => {
    const keys = Array.from({ length: 5 }, (_, i) => newKeyId(`user-${i}`))
    for (const key of keys) for (const at of [start, start + minute, start + day]) await add([use(key)], at)
    await sweep(start + day + minute, 2)
    for (const key of keys) {
      const minutes = [bucket(start + minute, 1), bucket(start + day, 1)]
      expect(await read(key, 'minute', start + day + minute)).to.deep.equal(minutes)
      expect(await read(key, 'hour', start + day)).to.deep.equal([bucket(start, 2), bucket(start + day, 1)])
    }
    await sweep(start + 10 * day)
    expect(await sweep(start + 10 * day)).to.equal(1)
    for (const key of keys) expect(await read(key, 'hour', start + 10 * day)).to.deep.equal([])
  })

  it('loses no use of concurrent calls', async () => {
    const [one, other] = [newKeyId(), newKeyId('user-2')]
    const stores = getStores()
    for (let round = 0; round < 10; round++) {
      const calls = Array.from({ length: 20 }, (_, i) => {
        const uses = [use(one), delegated(one), use(other), use(one)]
        return (stores[i % 2] as UsageStore).add(i % 4 < 2 ? uses : uses.toReversed(), start + round * 7 * minute)
      })
      await Promise.all(calls)
    }
    for (const span of ['minute', 'hour'] as const) {
      const buckets = await read(one, span, start + day)
      expect(buckets).to.have.lengthOf(span === 'minute' ? 10 : 2)
      expect(buckets.reduce((sum, { count }) => sum + count, 0)).to.equal(400)
      expect(buckets.reduce((sum, { delegatedCount }) => sum + delegatedCount, 0)).to.equal(200)
      expect((await read(other, span, start + day)).reduce((sum, { count }) => sum + count, 0)).to.equal(200)
    }
  })

  it('gives buckets that the caller may change', async () => {
    const key = newKeyId()
    await add([use(key)], start)
    Object.assign((await read(key, 'hour', start))[0] as object, { count: 99 })
    expect(await read(key, 'hour', start)).to.deep.equal([bucket(start, 1)])
  })

  it('rejects every call once it is closed, and can be closed twice', async () => {
    const [store] = getStores()
    await store.close()
    await store.close()
    const calls = [
      () => store.add([use(newKeyId())], start),
      () => store.read(newKeyId(), 'hour', start),
      () => store.deleteExpired(start, 1),
    ]
    for (const call of calls)
      expect(
        await call().then(
          () => 'resolved',
          () => 'rejected',
        ),
      ).to.equal('rejected')
  })
}
