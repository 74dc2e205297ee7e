// The schemas of the stores, before anything is started: `--check-config` and `--migrate`.
import type { AuthConfig } from '../../services/auth/config.ts'
import { listMigrations, openTokenStore, openUserStore } from '../../services/auth/stores/index.ts'

/** The migrations of each store with a schema, by its setting. */
export type StoreSchemas = Record<string, { applied: string[]; pending: string[] }>

/** Reads the schemas without changing them. Adds a problem for each store that cannot be reached. */
export async function readSchemas(
  { userStoreUrl, tokenStoreUrl }: AuthConfig,
  problems: string[],
): Promise<StoreSchemas> {
  const schemas: StoreSchemas = {}
  for (const [setting, url] of [
    ['USER_STORE_URL', userStoreUrl],
    ['TOKEN_STORE_URL', tokenStoreUrl],
  ] as const) {
    try {
      const migrations = await listMigrations(setting, url)
      if (migrations !== null) schemas[setting] = migrations
    } catch (error) {
      problems.push((error as Error).message)
    }
  }
  return schemas
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
