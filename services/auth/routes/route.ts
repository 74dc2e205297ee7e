// What the routes of Auth receive, and what their descriptions have in common.
import { z } from 'zod'
import type { Guard } from '../../../shared/http/openapi.ts'
import type { Route } from '../../../shared/http/route.ts'
import type { DocumentDeps, HomeDeps, ReadyDeps } from '../../../shared/http/standardRoutes.ts'
import type { Metrics } from '../../../shared/metrics.ts'
import type { AuthConfig } from '../config.ts'
import type { EventStream } from '../observability/eventStream.ts'
import type { DocsPages } from '../pages/docs.ts'
import type { UseCases } from '../useCases.ts'

export interface RouteDeps extends UseCases, ReadyDeps, DocumentDeps, HomeDeps {
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

export const noToken = 'The token is missing, unknown, expired or revoked; the answer does not say which.'
export const tooManyTokens = 'The token is invalid, and the address has sent too many invalid tokens.'
export const tooManyAttempts =
  'Too many wrong passwords for this account or from this address; the same for accounts that do not exist.'
export const noKey = 'The key is missing, or this route does not accept it.'
/** Problems of a route that requires a session. */
export const sessionProblems = { 400: 'Two tokens were sent.', 401: noToken, 429: tooManyTokens }
