// How often passwords may be tried, mails be asked for, and users or guests be made. Hides by what that is counted, how long
// who has failed must wait, and how an attacker's failures are kept from being the user's.
import { hash } from 'node:crypto'
import type { Counter, OpenCounter } from '../../../shared/counters.ts'
import { networkOf } from '../../../shared/http/address.ts'
import { AppError, tooManyRequests } from '../../../shared/http/errors.ts'
import { normalise } from '../users/usernames.ts'
import { createTurns } from './turns.ts'

/**
 * Who is limited is told by the address only: what was typed as a username may be a password. `account_locked`: from now on
 * there is a wait.
 */
export type LimitEvent =
  | { type: 'rate_limited'; what: Limited; address: string; userId: null }
  | { type: 'account_locked' }

export type Limited =
  | 'account_attempts'
  | 'address_failures'
  | 'account_mails'
  | 'address_mails'
  | 'registrations'
  | 'guest_tokens'
  | 'invalid_tokens'

/** Of one address. */
export interface AddressLimits {
  /** Wrong passwords in a minute. */
  failures: number
  /** Requests for a mail in an hour. */
  mails: number
  /** In an hour. */
  registrations: number
  /** In a minute. */
  guestTokens: number
}

/** Of one account. No setting: other numbers would not be for the users' safety. `hashes`: that may wait or run at a time. */
export const accountLimits = { freeFailures: 5, mailsPerHour: 5, hashes: 16 }

export interface ThrottlesOptions {
  perAccount: Pick<typeof accountLimits, 'freeFailures' | 'mailsPerHour'>
  perAddress: AddressLimits
  openCounter: OpenCounter
  observe: (event: LimitEvent) => void
}

/** Somebody says that they know the password of an account. */
export interface Claim {
  /** A username as it was typed. */
  account: string
  address: string
}

export interface Login<T> {
  /** Null for a wrong password. */
  prove: () => Promise<T | null>
  /** The work of `prove` without its verdict. */
  spend: () => Promise<void>
}

/** A claim by its keys. */
interface Keys {
  account: string
  network: string
  /** The account at this network. */
  pair: string
  /** The pair while the address is at its limit. */
  atLimit: string
  /** The account, and the pair, for claims made within sessions. */
  session: { account: string; pair: string }
  address: string
}

type Judgement<T> = { type: 'right'; proved: T } | { type: 'wrong' } | { type: 'paused'; ms: number }

export type Throttles = ReturnType<typeof createThrottles>

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs
const firstPauseMs = 5000
const longestPauseMs = hourMs
const failuresUntilDaily = 30 // then one attempt a day
// Then none. Those from elsewhere, from an address that is known, and from there at its limit are together below the 100 of
// NIST SP 800-63B-4 section 3.2.2.
const mostFailures = 40
const mostFailuresAtLimit = 10
// Of each failure, so that who waits until they are forgotten has 24 a year, however many at a time; and so that a username
// that somebody makes up, where one failure is all, is not kept for a year.
const failureForMs = 15 * dayMs
const knownForMs = 30 * dayMs // since the last log-in from there
// Of the failures that an address may have: so many log-ins from there may be under way, and be failures above the limit.
const undecidedOfAddress = 1 / 5
const mostWaiting = 100
const retryBusyAfterSeconds = 2

export function createThrottles({ perAccount, perAddress, openCounter, observe }: ThrottlesOptions) {
  const { freeFailures, mailsPerHour } = perAccount
  const failures = openCounter('failures', failureForMs)
  const pauses = openCounter('pauses', hourMs)
  const known = openCounter('known', knownForMs)
  const failuresOfAddress = openCounter('addressFailures', minuteMs)
  const mailsOfAccount = openCounter('accountMails', hourMs)
  const mailsOfAddress = openCounter('addressMails', hourMs)
  const registrations = openCounter('registrations', hourMs)
  const guestTokens = openCounter('guestTokens', minuteMs)
  // Attempts that are not decided yet are in no counter: so many at a time cannot be more than are free.
  const inTurn = createTurns(freeFailures, mostWaiting)
  const inTurnOfAddress = createTurns(Math.ceil(perAddress.failures * undecidedOfAddress), mostWaiting)

  function limited(what: Limited, address: string, ms: number): AppError {
    observe({ type: 'rate_limited', what, address, userId: null })
    return tooManyRequests(ms)
  }

  async function take(counter: Counter, key: string, most: number, what: Limited, address: string): Promise<void> {
    const { count, remainingMs: ms } = await counter.add(key)
    if (count > most) throw limited(what, address, ms)
  }

  async function isOverLimit(network: string): Promise<boolean> {
    return (await failuresOfAddress.read(network)).count >= perAddress.failures
  }

  /** The one answer at the limit of an address, whatever is known of the account. */
  async function overLimit({ network, address }: Keys): Promise<AppError> {
    return limited('address_failures', address, (await failuresOfAddress.read(network)).remainingMs)
  }

  /** The answer if too many attempts wait for their turn. */
  async function busy(keys: Keys): Promise<AppError> {
    if (await isOverLimit(keys.network)) return overLimit(keys)
    const headers = { 'Retry-After': String(retryBusyAfterSeconds) }
    return new AppError('unavailable', 'Too many log-ins wait already; try again.', { headers })
  }

  async function countFailure(network: string, subject: string): Promise<void> {
    const [{ count }] = await Promise.all([failures.add(subject), failuresOfAddress.add(network)])
    if (count > 1) await failures.extend(subject, failureForMs)
    if (count >= freeFailures) await pauses.add(subject, pauseAfter(count))
    if (count === freeFailures) observe({ type: 'account_locked' })
  }

  const forget = (subjects: string[]) =>
    Promise.all(subjects.flatMap(subject => [failures.forget(subject), pauses.forget(subject)]))

  async function succeed(keys: Keys): Promise<void> {
    await Promise.all([known.set(keys.pair, 1), reopen(keys.account), reopen(keys.session.account)])
  }

  /** The user has shown to be there: what is closed takes one guess a day again, as before its last failures. */
  async function reopen(subject: string): Promise<void> {
    if ((await failures.read(subject)).count < mostFailures) return
    await failures.set(subject, failuresUntilDaily, failuresUntilDaily * failureForMs)
  }

  /** After this many failures, how long to wait for the next attempt. */
  function pauseAfter(failed: number): number {
    if (failed >= failuresUntilDaily) return dayMs
    return Math.min(firstPauseMs * 2 ** (failed - freeFailures), longestPauseMs)
  }

  /** How long `subject` must wait before its next attempt, null if it need not. */
  async function pauseOf(subject: string, failed: number, failedForMs: number): Promise<number | null> {
    if (failed < freeFailures) return null
    if (failed >= mostFailures) return failedForMs
    const { count, remainingMs: ms } = await pauses.add(subject, pauseAfter(failed + 1))
    return count > 1 ? ms : null
  }

  /**
   * `subject`: whose failures count. `prove` is not called during a pause, and `countWrong` counts a wrong password before the
   * next attempt begins.
   */
  function judge<T>(
    subject: string,
    keys: Keys,
    prove: () => Promise<T | null>,
    countWrong = () => countFailure(keys.network, subject),
  ): Promise<Judgement<T>> {
    return inTurn(
      subject,
      () => busy(keys),
      async () => {
        const { count: failed, remainingMs: failedForMs } = await failures.read(subject)
        const pauseMs = await pauseOf(subject, failed, failedForMs)
        if (pauseMs !== null) return { type: 'paused', ms: pauseMs }
        let proved: T | null
        try {
          proved = await prove()
        } catch (error) {
          if (failed >= freeFailures) await pauses.forget(subject) // it was not judged: the next one may be
          throw error
        }
        if (proved === null) {
          await countWrong()
          return { type: 'wrong' }
        }
        if (failed > 0) await forget([subject])
        await succeed(keys)
        return { type: 'right', proved }
      },
    )
  }

  function conclude<T>(judgement: Judgement<T>, address: string): T | null {
    if (judgement.type === 'paused') throw limited('account_attempts', address, judgement.ms)
    return judgement.type === 'right' ? judgement.proved : null
  }

  async function mustWait(subject: string, most: number): Promise<boolean> {
    const [failed, paused] = await Promise.all([failures.read(subject), pauses.read(subject)])
    return failed.count >= most || paused.count > 0
  }

  /**
   * Null is to be refused. Asks and hashes the same whether the account is known here or not, and counts guesses where the
   * answers below the limit do not depend on them.
   */
  function attemptAtLimit<T>(keys: Keys, isKnownHere: boolean, { prove, spend }: Login<T>): Promise<T | null> {
    return inTurn(
      keys.atLimit,
      () => busy(keys),
      async () => {
        const waits = await Promise.all([
          mustWait(keys.pair, mostFailures),
          mustWait(keys.atLimit, mostFailuresAtLimit),
        ])
        if (!isKnownHere || waits.includes(true)) {
          await spend()
          return null
        }
        const proved = await prove()
        if (proved === null) await countFailure(keys.network, keys.atLimit)
        else await Promise.all([succeed(keys), forget([keys.pair, keys.atLimit])])
        return proved
      },
    )
  }

  function attemptAsStranger<T>(keys: Keys, login: Login<T>): Promise<T | null> {
    return inTurnOfAddress(
      keys.network,
      () => busy(keys),
      async () => {
        if (await isOverLimit(keys.network)) {
          await attemptAtLimit(keys, false, login)
          throw await overLimit(keys)
        }
        return conclude(await judge(keys.account, keys, login.prove), keys.address)
      },
    )
  }

  /**
   * A right password is let in at once, also at the limit of the address. A refusal is what a stranger would get who waited
   * for the turn of the address: which it is, and where a failure counts, is decided after that turn.
   */
  async function attemptWhereKnown<T>(keys: Keys, login: Login<T>): Promise<T | null> {
    const { network, pair, atLimit } = keys
    if (inTurnOfAddress.isFull(network) || (await isOverLimit(network))) {
      const proved = await attemptAtLimit(keys, true, login)
      if (proved !== null) return proved
      return inTurnOfAddress(
        network,
        () => busy(keys),
        async () => {
          throw await busy(keys)
        },
      )
    }
    const whenFull = async () => {
      await countFailure(network, atLimit)
      return busy(keys)
    }
    const countWrong = () =>
      inTurnOfAddress(network, whenFull, async () => {
        if (!(await isOverLimit(network))) return countFailure(network, pair)
        throw await whenFull()
      })
    const judgement = await judge(pair, keys, login.prove, countWrong)
    if (judgement.type !== 'paused') return conclude(judgement, keys.address)
    return inTurnOfAddress(
      network,
      () => busy(keys),
      async () => {
        if (!(await isOverLimit(network))) return conclude(judgement, keys.address)
        await login.spend()
        throw await overLimit(keys)
      },
    )
  }

  const isKnown = async ({ pair }: Keys) => (await known.read(pair)).count > 0

  return {
    /**
     * What `prove` resolves to; null for a wrong password, which is a failure. Throws 429 if the account or the address must
     * wait; the same for accounts that do not exist and for right passwords. Users who log in from a network
     * where they have logged in before are judged by what was tried from there alone.
     *
     * At the limit of the address everything is 429 but a right password of a user who is known there. Which users are must
     * not show, so each attempt costs the work of one.
     */
    async attempt<T>(claim: Claim, login: Login<T>): Promise<T | null> {
      const keys = keysOf(claim)
      return (await isKnown(keys)) ? attemptWhereKnown(keys, login) : attemptAsStranger(keys, login)
    },

    /**
     * The same of the current password that somebody with a session gives. All sessions of a user count together, since who
     * has one may be able to make more; those from networks where the user has logged in are counted apart from the others,
     * so that a thief elsewhere locks nobody out. Failures at log-in do not count here, and the address never refuses.
     */
    async attemptInSession<T>(claim: Claim, prove: () => Promise<T | null>): Promise<T | null> {
      const keys = keysOf(claim)
      const subject = (await isKnown(keys)) ? keys.session.pair : keys.session.account
      return conclude(await judge(subject, keys, prove), keys.address)
    },

    /** A mail has shown whose account it is: nothing counts any more that was tried, and the user is known here. */
    async welcome(account: string, address: string): Promise<void> {
      const keys = keysOf({ account, address })
      const { account: all, pair, atLimit, session } = keys
      await Promise.all([known.set(pair, 1), forget([all, pair, atLimit, session.account, session.pair])])
    },

    /**
     * For the operator: forgets the failures that keep the user from logging in at new addresses, and from changing the
     * password within a session. Those at an address where the user has logged in before are counted by themselves, and stay.
     */
    async unlock(account: string): Promise<void> {
      const { account: all, session } = keysOf({ account, address: '' })
      await forget([all, session.account])
    },

    /** Throws 429 where too many mails were asked for, whether there is such an account or not. */
    async mayMail(account: string, address: string): Promise<void> {
      await take(mailsOfAddress, networkOf(address), perAddress.mails, 'address_mails', address)
      await take(mailsOfAccount, keyOf(normalise(account)), mailsPerHour, 'account_mails', address)
    },

    /** Throws 429 where too many users come from this address. */
    mayRegister: (address: string) =>
      take(registrations, networkOf(address), perAddress.registrations, 'registrations', address),

    /** Throws 429 where too many tokens without a log-in go to this address. */
    mayIssueToGuest: (address: string) =>
      take(guestTokens, networkOf(address), perAddress.guestTokens, 'guest_tokens', address),
  }
}

function keysOf({ account: typed, address }: Claim): Keys {
  const account = keyOf(normalise(typed))
  const network = networkOf(address)
  const pair = keyOf(account, network)
  const session = { account: keyOf('session', account), pair: keyOf('session', pair) }
  return { account, network, pair, atLimit: keyOf('limit', pair), session, address }
}

/** Of fixed length, whatever was typed, and not to be read in Redis. */
function keyOf(...parts: string[]): string {
  return hash('sha256', parts.join('\0'), 'base64url')
}
