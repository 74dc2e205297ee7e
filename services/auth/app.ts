// Auth put together: two listeners, and on each the visible list of its routes.
import { hash } from 'node:crypto'
import { createListener, health, readiness } from '../../shared/http.ts'
import type { Log } from '../../shared/log.ts'
import type { Service } from '../../shared/service.ts'
import type { AuthConfig } from './config.ts'
import { logEvents } from './events.ts'
import { loginRoute } from './routes/login.ts'
import { logoutRoute } from './routes/logout.ts'
import { renewRoute } from './routes/renew.ts'
import { keyRequirement } from './routes/requireKey.ts'
import { sessionRequirement } from './routes/requireSession.ts'
import { sessionRoutes } from './routes/sessions.ts'
import { tokenRoutes } from './routes/tokens.ts'
import { validateTokenRoute } from './routes/validateToken.ts'
import { openTokenStore, openUserStore } from './stores/index.ts'
import type { TokenStore } from './stores/ports.ts'
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

  const userStore = await openUserStore(config.userStoreUrl)
  const maxQueue = hashWorkers * queuedHashesPerWorker
  const passwords = await openPasswords({ cost: hashCost, workers: hashWorkers, maxQueue })
  const users = createUsers({ store: userStore, passwords, now, observe })
  if (config.demoUser) await users.register(config.demoUser, demoUserId(config.demoUser.username))
  const tokenStore = await openStoreOfTokens()
  const { ttlMs, absoluteTtlMs, tokenLimits: limits } = config
  const tokens = createTokens({ store: tokenStore, now, ttlMs, absoluteTtlMs, limits, observe })
  const sweeper = createSweeper({ store: tokenStore, intervalMs: config.sweepIntervalMs, now, monotonicNow, observe })

  const ready = readiness(async () => (publicListener.closing() ? 'Auth is closing.' : null))
  const requireServiceKey = keyRequirement('SERVICE_KEY', [...config.serviceKeys, config.adminKey])
  const requireAdminKey = keyRequirement('ADMIN_KEY', [config.adminKey])
  const requireSession = sessionRequirement(tokens)
  const sessions = sessionRoutes(users, tokens)
  const operator = tokenRoutes({ users, tokens, sweeper, absoluteTtlMs })
  const shared = { log, accessLog: config.accessLog, monotonicNow }

  const publicListener = createListener(
    {
      'POST /login': [loginRoute(users, tokens)],
      'POST /logout': [logoutRoute(tokens)],
      'POST /renew': [renewRoute(tokens)],
      'GET /sessions': [requireSession, sessions.list],
      'DELETE /sessions/:id': [requireSession, sessions.endOne],
      'DELETE /sessions': [requireSession, sessions.endMine],
      'GET /health': [health],
      'GET /ready': [ready],
    },
    { name: 'auth', portSetting: 'AUTH_PORT', ...shared },
  )

  const internalListener = createListener(
    {
      'POST /validateToken': [requireServiceKey, validateTokenRoute(tokens)],
      'POST /tokens': [requireAdminKey, operator.issue],
      'DELETE /tokens/expired': [requireAdminKey, operator.sweep],
      'DELETE /tokens/:id': [requireAdminKey, operator.end],
      'DELETE /admin/users/:id/sessions': [requireAdminKey, sessions.endAnybodys],
      'GET /health': [health],
    },
    { name: 'authInternal', portSetting: 'AUTH_INTERNAL_PORT', ...shared },
  )

  async function openStoreOfTokens(): Promise<TokenStore> {
    if (config.snapshotFile === null) return openTokenStore(config.tokenStoreUrl)
    const { openSnapshotStore } = await import('./stores/memorySnapshot.ts')
    const versionOf = async (id: string) => (await users.find(id))?.credentialVersion ?? null
    const { store, restored } = await openSnapshotStore({ file: config.snapshotFile, versionOf, now })
    if (restored) log.info('tokens restored', restored)
    return store
  }

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

/** The same after each start: a memory store of users makes a new one every time, whose sessions may have been kept. */
function demoUserId(username: string): string {
  return `demo-${hash('sha256', username, 'hex').slice(0, 27)}`
}
