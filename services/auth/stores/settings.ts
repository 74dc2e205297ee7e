// The settings of the stores, and the checks across them.
import { z } from 'zod'
import { count, settingMeta } from '../../../shared/config/settings.ts'
import { isMemoryUrl, isStoreUrl, type StoreSetting, storeSchemes } from './index.ts'

const storeUrl = (setting: StoreSetting, description: string) =>
  z
    .string()
    .refine(url => isStoreUrl(setting, url))
    .default('memory:')
    .register(settingMeta, {
      description,
      expected: `a URL that begins with ${storeSchemes[setting].join(':, ')}:`,
      secret: true,
    })

export const storeSettings = {
  TOKEN_STORE_URL: storeUrl(
    'TOKEN_STORE_URL',
    'store of tokens: memory:, sqlite:path, postgres://…, redis://…, rediss://…, redis-cluster://…, redis-sentinel://…',
  ),
  REDIS_WAIT_REPLICAS: z.coerce.number().int().min(0).max(9).default(0).register(settingMeta, {
    description:
      'replicas of Redis that must have a revocation, a renewal, or a change of a password, role, limit or pause before it is acknowledged, so that a failover cannot undo it; on a cluster, of each shard',
    expected: 'a whole number, 0 to 9',
  }),
  REDIS_WAIT_TIMEOUT_MS: z.coerce.number().int().min(1).max(800).default(400).register(settingMeta, {
    description: 'how long Auth waits for these replicas before it answers 503, in milliseconds',
    expected: 'a whole number, 1 to 800',
  }),
  TOKEN_SNAPSHOT_FILE: z.string().optional().register(settingMeta, {
    description: 'file that keeps sessions across a planned restart; allowed only with TOKEN_STORE_URL=memory:',
    expected: 'the path of a file',
  }),
  KEY_USAGE_DAYS: z.coerce.number().int().min(0).max(400).default(0).register(settingMeta, {
    description:
      'how many days the uses of each API key are kept by the hour, in the token store; those by the minute are kept for a day. 0: they are not counted',
    expected: 'a whole number, 0 to 400',
  }),
  USER_STORE_URL: storeUrl('USER_STORE_URL', 'store of users: memory:, sqlite:path, postgres://…'),
  MAX_CLOCK_SKEW_MS: count(
    2000,
    'maximum difference between the clocks of Auth and of the token store (Redis, PostgreSQL), in milliseconds; beyond it Auth is not ready, gives no verdicts and deletes no tokens',
  ),
}

type StoreSettings = z.infer<z.ZodObject<typeof storeSettings>>

/** Adds a sentence to `problems` for each problem of the settings that could be read. */
export function checkStoreSettings(found: Partial<StoreSettings>, problems: string[]): void {
  const { TOKEN_STORE_URL: tokenStoreUrl } = found
  if (found.REDIS_WAIT_REPLICAS && !/^redis/.test(tokenStoreUrl ?? '')) {
    problems.push('REDIS_WAIT_REPLICAS: expected only with a TOKEN_STORE_URL of Redis')
  }
  if (found.TOKEN_SNAPSHOT_FILE !== undefined && tokenStoreUrl !== undefined && !isMemoryUrl(tokenStoreUrl)) {
    problems.push('TOKEN_SNAPSHOT_FILE: expected only with TOKEN_STORE_URL=memory:; other stores survive a restart')
  }
}

/** The URL with what further settings say about the store. */
export function tokenStoreUrlOf(settings: StoreSettings): string {
  const { TOKEN_STORE_URL: url, REDIS_WAIT_REPLICAS: replicas, REDIS_WAIT_TIMEOUT_MS: timeoutMs } = settings
  if (replicas === 0) return url
  return `${url}${url.includes('?') ? '&' : '?'}wait-replicas=${replicas}&wait-timeout-ms=${timeoutMs}`
}
