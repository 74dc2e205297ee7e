// Assembles Auth: opens the stores, creates the use cases, and lists the routes of the public and the internal
// listener.
import { hash } from 'node:crypto'
import { memoryCounters } from '../../shared/counters.ts'
import { createListener } from '../../shared/http/listener.ts'
import { mountRoutes } from '../../shared/http/route.ts'
import { limitInvalidTokens } from '../../shared/invalidTokens.ts'
import type { Log } from '../../shared/log/log.ts'
import { createMetrics } from '../../shared/metrics.ts'
import type { Service } from '../../shared/service.ts'
import type { AuthConfig } from './config.ts'
import { createCounters } from './defence/counters.ts'
import { createThrottles } from './defence/throttles.ts'
import { listenerNameOf, openDialect } from './dialects/index.ts'
import { adminKeyRequirement, keyRequirement, rotatedKeys } from './guards/requireKey.ts'
import { sessionRequirement } from './guards/requireSession.ts'
import { createEventStream } from './observability/eventStream.ts'
import { type AuthEvent, logEvents } from './observability/events.ts'
import { instrument } from './observability/instrument.ts'
import { countEvents, showFigures, storeTimer } from './observability/metrics.ts'
import { asCaller } from './observability/requestContext.ts'
import { probe, watchedMails } from './observability/storeHealth.ts'
import { createDocsPages } from './pages/docs.ts'
import { describeAuth, describeAuthInternal, internalRoutes, publicRoutes } from './routes/index.ts'
import type { RouteDeps } from './routes/route.ts'
import { openSharedCounters, openTokenStore, openUserStore } from './stores/index.ts'
import type { TokenStore } from './stores/ports.ts'
import { opaqueFormat, type TokenFormat } from './tokens/format.ts'
import { createSweeper } from './tokens/sweeper.ts'
import { createTokens } from './tokens/tokens.ts'
import { createDirectory } from './users/directory.ts'
import { createLinks } from './users/links.ts'
import { createLogIn } from './users/logIn.ts'
import { type Mailer, openSmtpMailer } from './users/mail.ts'
import { createOwnAccount } from './users/ownAccount.ts'
import { loadDictionary } from './users/passwordStrength.ts'
import { localClient, openPasswords } from './users/passwords.ts'
import { createRegistration } from './users/registration.ts'
import { type Credentials, createUsers } from './users/users.ts'

export interface AuthSurroundings {
  log: Log
  /** Epoch milliseconds. */
  now: () => number
  /** Monotonic milliseconds, for durations. */
  monotonicNow: () => number
  /** The number of threads that hash passwords. */
  hashWorkers: number
}

const queuedHashesPerWorker = 32 // a wait of about two seconds at bcrypt cost 10

/** Rejects with a message for the operator. */
export async function openAuth(config: AuthConfig, surroundings: AuthSurroundings): Promise<Service> {
  const { log, now, monotonicNow, hashWorkers } = surroundings
  const metrics = createMetrics()
  const { registry } = metrics
  const stream = createEventStream({ now })
  const listeners = [logEvents(log, monotonicNow), countEvents(registry), stream.hear]
  const observe = (event: AuthEvent) => {
    for (const hear of listeners) hear(event)
  }

  const watch = { monotonicNow, observe }
  const warn = (warning: string) => log.warn(warning)
  const storeTelemetry = { ...watch, startTimer: storeTimer(registry) }
  const userStore = instrument(await openUserStore(config.userStoreUrl, warn), 'users', storeTelemetry)
  const maxQueue = hashWorkers * queuedHashesPerWorker
  const opening = openPasswords({
    cost: config.passwordHashCost,
    workers: hashWorkers,
    maxQueue,
    maxPerAccount: config.limitsPerAccount.hashes,
  })
  loadDictionary() // on this thread, while a worker computes its first hash
  const passwords = await opening
  const { passwordRules: rules, addressesOnly, hasMail, publicUrl } = config
  const directory = createDirectory({ store: userStore, now, observe })
  if (config.demoUser) await addDemoUser(config.demoUser)
  const tokenStore = instrument(await openStoreOfTokens(), 'tokens', storeTelemetry)
  const { ttlMs, absoluteTtlMs, tokenLimits: limits } = config
  const jwt = config.jwt && (await (await import('./tokens/jwt.ts')).openJwtFormat(config.jwt))
  const format = jwt ?? opaqueFormat
  const openTokens = (format: TokenFormat) =>
    createTokens({ store: tokenStore, format, now, ttlMs, absoluteTtlMs, limits, observe })
  const tokens = openTokens(format)
  const endTokens = tokens.endUser
  const users = createUsers({ store: userStore, passwords, rules, addressesOnly, endTokens, now, observe })
  const sweeper = createSweeper({ store: tokenStore, intervalMs: config.sweepIntervalMs, now, monotonicNow, observe })
  const sharedCounters = await openSharedCounters(config.tokenStoreUrl)
  const openCounter = createCounters({
    shared: sharedCounters?.open ?? null,
    own: memoryCounters(monotonicNow),
    onAway: cause => log.warn('limits_not_shared', { channel: 'security', cause }),
  })
  const throttles = createThrottles({
    perAccount: config.limitsPerAccount,
    perAddress: config.limitsPerAddress,
    openCounter,
    observe,
  })
  const invalidTokens = limitInvalidTokens({ limit: config.limitsPerAddress.invalidTokens, monotonicNow, observe })
  const mailer = openMailer()
  const links = createLinks({ users, tokens, throttles, mailer, publicUrl, observe })
  const logIn = createLogIn({ users, throttles })
  const ownAccount = createOwnAccount({ users, links, throttles })
  const registration = createRegistration({
    users,
    links,
    throttles,
    isOpen: config.registration === 'open',
    needsConfirmation: config.emailConfirmation === 'required',
  })
  showFigures(registry, { queuedHashes: passwords.queued, hashes: passwords.hashes, census: tokens.census })
  await users.finishAll()
  let finishing: NodeJS.Timeout | undefined

  const tokenStoreAnswers = probe(tokens.reachStore, monotonicNow)
  const userStoreAnswers = probe(() => users.find('nobody'), monotonicNow)
  const whyNoVerdicts = async () => ((await tokenStoreAnswers()) ? null : 'The token store gives no answer.')
  const whyNoUsers = async () => ((await userStoreAnswers()) ? null : 'The user store gives no answer.')
  const adminKeys = rotatedKeys('ADMIN_KEY', config.adminKey, config.previousAdminKey)
  const serviceKeys = rotatedKeys('SERVICE_KEY', config.serviceKey, config.previousServiceKey)
  const serviceKey = { name: 'SERVICE_KEY', keys: { ...serviceKeys, ...adminKeys }, observe }
  const guards = {
    none: null,
    bearer: null, // the handlers read the token themselves
    session: sessionRequirement(tokens, invalidTokens),
    serviceKey: keyRequirement(serviceKey),
    client: keyRequirement({ ...serviceKey, takesBasic: true }),
    adminKey: adminKeyRequirement(adminKeys, observe),
  }
  const closing = new AbortController()
  const parts = {
    users,
    tokens,
    links,
    logIn,
    registration,
    ownAccount,
    throttles,
    invalidTokens,
    sweeper,
    jwt,
    stream,
    metrics,
    config,
    now,
  }
  const { businessUrl, hasApiDocs } = config
  const publicDeps: RouteDeps = {
    ...parts,
    describe: hasApiDocs ? describeAuth : null,
    docs: hasApiDocs ? createDocsPages('Auth', () => describeAuth('..'), businessUrl) : null,
    async whyNotReady() {
      if (closing.signal.aborted) return 'Auth is closing.'
      const reasons = await Promise.all([whyNoVerdicts(), whyNoUsers()])
      return reasons.filter(reason => reason !== null).join(' ') || null
    },
  }
  const internalDeps: RouteDeps = {
    ...parts,
    describe: describeAuthInternal,
    docs: createDocsPages('Auth, internal', () => describeAuthInternal('..'), null),
    whyNotReady: whyNoVerdicts,
  }
  const { accessLog, maxConnections, accessPolicy, tls, internalTls } = config
  const shared = { log, accessLog, monotonicNow, metrics, maxConnections, runInContext: asCaller }

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

  const dialects = await Promise.all(config.dialects.map(openListenerOf))
  for (const warning of config.warnings) log.warn(warning)

  async function openListenerOf({ name, port, ttlMs }: AuthConfig['dialects'][number]) {
    const routes = await openDialect(name, {
      users,
      links,
      logIn,
      registration,
      throttles,
      invalidTokens,
      sweeper,
      tokens,
      format,
      openTokens,
      secrets: Object.values(adminKeys),
      requireAdminKey: guards.adminKey,
      passwordRules: rules,
      ttlMs,
      absoluteTtlMs,
      now,
    })
    const listener = createListener(routes, {
      name: listenerNameOf(name),
      portSetting: 'DIALECTS',
      ...shared,
      accessPolicy,
      tls,
    })
    return { name, port, routes: Object.keys(routes), listener }
  }

  async function openStoreOfTokens(): Promise<TokenStore> {
    if (config.snapshotFile === null) return openTokenStore(config.tokenStoreUrl, warn)
    const { openSnapshotStore } = await import('./stores/memory/snapshot.ts')
    const versionOf = async (id: string) => (await directory.find(id))?.credentialVersion ?? null
    const { snapshotFile: file, adminKey: key } = config
    const { store, restored } = await openSnapshotStore({ file, key, versionOf, now })
    if (restored) log.info('tokens_restored', restored)
    return store
  }

  async function addDemoUser({ username, password }: Credentials): Promise<void> {
    if ((await directory.findByUsername(username)) !== null) return
    const passwordHash = await passwords.hash(password, { ...localClient, account: username })
    // If tokens outlive the process, an earlier demo user with this id may have left a floor; seconds since the epoch
    // are above it. A snapshot stores no floors, so there the version starts at 1.
    const credentialVersion = config.snapshotFile === null ? Math.floor(now() / 1000) : 1
    await directory.insert({ username, passwordHash }, { id: demoUserId(username), credentialVersion })
  }

  function openMailer(): Mailer | null {
    if (config.smtp) return openSmtpMailer({ ...config.smtp, observe: watchedMails(observe, watch) })
    // In development without a mail server, the developer finds the links in the log.
    const send: Mailer['send'] = ({ to, subject, text }) => log.info('mail', { to, subject, text })
    return hasMail ? { send, close: async () => {} } : null
  }

  return {
    log,

    async listen() {
      const auth = await publicListener.listen(config.port, config.host)
      const authInternal = await internalListener.listen(config.internalPort, config.internalHost)
      sweeper.start()
      finishing = setInterval(() => users.finishAll().catch(() => {}), config.sweepIntervalMs).unref()
      const addresses: Record<string, string> = { auth, authInternal }
      for (const { name, port, routes, listener } of dialects) {
        const address = await listener.listen(port, config.host)
        addresses[listenerNameOf(name)] = address
        log.info('dialect_opened', { dialect: name, address, routes })
      }
      return addresses
    },

    async close() {
      closing.abort()
      stream.close() // its readers never disconnect by themselves and would delay the close
      await Promise.all([
        ...[publicListener, ...dialects.map(({ listener }) => listener)].map(listener =>
          listener.close({ lameDuckMs: 1000, drainMs: 5000 }),
        ),
        // Longer, because a Business that stops at the same time still validates the tokens of its pending requests.
        internalListener.close({ lameDuckMs: 3000, drainMs: 2000 }),
      ])
      clearInterval(finishing)
      await sweeper.stop()
      await mailer?.close()
      await passwords.close()
      await sharedCounters?.close()
      await tokenStore.close()
      await userStore.close()
    },
  }
}

/** The same at each start, because a memory user store recreates the user while their sessions may have been kept. */
function demoUserId(username: string): string {
  return `demo-${hash('sha256', username, 'hex').slice(0, 27)}`
}
