// Decides for each log-in attempt whether the password is verified, and which counter a wrong password adds to. Hides how
// users who have logged in from a network before are kept apart from strangers in that network.
import { type Attempts, type Checked, isPaused, isWrong } from './attempts.ts'
import { type AttemptKeys, type Failures, maxFailures, maxFailuresAtLimit, type WrongPassword } from './failures.ts'

export interface LoginCheck<T extends Checked> {
  verify: () => Promise<T | WrongPassword>
  /** Does the work of `verify` without its result. */
  imitate: () => Promise<void>
}

/** Resolves to the result of `check`, or throws `too_many_requests` or `unavailable`. */
export type AttemptLogin = <T extends Checked>(keys: AttemptKeys, check: LoginCheck<T>) => Promise<T | WrongPassword>

export function createLoginAttempts({ failures, attempts }: { failures: Failures; attempts: Attempts }): AttemptLogin {
  /**
   * Returns null if the attempt must be refused. Does the same work whether the account is known at this network or not.
   * Failures count under a key of their own, `atLimit`, which has no effect on attempts below the limit.
   */
  function attemptAtLimit<T extends Checked>(
    keys: AttemptKeys,
    isKnownHere: boolean,
    { verify, imitate }: LoginCheck<T>,
  ): Promise<T | null> {
    return attempts.inTurn(keys.atLimit, keys, async () => {
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
    })
  }

  function attemptAsStranger<T extends Checked>(keys: AttemptKeys, check: LoginCheck<T>): Promise<T | WrongPassword> {
    return attempts.inAddressTurn(keys, async () => {
      if (await failures.isAddressLimited(keys.network)) {
        await attemptAtLimit(keys, false, check)
        throw await attempts.addressLimited(keys)
      }
      return attempts.unlessPaused(await attempts.attempt(keys.account, keys, check.verify), keys)
    })
  }

  /**
   * A right password is accepted at once, even at the limit of the address. A wrong one waits for the turn of the address
   * and then gets the response that a stranger would get at that moment, so that the response does not show who is known at
   * this network.
   */
  async function attemptWhereKnown<T extends Checked>(
    keys: AttemptKeys,
    check: LoginCheck<T>,
  ): Promise<T | WrongPassword> {
    if (attempts.isAddressFull(keys) || (await failures.isAddressLimited(keys.network))) {
      const result = await attemptAtLimit(keys, true, check)
      if (result !== null) return result
      return attempts.inAddressTurn(keys, async () => {
        throw await attempts.busy(keys)
      })
    }
    const result = await attempts.attempt(keys.pair, keys, check.verify, wrong => countInTurn(keys, wrong))
    if (!isPaused(result)) return result
    return attempts.inAddressTurn(keys, async () => {
      if (!(await failures.isAddressLimited(keys.network))) {
        return attempts.unlessPaused<T | WrongPassword>(result, keys)
      }
      await check.imitate()
      throw await attempts.addressLimited(keys)
    })
  }

  /** Waits for the address's turn, then counts the failure: under `pair`, or under `atLimit` if the address is at its limit. */
  function countInTurn(keys: AttemptKeys, wrong: WrongPassword): Promise<void> {
    const refuse = async () => {
      await failures.count(keys, keys.atLimit, wrong)
      return attempts.busy(keys)
    }
    const count = async () => {
      if (await failures.isAddressLimited(keys.network)) throw await refuse()
      await failures.count(keys, keys.pair, wrong)
    }
    return attempts.inAddressTurn(keys, count, refuse)
  }

  return async (keys, check) =>
    (await failures.isKnown(keys)) ? attemptWhereKnown(keys, check) : attemptAsStranger(keys, check)
}
