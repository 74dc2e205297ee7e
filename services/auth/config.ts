// The settings of Auth: their names, defaults and descriptions, the checks across settings, and the resulting config.
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { type Environment, readSettings } from '../../shared/config/readSettings.ts'
import {
  checkCommonSettings,
  commonSettings,
  listenerSettings,
  securityLogSettings,
} from '../../shared/config/serviceSettings.ts'
import {
  count,
  isGuessable,
  key,
  optionalKey,
  port,
  seconds,
  secondsToMs,
  settingMeta,
} from '../../shared/config/settings.ts'
import { accountLimits } from './defence/throttles.ts'
import { dialectsSetting, readDialects } from './dialects/settings.ts'
import { isMemoryUrl } from './stores/index.ts'
import { checkStoreSettings, storeSettings, tokenStoreUrlOf } from './stores/settings.ts'

const defaultDemo = { username: 'demo@example.com', password: 'postman' }

const minHashCost = 10
const minTestHashCost = 4 // the minimum of bcrypt: tests hash often and keep no secrets
const hashCostRange = `a whole number from ${minHashCost} to 15; with NODE_ENV=test from ${minTestHashCost}`

const httpAddress = z
  .url({ protocol: /^https?$/ })
  .refine(url => URL.canParse(url) && !/[?#\s]|\/$/.test(url) && new URL(url).username === '')

// HS256 keys need 256 bits (RFC 8725, section 3.5), which is 43 characters of base64url.
const signingKey = z.discriminatedUnion('alg', [
  z.object({
    alg: z.literal('EdDSA'),
    kty: z.literal('OKP'),
    crv: z.literal('Ed25519'),
    kid: z.string().min(1),
    x: z.string(),
    d: z.string(),
  }),
  z.object({
    alg: z.literal('HS256'),
    kty: z.literal('oct'),
    kid: z.string().min(1),
    k: z
      .string()
      .regex(/^[\w-]{43,}$/)
      .refine(k => !isGuessable(k) && !isGuessable(Buffer.from(k, 'base64url').toString('latin1'))),
  }),
])

const signingKeys = z
  .object({ keys: z.array(signingKey).min(1) })
  .refine(({ keys }) => new Set(keys.map(({ kid }) => kid)).size === keys.length)

export const authSettings = {
  ...commonSettings,
  AUTH_PORT: port(3001, 'port of the public listener of Auth'),
  AUTH_INTERNAL_PORT: port(3101, 'port of the internal listener of Auth, which needs a key'),
  AUTH_WORKERS: count(1, 'processes of Auth that `./startServer` runs; more than one process needs shared stores'),
  SERVICE_KEY_PREVIOUS: optionalKey('the old SERVICE_KEY, still accepted during a rotation'),
  ADMIN_KEY: key('the key of operators; it also opens what SERVICE_KEY opens'),
  ADMIN_KEY_PREVIOUS: optionalKey('the old ADMIN_KEY, still accepted during a rotation'),
  TOKEN_TTL_SECONDS: seconds(30, 'idle time: a token expires if it is not used for this long'),
  TOKEN_ABSOLUTE_TTL_SECONDS: seconds(43_200, 'maximum lifetime of a token, however often it is used'),
  TOKEN_FORMAT: z.enum(['opaque', 'jwt']).default('opaque').register(settingMeta, {
    description: '`jwt`: tokens are signed JWTs, which Auth still validates on every request',
    expected: 'opaque or jwt',
  }),
  TOKEN_KEYS: z
    .string()
    .transform((text, ctx) => parseJson(text) ?? ctx.addIssue({ code: 'custom' }))
    .pipe(signingKeys)
    .optional()
    .register(settingMeta, {
      description:
        'with TOKEN_FORMAT=jwt: the private keys as a JWK Set; the first one signs; tokens that the others signed are still accepted',
      expected:
        'a JWK Set of Ed25519 keys, or of HS256 keys of 256 random bits, each with its own kid (npm run token-keys)',
      secret: true,
      fallback: 'generated in development, required in production',
    }),
  TOKEN_AUDIENCE: z.string().default('latchkey').register(settingMeta, {
    description: 'with TOKEN_FORMAT=jwt: the `aud` of the tokens; `iss` is PUBLIC_URL',
    expected: 'a name',
  }),
  RENEWED_SECRET_REUSE: z.enum(['end', 'pause']).default('end').register(settingMeta, {
    description:
      'what happens to a session if an earlier secret of it is used more than ten seconds after a renewal; `pause`: it is refused until an operator resumes it or it expires, so TOKEN_TTL_SECONDS must leave time for that',
    expected: 'end or pause',
  }),
  TOKEN_LIMIT_PER_USER: count(100, 'live tokens per user; one more ends the oldest session'),
  TOKEN_LIMIT: count(
    10_000_000,
    'maximum number of tokens, at most half of them without a user; at the limit, log-ins are answered 503 (Redis: only once the first sweep has run)',
  ),
  LOGIN_LIMIT_PER_ADDRESS: count(
    30,
    'wrong passwords per address (IPv6: per /64) and minute; beyond it, only users who have logged in from that address before can log in',
  ),
  REGISTRATION_LIMIT_PER_ADDRESS: count(30, 'new users and changes of a username per address and hour'),
  MAIL_LIMIT_PER_ADDRESS: count(30, 'requests for mail, per address and hour; per user the limit is 5'),
  GUEST_TOKEN_LIMIT_PER_ADDRESS: count(120, 'tokens that dialects issue without a log-in, per address and minute'),
  SWEEP_INTERVAL_SECONDS: seconds(15, 'pause between two sweeps of dead tokens', 86_400),
  ...storeSettings,
  REGISTRATION: z.enum(['open', 'closed']).optional().register(settingMeta, {
    description: 'whether anyone may register at `POST /users`',
    expected: 'open or closed',
    fallback: 'open; closed in production',
  }),
  PASSWORD_MIN_LENGTH: z.coerce.number().int().min(8).max(64).default(15).register(settingMeta, {
    description: 'minimum length of a password in characters (NIST SP 800-63B-4: 15 if it is the only factor)',
    expected: 'a whole number from 8 to 64',
  }),
  PASSWORD_HASH_COST: z.coerce.number().int().min(minTestHashCost).max(15).default(minHashCost).register(settingMeta, {
    description:
      'cost of bcrypt: each step doubles the time of a log-in; hashes of a lower cost are renewed at the next log-in',
    expected: hashCostRange,
  }),
  SMTP_URL: z
    .url({ protocol: /^smtps?$/ })
    .refine(url => !/[?#]/.test(url)) // nodemailer reads options from the query
    .optional()
    .register(settingMeta, {
      description:
        'mail server, `smtp://user:password@host:587`; without it mails are logged in development and disabled in production',
      expected: 'an smtp:// or smtps:// URL',
      secret: true,
    }),
  SMTP_TLS: z.enum(['required', 'optional']).default('required').register(settingMeta, {
    description:
      '`optional`: mails, which contain secret links, also go to a server without TLS; the password of SMTP_URL never does. Loopback needs no TLS',
    expected: 'required or optional',
  }),
  MAIL_FROM: z
    .email()
    .optional()
    .register(settingMeta, { description: 'sender of mails; required with SMTP_URL', expected: 'an e-mail address' }),
  EMAIL_CONFIRMATION: z.enum(['required', 'off']).default('off').register(settingMeta, {
    description: '`required`: new users must confirm their address by a mailed link before they can log in',
    expected: 'required or off',
  }),
  PUBLIC_URL: httpAddress.optional().register(settingMeta, {
    description:
      'address of Auth as its users see it, for links in mails and the `iss` of JWTs; required with SMTP_URL',
    expected: 'an http or https address without a trailing slash',
    fallback: 'http://localhost with AUTH_PORT; none in production',
  }),
  DIALECTS: dialectsSetting,
  CONSOLE_BUSINESS_URL: z
    .union([z.literal('self'), httpAddress])
    .optional()
    .register(settingMeta, {
      description: 'address of Business for the pages of Auth; `self` if both services share one address',
      expected: 'an http or https address without a trailing slash, or self',
      fallback: 'set by ./startServer in development and with PORT',
    }),
  DEMO_USERNAME: z
    .string()
    .optional()
    .register(settingMeta, {
      description: 'username of the first user; production creates this user only if this and DEMO_PASSWORD are set',
      expected: 'a username',
      fallback: `${defaultDemo.username}; none in production`,
    }),
  DEMO_PASSWORD: z
    .string()
    .optional()
    .register(settingMeta, {
      description: 'password of the first user',
      expected: 'a password',
      secret: true,
      fallback: `${defaultDemo.password}; none in production`,
    }),
}

export type AuthConfig = ReturnType<typeof readAuthConfig>

/** Throws a `ConfigError` that lists every problem of the environment. */
export function readAuthConfig(environment: Environment) {
  const { dialects, warnings, env, problems: dialectProblems } = readDialects(environment)
  const settings = readSettings(authSettings, env, (found, problems) => {
    problems.push(...dialectProblems)
    checkCommonSettings(found, problems)
    const serviceKeys = [found.SERVICE_KEY, found.SERVICE_KEY_PREVIOUS]
    if (found.ADMIN_KEY !== undefined && serviceKeys.includes(found.ADMIN_KEY)) {
      problems.push('ADMIN_KEY: expected a key that differs from SERVICE_KEY and SERVICE_KEY_PREVIOUS; it is the same')
    }
    if (
      found.ADMIN_KEY_PREVIOUS !== undefined &&
      [...serviceKeys, found.ADMIN_KEY].includes(found.ADMIN_KEY_PREVIOUS)
    ) {
      problems.push(
        'ADMIN_KEY_PREVIOUS: expected a key that differs from ADMIN_KEY, SERVICE_KEY and SERVICE_KEY_PREVIOUS; it is the same',
      )
    }
    if (
      found.NODE_ENV === 'production' &&
      (found.DEMO_USERNAME === undefined) !== (found.DEMO_PASSWORD === undefined)
    ) {
      problems.push('DEMO_USERNAME, DEMO_PASSWORD: expected both or neither in production; one is missing')
    }
    if (found.NODE_ENV === 'production' && found.DEMO_PASSWORD === defaultDemo.password) {
      problems.push('DEMO_PASSWORD: expected a password of your own in production; this is the default one')
    }
    const { PASSWORD_HASH_COST: hashCost = minHashCost } = found
    if (found.NODE_ENV !== 'test' && hashCost < minHashCost) {
      problems.push(`PASSWORD_HASH_COST: expected ${hashCostRange}; got "${hashCost}"`)
    }
    checkStoreSettings(found, problems)
    const isProduction = found.NODE_ENV === 'production'
    // Checks only that a value is present; an invalid value has been reported already.
    const isSet = (name: string) => (env[name] ?? '').trim() !== ''
    if (found.SMTP_URL !== undefined && !isSet('MAIL_FROM')) {
      problems.push('MAIL_FROM: expected an e-mail address with SMTP_URL; it is missing')
    }
    if (found.SMTP_URL !== undefined && isProduction && !isSet('PUBLIC_URL')) {
      problems.push('PUBLIC_URL: expected an http or https address with SMTP_URL; it is missing')
    }
    if (found.TOKEN_FORMAT === 'jwt' && isProduction && !isSet('PUBLIC_URL') && found.SMTP_URL === undefined) {
      problems.push(
        'PUBLIC_URL: expected an http or https address with TOKEN_FORMAT=jwt, the iss of its tokens; it is missing',
      )
    }
    if (found.EMAIL_CONFIRMATION === 'required' && isProduction && found.SMTP_URL === undefined) {
      problems.push('EMAIL_CONFIRMATION: expected off in production without SMTP_URL; got "required"')
    }
    if (
      found.TOKEN_FORMAT === 'jwt' &&
      found.TOKEN_KEYS === undefined &&
      !isSet('TOKEN_KEYS') &&
      !isSet('TOKEN_KEYS_FILE')
    ) {
      problems.push('TOKEN_KEYS: expected a JWK Set with TOKEN_FORMAT=jwt (npm run token-keys); it is missing')
    }
    for (const name of ['TOKEN_STORE_URL', 'USER_STORE_URL'] as const) {
      if ((found.AUTH_WORKERS ?? 1) === 1 || !isMemoryUrl(found[name] ?? '')) continue
      problems.push(`AUTH_WORKERS: expected 1 with ${name}=memory:, because processes do not share memory`)
    }
    const { TOKEN_TTL_SECONDS: ttl, TOKEN_ABSOLUTE_TTL_SECONDS: absoluteTtl } = found
    if (ttl !== undefined && absoluteTtl !== undefined && absoluteTtl < ttl) {
      problems.push('TOKEN_ABSOLUTE_TTL_SECONDS: expected at least TOKEN_TTL_SECONDS; it is less')
    }
  })
  const production = settings.NODE_ENV === 'production'
  const { username, password } = production ? ({} as Partial<typeof defaultDemo>) : defaultDemo
  const { tls, ...listeners } = listenerSettings(settings)
  const publicUrl = settings.PUBLIC_URL ?? `${tls ? 'https' : 'http'}://localhost:${settings.AUTH_PORT}`
  const registration = settings.REGISTRATION ?? (production ? 'closed' : 'open')
  const demoUser = { username: settings.DEMO_USERNAME ?? username, password: settings.DEMO_PASSWORD ?? password }
  return {
    isProduction: production,
    isDevelopment: settings.NODE_ENV === 'development',
    host: settings.HOST,
    port: settings.AUTH_PORT,
    internalHost: settings.INTERNAL_HOST,
    internalPort: settings.AUTH_INTERNAL_PORT,
    serviceKey: settings.SERVICE_KEY,
    previousServiceKey: settings.SERVICE_KEY_PREVIOUS ?? null,
    adminKey: settings.ADMIN_KEY,
    previousAdminKey: settings.ADMIN_KEY_PREVIOUS ?? null,
    workers: settings.AUTH_WORKERS,
    limitsPerAccount: accountLimits,
    limitsPerAddress: {
      failures: settings.LOGIN_LIMIT_PER_ADDRESS,
      registrations: settings.REGISTRATION_LIMIT_PER_ADDRESS,
      mails: settings.MAIL_LIMIT_PER_ADDRESS,
      guestTokens: settings.GUEST_TOKEN_LIMIT_PER_ADDRESS,
      invalidTokens: settings.INVALID_TOKEN_LIMIT_PER_ADDRESS,
    },
    tokenLimits: { perUser: settings.TOKEN_LIMIT_PER_USER, total: settings.TOKEN_LIMIT },
    ttlMs: secondsToMs(settings.TOKEN_TTL_SECONDS),
    absoluteTtlMs: secondsToMs(settings.TOKEN_ABSOLUTE_TTL_SECONDS),
    onReuse: settings.RENEWED_SECRET_REUSE,
    maxClockSkewMs: settings.MAX_CLOCK_SKEW_MS,
    sweepIntervalMs: secondsToMs(settings.SWEEP_INTERVAL_SECONDS),
    jwt:
      settings.TOKEN_FORMAT === 'jwt' && settings.TOKEN_KEYS
        ? { keys: settings.TOKEN_KEYS.keys, issuer: publicUrl, audience: settings.TOKEN_AUDIENCE }
        : null,
    tokenStoreUrl: tokenStoreUrlOf(settings),
    snapshotFile: settings.TOKEN_SNAPSHOT_FILE ?? null,
    /** 0: uses of keys are not counted. */
    keyUsageDays: settings.KEY_USAGE_DAYS,
    userStoreUrl: settings.USER_STORE_URL,
    registration,
    passwordRules: { minLength: settings.PASSWORD_MIN_LENGTH },
    passwordHashCost: settings.PASSWORD_HASH_COST,
    smtp:
      settings.SMTP_URL && settings.MAIL_FROM
        ? { url: settings.SMTP_URL, from: settings.MAIL_FROM, tls: settings.SMTP_TLS }
        : null,
    /** Whether mails can be sent to a server or, in development, written to the log. */
    hasMail: settings.SMTP_URL !== undefined || !production,
    /** Whether usernames must be e-mail addresses. */
    addressesOnly: settings.SMTP_URL !== undefined || settings.EMAIL_CONFIRMATION === 'required',
    emailConfirmation: settings.EMAIL_CONFIRMATION,
    publicUrl,
    businessUrl: settings.CONSOLE_BUSINESS_URL ?? null,
    dialects,
    /** Problems that the operator should know of but that do not prevent the start. */
    warnings,
    demoUser: isComplete(demoUser) ? demoUser : null,
    /**
     * Shown to every visitor of the console, so only the default user from the README, never one that an operator set.
     */
    shownDemoUser: isDeepStrictEqual(demoUser, defaultDemo) ? defaultDemo : null,
    /** Whether users can register and then log in at once. */
    isRegistrationSimple: registration === 'open' && settings.EMAIL_CONFIRMATION === 'off',
    logLevel: settings.LOG_LEVEL,
    securityLog: securityLogSettings(settings),
    accessLog: settings.ACCESS_LOG ?? (production ? 'errors' : 'all'),
    tls,
    ...listeners,
  } as const
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function isComplete(user: { username: string | undefined; password: string | undefined }): user is typeof defaultDemo {
  return user.username !== undefined && user.password !== undefined
}
