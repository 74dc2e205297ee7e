// The settings of the command, read as ./startServer reads them. Never creates a key: a running Auth would not know it.
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { type AuthConfig, readAuthConfig } from '../../services/auth/config.ts'
import { isMemoryUrl } from '../../services/auth/stores/index.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { storesOfHeroku } from '../start/layout.ts'
import { keptPorts } from '../start/takenPorts.ts'

export interface Settings {
  config: AuthConfig
  /** The internal listener of Auth. */
  authUrl: string
  /** Null if the setting is not set. */
  adminKey: string | null
}

/** The environment of this process, to which this adds what ./startServer has written in this folder. */
export function loadEnvironment(): NodeJS.ProcessEnv {
  const { env } = process
  const isDevelopment = !env['NODE_ENV'] || env['NODE_ENV'] === 'development'
  if (isDevelopment && existsSync('.env')) process.loadEnvFile('.env')
  // Only for a default port: what the environment and .env say comes first.
  if (isDevelopment) for (const [name, port] of Object.entries(keptPorts())) env[name] ??= port
  return env
}

/** Throws a message for the operator if the settings are invalid. */
export function readSettings(): Settings {
  const env = loadEnvironment()
  const missing = ['SERVICE_KEY', 'ADMIN_KEY'].filter(key => !env[key] && !env[`${key}_FILE`])
  const placeholders = Object.fromEntries(missing.map(key => [key, randomBytes(32).toString('hex')]))
  const stores = storesOfHeroku(env, () => {})
  // Nothing is signed here, so no token keys are needed.
  const config = readAuthConfig({ ...stores, ...placeholders, TOKEN_FORMAT: 'opaque' })
  if (isMemoryUrl(config.userStoreUrl) && missing.includes('ADMIN_KEY')) {
    throw new Error(
      'USER_STORE_URL: users in memory can only be reached through a running Auth, and ADMIN_KEY is not set. Run ./startServer (or latchkey serve) in this folder, or set USER_STORE_URL to sqlite:path or postgres://… for both Auth and this command.',
    )
  }
  const defaultUrl = `http://127.0.0.1:${config.internalPort}`
  const { authUrls } = readBusinessConfig({ AUTH_INTERNAL_URL: defaultUrl, ...env, ...placeholders })
  // Any of several Auths will do, because they share their stores.
  return { config, authUrl: authUrls[0] as string, adminKey: missing.includes('ADMIN_KEY') ? null : config.adminKey }
}
