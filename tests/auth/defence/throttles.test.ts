// defence/throttles.ts: how often passwords can be tried, mails requested, and users and guest tokens created.
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
import { address, times } from './limitsSetup.ts'

const wrongPassword = { outcome: 'wrong_password', userId: null } as const
const verified = { outcome: 'verified' } as const

describe('the throttles', () => {
  let events: LimitEvent[]
  let throttles: Throttles
  let proofs = 0
  let imitations = 0
  let at = 1

  beforeEach(() => {
    events = []
    proofs = 0
    imitations = 0
    throttles = createThrottles({
      perAccount: accountLimits,
      perAddress: { failures: 30, mails: 30, registrations: 30, guestTokens: 30 },
      openCounter: memoryCounters(() => at),
      emit: event => events.push(event),
    })
  })

  const imitate = async () => {
    imitations++
  }

  /** Seconds to wait; 0 if the password was verified. */
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

  it('allow five failures, then require a wait before each attempt: 5 s, doubling up to an hour, and a day after 30', async () => {
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

  /** Guesses wrong until the next guess has to wait for more than a day, and returns the seconds to wait. */
  async function lock(account: string): Promise<number> {
    while (proofs < 100) {
      const wait = await fail(account, address(proofs))
      if (wait * 1000 > days) return wait
      at += wait * 1000
    }
    throw new Error('the account is never locked')
  }

  it('refuse every attempt from an unknown network after 40 failures until these are forgotten, and state the time in Retry-After', async () => {
    const wait = await lock('a')
    expect(proofs).to.equal(40)
    expect(wait * 1000).to.be.within(580 * days, 600 * days)
    at += 365 * days
    expect(await fail('a', address(1))).to.equal(wait - 365 * 86_400)
    at += (wait - 365 * 86_400) * 1000
    expect(await fail('a', address(1))).to.equal(0)
  })

  it('allow one attempt a day again after the user has logged in from a known network', async () => {
    await succeed('a', '192.0.2.1')
    await lock('a')
    at += 2 * days
    const refused = await succeed('a', address(1)).catch((error: AppError) => error.code)
    expect(refused).to.equal('too_many_requests')
    expect(await fail('a', '192.0.2.1')).to.equal(0)
    expect(await fail('a', address(1))).to.be.above(86_400)
    await succeed('a', '192.0.2.1')
    expect(await fail('a', address(1))).to.equal(0)
    expect(await fail('a', address(1))).to.equal(86_400)
    await lock('a')
    expect(proofs).to.equal(40 + 1 + 10) // the 1 is the guess on the known network
  })

  it('unlock an account when a mail has proved who owns it', async () => {
    await lock('a')
    await throttles.clearFailures({ account: 'a', address: '192.0.2.1' })
    expect(await succeed('a', '192.0.2.1')).to.equal(verified)
    expect(await succeed('a', address(1))).to.equal(verified)
  })

  it('verify fewer than 100 guesses in two years, however the attacker waits', async () => {
    const end = 730 * days
    /** Alternates `atOnce` guesses and `restDays` days of rest, but guesses as often as possible in the last month. */
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

  it('forget all failures after a success, and each failure after fifteen days', async () => {
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

  it('remember failures at the same moment for as long as those one after another', async () => {
    await times(4, i => fail('a', address(i)))
    at += 59 * days
    expect(await fail('a', address(5))).to.equal(0)
    expect(await fail('a', address(6))).to.equal(5)
  })

  it('count a username regardless of its case and Unicode form', async () => {
    for (const name of ['Anna', 'anna', 'ANNA', 'ａnna', 'aNNa']) expect(await fail(name, address(1))).to.equal(0)
    expect(await fail('anna', address(2))).to.equal(5)
  })

  it('do not count an attempt without a result, and let the next one begin at once', async () => {
    for (let i = 0; i < 5; i++) await fail('a', address(i))
    at += 5000
    const verify = async () => {
      throw new Error('the queue is full')
    }
    const broken = throttles.attemptLogin({ account: 'a', address: address(1) }, { verify, imitate })
    expect(await broken.catch((error: Error) => error.message)).to.equal('the queue is full')
    expect(await succeed('a', address(1))).to.equal(verified)
  })

  it('verify at most as many attempts at once as may still fail, and the others once these succeed', async () => {
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
    // Five attempts that begin together, and the attempts that begin before the fifth is counted.
    expect(other.filter(answer => answer === wrongPassword).length).to.be.within(5, 9)
    expect(other.filter(answer => answer === 'too_many_requests').length).to.be.at.least(51)
  })

  it('verify at most a fifth of the limit of an address at once', async () => {
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

  it('never make a user on a known network wait for other users there', async () => {
    await succeed('home', address(1))
    const { promise: end, resolve } = Promise.withResolvers<typeof wrongPassword>()
    const others = times(20, i =>
      throttles.attemptLogin({ account: `u${i}`, address: address(1) }, { verify: () => end, imitate }),
    )
    expect(await succeed('home', address(1))).to.equal(verified)
    resolve(wrongPassword)
    await others
  })

  it('count an IPv6 /64 as one address, and each IPv4 address by itself', async () => {
    for (let i = 0; i < 30; i++) expect(await fail(`u${i}`, `2001:db8:1:2:${i.toString(16)}::7`)).to.equal(0)
    expect(await fail('v', '2001:db8:1:2:ffff:ffff:ffff:ffff')).to.equal(60)
    expect(await fail('v', '2001:db8:1:3::1')).to.equal(0)
    const networks = { '::1': '0:0:0:0::/64', 'fe80::': 'fe80:0:0:0::/64', '2001:db8::1': '2001:db8:0:0::/64' }
    for (const [of, network] of Object.entries(networks)) expect(networkOf(of)).to.equal(network)
    expect(networkOf('1:2:3:4:5:6:7:8')).to.equal('1:2:3:4::/64')
    expect(networkOf('64:ff9b::192.0.2.1')).to.equal('64:ff9b:0:0::/64')
    expect(networkOf('192.0.2.1')).to.equal('192.0.2.1')
  })

  it('emit the name of the reached limit, never what was typed', async () => {
    for (let i = 0; i < 7; i++) await fail('hunter2', address(1))
    const limited = { type: 'rate_limited', what: 'account_attempts', address: address(1), userId: null }
    expect(events).to.deep.equal([{ type: 'account_locked', userId: null }, limited, limited])
  })

  it('count failures within sessions apart from failed log-ins', async () => {
    for (let i = 0; i < 9; i++) await fail('a', address(i))
    for (let i = 0; i < 5; i++) expect(await fail('a', address(50), 'in a session')).to.equal(0)
    expect(await fail('a', address(51), 'in a session')).to.equal(5)
    await succeed('b', address(52))
    for (let i = 0; i < 9; i++) await fail('b', address(53), 'in a session')
    expect(await succeed('b', address(54))).to.equal(verified)
  })

  it('count failures within all sessions of a user together, and for the address', async () => {
    for (let i = 0; i < 150; i++) await fail('a', address(i), 'in a session')
    expect(proofs).to.equal(5)
    for (let i = 0; i < 30; i++) await fail(`u${i}`, address(200), 'in a session')
    expect(await fail('v', address(200))).to.equal(60)
    expect(imitations).to.equal(1)
  })

  it('never let a session on another network lock the user out on a known one', async () => {
    await succeed('a', '192.0.2.1')
    while (proofs < 40) at += (await fail('a', address(1), 'in a session')) * 1000
    const wait = await fail('a', address(2), 'in a session')
    expect(wait * 1000).to.be.above(580 * days)
    const prove = () => throttles.attemptReauthentication({ account: 'a', address: '192.0.2.1' }, async () => verified)
    expect(await prove()).to.equal(verified)
    at += days
    // On another network, one guess a day is allowed again; after a log-in from there, five guesses are.
    expect(await fail('a', address(2), 'in a session')).to.equal(0)
    expect(await fail('a', address(2), 'in a session')).to.equal(86_400)
    await succeed('a', address(2))
    for (let i = 0; i < 5; i++) expect(await fail('a', address(2), 'in a session')).to.equal(0)
    expect(await fail('a', address(2), 'in a session')).to.equal(5)
  })

  it('verify at most ten guesses at a known account while the address is at its limit', async () => {
    await succeed('a', address(1))
    let verified = 0
    for (let minute = 0; minute < 60; minute++) {
      for (let i = 0; i < 30; i++) await fail(`u${minute} ${i}`, address(1))
      const [proofsBefore, imitationsBefore] = [proofs, imitations]
      expect(await fail('a', address(1))).to.equal(60)
      verified += proofs - proofsBefore
      expect(proofs - proofsBefore + imitations - imitationsBefore).to.equal(1)
      at += 60_000
    }
    expect(verified).to.equal(10)
    // The guesses made while the address was at its limit do not count afterwards.
    for (let i = 0; i < 5; i++) expect(await fail('a', address(1))).to.equal(0)
    expect(await fail('a', address(1))).to.equal(5)
  })

  it('respond and count alike for a known and an unknown account if the limit is reached during the attempt', async () => {
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

  it('refuse a known account like an unknown one while the queue of the address is full, and verify it ten times at most', async () => {
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
    expect(proofs - before).to.equal(5) // after five failures the account has to wait
    expect(await succeed('known', address(2))).to.equal(verified)
    resolve(wrongPassword)
    await others
  })

  it('forget failures within sessions when a mail has proved who owns the account', async () => {
    for (let i = 0; i < 9; i++) await fail('a', address(1), 'in a session')
    await throttles.clearFailures({ account: 'a', address: address(2) })
    expect(await fail('a', address(1), 'in a session')).to.equal(0)
  })

  it('let a logged-in user give the password at an address that is over its limit', async () => {
    for (let i = 0; i < 30; i++) await fail(`u${i}`, address(1))
    expect(await fail('a', address(1))).to.equal(60)
    expect(await fail('a', address(1), 'in a session')).to.equal(0)
  })

  it('let 100 log-ins to an account wait for their turn, and refuse one more with 503', async () => {
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

  it('count mails, users and guest tokens of an address separately, and mails of an account', async () => {
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
