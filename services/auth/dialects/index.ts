// Name of a dialect -> its routes. A new dialect is one new file and one line here; one that is not opened is never loaded.
import { hkdfSync } from 'node:crypto'
import type { Handler, Routes } from '../../../shared/http/listener.ts'
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

const dialects = {
  'token-provider': async () => (await import('./tokenProvider.ts')).tokenProvider,
  'token-manager': async () => (await import('./tokenManager.ts')).tokenManager,
  'flask-jwt': async () => (await import('./flaskJwt.ts')).flaskJwt,
  'flask-auth': async () => (await import('./flaskAuth.ts')).flaskAuth,
} satisfies Record<string, () => Promise<(parts: DialectParts) => Routes>>

export type DialectName = keyof typeof dialects

export const dialectNames = Object.keys(dialects) as DialectName[]

/** `secrets`: what `keys` are derived from, in this order. */
export async function openDialect(
  name: DialectName,
  { secrets, ...parts }: Omit<DialectParts, 'keys'> & { secrets: readonly string[] },
): Promise<Routes> {
  const keys = secrets.map(secret => Buffer.from(hkdfSync('sha256', secret, '', `latchkey dialect ${name}`, 32)))
  return (await dialects[name]())({ ...parts, keys: keys as DialectParts['keys'] })
}

/** What the log and the list of addresses call its listener: `tokenProvider`. */
export function listenerNameOf(name: DialectName): string {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
}
