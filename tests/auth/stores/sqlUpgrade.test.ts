// A database of the first version, with the statements as they were then, opened by this version.
import { expect } from 'chai'
import { openTokenStore, openUserStore } from '../../../services/auth/stores/index.ts'
import { askDatabase } from '../../support/sqlStores.ts'
import { newTokenAt } from '../../support/storeFixtures.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

// Frozen: do not change them with the migrations.
const firstVersion = [
  'create table latchkey_migrations (name varchar(255) primary key not null, timestamp varchar(255) not null)',
  `create table latchkey_users (id text primary key not null, username text not null unique, password_hash text not null,
    credential_version bigint not null, ended_version bigint not null, created_at bigint not null, confirmed_at bigint,
    disabled_at bigint, deleted_at bigint)`,
  'create index latchkey_users_unfinished on latchkey_users (id) where ended_version < credential_version',
  `create table latchkey_tokens (id text primary key not null, hash text not null, kind text not null, purpose text,
    user_id text, username text, credential_version bigint not null, created_at bigint not null,
    last_used_at bigint not null, expires_at bigint not null, absolute_expires_at bigint not null, ttl_ms bigint not null,
    refresh_count bigint not null, sweep_at bigint not null, end_reason text, ended_at bigint, renewed_at bigint)`,
  'create index latchkey_tokens_user on latchkey_tokens (user_id) where end_reason is null',
  'create index latchkey_tokens_kind on latchkey_tokens (kind) where end_reason is null',
  'create index latchkey_tokens_due on latchkey_tokens (sweep_at) where end_reason is null',
  'create index latchkey_tokens_ended on latchkey_tokens (sweep_at) where end_reason is not null',
  'create table latchkey_floors (user_id text primary key not null, version bigint not null)',
  `insert into latchkey_migrations values ('0001_users', '2026-11-20T00:00:00.000Z'), ('0002_tokens', '2026-11-20T00:00:00.000Z')`,
]

for (const scheme of await schemesHere(['sqlite', 'postgres'])) {
  describe(`a database of the first version at ${scheme}:`, () => {
    let place: Place

    beforeEach(async () => {
      place = await freshPlace(scheme)
    })

    afterEach(() => place.remove())

    it('is upgraded at the start, and its users, sessions and floors stay as they are', async () => {
      const now = Date.now()
      const live = newTokenAt(now, { userId: 'user-1', credentialVersion: 2 })
      const ended = newTokenAt(now, { userId: 'user-1', credentialVersion: 1 })
      for (const statement of firstVersion) await askDatabase(place.url, statement)
      await askDatabase(
        place.url,
        `insert into latchkey_users values ('user-1', 'somebody@example.com', 'a hash', 2, 2, ${now}, null, null, null)`,
      )
      for (const { ref, token } of [live, ended]) {
        await askDatabase(
          place.url,
          `insert into latchkey_tokens values ('${ref.id}', '${ref.hash}', 'sliding', null, 'user-1', 'somebody@example.com',
            ${token.credentialVersion}, ${now}, ${now}, ${token.expiresAt}, ${token.absoluteExpiresAt}, ${token.ttlMs}, 3,
            ${token.expiresAt}, null, null, null)`,
        )
      }
      await askDatabase(place.url, `insert into latchkey_floors values ('user-1', 2)`)

      const [tokens, users] = [await openTokenStore(place.url), await openUserStore(place.url)]
      try {
        expect(await users.findByUsername('somebody@example.com')).to.include({ id: 'user-1', credentialVersion: 2 })
        const [touched, refused] = await tokens.touch([live.ref, ended.ref], now + 1000, null)
        expect(touched).to.include({ id: live.ref.id, refreshCount: 4, expiresAt: now + 1000 + live.token.ttlMs })
        expect(refused).to.equal(null)
        await tokens.raiseFloor('user-1', 3, null)
        expect(await tokens.look([live.ref], now + 1000, null)).to.deep.equal([null])
      } finally {
        await Promise.all([tokens.close(), users.close()])
      }
    })
  })
}
