// Creates the listeners of Auth: the public one, the internal one, and one for each dialect.
import { createListener, type Listener } from '../../shared/http/listener.ts'
import { mountRoutes } from '../../shared/http/route.ts'
import type { Log } from '../../shared/log/log.ts'
import type { Clock } from './clock.ts'
import type { AuthConfig } from './config.ts'
import { listenerNameOf, openDialect } from './dialects/index.ts'
import { requireAdminKey, requireKey, rotatedKeys } from './guards/requireKey.ts'
import { requireSession } from './guards/requireSession.ts'
import { runAsCaller } from './observability/requestContext.ts'
import { probe } from './observability/storeHealth.ts'
import { createDocsPages } from './pages/docs.ts'
import { describeAuth, describeAuthInternal, dialectRoutes, internalRoutes, publicRoutes } from './routes/index.ts'
import type { Telemetry } from './telemetry.ts'
import type { UseCases } from './useCases.ts'

export interface ListenersOptions {
  log: Log
  clock: Clock
  /** Monotonic milliseconds, for durations. */
  monotonicNow: () => number
  telemetry: Telemetry
  useCases: UseCases
  /** Aborted when Auth begins to close, which makes it not ready. */
  closing: AbortSignal
}

export interface Listeners {
  /** Resolves to the address of each listener, by its name. */
  listen(): Promise<Record<string, string>>
  close(): Promise<void>
}

export async function openListeners(config: AuthConfig, options: ListenersOptions): Promise<Listeners> {
  const { log, clock, monotonicNow, telemetry, useCases, closing } = options
  const { metrics, stream, emit } = telemetry
  const { tokens, users, invalidTokens } = useCases
  const { businessUrl, hasApiDocs, accessLog, maxConnections, accessPolicy, tls, internalTls } = config

  const adminKeys = rotatedKeys('ADMIN_KEY', config.adminKey, config.previousAdminKey)
  const serviceKeys = rotatedKeys('SERVICE_KEY', config.serviceKey, config.previousServiceKey)
  const serviceKey = { name: 'SERVICE_KEY', keys: { ...serviceKeys, ...adminKeys }, emit }
  const guards = {
    none: null,
    bearer: null, // the handlers read the token themselves
    session: requireSession(tokens, invalidTokens),
    serviceKey: requireKey(serviceKey),
    client: requireKey({ ...serviceKey, takesBasic: true }),
    adminKey: requireAdminKey(adminKeys, emit),
  }

  const tokenStoreAnswers = probe(tokens.ping, monotonicNow)
  const userStoreAnswers = probe(() => users.find('nobody'), monotonicNow)
  const whyNoVerdicts = async () =>
    clock.whyUncertain() ?? ((await tokenStoreAnswers()) ? null : 'The token store does not answer.')
  const whyNoUsers = async () => ((await userStoreAnswers()) ? null : 'The user store does not answer.')
  async function whyNotReady(): Promise<string | null> {
    if (closing.aborted) return 'Auth is closing.'
    const reasons = await Promise.all([whyNoVerdicts(), whyNoUsers()])
    return reasons.filter(reason => reason !== null).join(' ') || null
  }

  const { now } = clock
  const consoleUrl = config.isProduction ? null : '/console'
  const deps = { ...useCases, config, metrics, stream, now, consoleUrl }
  const publicDeps = {
    ...deps,
    describe: hasApiDocs ? describeAuth : null,
    docs: hasApiDocs ? createDocsPages('Auth', () => describeAuth('..'), businessUrl) : null,
    whyNotReady,
  }
  const internalDeps = {
    ...deps,
    describe: describeAuthInternal,
    docs: createDocsPages('Auth, internal', () => describeAuthInternal('..'), null),
    whyNotReady: whyNoVerdicts,
  }

  const shared = { log, accessLog, monotonicNow, metrics, maxConnections, runInContext: runAsCaller }
  const publicListener = createListener(mountRoutes(publicRoutes, publicDeps, guards), {
    name: 'auth',
    portSetting: 'AUTH_PORT',
    ...shared,
    accessPolicy,
    tls,
  })
  const internalListener = createListener(mountRoutes(internalRoutes, internalDeps, guards), {
    name: 'authInternal',
    portSetting: 'AUTH_INTERNAL_PORT',
    ...shared,
    tls: internalTls,
  })
  const dialects = await Promise.all(
    config.dialects.map(async ({ name, port, ttlMs, ...heading }) => {
      const { passwordRules, absoluteTtlMs } = config
      const parts = { ...useCases, requireAdminKey: guards.adminKey, passwordRules, ttlMs, absoluteTtlMs, now }
      const routes = await openDialect(name, { ...parts, secrets: Object.values(adminKeys) })
      const paths = Object.keys(routes)
      const { describeDialect } = await import('./dialects/documents.ts')
      const describe = () => describeDialect(name, paths, { ...heading, server: '..' })
      const docs = hasApiDocs ? createDocsPages(name, describe, null) : null
      const options = { name: listenerNameOf(name), portSetting: 'DIALECTS', ...shared, accessPolicy, tls }
      const listener = createListener({ ...routes, ...mountRoutes(dialectRoutes, { docs }, guards) }, options)
      return { name, port, routes: paths, listener }
    }),
  )

  return {
    async listen() {
      const addresses: Record<string, string> = {
        auth: await publicListener.listen(config.port, config.host),
        authInternal: await internalListener.listen(config.internalPort, config.internalHost),
      }
      for (const { name, port, routes, listener } of dialects) {
        const address = await listener.listen(port, config.host)
        addresses[listenerNameOf(name)] = address
        log.info('dialect_opened', { dialect: name, address, routes })
      }
      return addresses
    },

    async close() {
      const forClients: Listener[] = [publicListener, ...dialects.map(({ listener }) => listener)]
      await Promise.all([
        ...forClients.map(listener => listener.close({ lameDuckMs: 1000, drainMs: 5000 })),
        // This one stays open longer, because a Business that stops at the same time still validates the tokens of its
        // pending requests.
        internalListener.close({ lameDuckMs: 3000, drainMs: 2000 }),
      ])
    },
  }
}
