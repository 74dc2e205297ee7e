// Wrong passwords, counted per subject: an account, or an account at one network. Only this module knows how long the next
// attempt must wait after them, and how long they are remembered.
import type { OpenCounter } from '../../../shared/counters.ts'

/** `userId`: the account whose password was wrong, for the log; null if there is no such account. */
export interface WrongPassword {
  outcome: 'wrong_password'
  userId: string | null
}

/** From now on the account's attempts have to wait. `userId` is null for an account that does not exist. */
export type LockEvent = { type: 'account_locked'; userId: string | null }

/** The subjects and keys that an attempt is counted under. */
export interface AttemptKeys {
  account: string
  network: string
  /** The account at this network. */
  pair: string
  /** The pair, for attempts while the address is at its limit. */
  atLimit: string
  /** The account and the pair, for attempts within sessions. */
  session: { account: string; pair: string }
  address: string
}

/** `failed`: failures of the subject so far. */
export interface Beginning {
  failed: number
  pauseMs: number | null
}

export interface FailuresOptions {
  /** Failures of a subject before its next attempt has to wait. */
  freeFailures: number
  /** Failures from one address in a minute. */
  maxPerAddress: number
  openCounter: OpenCounter
  emit: (event: LockEvent) => void
}

export interface Failures {
  /**
   * Call before an attempt. `pauseMs`: null if it can begin, otherwise how long to wait. If several attempts arrive together
   * after a wait, only one can begin.
   */
  begin(subject: string): Promise<Beginning>

  /** Call if an attempt ended without a result, so that the next one can begin at once. */
  cancel(subject: string, beginning: Beginning): Promise<void>

  /** Counts a wrong password for the subject and for the address. */
  count(keys: AttemptKeys, subject: string, wrong: WrongPassword): Promise<void>

  /** Whether the next attempt has to wait, or the subject has `max` failures. Counts nothing. */
  mustWait(subject: string, max: number): Promise<boolean>

  forget(subjects: string[]): Promise<void>

  /**
   * The user has logged in: the network is known from now on. If the account has reached `maxFailures`, it gets one attempt a
   * day again, as before its last failures.
   */
  recordLogin(keys: AttemptKeys): Promise<void>

  /** Whether the user has logged in from this network lately. */
  isKnown(keys: AttemptKeys): Promise<boolean>

  markKnown(keys: AttemptKeys): Promise<void>

  isAddressLimited(network: string): Promise<boolean>

  /** Milliseconds until the limit of the address is lifted. */
  addressLimitedForMs(network: string): Promise<number>
}

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs
const firstPauseMs = 5000
const maxPauseMs = hourMs
const failuresUntilDaily = 30 // then one attempt a day
// After this many failures no attempt is allowed. NIST SP 800-63B-4 section 3.2.2 allows an account 100 failures.
// Latchkey allows 40 from unknown networks, 40 from a known network, and another 10 from a known network while the address is at
// its limit.
export const maxFailures = 40
export const maxFailuresAtLimit = 10
// Each failure is remembered for 15 days, so waiting until it is forgotten yields at most 24 guesses a year. If failures
// were remembered much longer, made-up usernames that fail once would fill the counters for as long.
const failureMs = 15 * dayMs
const knownMs = 30 * dayMs // since the user's last log-in from the network

export function createFailures({ freeFailures, maxPerAddress, openCounter, emit }: FailuresOptions): Failures {
  const failures = openCounter('failures', failureMs)
  const pauses = openCounter('pauses', hourMs)
  const known = openCounter('known', knownMs)
  const failuresOfAddress = openCounter('addressFailures', minuteMs)

  /** How long the next attempt has to wait after this many failures. */
  function pauseAfter(failed: number): number {
    if (failed >= failuresUntilDaily) return dayMs
    return Math.min(firstPauseMs * 2 ** (failed - freeFailures), maxPauseMs)
  }

  async function reopen(subject: string): Promise<void> {
    if ((await failures.read(subject)).count < maxFailures) return
    await failures.set(subject, failuresUntilDaily, failuresUntilDaily * failureMs)
  }

  const markKnown = ({ pair }: AttemptKeys) => known.set(pair, 1)

  return {
    markKnown,

    async begin(subject) {
      const { count: failed, remainingMs: failedForMs } = await failures.read(subject)
      if (failed < freeFailures) return { failed, pauseMs: null }
      if (failed >= maxFailures) return { failed, pauseMs: failedForMs }
      const { count, remainingMs } = await pauses.add(subject, pauseAfter(failed + 1))
      return { failed, pauseMs: count > 1 ? remainingMs : null }
    },

    async cancel(subject, { failed }) {
      if (failed >= freeFailures) await pauses.forget(subject)
    },

    async count({ network }, subject, { userId }) {
      const [{ count }] = await Promise.all([failures.add(subject), failuresOfAddress.add(network)])
      if (count > 1) await failures.extend(subject, failureMs)
      if (count >= freeFailures) await pauses.add(subject, pauseAfter(count))
      if (count === freeFailures) emit({ type: 'account_locked', userId })
    },

    async mustWait(subject, max) {
      const [failed, paused] = await Promise.all([failures.read(subject), pauses.read(subject)])
      return failed.count >= max || paused.count > 0
    },

    async forget(subjects) {
      await Promise.all(subjects.flatMap(subject => [failures.forget(subject), pauses.forget(subject)]))
    },

    async recordLogin(keys) {
      await Promise.all([markKnown(keys), reopen(keys.account), reopen(keys.session.account)])
    },

    isKnown: async ({ pair }) => (await known.read(pair)).count > 0,
    isAddressLimited: async network => (await failuresOfAddress.read(network)).count >= maxPerAddress,
    addressLimitedForMs: async network => (await failuresOfAddress.read(network)).remainingMs,
  }
}
