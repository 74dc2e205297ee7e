// One attempt at a password: it waits for its turn, is refused while its subject is paused, and counts as a failure if the
// password is wrong.
import { AppError } from '../../../shared/http/errors.ts'
import type { AttemptKeys, Failures, WrongPassword } from './failures.ts'
import { createTurns } from './turns.ts'

/** What a password check resolves to; `outcome` is `wrong_password` or a value of the caller's own. */
export interface Checked {
  outcome: string
}

export interface Paused {
  outcome: 'paused'
  ms: number
}

export interface AttemptsOptions {
  failures: Failures
  /** Failures of a subject before its next attempt has to wait. */
  freeFailures: number
  /** Failures from one address in a minute. */
  maxPerAddress: number
  /** Emits the limit that was reached, and returns the error to throw. */
  limited: (what: 'account_attempts' | 'address_failures', address: string, ms: number) => AppError
}

export interface Attempts {
  /** Calls `verify` unless the subject is paused. Awaits `countWrong` before the next attempt of the subject begins. */
  attempt<T extends Checked>(
    subject: string,
    keys: AttemptKeys,
    verify: () => Promise<T | WrongPassword>,
    countWrong?: (wrong: WrongPassword) => Promise<void>,
  ): Promise<T | WrongPassword | Paused>

  /** Returns the result, or throws `too_many_requests` if it is a pause. */
  unlessPaused<T extends Checked>(result: T | Paused, keys: AttemptKeys): T

  /** Runs `work` when it is the subject's turn. */
  inTurn<T>(subject: string, keys: AttemptKeys, work: () => Promise<T>): Promise<T>

  /** Runs `work` when it is the address's turn. If too many attempts wait already, throws what `whenFull` returns. */
  inAddressTurn<T>(keys: AttemptKeys, work: () => Promise<T>, whenFull?: () => Promise<AppError>): Promise<T>

  /** Whether the next attempt from this address would be refused without waiting. */
  isAddressFull(keys: AttemptKeys): boolean

  /** The response at the limit of an address; the same whether the account exists or not. */
  addressLimited(keys: AttemptKeys): Promise<AppError>

  /** The response if too many attempts wait for their turn. */
  busy(keys: AttemptKeys): Promise<AppError>
}

// How many attempts from an address can be under way at once, as a share of its limit. A burst can exceed the limit by this
// share.
const underWayShare = 1 / 5
const maxWaiting = 100
const retryBusyAfterSeconds = 2

export function createAttempts({ failures, freeFailures, maxPerAddress, limited }: AttemptsOptions): Attempts {
  // Attempts under way are not counted yet, so no more than `freeFailures` run at once.
  const turns = createTurns(freeFailures, maxWaiting)
  const addressTurns = createTurns(Math.ceil(maxPerAddress * underWayShare), maxWaiting)

  const addressLimited: Attempts['addressLimited'] = async ({ network, address }) =>
    limited('address_failures', address, await failures.addressLimitedForMs(network))

  async function busy(keys: AttemptKeys): Promise<AppError> {
    if (await failures.isAddressLimited(keys.network)) return addressLimited(keys)
    const headers = { 'Retry-After': String(retryBusyAfterSeconds) }
    return new AppError('unavailable', 'Too many log-ins are waiting already. Try again.', { headers })
  }

  const inTurn: Attempts['inTurn'] = (subject, keys, work) => turns(subject, () => busy(keys), work)

  function attempt<T extends Checked>(
    subject: string,
    keys: AttemptKeys,
    verify: () => Promise<T | WrongPassword>,
    countWrong = (wrong: WrongPassword) => failures.count(keys, subject, wrong),
  ): Promise<T | WrongPassword | Paused> {
    return inTurn<T | WrongPassword | Paused>(subject, keys, async () => {
      const beginning = await failures.begin(subject)
      if (beginning.pauseMs !== null) return { outcome: 'paused', ms: beginning.pauseMs }
      let result: T | WrongPassword
      try {
        result = await verify()
      } catch (error) {
        await failures.cancel(subject, beginning)
        throw error
      }
      if (isWrong(result)) {
        await countWrong(result)
        return result
      }
      if (beginning.failed > 0) await failures.forget([subject])
      await failures.recordLogin(keys)
      return result
    })
  }

  return {
    inTurn,
    inAddressTurn: (keys, work, whenFull = () => busy(keys)) => addressTurns(keys.network, whenFull, work),
    isAddressFull: ({ network }) => addressTurns.isFull(network),
    addressLimited,
    busy,

    attempt,

    unlessPaused(result, { address }) {
      if (isPaused(result)) throw limited('account_attempts', address, result.ms)
      return result
    },
  }
}

export function isWrong(result: Checked): result is WrongPassword {
  return result.outcome === 'wrong_password'
}

export function isPaused(result: Checked): result is Paused {
  return result.outcome === 'paused'
}
