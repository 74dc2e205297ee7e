// The types that routes, middleware and steps of the pipeline share.
import type { RouterMiddleware } from '@koa/router'
import type Koa from 'koa'

export interface RequestState {
  requestId: string
  /** The client, in the form that address.ts gives; '' if its connection has closed. */
  address: string
  /** Whether the client used TLS; if a trusted proxy does not say, whether the listener itself speaks TLS. */
  isHttps: boolean
  /** W3C Trace Context, if the request has a valid one. */
  traceparent?: string | undefined
  /** The username of the caller, once it is known: for the terminal of a developer, never for the log. */
  user?: string | undefined
  /** Value of the Server-Timing header, if the response has one. */
  serverTiming?: string | undefined
  [key: string]: unknown
}

export type Handler = RouterMiddleware<RequestState>
export type Context = Parameters<Handler>[0]

/** A request at a step of the pipeline, before a route is chosen. */
export type PipelineContext = Koa.ParameterizedContext<RequestState>

/**
 * `METHOD /path` -> its handlers, in order. `ANY` matches every method, `{*name}` the rest of a path. All other requests go
 * to the listener's fallback, or are answered 404 or 405.
 */
export type Routes = Record<string, Handler[]>

/** The pattern of the matched route, or null if none has this path. */
export function routeOf(ctx: Koa.ParameterizedContext): string | null {
  const route = (ctx as { _matchedRoute?: unknown })._matchedRoute
  return typeof route === 'string' ? route : null
}
