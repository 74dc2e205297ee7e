// A span for each call to Auth, for OpenTelemetry. One call serves many requests, so it belongs to the trace of one of them and
// is linked with the others.
import {
  type Attributes,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from '@opentelemetry/api'
import type { AuthClientOptions } from '../../packages/client/authClient.ts'
import { validateTokenPath } from '../../packages/client/contract.ts'
import { findTracer, spanOf, traceparentOf } from '../../shared/tracing.ts'

/** Undefined if no SDK is registered. */
export function createCallSpans(authUrls: readonly string[]): AuthClientOptions['traceCall'] {
  const tracer = findTracer()
  if (tracer === null) return undefined
  const attributes = { 'http.request.method': 'POST', 'url.template': validateTokenPath, ...serverOf(authUrls) }

  return callers => {
    const requests = callers.map(spanOf).filter(span => span !== null)
    const parent = requests.find(isSampled) ?? requests[0]
    if (parent === undefined) return null // made for held tokens alone, or to see whether Auth is ready
    const others = requests.filter(span => span !== parent && isSampled(span))
    const call = tracer.startSpan(
      `POST ${validateTokenPath}`,
      {
        kind: SpanKind.CLIENT,
        attributes: { ...attributes, 'latchkey.batch.size': callers.length },
        links: others.map(span => ({ context: span.spanContext() })),
      },
      trace.setSpan(ROOT_CONTEXT, parent),
    )
    // Link both ways, so that the trace of each request leads to the call.
    for (const span of others) span.addLink({ context: call.spanContext() })
    return {
      traceparent: traceparentOf(call),
      end({ failed }) {
        if (failed) call.setStatus({ code: SpanStatusCode.ERROR })
        call.end()
      },
    }
  }
}

function isSampled(span: Span): boolean {
  return (span.spanContext().traceFlags & TraceFlags.SAMPLED) !== 0
}

/** Empty for several Auths: the client chooses one of them later. */
function serverOf(authUrls: readonly string[]): Attributes {
  const [first] = authUrls
  if (first === undefined || authUrls.length > 1) return {}
  const { hostname, port, protocol } = new URL(first)
  return { 'server.address': hostname, 'server.port': Number(port) || (protocol === 'https:' ? 443 : 80) }
}
