// The settings of both services as a start reads them: the environment, `.env` with the keys that were missing, the stores of
// Heroku, and free ports.
import { type AuthConfig, readAuthConfig } from '../../services/auth/config.ts'
import { type BusinessConfig, readBusinessConfig } from '../../services/business/config.ts'
import { ConfigError, type Environment } from '../../shared/config/readSettings.ts'
import { completeEnvironment } from './environment.ts'
import { type Layout, layOut, storesOfHeroku } from './layout.ts'
import { replaceTakenPorts } from './takenPorts.ts'

export interface StartSettings {
  /** The common environment, from which `layout` derives that of each service. */
  env: Environment
  isDevelopment: boolean
  layout: Layout
  authConfig: AuthConfig
  businessConfig: BusinessConfig
  /** The variables of Heroku's add-ons that became settings, by the setting. */
  herokuStores: Record<string, string>
  /** The ports instead of default ports that are taken. */
  ports: Environment
}

/**
 * Throws a `ConfigError` with the problems of both services. In development, with `takesPorts`, default ports that are taken are
 * replaced. Prints what it has created or replaced.
 */
export async function readStartSettings({ takesPorts }: { takesPorts: boolean }): Promise<StartSettings> {
  const warn = (message: string) => console.error(message)
  const herokuStores: Record<string, string> = {}
  const found = storesOfHeroku(completeEnvironment(process.env, warn), (setting, variable) => {
    herokuStores[setting] = variable
  })
  const isDevelopment = (found['NODE_ENV'] || 'development') === 'development'
  const ports = isDevelopment && takesPorts ? await replaceTakenPorts(found, warn) : {}
  const env = { ...found, ...ports }
  const layout = layOut(env)
  return { env, isDevelopment, layout, ...readConfigs(layout), herokuStores, ports }
}

function readConfigs({ auth, business, isSingle }: Layout) {
  const problems = new Set<string>()
  const read = <T>(readConfig: (env: Environment) => T, env: Environment): T | null => {
    try {
      return readConfig(env)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      for (const problem of error.problems) {
        problems.add(isSingle ? problem.replace(/^BUSINESS_PORT:/, 'PORT:') : problem)
      }
      return null
    }
  }
  const authConfig = read(readAuthConfig, auth)
  const businessConfig = read(readBusinessConfig, business)
  if (authConfig === null || businessConfig === null) throw new ConfigError([...problems])
  return { authConfig, businessConfig }
}
