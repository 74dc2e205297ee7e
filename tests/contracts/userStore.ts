// What every UserStore must do. Names no store; a bug found in one store gets a test here for all.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import type { UserRecord, UserStore } from '../../services/auth/stores/userPort.ts'
import { newUserAt } from '../support/storeFixtures.ts'

export function userStoreContract(getStore: () => UserStore): void {
  const newUser = (members: Partial<UserRecord> = {}) => newUserAt(1_800_000_000_000, members)

  it('finds a user under the username it was inserted with, exactly as it was', async () => {
    const user = newUser()
    expect(await getStore().insert(user)).to.equal(true)
    expect(await getStore().findByUsername(user.username)).to.deep.equal(user)
  })

  it('stores what a user may do, and changes it only if it is still the version that was read', async () => {
    const store = getStore()
    const user = newUser()
    await store.insert(user)
    expect((await store.findUnmirrored(1000)).map(({ id }) => id)).to.not.include(user.id)
    const authority = { version: 1, roles: ['admin', 'billing:read'], paused: false, rate: null }
    expect(await store.updateAuthority(user.id, 0, { authority })).to.deep.equal({ ...user, authority })
    expect(await store.updateAuthority(user.id, 0, { authority: { ...authority, roles: [] } })).to.equal(null)
    expect(await store.findById(user.id)).to.deep.equal({ ...user, authority })
    expect((await store.findUnmirrored(1000)).map(({ id }) => id)).to.include(user.id)
    expect(await store.updateAuthority(user.id, 1, { mirroredAuthority: 1 })).to.include({ mirroredAuthority: 1 })
    expect((await store.findUnmirrored(1000)).map(({ id }) => id)).to.not.include(user.id)
    const paused = { version: 2, roles: [], paused: true, rate: null }
    await store.updateAuthority(user.id, 1, { authority: paused, mirroredAuthority: 2 })
    expect(await store.findByUsername(user.username)).to.deep.equal({
      ...user,
      authority: paused,
      mirroredAuthority: 2,
    })
    expect(await store.updateAuthority(randomUUID(), 0, { authority })).to.equal(null)
  })

  it('inserts a user with an authority', async () => {
    const user = newUser({
      authority: { version: 4, roles: ['admin'], paused: true, rate: null },
      mirroredAuthority: 3,
    })
    await getStore().insert(user)
    expect(await getStore().findById(user.id)).to.deep.equal(user)
  })

  it('stores attributes, and replaces them only if they are still those that were read', async () => {
    const store = getStore()
    const user = newUser({ attributes: '{"plan":"pro"}', email: 'a@b.example' })
    await store.insert(user)
    expect(await store.findById(user.id)).to.deep.equal(user)
    const attributes = JSON.stringify({ plan: "o'neill", profile: { name: '\0 \ud800 🦊', list: [1, null, true] } })
    expect(await store.updateAttributes(user.id, '{}', attributes)).to.equal(null)
    expect(await store.updateAttributes(randomUUID(), '{}', attributes)).to.equal(null)
    expect(await store.updateAttributes(user.id, user.attributes, attributes)).to.deep.equal({ ...user, attributes })
    expect(await store.findByUsername(user.username)).to.deep.equal({ ...user, attributes })
  })

  it('lets one of many concurrent changes of the attributes win', async () => {
    const user = newUser()
    await getStore().insert(user)
    const changes = Array.from({ length: 20 }, (_, i) =>
      getStore().updateAttributes(user.id, user.attributes, `{"change":${i}}`),
    )
    const won = (await Promise.all(changes)).filter(changed => changed !== null)
    expect(won).to.have.lengthOf(1)
    expect(await getStore().findById(user.id)).to.deep.equal(won[0])
  })

  it('lets one of many concurrent changes of the authority win', async () => {
    const user = newUser()
    await getStore().insert(user)
    const changes = Array.from({ length: 20 }, (_, i) =>
      getStore().updateAuthority(user.id, 0, {
        authority: { version: 1, roles: [`role-${i}`], paused: false, rate: null },
      }),
    )
    const won = (await Promise.all(changes)).filter(changed => changed !== null)
    expect(won).to.have.lengthOf(1)
    expect(await getStore().findById(user.id)).to.deep.equal(won[0])
  })

  it('finds a user by the id too', async () => {
    const user = newUser()
    await getStore().insert(user)
    expect(await getStore().findById(user.id)).to.deep.equal(user)
    expect(await getStore().findById(randomUUID())).to.equal(null)
  })

  describe('update', () => {
    it('writes the changes, returns the changed user, and keeps the rest', async () => {
      const user = newUser()
      await getStore().insert(user)
      const emails = { email: 'a@b.example', pendingEmail: 'c@d.example', emailTokenId: 'a token' }
      const times = { confirmedAt: 5, disabledAt: 6, deletedAt: 7 }
      const changes = { passwordHash: 'another', credentialVersion: 2, ...times, ...emails }
      expect(await getStore().update(user.id, 1, changes)).to.deep.equal({ ...user, ...changes })
      expect(await getStore().findById(user.id)).to.deep.equal({ ...user, ...changes })
      const back = { disabledAt: null, endedVersion: 2, email: null, pendingEmail: null, emailTokenId: null }
      await getStore().update(user.id, 2, back)
      expect(await getStore().findByUsername(user.username)).to.deep.equal({ ...user, ...changes, ...back })
    })

    it('changes nothing if the version differs or the user does not exist', async () => {
      const user = newUser({ credentialVersion: 3 })
      await getStore().insert(user)
      for (const version of [1, 2, 4]) {
        expect(await getStore().update(user.id, version, { passwordHash: 'another' })).to.equal(null)
      }
      expect(await getStore().update(randomUUID(), 1, { passwordHash: 'another' })).to.equal(null)
      expect(await getStore().findById(user.id)).to.deep.equal(user)
    })

    it('succeeds for one of many concurrent calls that raise the version', async () => {
      const user = newUser()
      await getStore().insert(user)
      const tries = Array.from({ length: 20 }, (_, i) =>
        getStore().update(user.id, 1, { credentialVersion: 2, passwordHash: `hash ${i}` }),
      )
      const won = (await Promise.all(tries)).filter(answer => answer !== null)
      expect(won).to.have.length(1)
      expect(await getStore().findById(user.id)).to.deep.equal(won[0])
    })
  })

  describe('rename', () => {
    it('changes the username and the version, and frees the old username', async () => {
      const store = getStore()
      const user = newUser()
      await store.insert(user)
      const changes = { username: `${randomUUID()} o'neill 🦊`, credentialVersion: 2 }
      expect(await store.rename(user.id, 1, changes)).to.deep.equal({ ...user, ...changes })
      expect(await store.findById(user.id)).to.deep.equal({ ...user, ...changes })
      expect(await store.findByUsername(changes.username)).to.deep.equal({ ...user, ...changes })
      expect(await store.findByUsername(user.username)).to.equal(null)
      expect(await store.insert(newUser({ username: user.username }))).to.equal(true)
      expect(await store.insert(newUser({ username: changes.username }))).to.equal(false)
    })

    it('changes nothing if another user has the username, the version differs or the user does not exist', async () => {
      const store = getStore()
      const [user, other] = [newUser(), newUser()]
      for (const each of [user, other]) await store.insert(each)
      expect(await store.rename(user.id, 1, { username: other.username, credentialVersion: 2 })).to.equal('taken')
      const free = { username: randomUUID(), credentialVersion: 3 }
      expect(await store.rename(user.id, 2, free)).to.equal(null)
      expect(await store.rename(randomUUID(), 1, free)).to.equal(null)
      for (const each of [user, other]) {
        expect(await store.findById(each.id)).to.deep.equal(each)
        expect(await store.findByUsername(each.username)).to.deep.equal(each)
      }
      expect(await store.findByUsername(free.username)).to.equal(null)
    })

    it('keeps a username that is the same', async () => {
      const user = newUser()
      await getStore().insert(user)
      const changes = { username: user.username, credentialVersion: 2 }
      expect(await getStore().rename(user.id, 1, changes)).to.deep.equal({ ...user, ...changes })
      expect(await getStore().findByUsername(user.username)).to.deep.equal({ ...user, ...changes })
    })

    it('gives a username to one of many users who ask for it at once', async () => {
      const users = Array.from({ length: 10 }, () => newUser())
      for (const user of users) await getStore().insert(user)
      const changes = { username: randomUUID(), credentialVersion: 2 }
      const outcomes = await Promise.all(users.map(({ id }) => getStore().rename(id, 1, changes)))
      expect(outcomes.filter(outcome => outcome !== 'taken')).to.have.lengthOf(1)
      const winner = await getStore().findByUsername(changes.username)
      expect(outcomes).to.deep.include(winner)
      for (const user of users) {
        expect(await getStore().findById(user.id)).to.deep.equal(user.id === winner?.id ? winner : user)
      }
    })

    it('succeeds for one of many concurrent calls for one user, and only the last name is taken', async () => {
      const user = newUser()
      await getStore().insert(user)
      const names = Array.from({ length: 10 }, () => randomUUID())
      const outcomes = await Promise.all(
        names.map(username => getStore().rename(user.id, 1, { username, credentialVersion: 2 })),
      )
      expect(outcomes.filter(outcome => outcome !== null)).to.have.lengthOf(1)
      const found = await Promise.all([user.username, ...names].map(name => getStore().findByUsername(name)))
      expect(found.filter(one => one !== null)).to.deep.equal(outcomes.filter(outcome => outcome !== null))
    })

    it('lets two users who want each other’s username end with two usernames', async () => {
      const [a, b] = [newUser(), newUser()]
      for (const each of [a, b]) await getStore().insert(each)
      await Promise.all([
        getStore().rename(a.id, 1, { username: b.username, credentialVersion: 2 }),
        getStore().rename(b.id, 1, { username: a.username, credentialVersion: 2 }),
      ])
      for (const { id } of [a, b]) {
        const user = (await getStore().findById(id)) as UserRecord
        expect(await getStore().findByUsername(user.username)).to.deep.equal(user)
      }
    })
  })

  it('forgets a deleted user and frees the username', async () => {
    const user = newUser()
    await getStore().insert(user)
    expect(await getStore().delete(user.id)).to.equal(true)
    expect(await getStore().delete(user.id)).to.equal(false)
    expect(await getStore().findById(user.id)).to.equal(null)
    expect(await getStore().findByUsername(user.username)).to.equal(null)
    expect(await getStore().update(user.id, 1, { confirmedAt: 1 })).to.equal(null)
    expect(await getStore().insert(newUser({ username: user.username }))).to.equal(true)
  })

  it('lists every user once, page by page', async () => {
    const users = Array.from({ length: 7 }, () => newUser())
    for (const user of users) await getStore().insert(user)
    const pages: UserRecord[][] = []
    for (let after: string | null = null, more = true; more; ) {
      const page: UserRecord[] = await getStore().list(after, 3)
      pages.push(page)
      after = page.at(-1)?.id ?? null
      more = page.length === 3
    }
    const listed = pages.flat().filter(({ id }) => users.some(user => user.id === id))
    expect(listed).to.have.deep.members(users)
    expect(new Set(pages.flat().map(({ id }) => id)).size).to.equal(pages.flat().length)
    expect(pages.every(page => page.length <= 3)).to.equal(true)
  })

  it('finds the users whose username begins with a text, page by page and byte by byte', async () => {
    const stem = randomUUID()
    const names = ['', 'a', 'ab', 'ab%', 'ab_c', 'b', 'é', 'zé', '🦊'].map(end => stem + end)
    for (const username of names) await getStore().insert(newUser({ username }))
    const found = async (prefix: string) => {
      const pages: UserRecord[] = []
      for (let page: UserRecord[] = [], after: string | null = null; ; after = page.at(-1)?.id ?? null) {
        page = await getStore().search(prefix, after, 2)
        pages.push(...page)
        if (page.length < 2) break
      }
      expect(pages.map(({ id }) => id)).to.deep.equal(pages.map(({ id }) => id).toSorted())
      return pages.map(({ username }) => username.slice(stem.length)).toSorted()
    }
    expect(await found(stem)).to.deep.equal(names.map(name => name.slice(stem.length)).toSorted())
    expect(await found(`${stem}ab`)).to.deep.equal(['ab', 'ab%', 'ab_c'])
    expect(await found(`${stem}ab%`)).to.deep.equal(['ab%'])
    expect(await found(`${stem}_`)).to.deep.equal([])
    expect(await found(`${stem}A`)).to.deep.equal([])
    expect(await found(`${stem}🦊`)).to.deep.equal(['🦊'])
    expect(await getStore().search(`${stem}\0`, null, 2)).to.deep.equal([])
    expect((await getStore().search('', null, 3)).length).to.equal(3)
  })

  it('finds the users whose tokens must still be ended, and no others', async () => {
    const [done, unfinished] = [newUser({ credentialVersion: 4, endedVersion: 4 }), newUser({ credentialVersion: 2 })]
    for (const user of [done, unfinished]) await getStore().insert(user)
    const found = (await getStore().findUnfinished(1000)).filter(({ id }) => id === done.id || id === unfinished.id)
    expect(found).to.deep.equal([unfinished])
    expect(await getStore().findUnfinished(0)).to.deep.equal([])
    await getStore().update(unfinished.id, 2, { endedVersion: 2 })
    expect((await getStore().findUnfinished(1000)).map(({ id }) => id)).to.not.include(unfinished.id)
  })

  it('returns null for names and ids that no store can contain, such as those with a NUL', async () => {
    for (const text of ['a\0b', '\0', '', '\ud800', 'a\udc00']) {
      expect(await getStore().findByUsername(text)).to.equal(null)
      expect(await getStore().findById(text)).to.equal(null)
      expect(await getStore().update(text, 1, { confirmedAt: 1 })).to.equal(null)
      expect(await getStore().updateAttributes(text, '{}', '{}')).to.equal(null)
      expect(await getStore().rename(text, 1, { username: 'someone', credentialVersion: 2 })).to.equal(null)
      expect(await getStore().delete(text)).to.equal(false)
      expect(await getStore().list(`~${text}`, 1)).to.deep.equal([])
    }
  })

  it('returns null for an unknown username', async () => {
    expect(await getStore().findByUsername(randomUUID())).to.equal(null)
  })

  it('gives a username to one of many concurrent inserts', async () => {
    const username = randomUUID()
    const wins = await Promise.all(Array.from({ length: 20 }, () => getStore().insert(newUser({ username }))))
    expect(wins.filter(Boolean)).to.have.length(1)
  })

  it('gives an id to one of many concurrent inserts', async () => {
    const id = randomUUID()
    const wins = await Promise.all(Array.from({ length: 20 }, () => getStore().insert(newUser({ id }))))
    expect(wins.filter(Boolean)).to.have.length(1)
  })

  it('accepts __proto__, constructor and emoji as usernames', async () => {
    for (const name of ['__proto__', 'constructor', 'toString', '🔑'.repeat(20)]) {
      const username = `${name}`
      expect(await getStore().findByUsername(username)).to.equal(null)
      const user = newUser({ username })
      await getStore().insert(user)
      expect(await getStore().findByUsername(username)).to.deep.equal(user)
    }
  })

  it('returns copies, so that the caller cannot change the stored user', async () => {
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
      () => store.update('somebody', 1, { confirmedAt: 1 }),
      () => store.updateAttributes('somebody', '{}', '{}'),
      () => store.rename('somebody', 1, { username: 'someone', credentialVersion: 2 }),
      () => store.delete('somebody'),
      () => store.list(null, 1),
      () => store.search('some', null, 1),
      () => store.findUnfinished(1),
    ]) {
      const outcome = await call().then(
        () => 'answered',
        () => 'rejected',
      )
      expect(outcome).to.equal('rejected')
    }
  })
}
