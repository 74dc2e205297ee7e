// URL scheme -> adapter. A new store is one new file and one line here; the driver of an unused store is never loaded.
import type { SharedCounters } from '../../../shared/limits.ts'
import type { TokenStore, UserStore } from './ports.ts'

interface Adapter {
  /** `warn` hears what the operator should know of a store that can be used. */
  openTokenStore?(url: string, warn: (warning: string) => void): Promise<TokenStore>
  openUserStore?(url: string): Promise<UserStore>
  /** Of stores that have a schema: the steps that were taken and those that opening it would take. Changes nothing. */
  listMigrations?(url: string): Promise<Migrations>
}

export interface Migrations {
  applied: string[]
  pending: string[]
}

const adapters: Record<string, () => Promise<Adapter>> = {
  memory: () => import('./memory.ts'),
  sqlite: () => import('./sql.ts'),
  postgres: () => import('./sql.ts'),
  redis: () => import('./redis.ts'),
  rediss: () => import('./redis.ts'),
  'redis-cluster': () => import('./redis.ts'),
}

export const storeSchemes: readonly string[] = Object.keys(adapters)

/** Whether there is an adapter for it; what stands behind the scheme is the adapter's affair. */
export function isStoreUrl(url: string): boolean {
  return storeSchemes.includes(schemeOf(url))
}

type StoreSetting = 'TOKEN_STORE_URL' | 'USER_STORE_URL'

/** Resolves when the store can be used; rejects with a sentence for the operator. */
export async function openTokenStore(url: string, warn: (warning: string) => void = () => {}): Promise<TokenStore> {
  const { openTokenStore: open } = await adapterFor('TOKEN_STORE_URL', url)
  if (open === undefined) throw new Error(`TOKEN_STORE_URL: ${schemeOf(url)}: stores users only`)
  return named('TOKEN_STORE_URL', open(url, warn))
}

/** Resolves when the store can be used; rejects with a sentence for the operator. */
export async function openUserStore(url: string): Promise<UserStore> {
  const { openUserStore: open } = await adapterFor('USER_STORE_URL', url)
  if (open === undefined) throw new Error(`USER_STORE_URL: ${schemeOf(url)}: stores tokens only`)
  return named('USER_STORE_URL', open(url))
}

/** Null for a store in which processes do not count together. For the URL of a token store that is open. */
export async function openSharedCounters(url: string): Promise<SharedCounters | null> {
  if (!schemeOf(url).startsWith('redis')) return null
  const { openSharedCounters: open } = await import('./redisCounters.ts')
  return named('TOKEN_STORE_URL', open(url))
}

/** Null for a store without a schema. Rejects with a sentence for the operator. */
export async function listMigrations(setting: StoreSetting, url: string): Promise<Migrations | null> {
  const { listMigrations: list } = await adapterFor(setting, url)
  return list === undefined ? null : named(setting, list(url))
}

async function adapterFor(setting: StoreSetting, url: string): Promise<Adapter> {
  const load = adapters[schemeOf(url)]
  const known = storeSchemes.map(scheme => `${scheme}:`).join(', ')
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
