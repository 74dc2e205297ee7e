// How often passwords may be tried, mails be asked for, and users or guests be made. Hides by what that is counted, how long
// who has failed must wait, and how an attacker's failures are kept from being the user's.
import { hash } from 'node:crypto'
import { AppError } from '../../../shared/errors.ts'
import { type Counter, networkOf, type OpenCounter, tooManyRequests } from '../../../shared/limits.ts'
import { normalise } from '../users/usernames.ts'

/**
 * Who is limited is told by the address only: what was typed as a username may be a password. `account locked`: from now on
 * there is a wait.
 */
export type LimitEvent = { type: 'limited'; what: Limited; address: string; userId: null } | { type: 'account locked' }

export type Limited =
  | 'attempts at an account'
  | 'failures of an address'
  | 'mails to an account'
  | 'mails of an address'
  | 'registrations'
  | 'guest tokens'
  | 'invalid tokens'

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

/** A password that somebody says is right. */
export interface Claim {
  /** A username as it was typed. */
  account: string
  address: string
  /** Of who is logged in already, the name of his session: what others fail at is not his, nor his theirs. */
  session?: string
}

/** A claim by its keys. */
interface Judged {
  /** Whose failures count: the account, for who comes from elsewhere, or the pair, or the session. */
  subject: string
  /** Whether it is one of the last two. */
  isOwn: boolean
  accountKey: string
  network: string
  /** The account at this network. */
  pair: string
  address: string
}

export type Throttles = ReturnType<typeof createThrottles>

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs
const firstPauseMs = 5000
const longestPauseMs = hourMs
const failuresUntilDaily = 30 // then one attempt a day
// Then none: with those of an address where he has logged in before it is below the 100 of NIST SP 800-63B-4 section 3.2.2.
const mostFailures = 40
// Of each failure, so that who waits until they are forgotten has 24 a year, however many at a time; and so that a username
// that somebody makes up, where one failure is all, is not kept for a year.
const failureForMs = 15 * dayMs
const knownForMs = 30 * dayMs // since the last log-in from there
// Of the failures that an address may have: so many log-ins from there may be under way, and be failures above the limit.
const undecidedOfAddress = 1 / 5
const mostWaiting = 100

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
    observe({ type: 'limited', what, address, userId: null })
    return tooManyRequests(ms)
  }

  async function take(counter: Counter, key: string, most: number, what: Limited, address: string): Promise<void> {
    const { count, ms } = await counter.add(key)
    if (count > most) throw limited(what, address, ms)
  }

  async function requireFewFailures({ network, address }: Judged): Promise<void> {
    const { count, ms } = await failuresOfAddress.read(network)
    if (count >= perAddress.failures) throw limited('failures of an address', address, ms)
  }

  async function countFailure(subject: string): Promise<void> {
    const { count } = await failures.add(subject)
    if (count > 1) await failures.lengthen(subject, failureForMs)
    if (count >= freeFailures) await pauses.add(subject, pauseAfter(count))
    if (count === freeFailures) observe({ type: 'account locked' })
  }

  /** He has shown that he is there: from elsewhere a guess a day is heard again, if none was. */
  async function reopen(accountKey: string): Promise<void> {
    if ((await failures.read(accountKey)).count < mostFailures) return
    await failures.put(accountKey, failuresUntilDaily, failuresUntilDaily * failureForMs)
  }

  /** After this many failures, how long to wait for the next attempt. */
  function pauseAfter(failed: number): number {
    if (failed >= failuresUntilDaily) return dayMs
    return Math.min(firstPauseMs * 2 ** (failed - freeFailures), longestPauseMs)
  }

  function judge<T>(
    { subject, isOwn, accountKey, network, pair, address }: Judged,
    prove: () => Promise<T | null>,
  ): Promise<T | null> {
    return inTurn(subject, async () => {
      const { count: failed, ms: failedForMs } = await failures.read(subject)
      const isLate = failed >= freeFailures
      if (isLate) {
        if (failed >= mostFailures) throw limited('attempts at an account', address, failedForMs)
        const { count, ms } = await pauses.add(subject, pauseAfter(failed + 1))
        if (count > 1) throw limited('attempts at an account', address, ms)
      }
      let proved: T | null
      try {
        proved = await prove()
      } catch (error) {
        if (isLate) await pauses.forget(subject) // it was not judged: the next one may be
        throw error
      }
      if (proved === null) {
        await Promise.all([failuresOfAddress.add(network), countFailure(subject)])
      } else {
        const clear = failed > 0 ? [failures.forget(subject), pauses.forget(subject)] : []
        const others = isOwn ? [reopen(accountKey)] : []
        await Promise.all([known.put(pair, 1), ...clear, ...others])
      }
      return proved
    })
  }

  return {
    /**
     * What `prove` resolves to: null for a wrong password, which is a failure. Throws 429, before `prove` is called, where
     * the account or the address must wait; the same for accounts that do not exist and for right passwords. Who logs in
     * from where he has logged in before is judged by what was tried from there alone.
     */
    async attempt<T>({ account, address, session }: Claim, prove: () => Promise<T | null>): Promise<T | null> {
      const accountKey = keyOf(normalise(account))
      const network = networkOf(address)
      const pair = keyOf(accountKey, network)
      const isOwn = session !== undefined || (await known.read(pair)).count > 0
      const subject = session !== undefined ? keyOf('session', session) : isOwn ? pair : accountKey
      const judged = { subject, isOwn, accountKey, network, pair, address }
      if (isOwn) return judge(judged, prove)
      await requireFewFailures(judged) // who is refused anyway takes nobody's turn
      return inTurnOfAddress(network, async () => {
        await requireFewFailures(judged)
        return judge(judged, prove)
      })
    },

    /** Somebody has proved otherwise that the account is his: by a mail. What was failed at is over, and he is known here. */
    async welcome(account: string, address: string): Promise<void> {
      const accountKey = keyOf(normalise(account))
      const pair = keyOf(accountKey, networkOf(address))
      const forgotten = [accountKey, pair].flatMap(key => [failures.forget(key), pauses.forget(key)])
      await Promise.all([known.put(pair, 1), ...forgotten])
    },

    /** Throws 429 where too many mails were asked for, whether there is such an account or not. */
    async mayMail(account: string, address: string): Promise<void> {
      await take(mailsOfAddress, networkOf(address), perAddress.mails, 'mails of an address', address)
      await take(mailsOfAccount, keyOf(normalise(account)), mailsPerHour, 'mails to an account', address)
    },

    /** Throws 429 where too many users come from this address. */
    mayRegister: (address: string) =>
      take(registrations, networkOf(address), perAddress.registrations, 'registrations', address),

    /** Throws 429 where too many tokens without a log-in go to this address. */
    mayIssueToGuest: (address: string) =>
      take(guestTokens, networkOf(address), perAddress.guestTokens, 'guest tokens', address),
  }
}

/** Of fixed length, whatever was typed; and nobody reads it in Redis. */
function keyOf(...parts: string[]): string {
  return hash('sha256', parts.join('\0'), 'base64url')
}

/** Works of the same key begin in turn: `width` at a time. */
function createTurns(width: number, mostWaiting: number) {
  const lines = new Map<string, { underWay: number; waiting: (() => void)[] }>()

  return async function inTurn<T>(key: string, work: () => Promise<T>): Promise<T> {
    const line = lines.get(key) ?? { underWay: 0, waiting: [] }
    lines.set(key, line)
    if (line.underWay < width) line.underWay++
    else if (line.waiting.length < mostWaiting) await new Promise<void>(resolve => line.waiting.push(resolve))
    else throw new AppError('unavailable', 'Too many log-ins wait already; try again.')
    try {
      return await work()
    } finally {
      const next = line.waiting.shift()
      if (next) next()
      else if (--line.underWay === 0) lines.delete(key)
    }
  }
}
