// The ports in the settings of a service. With 0 the system chooses a port, which the service must keep when it restarts.
import { type DialectName, listenerNameOf } from '../../services/auth/dialects/index.ts'
import type { Environment } from '../../shared/config/readSettings.ts'

const portSettings = {
  auth: 'AUTH_PORT',
  authInternal: 'AUTH_INTERNAL_PORT',
  business: 'BUSINESS_PORT',
  businessInternal: 'BUSINESS_INTERNAL_PORT',
}

/** The settings with every port 0 replaced by what `portOf` returns for the listener. */
export async function fillPorts(
  env: Environment,
  portOf: (listener: string) => string | Promise<string>,
): Promise<Environment> {
  const filled = { ...env }
  for (const [listener, setting] of Object.entries(portSettings)) {
    if (env[setting]?.trim() === '0') filled[setting] = await portOf(listener)
  }
  const dialects = env['DIALECTS']
  if (dialects !== undefined) {
    const entries = dialects.split(',').map(async entry => {
      const [, name, port] = /^\s*([\w-]+):(\d+)\s*$/.exec(entry) ?? []
      // The name is that of a dialect, because the configuration has been validated.
      return name !== undefined && Number(port) === 0
        ? `${name}:${await portOf(listenerNameOf(name as DialectName))}`
        : entry
    })
    filled['DIALECTS'] = (await Promise.all(entries)).join(',')
  }
  return filled
}
