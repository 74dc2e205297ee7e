// The tokens of open connections: asks about each once a second, and ends its holds when Auth refuses it or gives no verdict.
// Hides that several holds share the looks at one token, and which looks extend it.
import { isBearerToken } from './bearer.ts'
import type { NoVerdict, TokenKind, Verdict } from './contract.ts'
import { createLookQueue } from './lookQueue.ts'
import { type Granted, isMet, type Names, type Rule, ruleOf } from './rules.ts'

/**
 * `ended`: Auth refuses the token; it never says why. `insufficient_scope`: the token is live, but has lost a role or a scope that
 * the hold needs. `unavailable`: Auth gave no verdict for `maxSilenceMs`. `closed`: the client was closed, so nothing watches the
 * token any more.
 */
export type HoldEnd = 'ended' | 'insufficient_scope' | 'unavailable' | 'closed'

export interface HoldOptions {
  /**
   * Called once, within two seconds of the end of the token, and never after `release`. Close the connection here. An error that
   * it throws is logged.
   */
  onEnd: (reason: HoldEnd) => void
  /** The hold also ends when the user no longer has this role, or one of several. */
  role?: Names | undefined
  /** The hold also ends when the token no longer has this scope, or one of several. A session has no scope, and keeps its holds. */
  scope?: Names | undefined
  /** Each look extends a sliding token, as a request does. By default nothing is extended, so a token without requests expires. */
  extend?: boolean | undefined
  /** The hold ends after this long without a verdict. At least 2000; by default that of the client. */
  maxSilenceMs?: number | undefined
}

export interface Hold {
  /** Stops watching the token. Call this when the connection has closed. */
  release(): void
  [Symbol.dispose](): void
}

/** The held tokens of one call. */
export interface Looks {
  /** These travel among the tokens of requests, and are extended as they are. */
  touches: string[]
  /** These are only looked at. */
  held: string[]
  /** Takes the answer; null if the call failed. */
  settle(answer: LookAnswer | null): void
}

interface LookAnswer {
  touched: (Verdict | NoVerdict)[]
  /** Null if Auth could not look. */
  held: (Verdict | NoVerdict)[] | null
}

export interface Holds {
  /** The token should just have been validated. */
  hold(token: string, options: HoldOptions): Hold
  /** The number of holds. */
  count(): number
  /** The looks that a call with so many free places takes along; null if there are none. */
  takeAlong(places: number): Looks | null
  /** Ends every hold. */
  close(): void
}

export interface HoldsOptions {
  /** Maximum number of tokens in one call. */
  maxBatch: number
  maxSilenceMs: number
  monotonicNow: () => number
  /** Makes a call for looks alone, and settles them. Never rejects. */
  sendAlone: (looks: Looks) => Promise<void>
  /** Called with what an `onEnd` has thrown. */
  onThrown: (cause: unknown) => void
}

interface HeldToken {
  secret: string
  /** Null before the first verdict. */
  kind: TokenKind | null
  /** When the call left that brought the last verdict. */
  verdictAt: number
  holds: Set<OpenHold>
}

interface OpenHold {
  token: HeldToken
  heldAt: number
  maxSilenceMs: number
  isExtending: boolean
  rules: Rule[]
  onEnd: (reason: HoldEnd) => void
}

/** Calls for looks alone that are in flight at once, in addition to the calls of requests. */
export const maxLookCalls = 2
const tickMs = 25
const silenceCheckMs = 250
/** Less would end holds while Auth is well. */
export const minSilenceMs = 2000

export function openHolds({ maxBatch, maxSilenceMs, monotonicNow, sendAlone, onThrown }: HoldsOptions): Holds {
  requireSilence(maxSilenceMs)
  const tokens = new Map<string, HeldToken>()
  const queue = createLookQueue<HeldToken>({ maxBatch })
  let count = 0
  let timer: NodeJS.Timeout | null = null
  let isClosed = false
  let callsInFlight = 0
  let silenceCheckedAt = 0
  // An older Auth refuses a call with held tokens. So they join calls of requests only after such a call has succeeded.
  let canJoin = false

  function tick(): void {
    const now = monotonicNow()
    sendDue(now)
    if (now - silenceCheckedAt >= silenceCheckMs) endSilent(now)
  }

  function sendDue(now: number): void {
    while (callsInFlight < maxLookCalls) {
      const due = queue.takeForCall(now)
      if (due === null) return
      callsInFlight++
      void sendAlone(looksAt(due, now)).then(() => {
        callsInFlight--
        sendDue(monotonicNow())
      })
    }
  }

  function looksAt(due: HeldToken[], now: number): Looks {
    // A touch would consume a single-use token, so the first look, which finds out the kind, is never a touch.
    const isExtended = ({ kind, holds }: HeldToken) =>
      kind === 'sliding' && [...holds].some(({ isExtending }) => isExtending)
    const touched = due.filter(isExtended)
    const looked = touched.length === 0 ? due : due.filter(token => !isExtended(token))
    return {
      touches: touched.map(({ secret }) => secret),
      held: looked.map(({ secret }) => secret),
      settle(answer) {
        if (looked.length > 0) canJoin = answer !== null
        for (const [i, token] of touched.entries()) settle(token, answer?.touched[i], now)
        for (const [i, token] of looked.entries()) settle(token, answer?.held?.[i], now)
      },
    }
  }

  function settle(token: HeldToken, verdict: Verdict | NoVerdict | undefined, askedAt: number): void {
    if (verdict?.authenticated === undefined) return
    token.verdictAt = Math.max(token.verdictAt, askedAt)
    if (!verdict.authenticated) {
      if (verdict.limited !== true) endAll(token, 'ended') // a token that is extended too often lives
      return
    }
    token.kind = verdict.kind
    for (const hold of [...token.holds].filter(({ rules }) => !areMet(rules, verdict))) end(hold, 'insufficient_scope')
  }

  function endSilent(now: number): void {
    silenceCheckedAt = now
    for (const { verdictAt, holds } of tokens.values()) {
      for (const hold of holds) {
        if (now - Math.max(verdictAt, hold.heldAt) >= hold.maxSilenceMs) end(hold, 'unavailable')
      }
    }
  }

  function endAll({ holds }: HeldToken, reason: HoldEnd): void {
    for (const hold of [...holds]) end(hold, reason) // a copy, because `onEnd` may hold the token again
  }

  function end(hold: OpenHold, reason: HoldEnd): void {
    if (remove(hold)) void notify(hold, reason)
  }

  /** Also catches the rejection of an `onEnd` that is async. */
  async function notify({ onEnd }: OpenHold, reason: HoldEnd): Promise<void> {
    try {
      await onEnd(reason)
    } catch (cause) {
      onThrown(cause)
    }
  }

  /** False if the hold was removed before. */
  function remove(hold: OpenHold): boolean {
    const { token } = hold
    if (!token.holds.delete(hold)) return false
    count--
    if (token.holds.size === 0) {
      tokens.delete(token.secret)
      queue.delete(token)
    }
    if (timer !== null && count === 0) {
      clearInterval(timer)
      timer = null
    }
    return true
  }

  function join(secret: string): HeldToken {
    const known = tokens.get(secret)
    if (known) return known
    const token: HeldToken = { secret, kind: null, verdictAt: 0, holds: new Set() }
    tokens.set(secret, token)
    queue.add(token)
    return token
  }

  return {
    hold(given, { onEnd, role, scope, extend = false, maxSilenceMs: ownSilenceMs = maxSilenceMs }) {
      if (typeof given !== 'string' || !isBearerToken(given)) {
        throw new TypeError('hold: expected a token that was just validated')
      }
      if (typeof onEnd !== 'function') throw new TypeError('hold: expected a function onEnd')
      requireSilence(ownSilenceMs)
      const rules = rulesOf({ role, scope })
      const token = join(given)
      const hold: OpenHold = {
        token,
        heldAt: monotonicNow(),
        maxSilenceMs: ownSilenceMs,
        isExtending: extend,
        rules,
        onEnd,
      }
      token.holds.add(hold)
      count++
      timer ??= setInterval(tick, tickMs).unref()
      if (isClosed) setImmediate(() => end(hold, 'closed'))
      const release = () => void remove(hold)
      return { release, [Symbol.dispose]: release }
    },

    count: () => count,

    takeAlong(places) {
      if (count === 0 || places <= 0 || !canJoin) return null
      const now = monotonicNow()
      const due = queue.takeDue(now, places)
      return due.length === 0 ? null : looksAt(due, now)
    },

    close() {
      isClosed = true
      for (const token of [...tokens.values()]) endAll(token, 'closed')
    },
  }
}

function rulesOf({ role, scope }: Pick<HoldOptions, 'role' | 'scope'>): Rule[] {
  return [
    ...(role === undefined ? [] : [ruleOf('role', role)]),
    ...(scope === undefined ? [] : [ruleOf('scope', scope)]),
  ]
}

function areMet(rules: Rule[], granted: Granted): boolean {
  return rules.every(rule => isMet(rule, granted))
}

function requireSilence(maxSilenceMs: number): void {
  if (!(maxSilenceMs >= minSilenceMs)) throw new RangeError(`maxSilenceMs: expected at least ${minSilenceMs}`)
}
