// Opens the stores of Auth, each wrapped so that its calls are measured and its outages reported. Creates the demo user
// and restores the snapshot.
import { hash } from 'node:crypto'
import type { SharedCounters } from '../../shared/counters.ts'
import type { Log } from '../../shared/log/log.ts'
import { type Clock, refuseWhileUncertain } from './clock.ts'
import type { AuthConfig } from './config.ts'
import { instrument } from './observability/instrument.ts'
import { openSharedCounters, openTokenStore, openUsageStore, openUserStore } from './stores/index.ts'
import type { TokenStore } from './stores/tokenPort.ts'
import type { UsageStore } from './stores/usagePort.ts'
import type { UserStore } from './stores/userPort.ts'
import type { Telemetry } from './telemetry.ts'
import { countingUsage } from './tokens/keyUsage.ts'
import { createDirectory, type Directory } from './users/directory.ts'
import { localClient, type Passwords } from './users/passwords.ts'

export interface Stores {
  users: UserStore
  tokens: TokenStore
  /** Null if processes cannot share counters in the token store. */
  counters: SharedCounters | null
  /** Null if uses of keys are not counted; otherwise `tokens` counts them. */
  usage: UsageStore | null
  close(): Promise<void>
}

export interface StoresOptions {
  log: Log
  clock: Clock
  passwords: Passwords
  telemetry: Telemetry
}

/** Rejects with a message for the operator. */
export async function openStores(config: AuthConfig, options: StoresOptions): Promise<Stores> {
  const { log, clock, passwords, telemetry } = options
  const { now } = clock
  const warn = (warning: string) => log.warn('store_warning', { warning })
  const users = instrument(await openUserStore(config.userStoreUrl, warn), 'users', telemetry)
  const directory = createDirectory({ store: users, now, emit: telemetry.emit })
  // Add the user before the snapshot is restored: restoring it keeps only the sessions of users who exist.
  if (config.demoUser) await addDemoUser(config.demoUser)
  const instrumented = instrument(refuseWhileUncertain(await openTokens(), clock), 'tokens', telemetry)
  const usage = await openUsage()
  const tokens = usage === null ? instrumented : countingUsage(instrumented, usage)
  const counters = await openSharedCounters(config.tokenStoreUrl)

  async function addDemoUser({ username, password }: { username: string; password: string }): Promise<void> {
    if ((await directory.findByUsername(username)) !== null) return
    const passwordHash = await passwords.hash(password, { ...localClient, account: username })
    // If tokens outlive the process, an earlier demo user with this id may have left a floor; seconds since the epoch
    // are above it. A snapshot contains no floors, so with a snapshot the version starts at 1.
    const credentialVersion = config.snapshotFile === null ? Math.floor(now() / 1000) : 1
    await directory.insert({ username, passwordHash }, { id: demoUserId(username), credentialVersion })
  }

  function openTokens(): Promise<TokenStore> {
    const { snapshotFile: file, adminKey: key, tokenStoreUrl } = config
    return file === null ? openTokenStore(tokenStoreUrl, warn) : openSnapshot({ file, key, log, now, directory })
  }

  async function openUsage(): Promise<UsageStore | null> {
    const { keyUsageDays: days, tokenStoreUrl } = config
    return days === 0 ? null : instrument(await openUsageStore(tokenStoreUrl, days), 'usage', telemetry)
  }

  return {
    users,
    tokens,
    counters,
    usage,
    async close() {
      await counters?.close()
      await usage?.close()
      await tokens.close()
      await users.close()
    },
  }
}

/** Opens the user store for a command, which has neither metrics nor events. */
export async function openUserStoreOfCommand(url: string): Promise<UserStore> {
  return instrument(await openUserStore(url), 'users', null)
}

/** Opens the token store for a command, which has neither metrics nor events. */
export async function openTokenStoreOfCommand(url: string): Promise<TokenStore> {
  return instrument(await openTokenStore(url), 'tokens', null)
}

interface SnapshotOptions {
  file: string
  /** Authenticates the file: a snapshot that was written with another key is refused. */
  key: string
  log: Log
  now: () => number
  directory: Directory
}

/** The memory store, with the sessions that the previous process saved. */
async function openSnapshot({ file, key, log, now, directory }: SnapshotOptions): Promise<TokenStore> {
  const { openSnapshotStore } = await import('./stores/memory/snapshot.ts')
  const { store, restored } = await openSnapshotStore({ file, key, ownerOf: directory.find, now })
  if (restored) log.info('tokens_restored', restored)
  return store
}

/**
 * Returns the same id at each start, because a memory user store recreates the user while their sessions may have been kept.
 */
function demoUserId(username: string): string {
  return `demo-${hash('sha256', username, 'hex').slice(0, 27)}`
}
