// How many tokens there are in a large table of PostgreSQL: about right, and without reading the whole table.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import { insertedToken, newToken, start } from '../../support/sqlStores.ts'
import { freshPlace, type Place, query, schemesHere } from '../../support/stores.ts'
import { until } from '../../support/until.ts'

describe('the counts of a large table in PostgreSQL', () => {
  let place: Place
  before(async function () {
    if ((await schemesHere(['postgres'])).length === 0) return this.skip()
    place = await freshPlace('postgres')
    const tokens = await openTokenStore(place.url)
    const { token } = await insertedToken({ tokens })
    await tokens.close()
    // Long names fill as many pages as many more tokens would. Every fifth row is a tombstone, and two thirds are of guests.
    const members = `json_build_object('id', 'token' || i, 'username', repeat('x', 1500),
      'user_id', case when i % 3 = 0 then 'user' || i end, 'kind', case when i % 4 = 0 then 'fixed' else 'sliding' end,
      'end_reason', case when i % 5 = 0 then 'expired' end)`
    await query(
      `insert into latchkey_tokens select made.*
        from latchkey_tokens t, generate_series(1, 20000) i, lateral json_populate_record(t, ${members}) made
        where t.id = '${token.id}'`,
      place.url,
    )
  })
  after(() => place?.remove())

  it('are estimated, by kind and for the limits, from a part of its pages', async () => {
    const pages = async () => {
      await query('select pg_stat_clear_snapshot()', place.url)
      const [row] = await query(
        `select (heap_blks_read + heap_blks_hit)::int as read, pg_relation_size(relid)::int / 8192 as size
          from pg_statio_user_tables where relid = 'latchkey_tokens'::regclass`,
        place.url,
      )
      return row as { read: number; size: number }
    }
    const before = await pages()
    const name = `counts-${randomUUID()}`
    const store = await openTokenStore(`${place.url}&application_name=${name}`)
    const counted = await store.counts()
    const insert = async (total: number, userId: string | null) => {
      const { ref, token } = newToken({ userId })
      return store.insert(ref, token, { perUser: Infinity, total }, start)
    }
    // 16,000 tokens are live, 4,000 of them fixed and 10,667 of guests.
    expect(counted.sliding).to.be.within(10_800, 13_200)
    expect(counted.fixed).to.be.within(3600, 4400)
    expect(counted['single-use']).to.equal(0)
    expect(await insert(14_400, 'somebody')).to.equal('full')
    expect(await insert(17_600, 'somebody')).to.equal('inserted')
    expect(await insert(17_600, null)).to.equal('full')
    expect(await insert(26_000, null)).to.equal('inserted')
    await store.close()
    // A connection reports what it has read when it ends.
    const open = `select 1 from pg_stat_activity where application_name = '${name}'`
    await until(async () => (await query(open)).length === 0)
    const { read, size } = await pages()
    expect(size).to.be.above(6000)
    expect(read - before.read).to.be.below(2 * 4600) // 4,096 for each of the two counts
  })
})
