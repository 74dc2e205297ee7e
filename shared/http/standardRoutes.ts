// The routes that both services have: health, readiness, metrics, and the OpenAPI document.
import { z } from 'zod'
import { health, readiness } from './health.ts'
import { openApiRoute } from './openapi.ts'
import type { Route } from './route.ts'
import type { Handler } from './types.ts'

export const healthRoute: Route<unknown, 'none'> = {
  path: 'GET /health',
  guard: 'none',
  summary: 'Whether the process answers',
  tag: 'Health',
  answers: { 200: { description: 'The process answers', body: z.strictObject({ status: z.literal('ok') }) } },
  handler: () => health,
}

export interface ReadyDeps {
  whyNotReady: Parameters<typeof readiness>[0]
}

export const readyRoute: Route<ReadyDeps, 'none'> = {
  path: 'GET /ready',
  guard: 'none',
  summary: 'Whether requests can be served',
  tag: 'Health',
  answers: { 200: { description: 'Requests can be served', body: z.strictObject({ status: z.literal('ready') }) } },
  handler: ({ whyNotReady }) => readiness(whyNotReady),
}

export interface HomeDeps {
  /** The address of the console; null if there is nothing at `/`, as in production. */
  consoleUrl: string | null
}

/** Leads people to the console. The body is for clients that follow no redirect, such as curl. */
export function homeRoute(service: string): Route<HomeDeps, 'none'> {
  return {
    path: 'GET /',
    guard: 'none',
    summary: 'Leads to the console',
    tag: 'Documents',
    answers: {
      302: {
        description: 'Go to the console',
        body: z.strictObject({ service: z.string(), console: z.string() }),
      },
    },
    problems: { 404: 'There is no console to lead to, as in production.' },
    handler: ({ consoleUrl }) =>
      consoleUrl === null
        ? null
        : ctx => {
            ctx.status = 302
            ctx.set('Location', consoleUrl)
            ctx.body = { service, console: consoleUrl }
          },
  }
}

export const metricsRoute: Route<{ metrics: { show: Handler } }, 'none'> = {
  path: 'GET /metrics',
  guard: 'none',
  summary: 'The metrics, for Prometheus',
  tag: 'Health',
  answers: { 200: { description: "Prometheus's text format", types: ['text/plain'] } },
  handler: ({ metrics }) => metrics.show,
}

export interface DocumentDeps {
  /** Composes the OpenAPI document of the listener; null if the listener does not serve it. */
  describe: (() => Record<string, unknown>) | null
}

export const openApiDocumentRoute: Route<DocumentDeps, 'none'> = {
  path: 'GET /openapi.json',
  guard: 'none',
  summary: 'This description',
  tag: 'Documents',
  answers: { 200: { description: 'OpenAPI 3.1', body: z.looseObject({ openapi: z.string() }) } },
  handler: ({ describe }) => describe && openApiRoute(describe),
}

/** A route of the API documentation on a public listener. API_DOCS can switch it off. */
export function switchable<Deps, OwnGuard extends Route<Deps>['guard']>(
  route: Route<Deps, OwnGuard>,
): Route<Deps, OwnGuard> {
  return { ...route, problems: { 404: 'API_DOCS is off.' } }
}
