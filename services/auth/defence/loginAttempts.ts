// Decides for each log-in attempt whether the password is verified, and where a wrong one counts. Hides how users who have
// logged in from a network before are kept apart from the strangers there.
import { AppError } from '../../../shared/http/errors.ts'
import { type AttemptKeys, type Failures, maxFailures, maxFailuresAtLimit, type WrongPassword } from './failures.ts'
import { createTurns } from './turns.ts'

/** What a password check resolves to; `outcome` is `wrong_password` or one of the caller's own. */
export interface Checked {
  outcome: string
}

export interface LoginCheck<T extends Checked> {
  verify: () => Promise<T | WrongPassword>
  /** The work of `verify` without its result. */
  imitate: () => Promise<void>
}

export interface Paused {
  outcome: 'paused'
  ms: number
}

export interface LoginAttemptsOptions {
  failures: Failures
  /** Failures of a subject before its next attempt has to wait. */
  freeFailures: number
  /** Failures from one address in a minute. */
  maxPerAddress: number
  /** Emits the limit that was reached, and returns the error to throw. */
  limited: (what: 'account_attempts' | 'address_failures', address: string, ms: number) => AppError
}

export interface LoginAttempts {
  attempt<T extends Checked>(keys: AttemptKeys, check: LoginCheck<T>): Promise<T | WrongPassword>
  attemptWithinSession<T extends Checked>(
    keys: AttemptKeys,
    verify: () => Promise<T | WrongPassword>,
  ): Promise<T | WrongPassword>
}

// Share of the limit of an address that can be under way at once. A burst can exceed the limit by as much.
const underWayShare = 1 / 5
const maxWaiting = 100
const retryBusyAfterSeconds = 2

export function createLoginAttempts({
  failures,
  freeFailures,
  maxPerAddress,
  limited,
}: LoginAttemptsOptions): LoginAttempts {
  // Attempts that are under way are in no counter yet, so there are never more at once than can still fail.
  const inTurn = createTurns(freeFailures, maxWaiting)
  const inTurnOfAddress = createTurns(Math.ceil(maxPerAddress * underWayShare), maxWaiting)

  /** The one answer at the limit of an address, whatever is known of the account. */
  async function addressLimited({ network, address }: AttemptKeys): Promise<AppError> {
    return limited('address_failures', address, await failures.addressLimitedForMs(network))
  }

  /** The answer if too many attempts wait for their turn. */
  async function busy(keys: AttemptKeys): Promise<AppError> {
    if (await failures.isAddressLimited(keys.network)) return addressLimited(keys)
    const headers = { 'Retry-After': String(retryBusyAfterSeconds) }
    return new AppError('unavailable', 'Too many log-ins wait already; try again.', { headers })
  }

  const inAddressTurn = <T>(keys: AttemptKeys, work: () => Promise<T>) =>
    inTurnOfAddress(keys.network, () => busy(keys), work)

  /** Does not call `verify` during a pause. Awaits `countWrong` before the next attempt of the subject begins. */
  function attemptOnce<T extends Checked>(
    subject: string,
    keys: AttemptKeys,
    verify: () => Promise<T | WrongPassword>,
    countWrong = (wrong: WrongPassword) => failures.count(keys, subject, wrong),
  ): Promise<T | WrongPassword | Paused> {
    return inTurn<T | WrongPassword | Paused>(
      subject,
      () => busy(keys),
      async () => {
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
      },
    )
  }

  function unlessPaused<T extends Checked>(result: T | Paused, address: string): T {
    if (isPaused(result)) throw limited('account_attempts', address, result.ms)
    return result
  }

  /**
   * Null must be refused. Reads and hashes the same whether the account is known here or not. Counts guesses where the
   * answers below the limit do not depend on them.
   */
  function attemptAtLimit<T extends Checked>(
    keys: AttemptKeys,
    isKnownHere: boolean,
    { verify, imitate }: LoginCheck<T>,
  ): Promise<T | null> {
    return inTurn(
      keys.atLimit,
      () => busy(keys),
      async () => {
        const waits = await Promise.all([
          failures.mustWait(keys.pair, maxFailures),
          failures.mustWait(keys.atLimit, maxFailuresAtLimit),
        ])
        if (!isKnownHere || waits.includes(true)) {
          await imitate()
          return null
        }
        const result = await verify()
        if (isWrong(result)) {
          await failures.count(keys, keys.atLimit, result)
          return null
        }
        await Promise.all([failures.recordLogin(keys), failures.forget([keys.pair, keys.atLimit])])
        return result
      },
    )
  }

  function attemptAsStranger<T extends Checked>(keys: AttemptKeys, check: LoginCheck<T>): Promise<T | WrongPassword> {
    return inAddressTurn(keys, async () => {
      if (await failures.isAddressLimited(keys.network)) {
        await attemptAtLimit(keys, false, check)
        throw await addressLimited(keys)
      }
      return unlessPaused(await attemptOnce(keys.account, keys, check.verify), keys.address)
    })
  }

  /**
   * A right password is accepted at once, even at the limit of the address. A refusal is what a stranger would get after
   * waiting for the turn of the address; which refusal it is, and where the failure counts, is decided after that turn.
   */
  async function attemptWhereKnown<T extends Checked>(
    keys: AttemptKeys,
    check: LoginCheck<T>,
  ): Promise<T | WrongPassword> {
    const { network, pair, atLimit, address } = keys
    if (inTurnOfAddress.isFull(network) || (await failures.isAddressLimited(network))) {
      const result = await attemptAtLimit(keys, true, check)
      if (result !== null) return result
      return inAddressTurn(keys, async () => {
        throw await busy(keys)
      })
    }
    const countWrong = (wrong: WrongPassword) => {
      const whenFull = async () => {
        await failures.count(keys, atLimit, wrong)
        return busy(keys)
      }
      return inTurnOfAddress(network, whenFull, async () => {
        if (await failures.isAddressLimited(network)) throw await whenFull()
        return failures.count(keys, pair, wrong)
      })
    }
    const result = await attemptOnce(pair, keys, check.verify, countWrong)
    if (!isPaused(result)) return result
    return inAddressTurn(keys, async () => {
      if (!(await failures.isAddressLimited(network))) return unlessPaused<T | WrongPassword>(result, address)
      await check.imitate()
      throw await addressLimited(keys)
    })
  }

  return {
    async attempt(keys, check) {
      return (await failures.isKnown(keys)) ? attemptWhereKnown(keys, check) : attemptAsStranger(keys, check)
    },

    async attemptWithinSession(keys, verify) {
      const subject = (await failures.isKnown(keys)) ? keys.session.pair : keys.session.account
      return unlessPaused(await attemptOnce(subject, keys, verify), keys.address)
    },
  }
}

function isWrong(result: Checked): result is WrongPassword {
  return result.outcome === 'wrong_password'
}

function isPaused(result: Checked): result is Paused {
  return result.outcome === 'paused'
}
