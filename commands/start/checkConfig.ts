// `--check-config` and `--migrate`: read the settings, look at the stores or migrate them, and start nothing.
import type { AuthConfig } from '../../services/auth/config.ts'
import { listMigrations, openTokenStore, openUserStore } from '../../services/auth/stores/index.ts'
import { ConfigError } from '../../shared/config/readSettings.ts'
import { readStartSettings } from './startSettings.ts'

/** The migrations of each store with a schema, by its setting. */
type StoreSchemas = Record<string, { applied: string[]; pending: string[] }>

/** Throws a `ConfigError` with all problems; with `isJson` prints them, and sets the exit code 1. */
export async function checkConfig({ isJson }: { isJson: boolean }): Promise<void> {
  const { problems, stores } = await check()
  if (isJson) {
    console.log(JSON.stringify({ valid: problems.length === 0, problems, stores }))
    if (problems.length > 0) process.exitCode = 1
    return
  }
  if (problems.length > 0) throw new ConfigError(problems)
  for (const [setting, { applied, pending }] of Object.entries(stores)) {
    const next = pending.length > 0 ? `the next start applies ${pending.join(', ')}` : 'up to date'
    console.log(`${setting}: ${applied.length} migrations applied; ${next}.`)
  }
  console.log('The configuration is valid.')
}

async function check(): Promise<{ problems: string[]; stores: StoreSchemas }> {
  try {
    const { authConfig } = await readStartSettings({ takesPorts: false })
    return await readSchemas(authConfig)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return { problems: error.problems, stores: {} }
  }
}

/** Changes nothing. A store that cannot be reached is a problem. */
async function readSchemas(config: AuthConfig): Promise<{ problems: string[]; stores: StoreSchemas }> {
  const problems: string[] = []
  const stores: StoreSchemas = {}
  for (const { setting, url } of storesOf(config)) {
    try {
      const migrations = await listMigrations(setting, url)
      if (migrations !== null) stores[setting] = migrations
    } catch (error) {
      problems.push((error as Error).message)
    }
  }
  return { problems, stores }
}

/** Opens each store that has a schema, which applies its migrations. Throws a `ConfigError` if a store cannot be opened. */
export async function migrate(): Promise<void> {
  const { authConfig } = await readStartSettings({ takesPorts: false })
  for (const { setting, url, open } of storesOf(authConfig)) {
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
      throw new ConfigError([(error as Error).message])
    }
  }
}

function storesOf({ userStoreUrl, tokenStoreUrl }: AuthConfig) {
  return [
    { setting: 'USER_STORE_URL', url: userStoreUrl, open: openUserStore },
    { setting: 'TOKEN_STORE_URL', url: tokenStoreUrl, open: openTokenStore },
  ] as const
}
