// Rules that refuse nothing yet: counts whom they would have refused, so that a rule can be tightened after a day of zeros.
import type { Admission } from './contract.ts'
import type { ClientLog } from './outageLog.ts'
import { isMet, type Rule } from './rules.ts'

/** A request that a shadow rule would have refused. Every member is safe to log. */
export interface ShadowRefusal {
  /** `role:admin` or `scope:orders:write`. */
  rule: string
  requestId: string
  tokenId: string
  /** Null for a guest. */
  userId: string | null
}

/** What a shadow rule has counted in this process. */
export interface ShadowRule {
  rule: string
  /** For how long it has counted. */
  countedMs: number
  /** Requests that met the rule. */
  met: number
  /** Requests that it would have refused. */
  unmet: number
  /** The last of them; null if there is none. */
  last: (Omit<ShadowRefusal, 'rule'> & { agoMs: number }) | null
}

export interface ShadowRules {
  /** Returns a function that counts one admitted request. Rules of the same label are counted together. */
  add(rule: Rule): (admission: Admission, requestId: string) => void
  list(): ShadowRule[]
}

export interface ShadowRulesOptions {
  monotonicNow: () => number
  log: Pick<ClientLog, 'warn'>
  /** Called for each request that a shadow rule would have refused. What it throws is logged. */
  onShadow?: ((refusal: ShadowRefusal) => void) | undefined
}

interface Counts {
  addedAt: number
  met: number
  unmet: number
  last: (Omit<ShadowRefusal, 'rule'> & { at: number }) | null
}

export function createShadowRules({ monotonicNow, log, onShadow }: ShadowRulesOptions): ShadowRules {
  const countsOf = new Map<string, Counts>()

  return {
    add(rule) {
      const { label } = rule
      const counts = countsOf.get(label) ?? { addedAt: monotonicNow(), met: 0, unmet: 0, last: null }
      countsOf.set(label, counts)
      return (admission, requestId) => {
        if (isMet(rule, admission)) {
          counts.met++
          return
        }
        counts.unmet++
        const { tokenId, userId } = admission
        counts.last = { requestId, tokenId, userId, at: monotonicNow() }
        try {
          onShadow?.({ rule: label, requestId, tokenId, userId })
        } catch (cause) {
          log.warn('on_shadow_failed', { cause })
        }
      }
    },

    list() {
      const now = monotonicNow()
      return [...countsOf].map(([rule, { addedAt, met, unmet, last }]) => {
        const countedMs = Math.round(now - addedAt)
        if (last === null) return { rule, countedMs, met, unmet, last }
        const { at, ...request } = last
        return { rule, countedMs, met, unmet, last: { ...request, agoMs: Math.round(now - at) } }
      })
    },
  }
}
