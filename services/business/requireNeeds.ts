// Middleware behind requireToken: a request passes only if the user has a role, or the token a scope. Hides which of these rules
// are in the shadow, and only count whom they would refuse.
import { insufficientScope, isMet, type Rule, ruleOf } from '../../packages/client/rules.ts'
import type { ShadowRules } from '../../packages/client/shadowRules.ts'
import type { Needs } from '../../shared/http/openapi.ts'
import type { Handler } from '../../shared/http/types.ts'
import { verdictOf } from './requireToken.ts'

export function ruleFor(needs: Needs): Rule {
  return 'role' in needs ? ruleOf('role', needs.role) : ruleOf('scope', needs.scope)
}

export interface NeedsDeps {
  /** The labels of the rules that refuse nothing, such as `role:admin`. */
  inShadow: readonly string[]
  shadowRules: ShadowRules
}

/** Responds with 403 and what is needed, unless the rule is in the shadow. */
export function requireNeeds({ inShadow, shadowRules }: NeedsDeps): (needs: Needs) => Handler {
  return needs => {
    const rule = ruleFor(needs)
    if (inShadow.includes(rule.label)) {
      const count = shadowRules.add(rule)
      return (ctx, next) => {
        count(verdictOf(ctx), ctx.state.requestId)
        return next()
      }
    }
    return (ctx, next) => {
      if (!isMet(rule, verdictOf(ctx))) throw insufficientScope(rule)
      return next()
    }
  }
}
