// Maps the scheme of a store URL to its adapter. A new store is one new file and one line here; `import()` keeps the
// driver of an unused store from being loaded.
import type { SharedCounters } from '../../../shared/counters.ts'
import type { TokenStore, UserStore } from './ports.ts'

interface TokenAdapter {
  /** Calls `warn` with problems that the operator should know of but that do not prevent use of the store. */
  openTokenStore(url: string, warn: (warning: string) => void): Promise<TokenStore>
  /** For stores with a schema: the migrations already applied, and those that opening would apply. Changes nothing. */
  listMigrations?(url: string): Promise<Migrations>
}

interface Adapter extends TokenAdapter {
  openUserStore(url: string, warn: (warning: string) => void): Promise<UserStore>
}

type Adapters<A> = Record<string, () => Promise<A>>

export interface Migrations {
  applied: string[]
  pending: string[]
}

const adapters: Adapters<Adapter> = {
  memory: () => import('./memory/tokenStore.ts'),
  sqlite: () => import('./sql/tokenStore.ts'),
  postgres: () => import('./sql/tokenStore.ts'),
}

const tokenAdapters: Adapters<TokenAdapter> = {
  ...adapters,
  redis: () => import('./redis/tokenStore.ts'),
  rediss: () => import('./redis/tokenStore.ts'),
  'redis-cluster': () => import('./redis/tokenStore.ts'),
}

export type StoreSetting = 'TOKEN_STORE_URL' | 'USER_STORE_URL'

export const storeSchemes: Record<StoreSetting, readonly string[]> = {
  TOKEN_STORE_URL: Object.keys(tokenAdapters),
  USER_STORE_URL: Object.keys(adapters),
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
  const { openTokenStore: open } = await adapterFor(tokenAdapters, 'TOKEN_STORE_URL', url)
  return named('TOKEN_STORE_URL', open(url, warn))
}

/** Resolves when the store is usable; rejects with a message for the operator. */
export async function openUserStore(url: string, warn: (warning: string) => void = () => {}): Promise<UserStore> {
  const { openUserStore: open } = await adapterFor(adapters, 'USER_STORE_URL', url)
  return named('USER_STORE_URL', open(url, warn))
}

/** Null if processes cannot share counters in this store. Call it only with the URL of a token store that is open. */
export async function openSharedCounters(url: string): Promise<SharedCounters | null> {
  if (!schemeOf(url).startsWith('redis')) return null
  const { openSharedCounters: open } = await import('./redis/counters.ts')
  return named('TOKEN_STORE_URL', open(url))
}

/** Null for a store without a schema. Rejects with a message for the operator. */
export async function listMigrations(setting: StoreSetting, url: string): Promise<Migrations | null> {
  const { listMigrations: list } = await adapterFor(tokenAdapters, setting, url)
  return list === undefined ? null : named(setting, list(url))
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
