import bcrypt from 'bcryptjs'
import { expect } from 'chai'
import { openUserStore } from '../../../services/auth/stores/index.ts'
import type { UserRecord, UserStore } from '../../../services/auth/stores/userPort.ts'
import { openPasswords, type Passwords } from '../../../services/auth/users/passwords.ts'
import { type AuthApi, authApi, phrases, rawLogin } from '../../support/authApi.ts'
import { newUsername } from '../../support/factories.ts'
import { hashThreads } from '../../support/hashThreads.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { newUserAt } from '../../support/storeFixtures.ts'
import { freshPlace, type Place } from '../../support/stores.ts'
import { until } from '../../support/until.ts'

const owner = { address: '192.0.2.1', account: 'somebody' }
let plantedCount = 0

describe('a log-in that is refused', () => {
  let place: Place
  let store: UserStore
  let client: AuthApi
  before(async () => {
    place = await freshPlace('sqlite')
    store = await openUserStore(place.url)
    client = authApi(await startAuth({ env: { USER_STORE_URL: place.url } }))
  })
  after(async () => {
    await closeServers()
    await store.close()
    await place.remove()
  })

  it('has the same bytes for an unknown, disabled or unconfirmed user and for a wrong password', async () => {
    const [disabled, unconfirmed, deleted] = [await client.newUser(), await client.newUser(), await client.newUser()]
    await store.update(disabled.user.id, 1, { disabledAt: 5 })
    await store.update(unconfirmed.user.id, 1, { confirmedAt: null })
    await store.update(deleted.user.id, 1, { deletedAt: 5 })
    const { credentials } = await client.newUser()
    const unknown = await rawLogin(client.url, { ...credentials, username: newUsername() })
    expect(unknown).to.match(/^HTTP\/1\.1 401 Unauthorized\r\n/)
    expect(unknown).to.include('"error":"invalid_credentials","requestId":"the-same"')
    expect(await rawLogin(client.url, { ...credentials, password: phrases.wrong })).to.equal(unknown)
    for (const [what, other] of Object.entries({ disabled, unconfirmed, deleted })) {
      expect(await rawLogin(client.url, other.credentials), what).to.equal(unknown)
    }
    expect(await rawLogin(client.url, credentials)).to.match(/^HTTP\/1\.1 200 /)
  })
})

describe('a stored hash', () => {
  let place: Place
  let store: UserStore
  let cheap: Passwords
  before(async () => {
    place = await freshPlace('sqlite')
    store = await openUserStore(place.url)
    cheap = await openPasswords({ cost: 4, threads: hashThreads, maxQueue: 10, maxPerAccount: 1000 })
  })
  after(async () => {
    await closeServers()
    await store.close()
    cheap.close()
    await place.remove()
  })
  const start = async (env = {}) => authApi(await startAuth({ env: { ...env, USER_STORE_URL: place.url } }))

  /** Creates a user with this stored hash. */
  async function plant(passwordHash: string): Promise<UserRecord> {
    const user = newUserAt(5, {
      id: `planted-${++plantedCount}`,
      username: newUsername(),
      passwordHash,
      confirmedAt: 5,
    })
    expect(await store.insert(user)).to.equal(true)
    return user
  }
  const hashOf = async ({ id }: UserRecord) => (await store.findById(id))?.passwordHash as string

  it('of a lower cost is replaced at the next log-in; concurrent log-ins succeed and no session ends', async () => {
    const ten = await openPasswords({ cost: 10, threads: hashThreads, maxQueue: 10, maxPerAccount: 1000 })
    const user = await plant(await ten.hash(phrases.first, owner))
    ten.close()
    const client = await start({ PASSWORD_HASH_COST: '11' })
    const credentials = { username: user.username, password: phrases.first }
    expect((await client.logIn({ ...credentials, password: phrases.wrong })).status).to.equal(401)
    const answers = await Promise.all(Array.from({ length: 6 }, () => client.logIn(credentials)))
    expect(answers.map(({ status }) => status)).to.deep.equal(Array(6).fill(200))
    await until(async () => (await hashOf(user)).startsWith('hmac-sha256+bcrypt:$2b$11$'))
    const last = await client.session(credentials)
    const sessions = [...answers.map(({ body }) => body['token'] as string), last]
    expect(await client.live(sessions)).to.have.length(7)
    const { passwordHash: _, ...rest } = (await store.findById(user.id)) as UserRecord
    const { passwordHash: __, ...planted } = user
    expect(rest).to.deep.equal(planted)
  })

  describe('made by another service', () => {
    let client: AuthApi
    before(async () => {
      client = await start({ PASSWORD_HASH_COST: '10' })
    })

    for (const minor of ['b', 'a', 'y']) {
      it(`of plain bcrypt allows one log-in, which replaces it: $2${minor}$`, async () => {
        const user = await plant(bcrypt.hashSync(phrases.first, 4).replace('$2b$', `$2${minor}$`))
        const credentials = { username: user.username, password: phrases.first }
        expect((await client.logIn({ ...credentials, password: phrases.wrong })).status).to.equal(401)
        expect(await hashOf(user)).to.equal(user.passwordHash)
        const token = await client.session(credentials)
        await until(async () => (await hashOf(user)).startsWith('hmac-sha256+bcrypt:$2b$10$'))
        expect((await client.logIn(credentials)).status).to.equal(200)
        expect(await client.isLive(token)).to.equal(true)
        expect(await store.findById(user.id)).to.include({ credentialVersion: 1, endedVersion: 1 })
      })
    }

    it('never matches a different password that plain bcrypt would accept', async () => {
      const [long, nul] = ['x'.repeat(72), 'abcdef']
      for (const [password, others] of [
        [long, [`${long}x`, `${long}\0`]],
        [nul, [`${nul}\0`, `${nul}\0${nul}`, `${nul}\0${nul}\0${nul}`]],
      ] as const) {
        const user = await plant(bcrypt.hashSync(password, 4))
        for (const other of others) {
          expect((await client.logIn({ username: user.username, password: other })).status).to.equal(401)
          expect(await hashOf(user)).to.equal(user.passwordHash)
        }
        expect((await client.logIn({ username: user.username, password })).status).to.equal(200)
      }
    })

    it('that is empty, malformed or of an extreme cost is 401 in bounded time', async () => {
      const plain = 'stored as it was typed' // must not contain CANARY, because one row stores this text
      const bare = bcrypt.hashSync(plain, 4)
      const ours = await cheap.hash(plain, owner)
      const rows = ['', plain, `${bare}x`, ours.slice(0, -1), `$2x${bare.slice(3)}`, 'hmac-sha256+bcrypt:']
      const costs = ['03', '17', '31', '-1']
      const others = costs.flatMap(cost => [bare, ours].map(hash => hash.replace('$04$', `$${cost}$`)))
      const unknown = await rawLogin(client.url, { username: newUsername(), password: plain })
      for (const row of [...rows, ...others]) {
        const { username } = await plant(row)
        const usedBefore = process.cpuUsage() // of all threads; unlike time, it does not depend on other processes
        expect(await rawLogin(client.url, { username, password: plain }), row).to.equal(unknown)
        expect(process.cpuUsage(usedBefore).user / 1000, row).to.be.below(2000)
      }
      client.expectQuietLog()
    })
  })
})
