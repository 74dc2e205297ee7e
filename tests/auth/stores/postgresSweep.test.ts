// The sweep of a large table in PostgreSQL: which process does it, and what it reads.
import { randomUUID } from 'node:crypto'
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import type { TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { insertedToken, newToken, start } from '../../support/sqlStores.ts'
import { minute } from '../../support/storeFixtures.ts'
import { freshPlace, insideTransaction, type Place, query, schemesHere } from '../../support/stores.ts'
import { until } from '../../support/until.ts'

describe('the sweep in PostgreSQL', () => {
  const later = start + 100 * minute
  let place: Place
  let store: TokenStore
  beforeEach(async function () {
    if ((await schemesHere(['postgres'])).length === 0) return this.skip()
    place = await freshPlace('postgres')
    store = await openTokenStore(place.url)
  })
  afterEach(async () => {
    await store?.close()
    await place?.remove()
  })

  /** Runs `work` while another process sweeps. */
  async function whileOtherSweeps(work: () => Promise<void>): Promise<void> {
    const key = `hashtextextended('latchkey sweep of ' || current_schema(), 0)`
    await insideTransaction(`select pg_advisory_xact_lock(${key})`, place.url, work)
  }

  it('is left to another process that sweeps the same tables', async () => {
    await insertedToken({ tokens: store })
    await whileOtherSweeps(async () => {
      expect(await store.deleteExpired(later, 10)).to.deep.equal({ removed: 0, done: true })
    })
    expect(await store.deleteExpired(later, 10)).to.deep.equal({ removed: 1, done: true })
  })

  it('counts the tokens again although another process sweeps', async () => {
    const limits = { perUser: Infinity, total: 1 }
    const { ref } = await insertedToken({ tokens: store })
    await query(`update latchkey_tokens set end_reason = 'expired', ended_at = 1`, place.url) // as the other process does
    const insert = () => {
      const { ref, token } = newToken()
      return store.insert(ref, token, limits, start)
    }
    expect(await insert()).to.equal('full')
    await whileOtherSweeps(async () => {
      await store.deleteExpired(start, 10)
      expect(await insert()).to.equal('inserted')
    })
    expect(await store.look([ref], start, null)).to.deep.equal([null])
  })

  it('reads no table as a whole, and passes nothing twice', async () => {
    const { token } = await insertedToken({ tokens: store })
    const members = `json_build_object('id', 'dead' || i, 'user_id', 'user' || i, 'sweep_at', ${start} + i, 'expires_at', ${start} + i)`
    await query(
      `insert into latchkey_tokens select (json_populate_record(t, ${members})).*
        from latchkey_tokens t, generate_series(1, 20000) i where id = '${token.id}'`,
      place.url,
    )
    await query('vacuum analyze latchkey_tokens', place.url)
    await store.close()
    const reads = async () => {
      await query('select pg_stat_clear_snapshot()', place.url)
      const [row] = await query(
        `select seq_scan::int, idx_tup_read::int from pg_stat_user_tables t
          join pg_stat_user_indexes i using (relid) where relid = 'latchkey_tokens'::regclass
          and indexrelname = 'latchkey_tokens_due'`,
        place.url,
      )
      return row as { seq_scan: number; idx_tup_read: number }
    }
    const name = `sweep-${randomUUID()}`
    /** What the server counts while a store is open; a connection reports its counts when it ends. */
    async function counted(work: () => Promise<void>): Promise<{ scans: number; entries: number }> {
      const before = await reads()
      store = await openTokenStore(`${place.url}&application_name=${name}`)
      await work()
      await store.close()
      const open = `select 1 from pg_stat_activity where application_name = '${name}'`
      await until(async () => (await query(open)).length === 0)
      const after = await reads()
      return { scans: after.seq_scan - before.seq_scan, entries: after.idx_tup_read - before.idx_tup_read }
    }

    const { scans } = await counted(async () => {})
    const sweeping = await counted(async () => {
      for (let i = 0; i < 30; i++) {
        expect(await store.deleteExpired(later, 500)).to.deep.equal({ removed: 500, done: false })
      }
    })
    expect(sweeping.scans).to.equal(scans)
    expect(sweeping.entries).to.be.within(15_000, 18_000)
  })
})
