// Assembles Business: the client of Auth, then both listeners. routes.ts lists their routes.
import { openAuthClient } from '../../packages/client/authClient.ts'
import { createShadowRules } from '../../packages/client/shadowRules.ts'
import { createListener } from '../../shared/http/listener.ts'
import { mountRoutes } from '../../shared/http/route.ts'
import { limitInvalidTokens } from '../../shared/invalidTokens.ts'
import { type Log, rateLimited } from '../../shared/log/log.ts'
import { createMetrics } from '../../shared/metrics.ts'
import type { Service } from '../../shared/service.ts'
import { createCallSpans } from './callSpans.ts'
import type { BusinessConfig } from './config.ts'
import { openForward } from './forward.ts'
import { countCalls, countLimited, countShadowRefusals, showAuths, showCallsInFlight, showHolds } from './metrics.ts'
import { requireNeeds } from './requireNeeds.ts'
import { requireToken } from './requireToken.ts'
import { describeBusiness, describeBusinessInternal, internalRoutes, publicRoutes } from './routes.ts'

export interface BusinessDeps {
  log: Log
  /** Monotonic milliseconds, for durations. */
  monotonicNow: () => number
}

export async function openBusiness(config: BusinessConfig, { log, monotonicNow }: BusinessDeps): Promise<Service> {
  const metrics = createMetrics('business')
  const onCall = countCalls(metrics.registry)
  const traceCall = createCallSpans(config.authUrls)
  const auth = openAuthClient({ url: config.authUrls, key: config.serviceKey, log, monotonicNow, onCall, traceCall })
  showCallsInFlight(metrics.registry, auth.callsInFlight)
  showAuths(metrics.registry, auth.auths)
  showHolds(metrics.registry, auth.holds)
  const count = countLimited(metrics.registry)
  const logLimited = rateLimited(fields => log.warn('rate_limited', { channel: 'security', ...fields }), monotonicNow)
  const invalidTokens = limitInvalidTokens({
    limit: config.invalidTokenLimit,
    monotonicNow,
    emit({ type, ...fields }) {
      count(fields)
      logLimited(fields)
    },
  })
  const shadowRules = createShadowRules({
    ...{ log, monotonicNow },
    onShadow: countShadowRefusals(metrics.registry, config.shadowRules),
  })
  if (config.shadowRules.length > 0) log.warn('rules_in_shadow', { channel: 'security', rules: config.shadowRules })
  const forward = config.forwardUrl === null ? null : openForward({ url: config.forwardUrl })
  const closing = new AbortController()
  const { accessLog, maxConnections, accessPolicy, tls, internalTls } = config
  const shared = { log, accessLog, monotonicNow, metrics, maxConnections }
  const guards = { none: null, bearer: requireToken(auth, invalidTokens) }

  const listener = createListener(
    mountRoutes(
      publicRoutes,
      {
        auth,
        closing: closing.signal,
        consoleUrl: config.consoleUrl,
        describe: config.hasApiDocs ? describeBusiness : null,
        whyNotReady: async caller => (closing.signal.aborted ? 'Business is closing.' : auth.whyNotReady(caller)),
      },
      guards,
      requireNeeds({ inShadow: config.shadowRules, shadowRules }),
    ),
    {
      name: 'business',
      portSetting: forward ? 'PORT (or BUSINESS_PORT)' : 'BUSINESS_PORT',
      ...shared,
      ...(forward && { fallback: forward.handle }),
      accessPolicy,
      tls,
      // Half of Auth's limit: Auth sees Business and all its clients as one network, so at that limit Auth could cut
      // off any client.
      maxUnreadBytes: 32 * 1024 * 1024,
    },
  )

  const internalListener = createListener(
    mountRoutes(internalRoutes, { describe: describeBusinessInternal, metrics, shadowRules }, guards),
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
      closing.abort()
      // If Business forwards to Auth, wait as long as Auth does: a log-in may wait for a hash thread.
      await listener.close({ lameDuckMs: 1000, drainMs: forward ? 5000 : 2000 })
      await forward?.close()
      await internalListener.close({ lameDuckMs: 0, drainMs: 500 })
      await auth.close()
    },
  }
}
