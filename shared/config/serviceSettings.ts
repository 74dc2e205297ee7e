// The settings that both services have, the checks that concern several of them, and the options that listeners and logs get.
import { createSecureContext } from 'node:tls'
import { z } from 'zod'
import type { AccessPolicy } from '../http/accessPolicy.ts'
import { isAddressRule } from '../http/address.ts'
import { accessLogModes } from '../http/requestRecord.ts'
import { logLevels } from '../log/levels.ts'
import type { Settings } from './readSettings.ts'
import { addressRules, bindAddress, certificate, count, key, privateKey, settingMeta, splitList } from './settings.ts'

export const commonSettings = {
  NODE_ENV: z.enum(['development', 'production', 'test']).default('development').register(settingMeta, {
    description: '`production` requires every secret to be set, and refuses default passwords',
    expected: 'development, production or test',
  }),
  HOST: bindAddress('address that the public listeners bind to; the container images set 0.0.0.0'),
  INTERNAL_HOST: bindAddress('address that the internal listeners bind to; it must not be reachable from the internet'),
  SERVICE_KEY: key('the key that Business presents to Auth'),
  LOG_LEVEL: z
    .enum(logLevels)
    .default('info')
    .register(settingMeta, { description: 'lowest level that is logged', expected: logLevels.join(', ') }),
  ACCESS_LOG: z
    .enum(accessLogModes)
    .optional()
    .register(settingMeta, {
      description: 'one log line per request: `all`, `errors` (status 500 and above) or `off`',
      expected: accessLogModes.join(', '),
      fallback: 'all; errors in production',
    }),
  TRUSTED_PROXIES: z
    .string()
    .transform(text => (/^\d$/.test(text) ? Number(text) : splitList(text)))
    .refine(trusted => typeof trusted === 'number' || trusted.every(isAddressRule))
    .optional()
    .register(settingMeta, {
      description:
        'trusted proxies: their number (Heroku: 1) or their addresses. The public listeners read `X-Forwarded-For` and `X-Forwarded-Proto` only from them',
      expected: 'a number of proxies from 0 to 9, or addresses and networks such as 10.0.0.0/8, 2001:db8::/32',
    }),
  ALLOWED_ADDRESSES: addressRules('addresses and networks that may call the public listeners; if unset, all may'),
  DENIED_ADDRESSES: addressRules(
    'addresses and networks that may not call the public listeners, even if ALLOWED_ADDRESSES contains them',
  ),
  TLS_CERT_FILE: certificate('certificate of the public listeners, which use TLS if this and TLS_KEY_FILE are set'),
  TLS_KEY_FILE: privateKey('private key of TLS_CERT_FILE'),
  INTERNAL_TLS_CERT_FILE: certificate(
    'certificate of the internal listeners, which use TLS if this and INTERNAL_TLS_KEY_FILE are set',
  ),
  INTERNAL_TLS_KEY_FILE: privateKey('private key of INTERNAL_TLS_CERT_FILE'),
  CORS_ORIGINS: z
    .string()
    .transform(splitList)
    .refine(origins => origins.every(isWebOrigin))
    .optional()
    .register(settingMeta, {
      description: 'origins whose pages may call the public listeners',
      expected: 'origins such as https://app.example.com, http://localhost:5173',
      fallback: 'none; in development `./startServer` lets the console call Business',
    }),
  API_DOCS: z.enum(['on', 'off']).default('on').register(settingMeta, {
    description:
      'whether the public listeners describe their routes at `/openapi.json`, `/docs` and `/redoc`; the internal listeners always do',
    expected: 'on or off',
  }),
  INVALID_TOKEN_LIMIT_PER_ADDRESS: count(
    100,
    'invalid tokens per address and minute; further invalid tokens are answered 429, valid ones are not',
  ),
  MAX_CONNECTIONS: count(
    10_000,
    'connections per listener and process; at the limit, a new connection closes the longest idle one of the network with the most connections',
  ),
  SECURITY_LOG_FILE: z.string().optional().register(settingMeta, {
    description:
      'also write log lines with `"channel":"security"` to a series of files; this path is a link to the newest file',
    expected: 'the path of a file',
  }),
  SECURITY_LOG_MAX_MB: count(20, 'rotate the security log at this size, and daily'),
  SECURITY_LOG_KEEP_DAYS: count(90, 'delete files of the security log after this many days'),
}

type CommonSettings = Settings<typeof commonSettings>

/** Adds the problems that concern several of `commonSettings`. Each service calls this from its own checks. */
export function checkCommonSettings(found: Partial<CommonSettings>, problems: string[]): void {
  checkKeyPair('TLS_CERT_FILE', 'TLS_KEY_FILE', found, problems)
  checkKeyPair('INTERNAL_TLS_CERT_FILE', 'INTERNAL_TLS_KEY_FILE', found, problems)
}

type FileSetting = `${'' | 'INTERNAL_'}TLS_${'CERT' | 'KEY'}_FILE`

function checkKeyPair(
  certName: FileSetting,
  keyName: FileSetting,
  { [certName]: cert, [keyName]: key }: Partial<CommonSettings>,
  problems: string[],
): void {
  const isReported = [certName, keyName].some(name => problems.some(problem => problem.startsWith(`${name}:`)))
  if (isReported || (cert === undefined && key === undefined)) return
  if (cert === undefined || key === undefined) {
    problems.push(`${certName}, ${keyName}: expected both or neither; one is missing`)
    return
  }
  try {
    createSecureContext({ cert, key })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    problems.push(
      `${certName}, ${keyName}: expected a certificate and its own private key; they do not match (${code})`,
    )
  }
}

/** The options of listeners. */
export function listenerSettings(settings: CommonSettings) {
  const trustedProxies = settings.TRUSTED_PROXIES ?? 0
  const accessPolicy: AccessPolicy = {
    trustedProxies,
    allowedAddresses: settings.ALLOWED_ADDRESSES ?? [],
    deniedAddresses: settings.DENIED_ADDRESSES ?? [],
    httpsOnly: settings.NODE_ENV === 'production' && trustedProxies !== 0,
    corsOrigins: settings.CORS_ORIGINS ?? [],
  }
  return {
    accessPolicy,
    tls: keyPair(settings.TLS_CERT_FILE, settings.TLS_KEY_FILE),
    internalTls: keyPair(settings.INTERNAL_TLS_CERT_FILE, settings.INTERNAL_TLS_KEY_FILE),
    maxConnections: settings.MAX_CONNECTIONS,
    hasApiDocs: settings.API_DOCS === 'on',
  }
}

function keyPair(cert: string | undefined, key: string | undefined) {
  return cert !== undefined && key !== undefined ? { cert, key } : null
}

/** The options of the security log, or null if it has no file. */
export function securityLogSettings({
  SECURITY_LOG_FILE: path,
  SECURITY_LOG_MAX_MB: megabytes,
  SECURITY_LOG_KEEP_DAYS: keepDays,
}: CommonSettings) {
  return path === undefined ? null : { path, maxBytes: megabytes * 1024 * 1024, keepDays }
}

/** Whether `text` is an origin as browsers send it: no path, trailing slash or default port; neither `null` nor `*`. */
function isWebOrigin(text: string): boolean {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && url.origin === text && !text.includes('*')
}
