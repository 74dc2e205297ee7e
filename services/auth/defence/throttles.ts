// How often passwords can be tried, mails requested, and users and guest tokens created. Hides the keys under which these
// are counted.
import { hash } from 'node:crypto'
import type { Counter, OpenCounter } from '../../../shared/counters.ts'
import { networkOf } from '../../../shared/http/address.ts'
import { type AppError, tooManyRequests } from '../../../shared/http/errors.ts'
import { normalise } from '../users/usernames.ts'
import { type Checked, createAttempts } from './attempts.ts'
import { type AttemptKeys, createFailures, type LockEvent, type WrongPassword } from './failures.ts'
import { createLoginAttempts, type LoginCheck } from './loginAttempts.ts'

/** Names the client by its address only: what was typed as a username may be a password. */
export type LimitEvent = { type: 'rate_limited'; what: Limited; address: string; userId: null } | LockEvent

export type Limited =
  | 'account_attempts'
  | 'address_failures'
  | 'account_mails'
  | 'address_mails'
  | 'registrations'
  | 'guest_tokens'
  | 'invalid_tokens'

/** Limits of one address. */
export interface AddressLimits {
  /** Wrong passwords in a minute. */
  failures: number
  /** Requests for a mail in an hour. */
  mails: number
  /** New users and changes of a username in an hour. */
  registrations: number
  /** Tokens issued in a minute without a log-in. */
  guestTokens: number
}

/** Limits of one account. They are not settings, because other values would weaken the protection of the users. */
export const accountLimits = {
  /** Wrong passwords before the next attempt has to wait. */
  freeFailures: 5,
  mailsPerHour: 5,
  /** Hashes that wait or run at the same time. */
  hashes: 16,
}

export interface ThrottlesOptions {
  perAccount: Pick<typeof accountLimits, 'freeFailures' | 'mailsPerHour'>
  perAddress: AddressLimits
  openCounter: OpenCounter
  emit: (event: LimitEvent) => void
}

export interface LoginAttempt {
  /** The username as it was typed. */
  account: string
  address: string
}

/** Beyond a limit, each method throws `too_many_requests` with a Retry-After, whether the account exists or not. */
export interface Throttles {
  /**
   * Resolves to the result of `check`, or throws if the account or the address has to wait. A user who has logged in from
   * this network before is limited only by the attempts from this network.
   *
   * At the limit of the address, only the right password of a user known at this network is accepted. To hide which users
   * are known, every attempt takes the same work.
   */
  attemptLogin<T extends Checked>(attempt: LoginAttempt, check: LoginCheck<T>): Promise<T | WrongPassword>

  /**
   * Like `attemptLogin`, for the current password that is given within a session. All of a user's sessions count together,
   * because the holder of one session may be able to create more. Networks where the user has logged in before count
   * separately, so that a thief elsewhere cannot lock the user out. Failed log-ins do not count here, and there is no limit
   * per address.
   */
  attemptReauthentication<T extends Checked>(
    attempt: LoginAttempt,
    verify: () => Promise<T | WrongPassword>,
  ): Promise<T | WrongPassword>

  /** Call when a mail has proved who owns the account: clears its failures and marks this network as known. */
  clearFailures(attempt: LoginAttempt): Promise<void>

  /**
   * Lets an operator unlock an account: clears the failures that keep the user from logging in from new networks and from
   * changing the password within a session. Failures on networks where the user has logged in before count separately, and stay.
   */
  unlock(account: string): Promise<void>

  /** Throws if too many mails were requested for the account or from the address. */
  requireMailAllowed(attempt: LoginAttempt): Promise<void>

  /** Throws if too many users were registered, or took another username, from this address. */
  requireRegistrationAllowed(address: string): Promise<void>

  /** Throws if too many tokens without a log-in were issued to this address. */
  requireGuestTokenAllowed(address: string): Promise<void>
}

const minuteMs = 60_000
const hourMs = 60 * minuteMs

export function createThrottles({ perAccount, perAddress, openCounter, emit }: ThrottlesOptions): Throttles {
  const { freeFailures, mailsPerHour } = perAccount
  const maxPerAddress = perAddress.failures
  const failures = createFailures({ freeFailures, maxPerAddress, openCounter, emit })
  const attempts = createAttempts({ failures, freeFailures, maxPerAddress, limited })
  const attemptLogin = createLoginAttempts({ failures, attempts })
  const mailsOfAccount = openCounter('accountMails', hourMs)
  const mailsOfAddress = openCounter('addressMails', hourMs)
  const registrations = openCounter('registrations', hourMs)
  const guestTokens = openCounter('guestTokens', minuteMs)

  function limited(what: Limited, address: string, ms: number): AppError {
    emit({ type: 'rate_limited', what, address, userId: null })
    return tooManyRequests(ms)
  }

  async function count(counter: Counter, key: string, max: number, what: Limited, address: string): Promise<void> {
    const { count, remainingMs } = await counter.add(key)
    if (count > max) throw limited(what, address, remainingMs)
  }

  return {
    attemptLogin: (attempt, check) => attemptLogin(keysOf(attempt), check),

    async attemptReauthentication(attempt, verify) {
      const keys = keysOf(attempt)
      const subject = (await failures.isKnown(keys)) ? keys.session.pair : keys.session.account
      return attempts.unlessPaused(await attempts.attempt(subject, keys, verify), keys)
    },

    async clearFailures(attempt) {
      const keys = keysOf(attempt)
      const { account, pair, atLimit, session } = keys
      await Promise.all([
        failures.markKnown(keys),
        failures.forget([account, pair, atLimit, session.account, session.pair]),
      ])
    },

    async unlock(account) {
      const keys = keysOf({ account, address: '' })
      await failures.forget([keys.account, keys.session.account])
    },

    async requireMailAllowed({ account, address }) {
      await count(mailsOfAddress, networkOf(address), perAddress.mails, 'address_mails', address)
      await count(mailsOfAccount, keyOf(normalise(account)), mailsPerHour, 'account_mails', address)
    },

    requireRegistrationAllowed: address =>
      count(registrations, networkOf(address), perAddress.registrations, 'registrations', address),

    requireGuestTokenAllowed: address =>
      count(guestTokens, networkOf(address), perAddress.guestTokens, 'guest_tokens', address),
  }
}

function keysOf({ account: typed, address }: LoginAttempt): AttemptKeys {
  const account = keyOf(normalise(typed))
  const network = networkOf(address)
  const pair = keyOf(account, network)
  const session = { account: keyOf('session', account), pair: keyOf('session', pair) }
  return { account, network, pair, atLimit: keyOf('limit', pair), session, address }
}

/** The key has a fixed length, whatever was typed, and means nothing to a reader of Redis. */
function keyOf(...parts: string[]): string {
  return hash('sha256', parts.join('\0'), 'base64url')
}
