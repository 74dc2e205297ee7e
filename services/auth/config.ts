// The settings of Auth and what they become.
import { z } from 'zod'
import {
  address,
  commonSettings,
  count,
  type Environment,
  key,
  optionalKey,
  port,
  readSettings,
  seconds,
} from '../../shared/config.ts'

const defaultDemo = { username: 'demo@example.com', password: 'postman' }

const storeUrl = (description: string) =>
  z
    .string()
    .regex(/^[a-z][a-z0-9+.-]*:/)
    .default('memory:')
    .meta({ description, expected: 'a store URL such as memory:' })

export const authSettings = {
  ...commonSettings,
  AUTH_PORT: port(3001, 'public listener of Auth'),
  AUTH_INTERNAL_PORT: port(3101, 'internal listener of Auth, for holders of a key'),
  INTERNAL_HOST: address('address of the internal listener; never one that the public reaches'),
  SERVICE_KEY_PREVIOUS: optionalKey('accepted beside SERVICE_KEY while keys are rotated'),
  ADMIN_KEY: key('what an operator shows to Auth; opens what SERVICE_KEY opens too'),
  TOKEN_TTL_SECONDS: seconds(30, 'idle time: a token that is not validated for so long is dead'),
  TOKEN_ABSOLUTE_TTL_SECONDS: seconds(43_200, 'absolute end: no token lives longer, however busy'),
  TOKEN_LIMIT_PER_USER: count(100, 'live tokens of one user; for one more the oldest session ends'),
  TOKEN_LIMIT: count(10_000_000, 'tokens in all; beyond it a log-in is answered 503'),
  SWEEP_INTERVAL_SECONDS: seconds(15, 'pause between two sweeps of the dead'),
  TOKEN_STORE_URL: storeUrl('where tokens are kept'),
  TOKEN_SNAPSHOT_FILE: z.string().optional().meta({
    description: 'with TOKEN_STORE_URL=memory: only: sessions are kept there over a planned restart',
    expected: 'the path of a file',
  }),
  USER_STORE_URL: storeUrl('where users are kept'),
  DEMO_USERNAME: z
    .string()
    .optional()
    .meta({
      description: 'the first user; in production only where this and DEMO_PASSWORD are set',
      expected: 'a username',
      fallback: `${defaultDemo.username}; none in production`,
    }),
  DEMO_PASSWORD: z
    .string()
    .optional()
    .meta({
      description: 'password of the first user',
      expected: 'a password',
      secret: true,
      fallback: `${defaultDemo.password}; none in production`,
    }),
}

export type AuthConfig = ReturnType<typeof readAuthConfig>

/** Throws a `ConfigError` with every problem of `env`. */
export function readAuthConfig(env: Environment) {
  const settings = readSettings(authSettings, env, (found, problems) => {
    if (
      found.NODE_ENV === 'production' &&
      (found.DEMO_USERNAME === undefined) !== (found.DEMO_PASSWORD === undefined)
    ) {
      problems.push('DEMO_USERNAME, DEMO_PASSWORD: expected both or neither in production; one is missing')
    }
    if (found.NODE_ENV === 'production' && found.DEMO_PASSWORD === defaultDemo.password) {
      problems.push('DEMO_PASSWORD: expected a password of your own in production; this is the default one')
    }
    if (found.TOKEN_SNAPSHOT_FILE !== undefined && found.TOKEN_STORE_URL !== 'memory:') {
      problems.push('TOKEN_SNAPSHOT_FILE: expected with TOKEN_STORE_URL=memory: only; other stores outlive a restart')
    }
    const { TOKEN_TTL_SECONDS: ttlMs, TOKEN_ABSOLUTE_TTL_SECONDS: absoluteTtlMs } = found
    if (ttlMs !== undefined && absoluteTtlMs !== undefined && absoluteTtlMs < ttlMs) {
      problems.push('TOKEN_ABSOLUTE_TTL_SECONDS: expected at least TOKEN_TTL_SECONDS; it is less')
    }
  })
  const production = settings.NODE_ENV === 'production'
  const { username, password } = production ? ({} as Partial<typeof defaultDemo>) : defaultDemo
  const demoUser = { username: settings.DEMO_USERNAME ?? username, password: settings.DEMO_PASSWORD ?? password }
  return {
    host: settings.HOST,
    port: settings.AUTH_PORT,
    internalHost: settings.INTERNAL_HOST,
    internalPort: settings.AUTH_INTERNAL_PORT,
    serviceKeys: [settings.SERVICE_KEY, settings.SERVICE_KEY_PREVIOUS].filter(key => key !== undefined),
    adminKey: settings.ADMIN_KEY,
    tokenLimits: { perUser: settings.TOKEN_LIMIT_PER_USER, total: settings.TOKEN_LIMIT },
    ttlMs: settings.TOKEN_TTL_SECONDS,
    absoluteTtlMs: settings.TOKEN_ABSOLUTE_TTL_SECONDS,
    sweepIntervalMs: settings.SWEEP_INTERVAL_SECONDS,
    tokenStoreUrl: settings.TOKEN_STORE_URL,
    snapshotFile: settings.TOKEN_SNAPSHOT_FILE ?? null,
    userStoreUrl: settings.USER_STORE_URL,
    demoUser: isComplete(demoUser) ? demoUser : null,
    logLevel: settings.LOG_LEVEL,
    accessLog: settings.ACCESS_LOG ?? (production ? 'errors' : 'all'),
  } as const
}

function isComplete(user: { username: string | undefined; password: string | undefined }): user is typeof defaultDemo {
  return user.username !== undefined && user.password !== undefined
}
