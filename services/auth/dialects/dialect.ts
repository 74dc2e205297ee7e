// The port of a dialect: what it is given to translate its older wire format onto.
import type { Handler } from '../../../shared/http/listener.ts'
import type { InvalidTokens } from '../../../shared/limits.ts'
import type { Throttles } from '../defence/throttles.ts'
import type { TokenFormat } from '../tokens/format.ts'
import type { Sweeper } from '../tokens/sweeper.ts'
import type { Tokens } from '../tokens/tokens.ts'
import type { Links } from '../users/links.ts'
import type { PasswordRules } from '../users/passwordRules.ts'
import type { Users } from '../users/users.ts'

/** What a dialect translates onto; each takes what it needs. */
export interface DialectParts {
  users: Users
  links: Links
  throttles: Throttles
  /** Asked, by `countInvalid`, wherever a token is refused. */
  invalidTokens: InvalidTokens
  sweeper: Pick<Sweeper, 'sweep'>
  /** Those of the other listeners: what is issued here without a purpose is good there. */
  tokens: Tokens
  /** Of `tokens`. */
  format: TokenFormat
  /** Tokens with another wire format, in the same store. */
  openTokens(format: TokenFormat): Tokens
  /**
   * Each is 32 secret bytes that are the same in every process of Auth and differ between dialects. The first makes new
   * secrets; the second, while ADMIN_KEY is rotated, opens those made with the previous one.
   */
  keys: [Buffer, ...Buffer[]]
  requireAdminKey: Handler
  registration: 'open' | 'closed'
  emailConfirmation: 'required' | 'off'
  passwordRules: PasswordRules
  /** Life of a token of this dialect, in milliseconds. */
  ttlMs: number
  /** Absolute life of a session, in milliseconds. */
  absoluteTtlMs: number
  /** Epoch milliseconds. */
  now: () => number
}
