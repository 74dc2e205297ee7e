// How a listener handles a request, step by step. The steps are plain functions in files of their own. One function calls
// them, because mounting each as middleware would cost CPU for every request.
import { METHODS } from 'node:http'
import Router from '@koa/router'
import Koa from 'koa'
import type { Log } from '../log/log.ts'
import { type AccessPolicy, createAddressCheck, createCors, createHttpsCheck } from './accessPolicy.ts'
import { setDefaultHeaders } from './headers.ts'
import { createIdentity } from './identity.ts'
import { createProblemResponder, requireResponse } from './problems.ts'
import { createRequestRecord, type RecordOptions } from './requestRecord.ts'
import { sendBody } from './response.ts'
import { requireStrictHttp } from './strictHttp.ts'
import type { Context, Handler, PipelineContext, RequestState, Routes } from './types.ts'

/** Runs `handle` with the request as the context of everything that it starts. */
export type RunInContext = (request: RequestState, handle: () => Promise<void>) => Promise<void>

export interface PipelineOptions extends RecordOptions {
  log: Log
  monotonicNow: () => number
  runInContext: RunInContext | null
  accessPolicy: AccessPolicy | null
  /** Handles requests for paths that no route has. */
  fallback: Handler | null
  hasTls: boolean
  /** Whether each response must end its connection. */
  isLastResponse: () => boolean
}

/** The Koa application of a listener. */
export function createPipeline(routes: Routes, options: PipelineOptions): Koa<RequestState> {
  const { listener, log, monotonicNow, runInContext, accessPolicy, fallback, hasTls, isLastResponse } = options
  const trustedProxies = accessPolicy?.trustedProxies ?? 0
  const { identifyRequest, isProxied } = createIdentity({ trustedProxies, hasTls })
  const requireAllowedAddress = createAddressCheck(accessPolicy, { listener, log, monotonicNow })
  const requireHttps = createHttpsCheck(accessPolicy, isProxied)
  const respondWithProblem = createProblemResponder({ listener, log })
  const recordRequest = createRequestRecord(options)

  async function handleRequest(ctx: PipelineContext, next: Koa.Next): Promise<void> {
    const startedAt = monotonicNow()
    identifyRequest(ctx)
    setDefaultHeaders(ctx)
    try {
      requireAllowedAddress(ctx)
      requireHttps(ctx)
      requireStrictHttp(ctx)
      await (runInContext ? runInContext(ctx.state, next) : next()) // CORS, then the handlers of the route
      requireResponse(ctx)
    } catch (error) {
      respondWithProblem(ctx, error)
    }
    if (isLastResponse()) ctx.res.setHeader('Connection', 'close')
    recordRequest(ctx, monotonicNow() - startedAt)
    sendBody(ctx)
  }

  const app = new Koa<RequestState>()
  const cors = createCors(accessPolicy)
  const router = createRouter(routes)
  app.use(handleRequest)
  if (cors) app.use(cors)
  app.use(router.routes())
  if (fallback) app.use(createFallback(fallback))
  app.use(router.allowedMethods())
  // Emitted for responses that break off after handleRequest has finished, mostly because the client has gone.
  app.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ERR_STREAM_PREMATURE_CLOSE' || error.name === 'AbortError') return
    log.warn('response_aborted', { listener, error })
  })
  return app
}

function createRouter(routes: Routes): Router<RequestState> {
  // Without `methods` the router would answer 501 to the methods that it does not know, even on a path without routes.
  const router = new Router<RequestState>({ sensitive: true, strict: true, methods: METHODS })
  for (const [route, handlers] of Object.entries(routes)) {
    const [method, path] = route.split(' ') as [string, string]
    router.register(path, method === 'ANY' ? METHODS : [method], handlers)
  }
  return router
}

/** Runs `handler` if no route has this path. A path that has a route for another method is still 405. */
function createFallback(handler: Handler): Koa.Middleware<RequestState> {
  const router = new Router<RequestState>({ methods: METHODS })
  router.register('/{*path}', METHODS, [handler])
  const handle = router.routes()
  return (ctx, next) => {
    const { matched } = ctx as { matched?: unknown[] }
    return matched !== undefined && matched.length > 0 ? next() : handle(ctx as Context, next)
  }
}
