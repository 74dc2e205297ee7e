// The contract suites on every store, and the choice of a store by its URL.
import { expect } from 'chai'
import { openTokenStore, openUserStore, storeSchemes } from '../../../services/auth/stores/index.ts'
import type { TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import type { UserStore } from '../../../services/auth/stores/userPort.ts'
import { tokenStoreContract } from '../../contracts/tokenStore.ts'
import { tokenStoreModel } from '../../contracts/tokenStoreModel.ts'
import { userStoreContract } from '../../contracts/userStore.ts'
import { hasRedis, reportMissingRedis } from '../../support/redis.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

const userSchemes = ['memory', 'sqlite', 'postgres']
const tokenSchemes = [...userSchemes, 'redis', 'rediss', 'redis-cluster', 'redis-sentinel']

for (const scheme of await schemesHere(tokenSchemes)) {
  describe(`a token store at ${scheme}:`, () => {
    let place: Place
    let store: TokenStore
    before(async function () {
      if (hasRedis || !['rediss', 'redis-cluster', 'redis-sentinel'].includes(scheme)) return
      reportMissingRedis(`a token store at ${scheme}:`)
      this.skip()
    })
    beforeEach(async () => {
      place = await freshPlace(scheme)
      store = await openTokenStore(place.url)
    })
    afterEach(async () => {
      await store.close()
      await place.remove()
    })
    tokenStoreContract(() => store)
    if (!['rediss', 'redis-sentinel'].includes(scheme)) tokenStoreModel(() => store) // the same store as redis
    if (scheme === 'memory') tokenStoreModel(() => store, 30) // users come and go
  })
}

for (const scheme of await schemesHere(userSchemes)) {
  describe(`a user store at ${scheme}:`, () => {
    let place: Place
    let store: UserStore
    beforeEach(async () => {
      place = await freshPlace(scheme)
      store = await openUserStore(place.url)
    })
    afterEach(async () => {
      await store.close()
      await place.remove()
    })
    userStoreContract(() => store)
  })
}

describe('the choice of a store', () => {
  it('has only schemes that the contract suites cover', () => {
    expect(tokenSchemes).to.have.members(storeSchemes.TOKEN_STORE_URL)
    expect(userSchemes).to.have.members(storeSchemes.USER_STORE_URL)
  })

  it('names the setting and the known schemes in its errors, and never repeats a password', async () => {
    for (const [setting, url, open] of [
      ['TOKEN_STORE_URL', 'oracle://scott:tiger@db', openTokenStore],
      ['USER_STORE_URL', 'redis://scott:tiger@db', openUserStore],
    ] as const) {
      const message = await open(url).catch((error: Error) => error.message)
      const known = storeSchemes[setting].map(scheme => `${scheme}:`).join(', ')
      expect(message).to.equal(`${setting}: expected one of ${known}; got ${url.split(':')[0]}:`)
    }
  })
})
