// The contract suites on every store, and the choice of a store by its URL.
import { expect } from 'chai'
import { openTokenStore, openUserStore, storeSchemes } from '../services/auth/stores/index.ts'
import type { TokenStore, UserStore } from '../services/auth/stores/ports.ts'
import { tokenStoreContract } from './contracts/tokenStore.ts'
import { tokenStoreModel } from './contracts/tokenStoreModel.ts'
import { userStoreContract } from './contracts/userStore.ts'

const tokenStoreUrls = ['memory:']
const userStoreUrls = ['memory:']

for (const url of tokenStoreUrls) {
  describe(`a token store at ${url}`, () => {
    let store: TokenStore
    beforeEach(async () => {
      store = await openTokenStore(url)
    })
    afterEach(() => store.close())
    tokenStoreContract(() => store)
    tokenStoreModel(() => store)
  })
}

for (const url of userStoreUrls) {
  describe(`a user store at ${url}`, () => {
    let store: UserStore
    beforeEach(async () => {
      store = await openUserStore(url)
    })
    afterEach(() => store.close())
    userStoreContract(() => store)
  })
}

describe('the choice of a store', () => {
  it('has no scheme that the contract suites do not run on', () => {
    const tested = [...tokenStoreUrls, ...userStoreUrls].map(url => url.slice(0, url.indexOf(':')))
    expect([...new Set(tested)]).to.have.members(storeSchemes)
  })

  it('names the setting and the schemes it knows, and never repeats a password', async () => {
    const message = await openTokenStore('oracle://scott:tiger@db').catch((error: Error) => error.message)
    expect(message).to.equal('TOKEN_STORE_URL: expected one of memory:; got oracle:')
  })
})
