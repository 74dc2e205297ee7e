// The package without a framework: checks requests, and reports a refusal as an error.
import type { Admission } from './contract.ts'
import type { Guards } from './guards.ts'
import { type Latchkey, openLatchkey } from './latchkey.ts'
import type { LatchkeyOptions } from './options.ts'
import type { AnyRequest } from './requestHeaders.ts'

export type { AuthCall } from './authClient.ts'
export type { Admission } from './contract.ts'
export { TokenError } from './errors.ts'
export type { RuleOptions } from './guards.ts'
export type { Hold, HoldEnd, HoldOptions } from './holds.ts'
export type { Latchkey } from './latchkey.ts'
export type { LatchkeyOptions } from './options.ts'
export type { AnyRequest } from './requestHeaders.ts'
export type { Names } from './rules.ts'
export type { ShadowRefusal, ShadowRule } from './shadowRules.ts'

/**
 * Resolves to whom the token of the request belongs to, or rejects with a `TokenError`. Uses `known`, the result of `authenticate` or of
 * another guard for the same request, instead of asking again.
 */
export type PlainGuard = (request: AnyRequest, known?: Admission) => Promise<Admission>

export interface PlainLatchkey extends Latchkey, Omit<Guards<PlainGuard>, 'requireToken'> {}

/** Connects to Auth. Throws a `TypeError` at once if an option is wrong. */
export function latchkey(options?: LatchkeyOptions): PlainLatchkey {
  const { auth, guards } = openLatchkey(options)
  const { requireRole, requireScope } = guards(
    (check): PlainGuard =>
      async (request, known) => {
        const outcome = await check(request, undefined, { admission: known })
        if (outcome.admission === null) throw outcome.error
        return outcome.admission
      },
  )
  return { ...auth, requireRole, requireScope }
}
