// The metrics of a service for Prometheus: requests, process, and what the service registers. Hides the client library.
import { collectDefaultMetrics, Gauge, Histogram, Registry } from '@prometheus-io/client'
import type { RequestMetrics } from './http/requestRecord.ts'
import type { Handler } from './http/types.ts'
import { version } from './version.ts'
import { readSum, shareMetrics } from './workerMetrics.ts'

export interface Metrics extends RequestMetrics {
  /** A service registers its own metrics here. */
  registry: Registry
  /** Handler of `GET /metrics`: the text format of Prometheus, version 0.0.4. The sum over all processes that share the port. */
  show: Handler
}

// All services in a process share one registry, because memory, garbage collection and event-loop delay belong to the process.
let processRegistry: Registry | null = null

function createProcessRegistry(): Registry {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  // If one of several processes stalls, that must be visible.
  for (const metric of registry.getMetricsAsArray('average')) metric.aggregator = 'max'
  return registry
}

export function createMetrics(service: 'auth' | 'business'): Metrics {
  processRegistry ??= createProcessRegistry()
  const processMetrics = processRegistry
  const registry = new Registry()
  const requests = new Histogram({
    name: 'latchkey_http_request_duration_seconds',
    help: 'Requests by route and status, from their arrival to the end of their handling',
    labelNames: ['listener', 'method', 'route', 'status'],
    buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    registers: [registry],
  })
  const info = new Gauge({
    name: 'latchkey_build_info',
    help: 'Always 1; the labels have the version of Latchkey and of Node.js',
    labelNames: ['version', 'node', 'service'],
    aggregator: 'first',
    registers: [registry],
  })
  info.set({ version, node: process.versions.node, service }, 1)
  // Merge on each call, because a merge copies what is registered at that moment.
  const merge = () => Registry.merge([registry, processMetrics])
  shareMetrics(() => merge().getMetricsAsJSON())

  return {
    registry,

    recordRequest(listener, method, route, status, durationMs) {
      // Use the route, not the path, because requests for made-up paths could create any number of series.
      requests.observe({ listener, method, route: route ?? 'none', status }, durationMs / 1000)
    },

    async show(ctx) {
      ctx.type = registry.contentType
      ctx.body = (await readSum()) ?? (await merge().metrics())
    },
  }
}
