// defence/counters.ts and shared/counters.ts: counters in Redis and in each process, and how little memory they take.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { accountLimits } from '../../../services/auth/defence/throttles.ts'
import { demo } from '../../support/credentials.ts'
import { hasRedis, type RedisServer, reportMissingRedis, startRedis } from '../../support/redis.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { slackMs } from '../../support/slack.ts'
import { address, ask, hashesIn, limits, wrong } from './limitsSetup.ts'

describe('the limits in Redis', () => {
  let redis: RedisServer
  before(async function () {
    if (!hasRedis) {
      reportMissingRedis('limits in Redis')
      return this.skip()
    }
    redis = await startRedis()
  })
  after(async () => {
    await closeServers()
    await redis?.remove()
  })

  const start = () => startAuth({ env: { ...limits, TOKEN_STORE_URL: redis.url }, limitsPerAccount: accountLimits })
  const logIn = (auth: { url: string }, from: string, body: unknown = demo) =>
    ask('POST', `${auth.url}/login`, { from, body })

  it('are shared by two processes of Auth, including the known networks', async () => {
    const run = async () => {
      const [one, two] = [await start(), await start()]
      const right = [await logIn(one, '192.0.2.1')]
      const guesses = []
      for (let i = 0; i < 6; i++) guesses.push(await logIn(i % 2 ? one : two, address(i), wrong))
      guesses.push(await logIn(two, address(9)))
      right.push(await logIn(two, '192.0.2.1'))
      for (let i = 0; i < 20; i++) {
        await logIn(one, '203.0.113.5', { username: `u${i}`, password: 'CANARY guess' })
        await logIn(two, '203.0.113.5', { username: `v${i}`, password: 'CANARY guess' })
      }
      return { right, guesses, lines: [...one.lines, ...two.lines] }
    }
    // Repeats the run if this machine is so busy that Redis did not answer in time.
    let seen = await run()
    while (seen.lines.some(({ event }) => event === 'limits_not_shared')) {
      await redis.command('flushall')
      seen = await run()
    }
    expect(seen.right.map(({ status }) => status)).to.deep.equal([200, 200])
    expect(seen.guesses.map(({ status }) => status)).to.deep.equal([401, 401, 401, 401, 401, 429, 429])
    expect(hashesIn(seen.lines)).to.equal(5 + 2 + 30)
    const keys = (await redis.command('keys', 'latchkey:limit:*')) as string[]
    expect(keys.length).to.be.above(30)
    expect(keys.join()).to.not.include('demo')
    const kept = await Promise.all(
      keys.filter(key => key.includes('limit:failures:')).map(key => redis.command('pttl', key)),
    )
    expect(Math.max(...kept.map(Number)) / 86_400_000).to.be.within(74.9, 75) // in days: kept for 75 after five failures
    expect(Math.min(...kept.map(Number)) / 86_400_000).to.be.within(14.9, 15) // in days: kept for 15 after one failure
  })

  it('apply in each process while Redis hangs or is down, and delay no log-in', async () => {
    const auth = await start()
    const guess = async (username: string, i: number) => {
      const startedAt = performance.now()
      const { status } = await logIn(auth, address(i), { username, password: 'CANARY guess' })
      expect(performance.now() - startedAt).to.be.below(800 + slackMs)
      return status
    }
    for (const [name, harm] of [
      ['hung', async () => redis.hang()],
      ['gone', () => redis.kill()],
    ] as const) {
      await harm()
      const statuses = []
      for (let i = 0; i < 6; i++) statuses.push(await guess(`nobody ${name}`, i))
      expect(statuses, name).to.deep.equal([401, 401, 401, 401, 401, 429])
      // The password is right, but the token cannot be stored.
      const before = auth.lines.filter(({ event }) => event === 'login_succeeded').length
      expect((await logIn(auth, '192.0.2.1')).status).to.equal(503)
      expect(auth.lines.filter(({ event }) => event === 'login_succeeded').length).to.equal(before + 1)
      expect(auth.lines.some(({ event }) => event === 'limits_not_shared')).to.equal(true)
      redis.resume()
    }
    await redis.start()
    for (let tries = 0; (await logIn(auth, '192.0.2.1')).status !== 200; tries++) {
      expect(tries).to.be.below(30)
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  })
})

describe('the counters', () => {
  it('grow by less than 30 MB with 300,000 made-up keys', async () => {
    const script = `
      import { accountLimits, createThrottles } from './services/auth/defence/throttles.ts'
      import { memoryCounters } from './shared/counters.ts'
      import { limitInvalidTokens } from './shared/invalidTokens.ts'
      const many = 1e9
      const wrong = { outcome: 'wrong_password', userId: null }
      const perAddress = { failures: many, mails: many, registrations: many, guestTokens: many }
      const throttles = createThrottles({ perAccount: accountLimits, perAddress, openCounter: memoryCounters(() => 1), emit() {} })
      const invalidTokens = limitInvalidTokens({ limit: many, monotonicNow: () => 1, emit() {} })
      const addressOf = i => (i >> 16).toString(16) + ':' + (i & 65535).toString(16) + ':1:1::1'
      const work = [
        i => throttles.attemptLogin({ account: 'user' + i, address: addressOf(i) }, { verify: async () => wrong, imitate: async () => {} }),
        i => throttles.requireMailAllowed({ account: 'user' + i, address: addressOf(i) }),
        i => invalidTokens.record({ requestId: '', address: addressOf(i) }),
        i => throttles.requireRegistrationAllowed(addressOf(i)),
      ]
      // Not the resident memory: it also depends on how promptly the threads of V8 return pages.
      function usedBytes() {
        globalThis.gc()
        const { heapUsed, external } = process.memoryUsage()
        return heapUsed + external
      }
      // Enough work to let the process reach its usual size.
      for (let i = 0; i < 100_000; i++) await work[i & 3](i % 1000).catch(() => {})
      const before = usedBytes()
      for (let i = 1000; i < 301_000; i++) await work[i & 3](i)
      console.log(usedBytes() - before)
    `
    // V8's young generation grows under any load and is not what this test measures, so keep it small.
    const args = ['--expose-gc', '--max-semi-space-size=2', '--input-type=module', '-e', script]
    const { stdout } = await promisify(execFile)(process.execPath, args)
    expect(Number(stdout) / 1e6).to.be.below(30)
  })
})
