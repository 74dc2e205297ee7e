// Business put together: two listeners, and on each the visible list of its routes.

import { openAuthClient } from '../../packages/client/authClient.ts'
import { createListener, health, readiness } from '../../shared/http/listener.ts'
import { openApiRoute } from '../../shared/http/openapi.ts'
import { limitInvalidTokens } from '../../shared/invalidTokens.ts'
import { type Log, rateLimited } from '../../shared/log/log.ts'
import { createMetrics } from '../../shared/metrics.ts'
import type { Service } from '../../shared/service.ts'
import type { BusinessConfig } from './config.ts'
import { data } from './data.ts'
import { openForward } from './forward.ts'
import { countCalls, countLimited } from './metrics.ts'
import { describeBusiness, describeBusinessInternal } from './openapi.ts'
import { tokenRequirement } from './requireToken.ts'

export interface BusinessSurroundings {
  log: Log
  /** Milliseconds that never jump. */
  monotonicNow: () => number
}

export async function openBusiness(
  config: BusinessConfig,
  { log, monotonicNow }: BusinessSurroundings,
): Promise<Service> {
  const metrics = createMetrics()
  const observe = countCalls(metrics.registry, () => auth.callsInFlight())
  const auth = openAuthClient({ url: config.authUrl, key: config.serviceKey, log, monotonicNow, observe })
  const count = countLimited(metrics.registry)
  const logLimited = rateLimited(fields => log.warn('rate_limited', { channel: 'security', ...fields }), monotonicNow)
  const invalidTokens = limitInvalidTokens({
    limit: config.invalidTokenLimit,
    monotonicNow,
    observe({ type, ...fields }) {
      count(fields)
      logLimited(fields)
    },
  })
  const requireToken = tokenRequirement(auth, invalidTokens)
  const forward = config.forwardUrl === null ? null : openForward({ url: config.forwardUrl })
  const ready = readiness(async caller => (listener.closing() ? 'Business is closing.' : auth.whyNotReady(caller)))
  const { accessLog, maxConnections, accessPolicy, tls, internalTls } = config
  const shared = { log, accessLog, monotonicNow, metrics, maxConnections }

  const listener = createListener(
    {
      'GET /data': [requireToken, data],
      'GET /health': [health],
      'GET /ready': [ready],
      ...(config.hasApiDocs && { 'GET /openapi.json': [openApiRoute(describeBusiness())] }),
      ...forward?.routes,
    },
    {
      name: 'business',
      portSetting: forward ? 'PORT (or BUSINESS_PORT)' : 'BUSINESS_PORT',
      ...shared,
      accessPolicy,
      tls,
      // Half of what Auth has: Auth sees one network only, and would cut answers of every client.
      maxUnreadBytes: 32 * 1024 * 1024,
    },
  )

  const internalListener = createListener(
    {
      'GET /metrics': [metrics.show],
      'GET /health': [health],
      'GET /openapi.json': [openApiRoute(describeBusinessInternal())],
    },
    { name: 'businessInternal', portSetting: 'BUSINESS_INTERNAL_PORT', ...shared, tls: internalTls },
  )

  return {
    log,

    async listen() {
      const business = await listener.listen(config.port, config.host)
      const businessInternal = await internalListener.listen(config.internalPort, config.internalHost)
      return { business, businessInternal }
    },

    async close() {
      // With Auth behind it, as long as Auth's own: a log-in may wait for its turn.
      await listener.close({ lameDuckMs: 1000, drainMs: forward ? 5000 : 2000 })
      await forward?.close()
      await internalListener.close({ lameDuckMs: 0, drainMs: 500 })
      await auth.close()
    },
  }
}
