// The contract suite of usage stores on every store of tokens, and what is special about some of them.
import { expect } from 'chai'
import { openUsageStore, storeSchemes } from '../../../services/auth/stores/index.ts'
import type { UsageStore } from '../../../services/auth/stores/usagePort.ts'
import { drawTokenId } from '../../../services/auth/tokens/format.ts'
import { keptDays, usageStoreContract } from '../../contracts/usageStore.ts'
import { hasRedis, reportMissingRedis, startRedis } from '../../support/redis.ts'
import { askDatabase } from '../../support/sqlStores.ts'
import { toMessage } from '../../support/storeFixtures.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

const start = Date.UTC(2027, 0, 15)

for (const scheme of await schemesHere([...storeSchemes.TOKEN_STORE_URL])) {
  describe(`a usage store at ${scheme}:`, () => {
    let place: Place
    let stores: [UsageStore, UsageStore]
    before(async function () {
      if (hasRedis || !['rediss', 'redis-cluster', 'redis-sentinel'].includes(scheme)) return
      reportMissingRedis(`a usage store at ${scheme}:`)
      this.skip()
    })
    beforeEach(async () => {
      place = await freshPlace(scheme)
      const first = await openUsageStore(place.url, keptDays)
      stores = [first, scheme === 'memory' ? first : await openUsageStore(place.url, keptDays)]
    })
    afterEach(async () => {
      for (const store of stores) await store.close()
      await place.remove()
    })
    usageStoreContract(() => stores)
  })
}

for (const scheme of await schemesHere(['sqlite', 'postgres'])) {
  it(`the sweep leaves no row of a bucket that is no longer kept at ${scheme}:`, async () => {
    const place = await freshPlace(scheme)
    const store = await openUsageStore(place.url, 1)
    try {
      const keyId = drawTokenId('user-1', start)
      for (let i = 0; i < 5; i++) await store.add([{ keyId, isDelegated: false }], start + i * 3_600_000)
      const rows = async () => (await askDatabase(place.url, 'select * from latchkey_key_usage')).length
      expect(await rows()).to.equal(10)
      expect(await store.deleteExpired(start + 10 * 86_400_000, 2)).to.equal(false)
      expect(await rows()).to.equal(6)
      while (!(await store.deleteExpired(start + 10 * 86_400_000, 2)));
      expect(await rows()).to.equal(0)
    } finally {
      await store.close()
      await place.remove()
    }
  })
}

describe('a usage store in Redis', () => {
  before(function () {
    if (hasRedis) return
    reportMissingRedis('a usage store in Redis')
    this.skip()
  })

  it('leaves no key without an expiry, and refuses to open without the right to count', async () => {
    const server = await startRedis()
    try {
      const store = await openUsageStore(`${server.url}?prefix=usage:`, 400)
      const keyId = drawTokenId('user-1', start)
      await store.add([{ keyId, isDelegated: false }], start)
      await store.add([{ keyId, isDelegated: true }], start + 1)
      await store.close()
      const keys = (await server.command('keys', `usage:{${keyId.slice(0, 4)}}*`)) as string[]
      expect(keys).to.have.lengthOf(2)
      const left = await Promise.all(keys.map(async key => Number(await server.command('ttl', key)) / 86_400))
      expect(left.toSorted((a, b) => a - b).map(Math.ceil)).to.deep.equal([2, 401])
      await server.command('acl', 'setuser', 'weak', 'on', '>hunter2', '~*', '+@all', '-hincrby')
      const url = server.url.replace('//', '//weak:hunter2@')
      expect(await openUsageStore(url, 1).then(() => 'opened', toMessage)).to.match(
        /^TOKEN_STORE_URL: the Redis server does not count uses of keys \(.*can't run this command|NOPERM/,
      )
    } finally {
      await server.remove()
    }
  })
})
