// The schemas of the stores, before anything is started: `--check-config` and `--migrate`.
import type { AuthConfig } from '../../services/auth/config.ts'
import { listMigrations, openTokenStore, openUserStore } from '../../services/auth/stores/index.ts'

/** Prints the migrations of each store without applying them. Returns a problem for each store that cannot be reached. */
export async function checkStores({ userStoreUrl, tokenStoreUrl }: AuthConfig): Promise<string[]> {
  const problems: string[] = []
  for (const [setting, url] of [
    ['USER_STORE_URL', userStoreUrl],
    ['TOKEN_STORE_URL', tokenStoreUrl],
  ] as const) {
    try {
      const migrations = await listMigrations(setting, url)
      if (migrations === null) continue
      const { applied, pending } = migrations
      const next = pending.length > 0 ? `the next start applies ${pending.join(', ')}` : 'up to date'
      console.log(`${setting}: ${applied.length} migrations applied; ${next}.`)
    } catch (error) {
      problems.push((error as Error).message)
    }
  }
  return problems
}

/** Opens each store that has a schema, which applies its migrations. Returns a problem if a store cannot be opened. */
export async function migrateStores({ userStoreUrl, tokenStoreUrl }: AuthConfig): Promise<string[]> {
  for (const [setting, url, open] of [
    ['USER_STORE_URL', userStoreUrl, openUserStore],
    ['TOKEN_STORE_URL', tokenStoreUrl, openTokenStore],
  ] as const) {
    try {
      const migrations = await listMigrations(setting, url)
      if (migrations === null) {
        console.log(`${setting}: this store has no schema.`)
        continue
      }
      await (await open(url)).close()
      const { pending } = migrations
      console.log(
        `${setting}: ${pending.length > 0 ? `applied ${pending.join(', ')}` : 'nothing to apply'}; up to date.`,
      )
    } catch (error) {
      return [(error as Error).message]
    }
  }
  return []
}
