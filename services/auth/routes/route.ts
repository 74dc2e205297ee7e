// What the routes of Auth are given, and what their descriptions have in common.
import { z } from 'zod'
import type { Guard } from '../../../shared/http/openapi.ts'
import type { Route } from '../../../shared/http/route.ts'
import type { DocumentDeps, ReadyDeps } from '../../../shared/http/standardRoutes.ts'
import type { InvalidTokens } from '../../../shared/invalidTokens.ts'
import type { Metrics } from '../../../shared/metrics.ts'
import type { AuthConfig } from '../config.ts'
import type { Throttles } from '../defence/throttles.ts'
import type { EventStream } from '../observability/eventStream.ts'
import type { DocsPages } from '../pages/docs.ts'
import type { JwtFormat } from '../tokens/jwt.ts'
import type { Sweeper } from '../tokens/sweeper.ts'
import type { Tokens } from '../tokens/tokens.ts'
import type { Links } from '../users/links.ts'
import type { LogIn } from '../users/logIn.ts'
import type { OwnAccount } from '../users/ownAccount.ts'
import type { Registration } from '../users/registration.ts'
import type { Users } from '../users/users.ts'

export interface RouteDeps extends ReadyDeps, DocumentDeps {
  users: Users
  tokens: Tokens
  links: Links
  logIn: LogIn
  registration: Registration
  ownAccount: OwnAccount
  throttles: Throttles
  invalidTokens: InvalidTokens
  sweeper: Sweeper
  /** Null with opaque tokens. */
  jwt: JwtFormat | null
  stream: EventStream
  metrics: Metrics
  config: AuthConfig
  /** The pages that show `document`; null if the listener does not serve them. */
  docs: DocsPages | null
  /** Epoch milliseconds. */
  now: () => number
}

/** `Needs` names the members of `RouteDeps` that the handler uses. */
export type AuthRoute<Needs extends keyof RouteDeps = keyof RouteDeps> = Route<Pick<RouteDeps, Needs>, Guard>

/** Epoch milliseconds. */
export const at = z.int().meta({ description: 'epoch milliseconds' })
export const tokenId = z.string().meta({ description: 'public name of a token' })

export const noToken = 'No token, or one that opens nothing: unknown, expired, revoked; which is not told.'
export const tooManyTokens = 'The same, from an address that has sent too many such tokens.'
export const tooManyAttempts =
  'Too many wrong passwords for this account or from this address; the same for accounts that do not exist.'
export const noKey = 'Another key than this route takes, or none.'
/** Problems of a route that requires a session. */
export const sessionProblems = { 400: 'Two tokens.', 401: noToken, 429: tooManyTokens }
