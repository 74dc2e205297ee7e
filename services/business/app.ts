// Business put together: one listener and the visible list of its routes.
import { createListener, health, readiness } from '../../shared/http.ts'
import type { Log } from '../../shared/log.ts'
import type { Service } from '../../shared/service.ts'
import { openAuthClient } from './authClient.ts'
import type { BusinessConfig } from './config.ts'
import { data } from './data.ts'
import { tokenRequirement } from './requireToken.ts'

export interface BusinessSurroundings {
  log: Log
  /** Milliseconds that never jump. */
  monotonicNow: () => number
}

export async function openBusiness(
  config: BusinessConfig,
  { log, monotonicNow }: BusinessSurroundings,
): Promise<Service> {
  const auth = openAuthClient({ url: config.authUrl, key: config.serviceKey, log, monotonicNow })
  const requireToken = tokenRequirement(auth)
  const ready = readiness(async requestId =>
    listener.closing() ? 'Business is closing.' : auth.whyNotReady(requestId),
  )

  const listener = createListener(
    {
      'GET /data': [requireToken, data],
      'GET /health': [health],
      'GET /ready': [ready],
    },
    { name: 'business', portSetting: 'BUSINESS_PORT', log, accessLog: config.accessLog, monotonicNow },
  )

  return {
    log,

    async listen() {
      return { business: await listener.listen(config.port, config.host) }
    },

    async close() {
      await listener.close({ lameDuckMs: 1000, drainMs: 2000 })
      await auth.close()
    },
  }
}
