// Limits: how often passwords may be tried, mails be asked for, users and guests be made, invalid tokens be sent; and that
// none of it can be turned against the user it protects.
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect } from 'chai'
import {
  accountLimits,
  createThrottles,
  type LimitEvent,
  type Throttles,
} from '../../../services/auth/defence/throttles.ts'
import { memoryCounters } from '../../../shared/counters.ts'
import { networkOf } from '../../../shared/http/address.ts'
import type { AppError } from '../../../shared/http/errors.ts'
import { hasRedis, type RedisServer, startRedis, tellThatRedisIsMissing } from '../../support/redis.ts'
import { closeServers, demo, type LogLine, openTestAuth, startAuth, startBusiness } from '../../support/servers.ts'
import { slackMs } from '../../support/slack.ts'
import { until } from '../../support/until.ts'

const wrongPassword = { outcome: 'wrong_password', userId: null } as const
const verified = { outcome: 'verified' } as const
const wrong = { ...demo, password: 'not the CANARY' }
const newPassword = 'a bright new CANARY 77'
const limits = {
  LOGIN_LIMIT_PER_ADDRESS: '30',
  REGISTRATION_LIMIT_PER_ADDRESS: '10',
  MAIL_LIMIT_PER_ADDRESS: '20',
  GUEST_TOKEN_LIMIT_PER_ADDRESS: '20',
  INVALID_TOKEN_LIMIT_PER_ADDRESS: '8',
  TRUSTED_PROXIES: '1',
}

interface Request {
  from: string
  body?: unknown
  bearer?: string | undefined
  requestId?: string
}

interface Answer {
  status: number
  headers: Record<string, string>
  text: string
  body: Record<string, string>
  retryAfter: number
}

async function ask(method: string, url: string, { from, body, bearer, requestId = 'x' }: Request): Promise<Answer> {
  const headers: Record<string, string> = {
    connection: 'close', // so that servers close at once
    'x-forwarded-for': from,
    'x-request-id': requestId,
    ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
    ...(body !== undefined && { 'content-type': 'application/json' }),
  }
  const answer = await fetch(url, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) })
  const text = await answer.text()
  return {
    status: answer.status,
    headers: Object.fromEntries([...answer.headers].filter(([name]) => name !== 'date')),
    text,
    body: /json/.test(answer.headers.get('content-type') ?? '') ? JSON.parse(text) : {},
    retryAfter: Number(answer.headers.get('retry-after')),
  }
}

function countBy(answers: Answer[]): Record<number, number> {
  const counts: Record<number, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

/** Each verification is one hash. */
const hashesIn = (lines: LogLine[]) =>
  lines.filter(({ event }) => /^(login_(failed|succeeded)|password_refused)$/.test(event)).length

const address = (i: number) => `198.51.${100 + (i >> 8)}.${i & 255}`
const times = <T>(count: number, make: (i: number) => Promise<T>) =>
  Promise.all(Array.from({ length: count }, (_, i) => make(i)))

describe('the limits', () => {
  let at = 1000
  const monotonicNow = () => at
  const pass = (seconds: number) => {
    at += seconds * 1000
  }

  describe('of the throttles', () => {
    let events: LimitEvent[]
    let throttles: Throttles
    let proofs = 0
    let spent = 0
    let at = 1

    beforeEach(() => {
      events = []
      proofs = 0
      spent = 0
      throttles = createThrottles({
        perAccount: accountLimits,
        perAddress: { failures: 30, mails: 30, registrations: 30, guestTokens: 30 },
        openCounter: memoryCounters(() => at),
        observe: event => events.push(event),
      })
    })

    const imitate = async () => {
      spent++
    }

    /** Seconds to wait; 0 if it was judged. */
    async function fail(account: string, from: string, where: 'at log-in' | 'in a session' = 'at log-in') {
      const attempt = { account, address: from }
      const verify = async () => {
        proofs++
        return wrongPassword
      }
      try {
        if (where === 'at log-in') await throttles.attemptLogin(attempt, { verify, imitate })
        else await throttles.attemptReauthentication(attempt, verify)
        return 0
      } catch (error) {
        return Number((error as AppError).headers['Retry-After'])
      }
    }

    const succeed = (account: string, from: string) =>
      throttles.attemptLogin({ account, address: from }, { verify: async () => verified, imitate })

    const days = 86_400_000

    it('let five failures go, then each must wait longer: 5 s, doubling, at most an hour; a day after 30', async () => {
      const waits: number[] = []
      for (let failures = 0; failures < 40; ) {
        const wait = await fail('a', address(failures))
        if (wait === 0) failures++
        else waits.push(wait)
        at += wait * 1000
      }
      expect(waits.slice(0, 11)).to.deep.equal([5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600])
      expect(waits.slice(11, 25).every(wait => wait === 3600)).to.equal(true)
      expect(waits.slice(25)).to.deep.equal(Array(10).fill(86_400))
    })

    /** Fails until the next guess must wait for more than a day: how long, in seconds. */
    async function close(account: string): Promise<number> {
      while (proofs < 100) {
        const wait = await fail(account, address(proofs))
        if (wait * 1000 > days) return wait
        at += wait * 1000
      }
      throw new Error('it is never closed')
    }

    it('judge nobody from elsewhere after 40 failures until these are forgotten, which Retry-After says', async () => {
      const wait = await close('a')
      expect(proofs).to.equal(40)
      expect(wait * 1000).to.be.within(580 * days, 600 * days)
      at += 365 * days
      expect(await fail('a', address(1))).to.equal(wait - 365 * 86_400)
      at += (wait - 365 * 86_400) * 1000
      expect(await fail('a', address(1))).to.equal(0)
    })

    it('open an account that is closed when its user logs in from where he has before, for a guess a day', async () => {
      await succeed('a', '192.0.2.1')
      await close('a')
      at += 2 * days
      const refused = await succeed('a', address(1)).catch((error: AppError) => error.code)
      expect(refused).to.equal('too_many_requests')
      expect(await fail('a', '192.0.2.1')).to.equal(0)
      expect(await fail('a', address(1))).to.be.above(86_400)
      await succeed('a', '192.0.2.1')
      expect(await fail('a', address(1))).to.equal(0)
      expect(await fail('a', address(1))).to.equal(86_400)
      await close('a')
      expect(proofs).to.equal(40 + 1 + 10) // one of them at home
    })

    it('open an account that is closed when a mail has shown whose it is', async () => {
      await close('a')
      await throttles.clearFailures({ account: 'a', address: '192.0.2.1' })
      expect(await succeed('a', '192.0.2.1')).to.equal(verified)
      expect(await succeed('a', address(1))).to.equal(verified)
    })

    it('judge fewer than 100 guesses in two years, whatever the guesser waits for', async () => {
      const end = 730 * days
      /** So many at a time, then a rest of so many days; at last whatever a month gives. */
      async function guesses(account: string, atOnce: number, restDays: number): Promise<number> {
        const before = proofs
        const begun = at
        while (at - begun < end) {
          const isLastMonth = at - begun > end - 31 * days
          for (let i = 0; (i < atOnce || isLastMonth) && at - begun < end; ) {
            const wait = await fail(account, address(proofs & 16_383))
            if (wait === 0) i++
            else if (wait * 1000 > restDays * days && !isLastMonth) break
            else at += wait * 1000
          }
          at += restDays * days
        }
        return proofs - before
      }
      expect(await guesses('patient', Number.POSITIVE_INFINITY, 1000)).to.be.within(40, 99)
      for (const atOnce of [1, 2, 4, 5, 6, 10, 20, 29, 30, 31, 39, 40]) {
        for (const restDays of [1, 7.01, 15.01, 30.01, 75.01, 183, 365, 15.01 * atOnce]) {
          const name = `${atOnce} at once, then ${restDays} days`
          expect(await guesses(name, atOnce, restDays), name).to.be.within(1, 99)
        }
      }
    })

    it('forget failures with a success, and fifteen days for each after the first', async () => {
      for (let i = 0; i < 4; i++) await fail('a', address(i))
      await succeed('a', address(9))
      for (let i = 0; i < 5; i++) expect(await fail('a', address(i))).to.equal(0)
      expect(await fail('a', address(5))).to.equal(5)
      at += 75 * days - 1000
      expect(await fail('a', address(5))).to.equal(0)
      expect(await fail('a', address(6))).to.equal(10)
      at += 15 * days + 1000
      for (let i = 0; i < 5; i++) expect(await fail('a', address(i))).to.equal(0)
      expect(await fail('a', address(5))).to.equal(5)
    })

    it('keep what failed at the same time as long', async () => {
      await times(4, i => fail('a', address(i)))
      at += 59 * days
      expect(await fail('a', address(5))).to.equal(0)
      expect(await fail('a', address(6))).to.equal(5)
    })

    it('count a username whatever its capitals and form', async () => {
      for (const name of ['Anna', 'anna', 'ANNA', 'ａnna', 'aNNa']) expect(await fail(name, address(1))).to.equal(0)
      expect(await fail('anna', address(2))).to.equal(5)
    })

    it('do not count what was not judged, and let the next one be judged at once', async () => {
      for (let i = 0; i < 5; i++) await fail('a', address(i))
      at += 5000
      const verify = async () => {
        throw new Error('the queue is full')
      }
      const broken = throttles.attemptLogin({ account: 'a', address: address(1) }, { verify, imitate })
      expect(await broken.catch((error: Error) => error.message)).to.equal('the queue is full')
      expect(await succeed('a', address(1))).to.equal(verified)
    })

    it('let no more be judged at the same time than may fail, and the others as soon as these are right', async () => {
      let underWay = 0
      let most = 0
      const slowly = (result: typeof verified | typeof wrongPassword) => async () => {
        most = Math.max(most, ++underWay)
        await new Promise(resolve => setImmediate(resolve))
        underWay--
        return result
      }
      const all = await times(60, i =>
        throttles.attemptLogin({ account: 'a', address: address(i) }, { verify: slowly(verified), imitate }),
      )
      expect(all.every(result => result === verified)).to.equal(true)
      expect(most).to.equal(5)
      const other = await times(60, i =>
        throttles
          .attemptLogin({ account: 'b', address: address(i) }, { verify: slowly(wrongPassword), imitate })
          .catch((error: AppError) => error.code),
      )
      // Five that begin together, and as many as begin before the fifth is counted.
      expect(other.filter(answer => answer === wrongPassword).length).to.be.within(5, 9)
      expect(other.filter(answer => answer === 'too_many_requests').length).to.be.at.least(51)
    })

    it('let no more from one address be judged at the same time than a fifth of what may fail', async () => {
      let underWay = 0
      let most = 0
      const slowly = async () => {
        most = Math.max(most, ++underWay)
        await new Promise(resolve => setImmediate(resolve))
        underWay--
        return wrongPassword
      }
      const all = await times(100, i =>
        throttles
          .attemptLogin({ account: `u${i}`, address: address(1) }, { verify: slowly, imitate })
          .catch((error: AppError) => error.code),
      )
      expect(most).to.equal(6)
      expect(all.filter(answer => answer === wrongPassword).length).to.be.within(30, 35)
      expect(all.filter(answer => answer === 'too_many_requests').length).to.be.at.least(65)
    })

    it('let who has logged in from an address wait for nobody else there', async () => {
      await succeed('home', address(1))
      const { promise: end, resolve } = Promise.withResolvers<typeof wrongPassword>()
      const others = times(20, i =>
        throttles.attemptLogin({ account: `u${i}`, address: address(1) }, { verify: () => end, imitate }),
      )
      expect(await succeed('home', address(1))).to.equal(verified)
      resolve(wrongPassword)
      await others
    })

    it('take the addresses of one /64 for one, and IPv4 for what it is', async () => {
      for (let i = 0; i < 30; i++) expect(await fail(`u${i}`, `2001:db8:1:2:${i.toString(16)}::7`)).to.equal(0)
      expect(await fail('v', '2001:db8:1:2:ffff:ffff:ffff:ffff')).to.equal(60)
      expect(await fail('v', '2001:db8:1:3::1')).to.equal(0)
      const networks = { '::1': '0:0:0:0::/64', 'fe80::': 'fe80:0:0:0::/64', '2001:db8::1': '2001:db8:0:0::/64' }
      for (const [of, network] of Object.entries(networks)) expect(networkOf(of)).to.equal(network)
      expect(networkOf('1:2:3:4:5:6:7:8')).to.equal('1:2:3:4::/64')
      expect(networkOf('64:ff9b::192.0.2.1')).to.equal('64:ff9b:0:0::/64')
      expect(networkOf('192.0.2.1')).to.equal('192.0.2.1')
    })

    it('tell what there was too much of, never what was typed', async () => {
      for (let i = 0; i < 7; i++) await fail('hunter2', address(1))
      const limited = { type: 'rate_limited', what: 'account_attempts', address: address(1), userId: null }
      expect(events).to.deep.equal([{ type: 'account_locked', userId: null }, limited, limited])
    })

    it('count what fails within sessions apart from what fails at log-in', async () => {
      for (let i = 0; i < 9; i++) await fail('a', address(i))
      for (let i = 0; i < 5; i++) expect(await fail('a', address(50), 'in a session')).to.equal(0)
      expect(await fail('a', address(51), 'in a session')).to.equal(5)
      await succeed('b', address(52))
      for (let i = 0; i < 9; i++) await fail('b', address(53), 'in a session')
      expect(await succeed('b', address(54))).to.equal(verified)
    })

    it('count what fails within all sessions of a user together, and for the address', async () => {
      for (let i = 0; i < 150; i++) await fail('a', address(i), 'in a session')
      expect(proofs).to.equal(5)
      for (let i = 0; i < 30; i++) await fail(`u${i}`, address(200), 'in a session')
      expect(await fail('v', address(200))).to.equal(60)
      expect(spent).to.equal(1)
    })

    it('let who has a session elsewhere keep no user from giving the password where they have logged in', async () => {
      await succeed('a', '192.0.2.1')
      while (proofs < 40) at += (await fail('a', address(1), 'in a session')) * 1000
      const wait = await fail('a', address(2), 'in a session')
      expect(wait * 1000).to.be.above(580 * days)
      const prove = () =>
        throttles.attemptReauthentication({ account: 'a', address: '192.0.2.1' }, async () => verified)
      expect(await prove()).to.equal(verified)
      at += days
      // From elsewhere it is a guess a day again, and as many as ever after a log-in there.
      expect(await fail('a', address(2), 'in a session')).to.equal(0)
      expect(await fail('a', address(2), 'in a session')).to.equal(86_400)
      await succeed('a', address(2))
      for (let i = 0; i < 5; i++) expect(await fail('a', address(2), 'in a session')).to.equal(0)
      expect(await fail('a', address(2), 'in a session')).to.equal(5)
    })

    it('judge at most ten guesses at an account that is known at an address, and at its limit', async () => {
      await succeed('a', address(1))
      let judged = 0
      for (let minute = 0; minute < 60; minute++) {
        for (let i = 0; i < 30; i++) await fail(`u${minute} ${i}`, address(1))
        const [proofsBefore, spentBefore] = [proofs, spent]
        expect(await fail('a', address(1))).to.equal(60)
        judged += proofs - proofsBefore
        expect(proofs - proofsBefore + spent - spentBefore).to.equal(1)
        at += 60_000
      }
      expect(judged).to.equal(10)
      // Below the limit none of them counts.
      for (let i = 0; i < 5; i++) expect(await fail('a', address(1))).to.equal(0)
      expect(await fail('a', address(1))).to.equal(5)
    })

    it('answer and count the same for an account that is known and one that is not, when the limit is reached meanwhile', async () => {
      await succeed('known', address(1))
      const attempt = (account: string, verify: () => Promise<typeof wrongPassword>) =>
        throttles.attemptLogin({ account, address: address(1) }, { verify, imitate }).then(
          () => 401,
          ({ code }: AppError) => code,
        )
      for (let minute = 0; minute < 6; minute++) {
        const { promise: end, resolve } = Promise.withResolvers<typeof wrongPassword>()
        const others = times(40, i => attempt(`u${minute} ${i}`, () => end))
        const guesses = ['known', 'unknown'].map(account => attempt(account, async () => wrongPassword))
        await new Promise(setImmediate)
        resolve(wrongPassword)
        expect(await Promise.all(guesses)).to.deep.equal(['too_many_requests', 'too_many_requests'])
        await others
        at += 60_000
      }
      for (const account of ['known', 'unknown']) expect(await fail(account, address(1))).to.equal(0)
    })

    it('refuse an account that is known like one that is not while more wait than may, and judge it ten times at most', async () => {
      await succeed('known', address(1))
      const { promise: end, resolve } = Promise.withResolvers<typeof wrongPassword>()
      const others = times(106, i =>
        throttles
          .attemptLogin({ account: `u${i}`, address: address(1) }, { verify: () => end, imitate })
          .catch(() => null),
      )
      await new Promise(setImmediate)
      const before = proofs
      for (const account of ['unknown', ...Array<string>(20).fill('known')]) {
        expect(await fail(account, address(1))).to.equal(2)
      }
      expect(proofs - before).to.equal(5) // then it waits
      expect(await succeed('known', address(2))).to.equal(verified)
      resolve(wrongPassword)
      await others
    })

    it('forget what failed within sessions when a mail has shown whose account it is', async () => {
      for (let i = 0; i < 9; i++) await fail('a', address(1), 'in a session')
      await throttles.clearFailures({ account: 'a', address: address(2) })
      expect(await fail('a', address(1), 'in a session')).to.equal(0)
    })

    it('let a user who is logged in prove who it is at an address that has failed too often', async () => {
      for (let i = 0; i < 30; i++) await fail(`u${i}`, address(1))
      expect(await fail('a', address(1))).to.equal(60)
      expect(await fail('a', address(1), 'in a session')).to.equal(0)
    })

    it('let 100 log-ins to an account wait for their turn, and refuse one more as unavailable', async () => {
      const { promise: end, resolve } = Promise.withResolvers<typeof verified>()
      const attempt = (i: number) =>
        throttles.attemptLogin({ account: 'a', address: address(i) }, { verify: () => end, imitate })
      const admitted = times(accountLimits.freeFailures + 100, attempt)
      await new Promise(setImmediate)
      expect(await attempt(200).catch((error: AppError) => error.code)).to.equal('unavailable')
      resolve(verified)
      expect((await admitted).every(result => result === verified)).to.equal(true)
      expect(await attempt(200)).to.equal(verified)
    })

    it('count mails, users and guest tokens of an address, each on its own, and mails of an account', async () => {
      const codeOf = (taken: Promise<void>) =>
        taken.then(
          () => 'taken',
          (error: AppError) => error.code,
        )
      for (let i = 0; i < 30; i++) {
        expect(await codeOf(throttles.requireMailAllowed({ account: `u${i}`, address: address(1) }))).to.equal('taken')
        expect(await codeOf(throttles.requireRegistrationAllowed(address(1)))).to.equal('taken')
        expect(await codeOf(throttles.requireGuestTokenAllowed(address(1)))).to.equal('taken')
      }
      for (let i = 0; i < accountLimits.mailsPerHour; i++)
        await throttles.requireMailAllowed({ account: 'a', address: address(2) })
      await codeOf(throttles.requireMailAllowed({ account: 'u30', address: address(1) }))
      await codeOf(throttles.requireMailAllowed({ account: 'A', address: address(3) }))
      await codeOf(throttles.requireRegistrationAllowed(address(1)))
      await codeOf(throttles.requireGuestTokenAllowed(address(1)))
      expect(events).to.deep.equal([
        { type: 'rate_limited', what: 'address_mails', address: address(1), userId: null },
        { type: 'rate_limited', what: 'account_mails', address: address(3), userId: null },
        { type: 'rate_limited', what: 'registrations', address: address(1), userId: null },
        { type: 'rate_limited', what: 'guest_tokens', address: address(1), userId: null },
      ])
    })
  })

  describe('of Auth', () => {
    let auth: Awaited<ReturnType<typeof startAuth>>
    const logIn = (from: string, body: unknown = demo) => ask('POST', `${auth.url}/login`, { from, body })

    beforeEach(async () => {
      auth = await startAuth({ env: limits, limitsPerAccount: accountLimits, monotonicNow })
    })
    after(closeServers)

    it('stop 200 guesses from 200 addresses after a few hashes; the right password works after the pause', async () => {
      const answers = await times(200, i => logIn(address(i), wrong))
      expect(countBy(answers)[200]).to.equal(undefined)
      expect(hashesIn(auth.lines)).to.be.within(5, 9)
      const before = hashesIn(auth.lines)
      expect(answers.filter(({ status }) => status === 429).length).to.be.at.least(90)
      // No oracle: the right password is answered like a wrong one.
      const early = await logIn(address(300))
      expect(early.status).to.equal(429)
      expect(hashesIn(auth.lines)).to.equal(before)
      pass(early.retryAfter)
      expect((await logIn(address(300))).status).to.equal(200)
    })

    it('stop 1,000 users from one address, in whatever form it comes, and no other address', async () => {
      for (const form of ['203.0.113.5', '::ffff:203.0.113.5']) {
        for (let i = 0; i < 20; i++) await logIn(form, { username: `${form} ${i}`, password: 'CANARY guess' })
      }
      expect(hashesIn(auth.lines)).to.equal(30)
      const answers = await times(500, i => logIn('203.0.113.5', { username: `u${i}`, password: 'CANARY guess' }))
      expect(countBy(answers)).to.deep.equal({ 429: 500 })
      expect(answers[0]?.retryAfter).to.equal(60)
      expect((await logIn('203.0.113.5')).status).to.equal(429)
      expect((await logIn('203.0.113.6')).status).to.equal(200)
      pass(60)
      expect((await logIn('203.0.113.5')).status).to.equal(200)
    })

    it('stop 500 users who come from one address at once, and let the others in meanwhile', async () => {
      const attack = times(500, i => logIn('203.0.113.5', { username: `u${i}`, password: 'CANARY guess' }))
      const others = await times(20, i => logIn(address(i)))
      expect(countBy(others)).to.deep.equal({ 200: 20 })
      const { 401: judged = 0, 429: limited = 0, 503: busy = 0 } = countBy(await attack)
      expect(judged).to.be.within(30, 35) // as many as begin before the thirtieth is counted
      expect(judged + limited + busy).to.equal(500)
      expect(hashesIn(auth.lines)).to.equal(judged + 20)
    })

    it('stop 1,000 addresses of one /64', async () => {
      const from = (i: number) => `2001:db8:0:1:${((i * 7919) & 65535).toString(16)}::${i.toString(16)}`
      for (let i = 0; i < 200; i++) await logIn(from(i), { username: `u${i}`, password: 'CANARY guess' })
      expect(hashesIn(auth.lines)).to.equal(30)
    })

    it('limit no right password', async () => {
      expect(countBy(await times(100, () => logIn('192.0.2.1')))).to.deep.equal({ 200: 100 })
    })

    /** Fails from elsewhere until nothing from there is heard for months. */
    async function close(...bodies: { username: string; password: string }[]): Promise<void> {
      for (let i = 0; i < 100; i++) {
        const answers = []
        for (const body of bodies) answers.push(await logIn(address(i), body))
        const [{ retryAfter }] = answers as [Answer]
        if (retryAfter > 86_400) return
        pass(retryAfter)
      }
      throw new Error('it is never closed')
    }

    it('are no weapon: who has logged in from there logs in, his token is good, a mail lets him in from elsewhere', async () => {
      const home = '192.0.2.1'
      const { token } = (await logIn(home)).body
      await close(wrong)
      // Neither his account nor his address, were it shared with the attacker.
      for (let i = 0; i < 40; i++) await logIn(home, { username: `u${i}`, password: 'CANARY guess' })
      expect((await logIn(home)).status).to.equal(200)
      expect((await ask('GET', `${auth.url}/users/me`, { from: address(1), bearer: token })).status).to.equal(200)
      const abroad = '203.0.113.9'
      // That he was there has opened it for the next guess, and that was the attacker's.
      await close(wrong)
      expect((await logIn(abroad)).status).to.equal(429)
      await ask('POST', `${auth.url}/password/forgot`, { from: abroad, body: { username: demo.username } })
      const mail = await linkIn(auth.lines)
      const reset = { token: mail, password: newPassword }
      expect((await ask('POST', `${auth.url}/password/reset`, { from: abroad, body: reset })).status).to.equal(204)
      expect((await logIn(abroad, { ...demo, password: newPassword })).status).to.equal(200)
    })

    it('answer byte for byte the same for an account that does not exist', async () => {
      const nobody = { username: 'nobody@example.com', password: 'CANARY guess' }
      for (let i = 0; i < 5; i++) for (const body of [wrong, nobody]) await logIn(address(i), body)
      const [known, unknown] = [await logIn(address(9), wrong), await logIn(address(9), nobody)]
      expect(known).to.deep.equal(unknown)
      expect(known.status).to.equal(429)
      expect(known.headers).to.include({
        'retry-after': '5',
        'cache-control': 'no-store',
        'content-type': 'application/problem+json',
      })
      expect(known.body).to.include({ error: 'too_many_requests', status: 429 })
      const forgot = (username: string, i: number) =>
        ask('POST', `${auth.url}/password/forgot`, { from: address(i), body: { username } })
      for (const i of Array(5).keys()) for (const { username } of [demo, nobody]) await forgot(username, i)
      expect(await forgot(demo.username, 9))
        .to.deep.equal(await forgot(nobody.username, 9))
        .and.to.include({ status: 429, retryAfter: 3600 })
      await close(wrong, nobody)
      const [closed, madeUp] = [await logIn(address(9)), await logIn(address(9), nobody)]
      expect(closed).to.deep.equal(madeUp)
      expect(closed.status).to.equal(429)
      expect(closed.retryAfter).to.be.within(580 * 86_400, 600 * 86_400)
    })

    it('hold where a password is changed and where an account is deleted, and the session stays good', async () => {
      const from = '192.0.2.1'
      const bearer = (await logIn(from)).body['token']
      const me = `${auth.url}/users/me`
      const change = (currentPassword: string) =>
        ask('PATCH', me, { from, bearer, body: { currentPassword, password: newPassword } })
      const remove = (currentPassword: string) => ask('DELETE', me, { from, bearer, body: { currentPassword } })
      const statuses = []
      for (let i = 0; i < 3; i++)
        statuses.push((await change(`guess ${i}`)).status, (await remove(`guess ${i}`)).status)
      expect(statuses).to.deep.equal([401, 401, 401, 401, 401, 429])
      expect((await change(demo.password)).status).to.equal(429)
      expect((await remove(demo.password)).status).to.equal(429)
      expect((await ask('GET', me, { from, bearer })).status).to.equal(200)
      pass(5)
      expect((await change(demo.password)).status).to.equal(200)
    })

    it('let five mails an hour go to one user, and twenty be asked for from one address', async () => {
      const forgot = (username: string, from: string) =>
        ask('POST', `${auth.url}/password/forgot`, { from, body: { username } })
      expect(countBy(await times(100, i => forgot(demo.username, address(i))))).to.deep.equal({ 202: 5, 429: 95 })
      const resend = { from: address(200), body: { username: demo.username } }
      expect((await ask('POST', `${auth.url}/users/confirm/resend`, resend)).status).to.equal(429)
      await linkIn(auth.lines)
      expect(auth.lines.filter(({ event }) => event === 'mail').length).to.be.within(1, 5)
      const many = await times(40, i => forgot(`u${i}@example.com`, '203.0.113.5'))
      expect(countBy(many)).to.deep.equal({ 202: 20, 429: 20 })
      pass(3600)
      expect((await forgot(demo.username, address(1))).status).to.equal(202)
    })

    it('let ten users an hour come from one address; who chooses badly tries again', async () => {
      const register = (username: string, password: string, from = '203.0.113.5') =>
        ask('POST', `${auth.url}/users`, { from, body: { username, password } })
      for (let i = 0; i < 15; i++) expect((await register('short', 'short')).status).to.equal(400)
      const statuses = countBy(await times(12, i => register(`user ${i}`, newPassword)))
      expect(statuses).to.deep.equal({ 201: 10, 429: 2 })
      // Whether a username is taken can be asked as often, and no more.
      expect((await register('user 1', newPassword)).status).to.equal(429)
      expect((await register('user 1', newPassword, address(1))).status).to.equal(409)
    })

    it('answer invalid tokens 429 beyond eight a minute, and valid ones from there 200', async () => {
      const from = '203.0.113.5'
      const me = (bearer: string | undefined, from: string) => ask('GET', `${auth.url}/users/me`, { from, bearer })
      const token = (await logIn(from)).body['token'] as string
      const dead = `${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`
      const answers = await times(20, i => me(i % 2 ? dead : token, from))
      expect(countBy(answers)).to.deep.equal({ 200: 10, 401: 8, 429: 2 })
      expect((await ask('POST', `${auth.url}/renew`, { from, bearer: dead })).status).to.equal(429)
      const link = { from, body: { token: 'guess' } }
      expect((await ask('POST', `${auth.url}/users/confirm`, link)).status).to.equal(429)
      expect((await me(token, from)).status).to.equal(200)
      expect((await me(dead, address(1))).status).to.equal(401)
      expect((await me(undefined, from)).status).to.equal(401)
    })

    it('are counted and logged', async () => {
      for (let i = 0; i < 7; i++) await logIn(address(1), wrong)
      const metrics = await (await fetch(`${auth.internalUrl}/metrics`)).text()
      expect(metrics).to.include('latchkey_rate_limited_total{limit="account_attempts"} 2')
      const line = auth.lines.find(({ event }) => event === 'rate_limited')
      expect(line).to.include({ what: 'account_attempts', address: address(1), userId: null })
    })

    it('tell the log whose account is locked, once, where it is anybody’s', async () => {
      const login = (username: string, requestId: string) =>
        ask('POST', `${auth.url}/login`, { from: address(1), requestId, body: { username, password: 'wrong' } })
      for (const username of [demo.username, 'nobody']) {
        for (let i = 1; i <= 7; i++) await login(username, `${i}-${username.slice(0, 4)}`)
      }
      const registered = auth.lines.find(({ event }) => event === 'user_registered')
      const locked = auth.lines.filter(({ event }) => event === 'account_locked')
      expect(locked.map(({ requestId, userId }) => ({ requestId, userId }))).to.deep.equal([
        { requestId: '5-demo', userId: registered?.['userId'] },
        { requestId: '5-nobo', userId: null },
      ])
      expect(locked[0]).to.include({ level: 'warn', channel: 'security', address: address(1) })
    })
  })

  describe('of the dialects', () => {
    let places: Record<string, string>
    before(async () => {
      const dialects = ['token-provider', 'token-manager', 'flask-jwt', 'flask-auth'].map(name => `${name}:0`).join()
      const { service } = await openTestAuth({
        env: { ...limits, DIALECTS: dialects },
        limitsPerAccount: accountLimits,
      })
      places = await service.listen()
    })
    after(closeServers)

    it('hold for tokens that nobody logs in for', async () => {
      for (const [name, path, from] of [
        ['tokenProvider', '/generate_token', '203.0.113.5'],
        ['tokenManager', '/app/token', '203.0.113.6'],
      ] as const) {
        expect(countBy(await times(25, () => ask('POST', places[name] + path, { from })))).to.deep.equal({
          200: 20,
          429: 5,
        })
      }
    })

    it('hold for invalid tokens: 429 beyond eight a minute, and valid ones from there as ever', async () => {
      const { token } = (await ask('POST', `${places['tokenProvider']}/generate_token`, { from: address(60) })).body
      const numbered = (await ask('POST', `${places['tokenManager']}/app/token`, { from: address(60) })).body['token']
      const access = async () => {
        const body = { email: demo.username, password: demo.password }
        return (await ask('POST', `${places['flaskAuth']}/login`, { from: address(60), body })).body['access_token']
      }
      const session = async () =>
        (await ask('POST', `${places['flaskJwt']}/authenticate_user`, { from: address(60), body: demo })).body['token']
      const uuid = '6c84fb90-12c4-41e1-840d-725daeb3ddbd'
      const noise = 'CANARY guess of a token'.replaceAll(' ', '-')
      const cases: [string, string, string, number, unknown, (() => unknown)?][] = [
        // dialect, method, path, status of an invalid token, a good one
        ['tokenProvider', 'GET', '/verify_token', 200, uuid, () => token],
        ['tokenManager', 'POST', '/app/valid/token', 200, { token: noise }, () => ({ token: numbered })],
        ['tokenManager', 'GET', `/app/valid/${noise}`, 200, undefined],
        ['flaskJwt', 'GET', '/user', 401, noise, session],
        ['flaskJwt', 'PUT', '/user', 401, noise],
        ['flaskJwt', 'DELETE', '/user', 401, noise],
        ['flaskJwt', 'POST', '/validate_token', 401, { token: noise }, async () => ({ token: await session() })],
        ['flaskJwt', 'POST', '/logout', 401, noise, session],
        ['flaskAuth', 'GET', `/confirm/${noise}`, 404, undefined],
        ['flaskAuth', 'GET', '/secret', 422, noise, access],
        ['flaskAuth', 'POST', '/token/refresh', 422, noise],
        ['flaskAuth', 'POST', '/logout/access', 422, noise, access],
      ]
      for (const [i, [name, method, path, status, bad, good]] of cases.entries()) {
        const from = address(30 + i)
        const send = (sent: unknown) =>
          ask(method, places[name] + path, { from, ...(typeof sent === 'string' ? { bearer: sent } : { body: sent }) })
        const answers = countBy(await times(12, () => send(bad)))
        expect(answers, `${method} ${path}`).to.deep.equal({ [status]: 8, 429: 4 })
        if (good) expect((await send(await good())).status, `${method} ${path}`).to.equal(200)
      }
    })

    it('hold for log-ins, together with those of /login', async () => {
      const jwt = (i: number) =>
        ask('POST', `${places['flaskJwt']}/authenticate_user`, { from: address(i), body: wrong })
      const body = { email: wrong.username, password: wrong.password }
      const flask = (i: number) => ask('POST', `${places['flaskAuth']}/login`, { from: address(i), body })
      const statuses = []
      for (let i = 0; i < 3; i++) statuses.push((await jwt(i)).status, (await flask(i)).status)
      expect(statuses).to.deep.equal([401, 401, 401, 401, 401, 429])
    })
  })

  describe('of Business', () => {
    after(closeServers)

    it('answer invalid tokens 429 beyond eight a minute, and valid ones from there 200', async () => {
      const auth = await startAuth({ env: limits, limitsPerAccount: accountLimits, monotonicNow })
      const business = await startBusiness(auth.internalUrl, limits, monotonicNow)
      const from = '203.0.113.5'
      const { token } = (await ask('POST', `${auth.url}/login`, { from, body: demo })).body
      const data = (bearer: string | undefined, from: string) =>
        ask('GET', `${business.url}/data`, { from, bearer, requestId: 'of-data' })
      const answers = await times(60, i => data(i % 2 ? 'noise' : token, from))
      expect(countBy(answers)).to.deep.equal({ 200: 30, 401: 8, 429: 22 })
      const line = business.lines.find(({ event }) => event === 'rate_limited')
      expect(line).to.include({ channel: 'security', what: 'invalid_tokens', address: from, requestId: 'of-data' })
      expect((await data('noise', address(1))).status).to.equal(401)
      pass(60)
      expect((await data('noise', from)).status).to.equal(401)
    })
  })
})

describe('the limits in Redis', () => {
  let redis: RedisServer
  before(async function () {
    if (!hasRedis) {
      tellThatRedisIsMissing('limits in Redis')
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

  it('are shared by two processes of Auth, also what is known of addresses', async () => {
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
    // Again where this machine is so busy that Redis took longer than they wait for it.
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
    expect(Math.max(...kept.map(Number)) / 86_400_000).to.be.within(74.9, 75) // five failures
    expect(Math.min(...kept.map(Number)) / 86_400_000).to.be.within(14.9, 15) // one
  })

  it('hold in each process while Redis hangs or is gone, and no log-in waits for it', async () => {
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
      // Judged, and right; it is the token that cannot be kept.
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
  it('grow by less than 50 MB under a million made-up keys', async () => {
    const script = `
      import { accountLimits, createThrottles } from './services/auth/defence/throttles.ts'
      import { memoryCounters } from './shared/counters.ts'
      import { limitInvalidTokens } from './shared/invalidTokens.ts'
      const many = 1e9
      const wrong = { outcome: 'wrong_password', userId: null }
      const perAddress = { failures: many, mails: many, registrations: many, guestTokens: many }
      const throttles = createThrottles({ perAccount: accountLimits, perAddress, openCounter: memoryCounters(() => 1), observe() {} })
      const invalidTokens = limitInvalidTokens({ limit: many, monotonicNow: () => 1, observe() {} })
      const addressOf = i => (i >> 16).toString(16) + ':' + (i & 65535).toString(16) + ':1:1::1'
      const work = [
        i => throttles.attemptLogin({ account: 'user' + i, address: addressOf(i) }, { verify: async () => wrong, imitate: async () => {} }),
        i => throttles.requireMailAllowed({ account: 'user' + i, address: addressOf(i) }),
        i => invalidTokens.record({ requestId: '', address: addressOf(i) }),
        i => throttles.requireRegistrationAllowed(addressOf(i)),
      ]
      // As much work as makes the process as large as it becomes without them.
      for (let i = 0; i < 300_000; i++) await work[i & 3](i % 1000).catch(() => {})
      globalThis.gc()
      const before = process.memoryUsage().rss
      for (let i = 1000; i < 1_001_000; i++) await work[i & 3](i)
      globalThis.gc()
      console.log(process.memoryUsage().rss - before)
    `
    // V8's room for short-lived garbage, which grows under any load, is kept small: it is not what is meant.
    const args = ['--expose-gc', '--max-semi-space-size=2', '--input-type=module', '-e', script]
    const { stdout } = await promisify(execFile)(process.execPath, args)
    expect(Number(stdout) / 1e6).to.be.below(50)
  })
})

/** The token of the newest link in the log: mails go there without a mail server. */
async function linkIn(lines: LogLine[]): Promise<string> {
  const mails = () => lines.filter(({ event }) => event === 'mail')
  await until(() => mails().length > 0)
  return /#reset=(\S+)/.exec(String(mails().at(-1)?.['text']))?.[1] as string
}
