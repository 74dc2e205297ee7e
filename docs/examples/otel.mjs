// Sends the spans of Auth and Business to a collector of OpenTelemetry. Copy this file beside package.json, and then:
//   npm install --no-save @opentelemetry/{sdk-trace,context-async-hooks,resources,exporter-trace-otlp-http}
//   OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 NODE_OPTIONS='--import ./otel.mjs' ./startServer
import { isMainThread } from 'node:worker_threads'

const [, service] = /services[/\\](auth|business)[/\\]main\.ts$/.exec(process.argv[1] ?? '') ?? []

// ./startServer and the threads that hash passwords read this file too, but have no spans.
if (service !== undefined && isMainThread) {
  const { context, trace } = await import('@opentelemetry/api')
  const { AsyncLocalStorageContextManager } = await import('@opentelemetry/context-async-hooks')
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-http')
  const { defaultResource, resourceFromAttributes } = await import('@opentelemetry/resources')
  const sdk = await import('@opentelemetry/sdk-trace')

  context.setGlobalContextManager(new AsyncLocalStorageContextManager())
  trace.setGlobalTracerProvider(
    new sdk.TracerProvider({
      resource: defaultResource().merge(resourceFromAttributes({ 'service.name': `latchkey-${service}` })),
      // A tenth of the requests, unless the client's traceparent decides.
      sampler: new sdk.ParentBasedSampler({ root: new sdk.TraceIdRatioBasedSampler(0.1) }),
      spanLimits: { linkCountLimit: 255 }, // a call to Auth may have as many requests
      spanProcessors: [new sdk.BatchSpanProcessor({ exporter: new OTLPTraceExporter() })],
    }),
  )
}
