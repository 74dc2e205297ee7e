// Maps the scheme of a store URL to its adapter. A new store is one new file and one line here; `import()` keeps the
// driver of an unused store from being loaded.
import type { SharedCounters } from '../../../shared/counters.ts'
import type { TokenStore } from './tokenPort.ts'
import type { UsageStore } from './usagePort.ts'
import type { UserStore } from './userPort.ts'

/** Calls `warn` with problems that the operator should know of but that do not prevent use of the store. */
type Open<Store> = (url: string, warn: (warning: string) => void) => Promise<Store>

/** URL scheme -> the function that loads its adapter. */
type Adapters<A> = Record<string, () => Promise<A>>

export interface Migrations {
  applied: string[]
  pending: string[]
}

const userStores: Adapters<{ openUserStore: Open<UserStore> }> = {
  memory: () => import('./memory/userStore.ts'),
  sqlite: () => import('./sql/userStore.ts'),
  postgres: () => import('./sql/userStore.ts'),
}

const tokenStores: Adapters<{ openTokenStore: Open<TokenStore> }> = {
  memory: () => import('./memory/tokenStore.ts'),
  sqlite: () => import('./sql/tokenStore.ts'),
  postgres: () => import('./sql/tokenStore.ts'),
  redis: () => import('./redis/tokenStore.ts'),
  rediss: () => import('./redis/tokenStore.ts'),
  'redis-cluster': () => import('./redis/tokenStore.ts'),
  'redis-sentinel': () => import('./redis/tokenStore.ts'),
}

const usageStores: Adapters<{ openUsageStore(url: string, days: number): Promise<UsageStore> }> = {
  memory: () => import('./memory/usageStore.ts'),
  sqlite: () => import('./sql/usageStore.ts'),
  postgres: () => import('./sql/usageStore.ts'),
  redis: () => import('./redis/usageStore.ts'),
  rediss: () => import('./redis/usageStore.ts'),
  'redis-cluster': () => import('./redis/usageStore.ts'),
  'redis-sentinel': () => import('./redis/usageStore.ts'),
}

/** Stores with a schema can list the migrations already applied, and the migrations that opening the store would apply. */
const schemas: Adapters<{ listMigrations(url: string): Promise<Migrations> }> = {
  sqlite: () => import('./sql/database.ts'),
  postgres: () => import('./sql/database.ts'),
}

const counters: Adapters<{ openSharedCounters(url: string): Promise<SharedCounters> }> = {
  redis: () => import('./redis/counters.ts'),
  rediss: () => import('./redis/counters.ts'),
  'redis-cluster': () => import('./redis/counters.ts'),
  'redis-sentinel': () => import('./redis/counters.ts'),
}

export type StoreSetting = 'TOKEN_STORE_URL' | 'USER_STORE_URL'

export const storeSchemes: Record<StoreSetting, readonly string[]> = {
  TOKEN_STORE_URL: Object.keys(tokenStores),
  USER_STORE_URL: Object.keys(userStores),
}

/** Whether there is an adapter for the scheme. Only the adapter checks the rest of the URL. */
export function isStoreUrl(setting: StoreSetting, url: string): boolean {
  return storeSchemes[setting].includes(schemeOf(url))
}

/** Whether the store lives in this process: no other process can see it, and it is lost on exit. */
export function isMemoryUrl(url: string): boolean {
  return schemeOf(url) === 'memory'
}

/** Resolves when the store is usable; rejects with a message for the operator. */
export async function openTokenStore(url: string, warn: (warning: string) => void = () => {}): Promise<TokenStore> {
  const { openTokenStore: open } = await adapterFor(tokenStores, 'TOKEN_STORE_URL', url)
  return named('TOKEN_STORE_URL', open(url, warn))
}

/** Resolves when the store is usable; rejects with a message for the operator. */
export async function openUserStore(url: string, warn: (warning: string) => void = () => {}): Promise<UserStore> {
  const { openUserStore: open } = await adapterFor(userStores, 'USER_STORE_URL', url)
  return named('USER_STORE_URL', open(url, warn))
}

/**
 * Counts uses of keys beside the tokens: call it only with the URL of a token store that is open. `days`: how long the buckets of
 * hours are kept.
 */
export async function openUsageStore(url: string, days: number): Promise<UsageStore> {
  const { openUsageStore: open } = await adapterFor(usageStores, 'TOKEN_STORE_URL', url)
  return named('TOKEN_STORE_URL', open(url, days))
}

/** Null if processes cannot share counters in this store. Call it only with the URL of a token store that is open. */
export async function openSharedCounters(url: string): Promise<SharedCounters | null> {
  const adapter = await counters[schemeOf(url)]?.()
  return adapter ? named('TOKEN_STORE_URL', adapter.openSharedCounters(url)) : null
}

/** Changes nothing. Null for a store without a schema. Rejects with a message for the operator. */
export async function listMigrations(setting: StoreSetting, url: string): Promise<Migrations | null> {
  const adapter = await schemas[schemeOf(url)]?.()
  return adapter ? named(setting, adapter.listMigrations(url)) : null
}

async function adapterFor<A>(adapters: Adapters<A>, setting: StoreSetting, url: string): Promise<A> {
  const load = isStoreUrl(setting, url) ? adapters[schemeOf(url)] : undefined
  const known = storeSchemes[setting].map(scheme => `${scheme}:`).join(', ')
  // The message omits the URL, which may contain a password.
  if (load === undefined) throw new Error(`${setting}: expected one of ${known}; got ${schemeOf(url)}:`)
  return load()
}

/** Prefixes the message of a rejection with the name of the setting. */
async function named<T>(setting: StoreSetting, opened: Promise<T>): Promise<T> {
  try {
    return await opened
  } catch (error) {
    throw new Error(`${setting}: ${(error as Error).message}`, { cause: error })
  }
}

function schemeOf(url: string): string {
  const scheme = url.slice(0, url.indexOf(':'))
  return scheme === 'postgresql' ? 'postgres' : scheme // libpq accepts both, and hosting providers issue both
}
