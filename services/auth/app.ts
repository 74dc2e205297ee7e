// Auth put together: two listeners, and on each the visible list of its routes.
import { createListener, health, readiness } from '../../shared/http.ts'
import type { Log } from '../../shared/log.ts'
import type { Service } from '../../shared/service.ts'
import type { AuthConfig } from './config.ts'
import { logEvents } from './events.ts'
import { loginRoute } from './routes/login.ts'
import { logoutRoute } from './routes/logout.ts'
import { keyRequirement } from './routes/requireKey.ts'
import { validateTokenRoute } from './routes/validateToken.ts'
import { openTokenStore, openUserStore } from './stores/index.ts'
import { createSweeper } from './tokens/sweeper.ts'
import { createTokens } from './tokens/tokens.ts'
import { openPasswords } from './users/passwords.ts'
import { createUsers } from './users/users.ts'

export interface AuthSurroundings {
  log: Log
  /** Epoch milliseconds. */
  now: () => number
  /** Milliseconds that never jump, for durations. */
  monotonicNow: () => number
  /** Threads that may hash passwords at the same time. */
  hashWorkers: number
}

const queuedHashesPerWorker = 32 // about two seconds of waiting at bcrypt's cost 10
const hashCost = 10 // bcrypt; OWASP Password Storage and ASVS 11.4.2: at least 10

/** Rejects with a sentence for the operator. */
export async function openAuth(config: AuthConfig, surroundings: AuthSurroundings): Promise<Service> {
  const { log, now, monotonicNow, hashWorkers } = surroundings
  const observe = logEvents(log)

  const tokenStore = await openTokenStore(config.tokenStoreUrl)
  const userStore = await openUserStore(config.userStoreUrl)
  const maxQueue = hashWorkers * queuedHashesPerWorker
  const passwords = await openPasswords({ cost: hashCost, workers: hashWorkers, maxQueue })
  const users = createUsers({ store: userStore, passwords, now, observe })
  const tokens = createTokens({
    store: tokenStore,
    now,
    ttlMs: config.ttlMs,
    absoluteTtlMs: config.absoluteTtlMs,
    observe,
  })
  const sweeper = createSweeper({ store: tokenStore, intervalMs: config.sweepIntervalMs, now, observe })
  if (config.demoUser) await users.register(config.demoUser)

  const ready = readiness(async () => (publicListener.closing() ? 'Auth is closing.' : null))
  const requireServiceKey = keyRequirement(config.serviceKeys)
  const shared = { log, accessLog: config.accessLog, monotonicNow }

  const publicListener = createListener(
    {
      'POST /login': [loginRoute(users, tokens)],
      'POST /logout': [logoutRoute(tokens)],
      'GET /health': [health],
      'GET /ready': [ready],
    },
    { name: 'auth', portSetting: 'AUTH_PORT', ...shared },
  )

  const internalListener = createListener(
    {
      'POST /validateToken': [requireServiceKey, validateTokenRoute(tokens)],
      'GET /health': [health],
    },
    { name: 'authInternal', portSetting: 'AUTH_INTERNAL_PORT', ...shared },
  )

  return {
    log,

    async listen() {
      const auth = await publicListener.listen(config.port, config.host)
      const authInternal = await internalListener.listen(config.internalPort, config.internalHost)
      sweeper.start()
      return { auth, authInternal }
    },

    async close() {
      await Promise.all([
        publicListener.close({ lameDuckMs: 1000, drainMs: 5000 }),
        // Longer: a Business that was told to stop at the same moment still asks for the requests it has.
        internalListener.close({ lameDuckMs: 3000, drainMs: 2000 }),
      ])
      await sweeper.stop()
      await passwords.close()
      await tokenStore.close()
      await userStore.close()
    },
  }
}
