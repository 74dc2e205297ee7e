// What every UserStore must do. Names no store; a fault found in one gets its case here.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import type { UserRecord, UserStore } from '../../services/auth/stores/ports.ts'

export function userStoreContract(getStore: () => UserStore): void {
  function newUser(members: Partial<UserRecord> = {}): UserRecord {
    return {
      id: randomUUID(),
      username: `${randomUUID()}@example.com`,
      passwordHash: 'a hash',
      credentialVersion: 1,
      createdAt: 1_800_000_000_000,
      ...members,
    }
  }

  it('finds a user under the username it was inserted with, exactly as it was', async () => {
    const user = newUser()
    expect(await getStore().insert(user)).to.equal(true)
    expect(await getStore().findByUsername(user.username)).to.deep.equal(user)
  })

  it('finds a user by the id too', async () => {
    const user = newUser()
    await getStore().insert(user)
    expect(await getStore().findById(user.id)).to.deep.equal(user)
    expect(await getStore().findById(randomUUID())).to.equal(null)
  })

  it('raises the credential version of a user, for each of many at the same time to one of its own', async () => {
    const user = newUser()
    await getStore().insert(user)
    const versions = await Promise.all(Array.from({ length: 5 }, () => getStore().raiseCredentialVersion(user.id)))
    expect(versions.toSorted()).to.deep.equal([2, 3, 4, 5, 6])
    expect(await getStore().findByUsername(user.username)).to.include({ credentialVersion: 6 })
    expect(await getStore().raiseCredentialVersion(randomUUID())).to.equal(null)
  })

  it('answers null for a username that nobody has', async () => {
    expect(await getStore().findByUsername(randomUUID())).to.equal(null)
  })

  it('gives a username to one of many that want it at the same time', async () => {
    const username = randomUUID()
    const wins = await Promise.all(Array.from({ length: 20 }, () => getStore().insert(newUser({ username }))))
    expect(wins.filter(Boolean)).to.have.length(1)
  })

  it('takes __proto__, constructor and emoji for ordinary usernames', async () => {
    for (const name of ['__proto__', 'constructor', 'toString', '🔑'.repeat(20)]) {
      const username = `${name}`
      expect(await getStore().findByUsername(username)).to.equal(null)
      const user = newUser({ username })
      await getStore().insert(user)
      expect(await getStore().findByUsername(username)).to.deep.equal(user)
    }
  })

  it('hands out copies: what a caller does to an answer changes nothing', async () => {
    const user = newUser()
    await getStore().insert(user)
    const found = (await getStore().findByUsername(user.username)) as UserRecord
    found.credentialVersion = 99
    expect(await getStore().findByUsername(user.username)).to.include({ credentialVersion: 1 })
  })

  it('can be closed twice, and every other call rejects afterwards', async () => {
    const store = getStore()
    await store.close()
    await store.close()
    for (const call of [
      () => store.insert(newUser()),
      () => store.findByUsername('somebody'),
      () => store.findById('somebody'),
      () => store.raiseCredentialVersion('somebody'),
    ]) {
      const outcome = await call().then(
        () => 'answered',
        () => 'rejected',
      )
      expect(outcome).to.equal('rejected')
    }
  })
}
