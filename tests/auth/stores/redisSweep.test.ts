// The sweep of many tokens in Redis: which process does it, and what the others learn from it.
import { expect } from 'chai'
import { openTokenStore } from '../../../services/auth/stores/index.ts'
import type { TokenStore } from '../../../services/auth/stores/tokenPort.ts'
import { hasRedis, type RedisServer, reportMissingRedis, startRedis } from '../../support/redis.ts'
import { inserted, insertedMany, newToken, start, sweepRound } from '../../support/redisTokens.ts'

describe('the sweep in Redis', () => {
  let server: RedisServer
  let one: TokenStore
  let other: TokenStore
  before(async function () {
    if (!hasRedis) {
      reportMissingRedis('the sweep in Redis')
      return this.skip()
    }
    server = await startRedis()
  })
  after(() => server?.remove())
  beforeEach(async () => {
    await server.command('flushall')
    one = await openTokenStore(server.url)
    other = await openTokenStore(server.url)
  })
  afterEach(() => Promise.all([one?.close(), other?.close()]))

  const scans = async () =>
    Number(/cmdstat_scan:calls=(\d+)/.exec(String(await server.command('info', 'commandstats')))?.[1] ?? 0)

  it('is left to another process that sweeps, without a walk through the keys', async () => {
    await insertedMany(one, 1500, { expiresAt: start + 1 })
    const first = await one.deleteExpired(start + 1, 100)
    expect(first.done).to.equal(false)
    const before = await scans()
    for (let i = 0; i < 5; i++) {
      expect(await other.deleteExpired(start + 1, 100)).to.deep.equal({ removed: 0, done: true })
    }
    expect(await scans()).to.equal(before)
    expect(first.removed + (await sweepRound(one, start + 1))).to.equal(1500)
    await inserted(one, { expiresAt: start + 1 })
    expect(await sweepRound(other, start + 1)).to.equal(1)
  })

  it('moves on to another process if the first one stops in the middle', async () => {
    await insertedMany(one, 1500, { expiresAt: start + 1 })
    const { removed } = await one.deleteExpired(start + 1, 100)
    const turn = 'latchkey:sweep{0000}'
    expect(await server.command('pttl', turn)).to.be.within(1, 10_000)
    await server.command('del', turn) // as its expiry does
    expect(removed + (await sweepRound(other, start + 1))).to.equal(1500)
  })

  it('counts for the other processes too, whose own changes since then stay counted', async () => {
    await insertedMany(one, 1200)
    await inserted(one, { kind: 'fixed', userId: null })
    await sweepRound(one, start)
    await one.deleteExpired(start, 1) // the next round
    await other.deleteExpired(start, 1)
    expect(await other.counts()).to.deep.equal({ sliding: 1200, fixed: 1, 'single-use': 0 })
    const insert = (total: number) => {
      const { ref, token } = newToken()
      return other.insert(ref, token, { perUser: Infinity, total }, start)
    }
    expect(await insert(1201)).to.equal('full')
    expect(await insert(1202)).to.equal('inserted')
    await other.deleteExpired(start, 1)
    expect(await insert(1202)).to.equal('full')
  })
})
