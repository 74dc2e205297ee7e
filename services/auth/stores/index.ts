// URL scheme -> adapter. A new store is one new file and one line here; the driver of an unused store is never loaded.
import type { TokenStore, UserStore } from './ports.ts'

interface Adapter {
  openTokenStore?(url: string): Promise<TokenStore>
  openUserStore?(url: string): Promise<UserStore>
}

const adapters: Record<string, () => Promise<Adapter>> = {
  memory: () => import('./memory.ts'),
}

export const storeSchemes = Object.keys(adapters)

/** Resolves when the store can be used; rejects with a sentence for the operator. */
export async function openTokenStore(url: string): Promise<TokenStore> {
  const { openTokenStore: open } = await adapterFor('TOKEN_STORE_URL', url)
  if (open === undefined) throw new Error(`TOKEN_STORE_URL: ${schemeOf(url)} stores users only`)
  return open(url)
}

/** Resolves when the store can be used; rejects with a sentence for the operator. */
export async function openUserStore(url: string): Promise<UserStore> {
  const { openUserStore: open } = await adapterFor('USER_STORE_URL', url)
  if (open === undefined) throw new Error(`USER_STORE_URL: ${schemeOf(url)} stores tokens only`)
  return open(url)
}

async function adapterFor(setting: string, url: string): Promise<Adapter> {
  const load = adapters[schemeOf(url)]
  const known = storeSchemes.map(scheme => `${scheme}:`).join(', ')
  // Not the URL itself: it may hold a password.
  if (load === undefined) throw new Error(`${setting}: expected one of ${known}; got ${schemeOf(url)}:`)
  return load()
}

function schemeOf(url: string): string {
  return url.slice(0, url.indexOf(':'))
}
