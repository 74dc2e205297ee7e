// The package without a framework: checks requests, and reports a refusal as an error.
import { type Latchkey, openLatchkey } from './latchkey.ts'
import type { LatchkeyOptions } from './options.ts'

export type { AuthCall } from './authClient.ts'
export type { Admission } from './contract.ts'
export { TokenError } from './errors.ts'
export type { Hold, HoldEnd, HoldOptions } from './holds.ts'
export type { AnyRequest, Latchkey } from './latchkey.ts'
export type { LatchkeyOptions } from './options.ts'

/** Connects to Auth. Throws a `TypeError` at once if an option is wrong. */
export function latchkey(options?: LatchkeyOptions): Latchkey {
  return openLatchkey(options).auth
}
