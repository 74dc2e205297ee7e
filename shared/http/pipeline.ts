// How a listener handles a request, step by step. The steps are plain functions in files of their own. One function calls
// them, because mounting each as middleware would cost CPU for every request.
import type { IncomingMessage, ServerResponse } from 'node:http'
import Koa from 'koa'
import type { Log } from '../log/log.ts'
import { createRequestSpans } from '../tracing.ts'
import { type AccessPolicy, createAddressCheck, createCors, createHttpsCheck } from './accessPolicy.ts'
import { createIdentity } from './identity.ts'
import { createProblemResponder, requireResponse } from './problems.ts'
import { createRequestRecord, type RecordOptions } from './requestRecord.ts'
import { sendResponse } from './response.ts'
import { createDispatch } from './router.ts'
import { requireStrictHttp } from './strictHttp.ts'
import type { Handler, RequestState, Routes } from './types.ts'

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

/** Handles a request; resolves once the response is complete, even if it has not been sent. */
export type Pipeline = (req: IncomingMessage, res: ServerResponse) => Promise<void>

export function createPipeline(routes: Routes, options: PipelineOptions): Pipeline {
  const { listener, log, monotonicNow, runInContext, accessPolicy, fallback, hasTls, isLastResponse } = options
  const trustedProxies = accessPolicy?.trustedProxies ?? 0
  const { identifyRequest, isProxied } = createIdentity({ trustedProxies, hasTls })
  const requireAllowedAddress = createAddressCheck(accessPolicy, { listener, log, monotonicNow })
  const requireHttps = createHttpsCheck(accessPolicy, isProxied)
  const cors = createCors(accessPolicy)
  const dispatch = createDispatch(routes, fallback)
  const respondWithProblem = createProblemResponder({ listener, log })
  const recordRequest = createRequestRecord(options)
  const beginSpan = createRequestSpans(listener)
  const koa = createKoa()

  function onAborted(error: NodeJS.ErrnoException): void {
    if (error.code === 'ERR_STREAM_PREMATURE_CLOSE' || error.name === 'AbortError') return // the client has gone
    log.warn('response_aborted', { listener, error })
  }

  return async (req, res) => {
    const startedAt = monotonicNow()
    const ctx = koa.createContext<RequestState>(req, res)
    res.statusCode = 404 // until a handler responds
    identifyRequest(ctx)
    const span = beginSpan === null ? null : beginSpan(ctx)
    try {
      requireAllowedAddress(ctx)
      requireHttps(ctx)
      requireStrictHttp(ctx)
      const handle = async () => (cors ? cors(ctx, async () => dispatch(ctx)) : dispatch(ctx))
      const traced = span === null ? handle : () => span.run(handle)
      await (runInContext ? runInContext(ctx.state, traced) : traced())
      requireResponse(ctx)
    } catch (error) {
      respondWithProblem(ctx, error)
    }
    if (isLastResponse()) res.setHeader('Connection', 'close')
    recordRequest(ctx, monotonicNow() - startedAt)
    span?.end()
    sendResponse(ctx, onAborted)
  }
}

/** Makes the context of each request. Its middleware and its own responses are not used. */
function createKoa(): Koa<RequestState> {
  const koa = new Koa<RequestState>()
  // Koa sets the Content-Type of a JSON body unless `type` says JSON already. headers.ts writes it with the other defaults.
  const type = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(koa.response), 'type') as PropertyDescriptor
  const get = function (this: Koa.Response): string {
    return type.get?.call(this) || 'application/json'
  }
  Object.defineProperty(koa.response, 'type', { ...type, get })
  return koa
}
