// Assembles Auth in four steps: telemetry, stores, use cases, listeners. Each uses only what came before it.
import type { Log } from '../../shared/log/log.ts'
import type { Service } from '../../shared/service.ts'
import type { Clock } from './clock.ts'
import type { AuthConfig } from './config.ts'
import { openListeners } from './listeners.ts'
import { openStores } from './stores.ts'
import { createTelemetry } from './telemetry.ts'
import { createUseCases } from './useCases.ts'
import type { HashThreads } from './users/hashThreads.ts'
import { loadDictionary } from './users/passwordStrength.ts'
import { openPasswords, type Passwords } from './users/passwords.ts'

export interface AuthDeps {
  log: Log
  clock: Clock
  /** Monotonic milliseconds, for durations. */
  monotonicNow: () => number
  hashThreads: HashThreads
}

const queuedHashesPerThread = 32 // a wait of about two seconds at bcrypt cost 10

/** Rejects with a message for the operator. */
export async function openAuth(config: AuthConfig, { clock, ...others }: AuthDeps): Promise<Service> {
  const deps = { ...others, clock, now: clock.now }
  const { log } = deps
  const telemetry = createTelemetry(deps)
  const passwords = await openPasswordsOf(config, deps.hashThreads)
  const stores = await openStores(config, { ...deps, telemetry, passwords })
  await clock.follow({ read: stores.tokens.readClock, maxSkewMs: config.maxClockSkewMs, emit: telemetry.emit })
  const useCases = await createUseCases(config, { ...deps, telemetry, passwords, stores })
  const closing = new AbortController()
  const listeners = await openListeners(config, { ...deps, telemetry, useCases, closing: closing.signal })
  for (const warning of config.warnings) log.warn('config_warning', { warning })
  const { sweeper, finishAll } = useCases
  let finishing: NodeJS.Timeout | undefined

  return {
    log,

    async listen() {
      const addresses = await listeners.listen()
      sweeper.start()
      finishing = setInterval(() => finishAll().catch(() => {}), config.sweepIntervalMs).unref()
      return addresses
    },

    async close() {
      closing.abort()
      telemetry.stream.close() // its readers never disconnect by themselves and would delay the close
      await listeners.close()
      clearInterval(finishing)
      await sweeper.stop()
      await useCases.close()
      passwords.close()
      clock.stop()
      await stores.close()
    },
  }
}

async function openPasswordsOf(config: AuthConfig, threads: HashThreads): Promise<Passwords> {
  const { passwordHashCost: cost, limitsPerAccount } = config
  const maxQueue = threads.count * queuedHashesPerThread
  const opening = openPasswords({ cost, threads, maxQueue, maxPerAccount: limitsPerAccount.hashes })
  // On this thread, while another thread computes the first hash. In development the first chosen password waits for it instead.
  if (config.isProduction) loadDictionary()
  return opening
}
