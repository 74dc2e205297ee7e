// What is special about the SQL stores, on either database: migrations, odd characters, and several processes on one database.
// What every store must do is in contracts/.

import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { expect } from 'chai'
import { listMigrations, openTokenStore, openUserStore } from '../../../services/auth/stores/index.ts'
import { migrationsFor } from '../../../services/auth/stores/sql/migrations.ts'
import type { TokenRef } from '../../../services/auth/stores/tokenPort.ts'
import { drawSecret, refOf } from '../../../services/auth/tokens/format.ts'
import { sharedTokenStoreContract } from '../../contracts/sharedTokenStore.ts'
import {
  askDatabase,
  insertedToken,
  insertedUser,
  newToken,
  newUser,
  openStores,
  start,
} from '../../support/sqlStores.ts'
import { lineage, minute, toMessage, unlimited } from '../../support/storeFixtures.ts'
import { type Peer, startPeer } from '../../support/storePeer.ts'
import { freshPlace, type Place } from '../../support/stores.ts'

for (const scheme of ['sqlite', 'postgres'] as const) {
  describe(`a database at ${scheme}`, () => {
    let place: Place
    beforeEach(async () => {
      place = await freshPlace(scheme)
    })
    afterEach(() => place.remove())

    const steps = Object.keys(migrationsFor(scheme))
    const tables = () => {
      const own = scheme === 'sqlite' ? 'sqlite_master' : 'pg_tables where schemaname = current_schema()'
      return askDatabase(place.url, `select * from ${own}`)
    }

    it('is migrated once by ten processes that start at the same moment', async () => {
      const peers = await Promise.all(Array.from({ length: 10 }, () => startPeer()))
      try {
        await Promise.all(peers.map(peer => peer.open(place.url)))
        const made = await askDatabase(place.url, 'select name from latchkey_migrations order by name')
        expect(made.map(({ name }) => name)).to.deep.equal(steps)
        await Promise.all(peers.map(peer => insertedUser(peer)))
        expect(await peers[0]?.users.list(null, 100)).to.have.lengthOf(10)
      } finally {
        await Promise.all(peers.map(peer => peer.end()))
      }
    })

    it('makes an earlier version refuse what it would take for a token without a name and a parent', async () => {
      const stores = await openStores(place.url)
      const { tokens, close } = stores
      const session = await insertedToken(stores)
      const { userId } = session.token
      const parent = { id: session.ref.id, scope: null, name: null }
      const key = await insertedToken(stores, { userId, kind: 'fixed', name: 'deploy' })
      const child = await insertedToken(stores, { userId, kind: 'fixed', parent })
      for (const paused of [true, false]) await tokens.change(key.ref.id, { paused }, start)
      expect(await tokens.look([key.ref, child.ref], start, null)).to.not.include(null)
      // An earlier version admits a token only if this is 0.
      const rows = await askDatabase(place.url, 'select id, paused from latchkey_tokens')
      const marked = rows.filter(({ paused }) => Number(paused) !== 0).map(({ id }) => id)
      expect(marked).to.have.members([key.ref.id, child.ref.id])
      await close()
    })

    it('is not changed by listing the pending migrations', async () => {
      expect(await listMigrations('USER_STORE_URL', place.url)).to.deep.equal({ applied: [], pending: steps })
      if (scheme === 'sqlite') expect(existsSync(place.url.slice('sqlite:'.length))).to.equal(false)
      expect(await tables()).to.deep.equal([])
      const { close } = await openStores(place.url)
      expect(await listMigrations('TOKEN_STORE_URL', place.url)).to.deep.equal({ applied: steps, pending: [] })
      await close()
      const before = await tables()
      expect(await listMigrations('TOKEN_STORE_URL', place.url)).to.deep.equal({ applied: steps, pending: [] })
      expect(await tables()).to.deep.equal(before)
      if (scheme === 'sqlite') {
        expect(readdirSync(dirname(place.url.slice('sqlite:'.length)))).to.deep.equal(['latchkey.db'])
      }
    })

    it('of a newer version is refused with a sentence', async () => {
      const { close } = await openStores(place.url)
      await close()
      await askDatabase(
        place.url,
        `insert into latchkey_migrations values ('9999_from_the_future', '2050-01-01T00:00:00.000Z')`,
      )
      for (const open of [openTokenStore, openUserStore]) {
        const message = await open(place.url).then(() => 'opened', toMessage)
        expect(message).to.match(
          /^(TOKEN|USER)_STORE_URL: .* was created by a newer Latchkey; use that version or a later one$/,
        )
      }
      const listed = await listMigrations('TOKEN_STORE_URL', place.url).then(() => 'listed', toMessage)
      expect(listed).to.match(/^TOKEN_STORE_URL: .* was created by a newer Latchkey/)
    })

    it('stores quotes, emoji and SQL in a name unchanged', async () => {
      const stores = await openStores(place.url)
      const names = [`o'neill"s`, '🗝️', `'; drop table latchkey_users; --`, '$1', '?', '%', '\\', '{"a":1}', ' ']
      for (const username of names) {
        const user = await insertedUser(stores, { username, id: username })
        expect(await stores.users.findByUsername(username)).to.deep.equal(user)
        const { ref, token } = await insertedToken(stores, { username, userId: username, purpose: username })
        expect(await stores.tokens.look([ref], start, username)).to.deep.equal([token])
        expect(await stores.tokens.findByUser(username, start)).to.deep.equal([token])
      }
      expect(await stores.users.list(null, 100)).to.have.lengthOf(names.length)
      await stores.close()
    })

    it('loses a floor a day after it was raised, unless a token is still below it', async () => {
      const { tokens, close } = await openStores(place.url)
      const day = 24 * 60 * minute
      const sweep = async (now: number) => {
        for (let isDone = false; !isDone; ) isDone = (await tokens.deleteExpired(now, 2)).done
      }
      const users = ['again', 'below', 'gone', 'gone-1', 'gone-2', 'gone-3']
      for (const userId of users) await tokens.raiseFloor(userId, 2, null)
      const lasting = {
        userId: 'below',
        credentialVersion: 2,
        expiresAt: start + 9 * day,
        absoluteExpiresAt: start + 9 * day,
      }
      const below = await insertedToken({ tokens }, lasting)
      await sweep(start)
      await sweep(start + day - 1)
      const early = newToken({ userId: 'gone' })
      expect(await tokens.insert(early.ref, early.token, unlimited, start)).to.equal('ended')
      await tokens.raiseFloor('again', 3, null)
      await tokens.raiseFloor('below', 3, null)
      const hidden = start + 2 * day // the sweep has not found this token yet
      await askDatabase(place.url, `update latchkey_tokens set sweep_at = ${hidden}`)
      await askDatabase(place.url, `update latchkey_floors set forget_at = ${start + day} where user_id = 'below'`)

      await sweep(start + day)
      const left = async () =>
        (await askDatabase(place.url, 'select * from latchkey_floors order by user_id')).map(row => row['user_id'])
      expect(await left()).to.deep.equal(['again', 'below'])
      expect(await tokens.touch([below.ref], start, null)).to.deep.equal([null])

      await sweep(hidden)
      expect(await left()).to.deep.equal([])
      expect(await tokens.touch([below.ref], start, null)).to.deep.equal([null])
      await close()
    })

    it('keeps tombstones of fifty tokens in a slice, and deletes the others at once', async () => {
      const { tokens, close } = await openStores(place.url)
      const made = []
      for (let i = 0; i < 120; i++) made.push(await insertedToken({ tokens }, { expiresAt: start + 1 + i }))
      const { ref: live } = await insertedToken({ tokens })
      await askDatabase(place.url, 'update latchkey_tokens set sweep_at = 1') // as if all had been extended
      const later = start + 500
      expect((await tokens.deleteExpired(later, 121)).removed).to.equal(120)
      const reasons = await Promise.all(made.map(({ ref }) => tokens.explain(ref, later, null)))
      expect(reasons.filter(({ reason }) => reason === 'expired')).to.have.lengthOf(50)
      expect(reasons.filter(({ reason }) => reason === 'unknown')).to.have.lengthOf(70)
      expect(await tokens.counts()).to.deep.equal({ sliding: 1, fixed: 0, 'single-use': 0 })
      expect((await tokens.touch([live], start, null)).map(Boolean)).to.deep.equal([true])
      await close()
    })

    it('contains no secret of a token, whatever happened to the token', async () => {
      const stores = await openStores(place.url)
      const secrets: string[] = []
      const refs: TokenRef[] = []
      const drawRef = (id: string) => {
        const secret = drawSecret(id)
        secrets.push(secret)
        refs.push(refOf(secret))
        return refOf(secret)
      }
      for (const kind of ['sliding', 'fixed', 'single-use'] as const) {
        for (const what of ['keep', 'touch', 'renew', 'delete', 'end']) {
          const { token } = newToken({ kind })
          const ref = drawRef(token.id)
          await stores.tokens.insert(ref, token, unlimited, start)
          if (what === 'touch') await stores.tokens.touch([ref], start, null)
          if (what === 'renew') await stores.tokens.renew(ref, drawRef(token.id).hash, lineage, start)
          if (what === 'delete') await stores.tokens.delete(ref, start)
          if (what === 'end') await stores.tokens.raiseFloor(token.userId as string, 2, null)
        }
      }
      const rows = []
      for (const { name, tablename = name } of await tables()) {
        if (/^latchkey_[a-z]+$/.test(String(tablename)))
          rows.push(...(await askDatabase(place.url, `select * from ${tablename}`)))
      }
      const dump = JSON.stringify(rows, (_, value) => (typeof value === 'bigint' ? Number(value) : value))
      expect(dump).to.include(refs[0]?.hash)
      for (const secret of secrets) {
        const { id } = refOf(secret)
        expect(dump).to.not.include(secret.slice(secret.indexOf(id) + id.length, -6)) // the secret's random part, without its checksum
      }
      await stores.close()
    })
  })
}

for (const scheme of ['sqlite', 'postgres']) {
  describe(`processes that share a database at ${scheme}:`, () => {
    let place: Place
    let one: Peer
    let other: Peer
    before(async () => {
      place = await freshPlace(scheme)
      const peers = await Promise.all([startPeer(), startPeer()])
      one = peers[0]
      other = peers[1]
      await Promise.all(peers.map(peer => peer.open(place.url)))
    })
    after(async () => {
      await Promise.all([one?.end(), other?.end()])
      await place.remove()
    })

    const both = <T>(n: number, call: (peer: Peer, i: number) => Promise<T>): Promise<T[]> =>
      Promise.all(Array.from({ length: n }, (_, i) => call(i % 2 ? other : one, i)))

    sharedTokenStoreContract(() => [one.tokens, other.tokens])

    it('sweep together: each dead token is removed once, and later forgotten', async () => {
      const later = start + minute
      const sweepAll = async ({ tokens }: Peer, now: number): Promise<number> => {
        for (let total = 0; ; ) {
          const { removed, done } = await tokens.deleteExpired(now, 7)
          total += removed
          if (done) return total
        }
      }
      await sweepAll(one, later)
      const dead: TokenRef[] = []
      // Few at a time: a slow disk could not answer 300 inserts within their deadline.
      while (dead.length < 300) dead.push(...(await both(20, async peer => (await insertedToken(peer)).ref)))
      const ref = dead[0] as TokenRef
      const { ref: live } = await insertedToken(one, { expiresAt: later + 60 * minute })
      const removed = await both(4, peer => sweepAll(peer, later))
      expect(removed.reduce((sum, n) => sum + n)).to.equal(300)
      expect(await other.tokens.explain(ref, later, null)).to.deep.equal({ reason: 'expired', at: later })
      expect(await both(4, peer => sweepAll(peer, later + 30 * minute))).to.deep.equal([0, 0, 0, 0])
      expect(await one.tokens.explain(ref, later, null)).to.deep.equal({ reason: 'unknown' })
      expect(await one.tokens.look([live], later, null)).to.not.deep.equal([null])
    })

    it('write as much as they can, and none is starved', async () => {
      await both(2, peer => peer.press(newToken().token, 20, 1500))
    })

    it('give a username to one of several that want it', async () => {
      for (let i = 0; i < 10; i++) {
        const username = randomUUID()
        const answers = await both(10, ({ users }) => users.insert(newUser({ username })))
        expect(answers.filter(isTaken => isTaken)).to.have.lengthOf(1)
      }
    })

    it('let one of several raise the version of a user', async () => {
      const { id } = await insertedUser(one)
      for (let version = 1; version <= 10; version++) {
        const answers = await both(10, ({ users }, i) => {
          return users.update(id, version, { credentialVersion: version + 1, passwordHash: `of ${i}` })
        })
        const won = answers.filter(user => user !== null)
        expect(won).to.have.lengthOf(1)
        expect(await other.users.findById(id)).to.deep.equal(won[0])
      }
    })
  })
}
