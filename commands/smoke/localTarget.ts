// The deployment that the settings of this folder describe, as ./startServer starts it.
import { readAuthConfig } from '../../services/auth/config.ts'
import { readBusinessConfig } from '../../services/business/config.ts'
import { loadEnvironment } from '../operator/settings.ts'
import { layOut } from '../start/layout.ts'
import type { Target } from './run.ts'

/** Throws a message for the operator if the settings are invalid. */
export function readLocalTarget(): Target {
  const env = loadEnvironment()
  if (!env['SERVICE_KEY'] && !env['SERVICE_KEY_FILE']) {
    throw new Error('SERVICE_KEY is not set. Run this in the folder of the services, or give --auth and --business.')
  }
  const layout = layOut(env)
  // Nothing is signed here, so no token keys are needed.
  const auth = readAuthConfig({ ...layout.auth, TOKEN_FORMAT: 'opaque' })
  const business = readBusinessConfig(layout.business)
  const businessUrl = `${business.tls ? 'https' : 'http'}://localhost:${business.port}`
  return {
    auth: layout.isSingle ? businessUrl : `${auth.tls ? 'https' : 'http'}://localhost:${auth.port}`,
    business: businessUrl,
    internal: `${auth.internalTls ? 'https' : 'http'}://localhost:${auth.internalPort}`,
    internalPorts: [auth.internalPort, business.internalPort],
    user: auth.demoUser,
    serviceKey: auth.serviceKey,
    allowsHttp: true,
  }
}
