// The port of a dialect: what it needs to serve the wire format of an older service.
import type { Handler } from '../../../shared/http/types.ts'
import type { InvalidTokens } from '../../../shared/invalidTokens.ts'
import type { Throttles } from '../defence/throttles.ts'
import type { TokenFormat } from '../tokens/format.ts'
import type { Sweeper } from '../tokens/sweeper.ts'
import type { Tokens } from '../tokens/tokens.ts'
import type { Links } from '../users/links.ts'
import type { LogIn } from '../users/logIn.ts'
import type { OwnAccount } from '../users/ownAccount.ts'
import type { PasswordRules } from '../users/passwordRules.ts'
import type { Registration } from '../users/registration.ts'
import type { Users } from '../users/users.ts'

/** Everything that a dialect may use to build its routes. */
export interface DialectParts {
  users: Users
  links: Links
  logIn: LogIn
  registration: Registration
  ownAccount: OwnAccount
  throttles: Throttles
  /** Passed to `countInvalid` whenever a token is refused. */
  invalidTokens: InvalidTokens
  sweeper: Pick<Sweeper, 'sweep'>
  /** Shared with the other listeners: a token that the dialect issues without a purpose is valid at those too. */
  tokens: Tokens
  /** The format of `tokens`. */
  format: TokenFormat
  /** Opens a `Tokens` with another wire format, over the same store. */
  openTokens(format: TokenFormat): Tokens
  /**
   * Keys of 32 bytes each, the same in every Auth process but different for each dialect. New secrets use the first
   * key. While ADMIN_KEY is rotated there is a second key, which reads the secrets made with the previous ADMIN_KEY.
   */
  keys: [Buffer, ...Buffer[]]
  requireAdminKey: Handler
  passwordRules: PasswordRules
  /** Lifetime of a token of this dialect, in milliseconds. */
  ttlMs: number
  /** Absolute lifetime of a session, in milliseconds. */
  absoluteTtlMs: number
  /** Epoch milliseconds. */
  now: () => number
}
