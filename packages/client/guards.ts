// `requireToken`, `requireRole` and `requireScope`, which every framework has: a guard asks about the token of a request once, and
// the guards behind it use the same verdict. Hides where that verdict is kept.
import type { Admission } from './contract.ts'
import type { TokenError } from './errors.ts'
import type { AnyRequest } from './requestHeaders.ts'
import { insufficientScope, isMet, type Names, type Rule, type RuleKind, ruleOf } from './rules.ts'
import type { ShadowRules } from './shadowRules.ts'

export interface Passed {
  admission: Admission
  /** Also has the `X-Request-Id`. */
  headers: Record<string, string>
}

export interface Refused {
  admission: null
  error: TokenError
  status: number
  headers: Record<string, string>
  /** A problem document (RFC 9457). */
  body: string
}

/** What the guards of one request know about it. */
export interface Seen {
  admission?: Admission | undefined
}

/** `requestId` is an id that the framework has already given to the request; `seen` is shared by the guards of one request. */
export type Check = (request: AnyRequest, requestId?: string, seen?: Seen) => Promise<Passed | Refused>

export interface RuleOptions {
  /** Refuses nothing, and only counts whom the rule would have refused: see `onShadow` and `shadowRules()`. */
  shadow?: boolean | undefined
}

/** `Guard` is what the framework calls: a middleware, a hook … */
export interface Guards<Guard> {
  /** Admits a request with a live token. Answers others with 400, 401, 429 or 503, in `application/problem+json`. */
  requireToken(): Guard
  /**
   * Admits a request whose user has this role, or all of several; answers 403 if not. Works alone, like `requireToken`; behind it, or
   * behind another guard, it uses the same verdict. Throws a `TypeError` at once for a malformed name.
   */
  requireRole(names: Names, options?: RuleOptions): Guard
  /** The same for the scope of the token. A session has no scope of its own, and is admitted. */
  requireScope(names: Names, options?: RuleOptions): Guard
}

export interface GuardDeps {
  /** Asks Auth. */
  check: Check
  /** The answer to a request that an earlier guard has admitted. */
  refuse: (error: TokenError, requestId: string) => Refused
  requestIdOf: (request: AnyRequest) => string
  shadowRules: ShadowRules
}

/** Returns the same object for the same request or context. */
export type SeenBy = (holder: object) => Seen

/** The guards of a framework, given how it applies a check. */
export type MakeGuards = <Guard>(apply: (check: Check, seenBy: SeenBy) => Guard) => Guards<Guard>

export function createGuards({ check, refuse, requestIdOf, shadowRules }: GuardDeps): MakeGuards {
  // A property of its own for each client: any middleware may set `auth`, and another client may ask another Auth. A WeakMap costs
  // 2 microseconds per request.
  const mark = Symbol('latchkey')
  const seenBy: SeenBy = (holder: { [mark]?: Seen }) => (holder[mark] ??= {})

  const checkToken: Check = async (request, requestId, seen = {}) => {
    const outcome = await check(request, requestId)
    if (outcome.admission !== null) seen.admission = outcome.admission
    return outcome
  }

  function checkRule(kind: RuleKind, names: Names, options: RuleOptions = {}): Check {
    const rule = ruleOf(kind, names)
    const decide = readShadow(options) ? countOnly(rule) : refuseUnmet(rule)
    return async (request, givenId, seen = {}) => {
      if (seen.admission) return decide({ admission: seen.admission, headers: {} }, givenId ?? requestIdOf(request))
      const outcome = await checkToken(request, givenId, seen)
      return outcome.admission === null ? outcome : decide(outcome, outcome.headers['X-Request-Id'] as string)
    }
  }

  const refuseUnmet = (rule: Rule) => (passed: Passed, requestId: string) =>
    isMet(rule, passed.admission) ? passed : refuse(insufficientScope(rule), requestId)

  function countOnly(rule: Rule) {
    const count = shadowRules.add(rule)
    return (passed: Passed, requestId: string) => {
      count(passed.admission, requestId)
      return passed
    }
  }

  return apply => ({
    requireToken: () => apply(checkToken, seenBy),
    requireRole: (names, options) => apply(checkRule('role', names, options), seenBy),
    requireScope: (names, options) => apply(checkRule('scope', names, options), seenBy),
  })
}

/** Strict, because an option that is misread could open a route. */
function readShadow({ shadow = false, ...others }: RuleOptions): boolean {
  const unknown = Object.keys(others)
  if (unknown.length > 0) {
    throw new TypeError(`latchkey: a rule has no option ${unknown.join(', ')}. Its only option is shadow.`)
  }
  if (typeof shadow !== 'boolean') throw new TypeError('latchkey: shadow must be true or false.')
  return shadow
}
