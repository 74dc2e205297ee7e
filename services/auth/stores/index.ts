// URL scheme -> adapter. A new store is one new file and one line here; the driver of an unused store is never loaded.
import type { SharedCounters } from '../../../shared/limits.ts'
import type { TokenStore, UserStore } from './ports.ts'

interface TokenAdapter {
  /** `warn`: for what the operator should know of a store that can be used. */
  openTokenStore(url: string, warn: (warning: string) => void): Promise<TokenStore>
  /** Of stores that have a schema: the steps that were taken and those that opening it would take. Changes nothing. */
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

/** Whether there is an adapter for it; what stands behind the scheme is the adapter's affair. */
export function isStoreUrl(setting: StoreSetting, url: string): boolean {
  return storeSchemes[setting].includes(schemeOf(url))
}

/** Whether it lives and dies with the process, and is that process's alone. */
export function isMemoryUrl(url: string): boolean {
  return schemeOf(url) === 'memory'
}

/** Resolves when the store can be used; rejects with a sentence for the operator. */
export async function openTokenStore(url: string, warn: (warning: string) => void = () => {}): Promise<TokenStore> {
  const { openTokenStore: open } = await adapterFor(tokenAdapters, 'TOKEN_STORE_URL', url)
  return named('TOKEN_STORE_URL', open(url, warn))
}

/** Resolves when the store can be used; rejects with a sentence for the operator. */
export async function openUserStore(url: string, warn: (warning: string) => void = () => {}): Promise<UserStore> {
  const { openUserStore: open } = await adapterFor(adapters, 'USER_STORE_URL', url)
  return named('USER_STORE_URL', open(url, warn))
}

/** Null for a store in which processes do not count together. For the URL of a token store that is open. */
export async function openSharedCounters(url: string): Promise<SharedCounters | null> {
  if (!schemeOf(url).startsWith('redis')) return null
  const { openSharedCounters: open } = await import('./redis/counters.ts')
  return named('TOKEN_STORE_URL', open(url))
}

/** Null for a store without a schema. Rejects with a sentence for the operator. */
export async function listMigrations(setting: StoreSetting, url: string): Promise<Migrations | null> {
  const { listMigrations: list } = await adapterFor(tokenAdapters, setting, url)
  return list === undefined ? null : named(setting, list(url))
}

async function adapterFor<A>(adapters: Adapters<A>, setting: StoreSetting, url: string): Promise<A> {
  const load = isStoreUrl(setting, url) ? adapters[schemeOf(url)] : undefined
  const known = storeSchemes[setting].map(scheme => `${scheme}:`).join(', ')
  // Not the URL itself: it may hold a password.
  if (load === undefined) throw new Error(`${setting}: expected one of ${known}; got ${schemeOf(url)}:`)
  return load()
}

/** The same, its failure beginning with the name of the setting. */
async function named<T>(setting: StoreSetting, opened: Promise<T>): Promise<T> {
  try {
    return await opened
  } catch (error) {
    throw new Error(`${setting}: ${(error as Error).message}`, { cause: error })
  }
}

function schemeOf(url: string): string {
  const scheme = url.slice(0, url.indexOf(':'))
  return scheme === 'postgresql' ? 'postgres' : scheme // libpq takes both, and so do those who hand out URLs
}
