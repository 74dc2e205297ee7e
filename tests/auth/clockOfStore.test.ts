// Auths whose clocks differ, on one token store with a clock of its own.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { createClock } from '../../services/auth/clock.ts'
import { get } from '../support/client.ts'
import { isLive, logIn, validate } from '../support/factories.ts'
import { hasRedis, reportMissingRedis } from '../support/redis.ts'
import { closeServers, startAuth } from '../support/servers.ts'
import { freshPlace, type Place, schemesHere } from '../support/stores.ts'

const monotonicNow = () => performance.now()

for (const scheme of await schemesHere(['postgres', 'redis', 'redis-cluster'])) {
  describe(`two Auths on one store at ${scheme}:`, () => {
    let place: Place
    let right: Awaited<ReturnType<typeof startAuth>>

    const start = (aheadMs: number, env: Record<string, string> = {}) =>
      startAuth({
        clock: createClock(() => Date.now() + aheadMs, monotonicNow),
        env: { TOKEN_STORE_URL: place.url, TOKEN_TTL_SECONDS: '20', SWEEP_INTERVAL_SECONDS: '1', ...env },
      })

    before(async function () {
      if (scheme === 'redis-cluster' && !hasRedis) {
        reportMissingRedis('two Auths on a Redis cluster')
        this.skip()
      }
      place = await freshPlace(scheme)
      right = await start(0)
    })

    after(async () => {
      await closeServers()
      await place?.remove()
    })

    it('delete no live token and admit no dead one while one of them is a minute ahead or behind', async () => {
      const token = await logIn(right.url)
      for (const aheadMs of [60_000, -60_000]) {
        const wrong = await start(aheadMs)
        const ready = await get(`${wrong.internalUrl}/ready`)
        expect(ready.status).to.equal(503)
        expect(ready.text).to.match(/The clocks of Auth and of the token store differ by \d+ ms/)
        expect((await validate(wrong.internalUrl, { token })).status).to.equal(503)
        await sleep(1300) // longer than the pause between sweeps
        expect(await isLive(right.internalUrl, token)).to.equal(true)
        expect(wrong.lines.filter(({ event }) => event === 'tokens_swept')).to.deep.equal([])
      }
    })

    it('agree on the time if the difference is small', async () => {
      const ahead = await start(1500)
      const token = await logIn(ahead.url)
      const { body } = await validate<{ createdAt: number }>(right.internalUrl, { token })
      expect(Math.abs(body.createdAt - Date.now())).to.be.below(1000)
    })

    it('show the difference as a metric', async () => {
      const ahead = await start(1500)
      const { text } = await get(`${ahead.internalUrl}/metrics`)
      const skew = Number(/^latchkey_clock_skew_seconds (\S+)$/m.exec(text)?.[1])
      expect(skew).to.be.within(1.2, 1.8)
    })

    it('accept a larger difference if the operator allows it', async () => {
      const ahead = await start(5000, { MAX_CLOCK_SKEW_MS: '10000' })
      expect((await get(`${ahead.internalUrl}/ready`)).status).to.equal(200)
    })
  })
}
