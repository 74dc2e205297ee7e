// Spans of requests, for OpenTelemetry. They exist only if an SDK was registered before the service started; see
// docs/examples/otel.mjs. Otherwise a request costs no more than without this file. Hides how a trace continues.
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Context,
  context,
  type ProxyTracerProvider,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api'
import { pathWithoutSecrets, statusOf } from './http/requestRecord.ts'
import { type PipelineContext, routeOf } from './http/types.ts'
import { version } from './version.ts'

export interface RequestSpan {
  /** Runs `handle` so that spans which it starts, such as those of a database driver, belong to this one. */
  run<T>(handle: () => T): T
  end(): void
}

const flushTimeoutMs = 2000

/** The methods of the semantic conventions; all others are `_OTHER`, because clients can make up methods. */
const knownMethods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'CONNECT', 'OPTIONS', 'TRACE', 'PATCH', 'QUERY'])

/** The span of each request, under its state. */
const spans = new WeakMap<object, Span>()

/** Null if no SDK is registered. */
export function findTracer(): Tracer | null {
  // Without an SDK the API has a provider too, which delegates to none.
  const provider = trace.getTracerProvider() as ProxyTracerProvider
  return provider.getDelegateTracer('latchkey', version) ?? null
}

/** Sends the spans that the SDK has not sent yet. Resolves after two seconds at the latest, because their receiver may be gone. */
export async function flushSpans(): Promise<void> {
  // The API has no such method, but the SDKs have.
  const sdk = (trace.getTracerProvider() as ProxyTracerProvider).getDelegate() as { forceFlush?: () => Promise<void> }
  const flushed = sdk.forceFlush?.().catch(() => {})
  await Promise.race([flushed, sleep(flushTimeoutMs)])
}

/** The span of the request with this state; null if it has none. */
export function spanOf(state: object): Span | null {
  return spans.get(state) ?? null
}

/** The header of W3C Trace Context by which the callee's span becomes a child of this one. */
export function traceparentOf(span: Span): string {
  const { traceId, spanId, traceFlags } = span.spanContext()
  return `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, '0')}`
}

/**
 * The returned function begins the span of a request, and puts it into the `traceparent` of the request's state. Null if no SDK
 * is registered. The span has neither headers nor the query, which may contain secrets.
 */
export function createRequestSpans(listener: string): ((ctx: PipelineContext) => RequestSpan) | null {
  const tracer = findTracer()
  if (tracer === null) return null

  return ctx => {
    const { state } = ctx
    const isKnown = knownMethods.has(ctx.method)
    const attributes = {
      'http.request.method': isKnown ? ctx.method : '_OTHER',
      'url.path': pathWithoutSecrets(ctx.path),
      'url.scheme': state.isHttps ? 'https' : 'http',
      'latchkey.listener': listener,
      'latchkey.request_id': state.requestId,
    }
    const name = isKnown ? ctx.method : 'HTTP'
    const span = tracer.startSpan(name, { kind: SpanKind.SERVER, attributes }, parentOf(state.traceparent))
    state.traceparent = traceparentOf(span)
    spans.set(state, span)

    return {
      run: handle => context.with(trace.setSpan(ROOT_CONTEXT, span), handle),
      end() {
        const status = statusOf(ctx)
        const route = routeOf(ctx)
        if (route !== null) {
          span.updateName(`${name} ${route}`)
          span.setAttribute('http.route', route)
        }
        span.setAttribute('http.response.status_code', status)
        if (status >= 500) {
          span.setAttribute('error.type', String(status))
          span.setStatus({ code: SpanStatusCode.ERROR })
        }
        span.end()
      },
    }
  }
}

/** `traceparent` is well-formed. */
function parentOf(traceparent: string | undefined): Context {
  if (traceparent === undefined) return ROOT_CONTEXT
  const [, traceId, spanId, flags] = traceparent.split('-') as [string, string, string, string]
  return trace.setSpanContext(ROOT_CONTEXT, { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true })
}
