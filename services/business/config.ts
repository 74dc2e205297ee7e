// The settings of Business, the checks across settings, and the resulting config.
import { isIP } from 'node:net'
import { z } from 'zod'
import { type Environment, readSettings } from '../../shared/config/readSettings.ts'
import {
  checkCommonSettings,
  commonSettings,
  listenerSettings,
  securityLogSettings,
} from '../../shared/config/serviceSettings.ts'
import { count, port, settingMeta, splitList } from '../../shared/config/settings.ts'
import { addressTest, peerAddress } from '../../shared/http/address.ts'
import { ruleLabels } from './routes.ts'

export const businessSettings = {
  ...commonSettings,
  BUSINESS_PORT: port(3000, 'port of the public listener of Business'),
  BUSINESS_INTERNAL_PORT: port(3100, 'port of the internal listener of Business, for metrics'),
  WEB_CONCURRENCY: count(1, 'processes of Business that `./startServer` runs; they share the port'),
  AUTH_INTERNAL_URL: z
    .string()
    .refine(text => isListOfOrigins(splitList(text)))
    .default('http://127.0.0.1:3101')
    .register(settingMeta, {
      description:
        'address of the internal listener of Auth; of several Auths on one token store, all addresses, separated by commas, or a name that has them all',
      expected: 'an http or https address without a path, or different ones separated by commas',
    }),
  AUTH_PUBLIC_URL: z.string().refine(isHttpOrigin).optional().register(settingMeta, {
    description:
      'address of the public listener of Auth; if it is set, Business forwards the routes of Auth, so both share one address',
    expected: 'an http or https address without a path',
    fallback: 'none; set by ./startServer with PORT',
  }),
  CONSOLE_URL: z
    .url({ protocol: /^https?$/ })
    .optional()
    .register(settingMeta, {
      description: "address of Auth's console, to which `/` of Business leads",
      expected: 'an http or https address',
      fallback: 'none; set by ./startServer in development',
    }),
  SHADOW_RULES: z
    .string()
    .transform(splitList)
    .refine(labels => labels.every(label => ruleLabels.includes(label)))
    .optional()
    .register(settingMeta, {
      description:
        'rules of the routes of Business that refuse nothing, and only count whom they would refuse (`GET /shadowRules` on the internal listener)',
      expected: `some of these, separated by commas: ${ruleLabels.join(', ')}`,
      fallback: 'none',
    }),
}

export type BusinessConfig = ReturnType<typeof readBusinessConfig>

/** Throws a `ConfigError` with every problem of `env`. */
export function readBusinessConfig(env: Environment) {
  const settings = readSettings(businessSettings, env, (found, problems) => {
    checkCommonSettings(found, problems)
    for (const [name, what] of [
      ['AUTH_INTERNAL_URL', 'the service key and every token'],
      ['AUTH_PUBLIC_URL', 'every password'],
    ] as const) {
      const urls = found[name] === undefined ? [] : splitList(found[name])
      if (found.NODE_ENV !== 'production' || urls.every(isPrivateOrTls)) continue
      problems.push(
        `${name}: expected https in production, or a host that is loopback, private, *.internal or a name without dots; others on the network could read ${what}`,
      )
    }
  })
  return {
    isDevelopment: settings.NODE_ENV === 'development',
    host: settings.HOST,
    port: settings.BUSINESS_PORT,
    internalHost: settings.INTERNAL_HOST,
    internalPort: settings.BUSINESS_INTERNAL_PORT,
    workers: settings.WEB_CONCURRENCY,
    authUrls: splitList(settings.AUTH_INTERNAL_URL),
    /** Null if each service has its own address. */
    forwardUrl: settings.AUTH_PUBLIC_URL ?? null,
    /** Null if there is nothing at `/`, or if Auth answers there. */
    consoleUrl: settings.CONSOLE_URL ?? null,
    serviceKey: settings.SERVICE_KEY,
    shadowRules: settings.SHADOW_RULES ?? [],
    invalidTokenLimit: settings.INVALID_TOKEN_LIMIT_PER_ADDRESS,
    logLevel: settings.LOG_LEVEL,
    securityLog: securityLogSettings(settings),
    accessLog: settings.ACCESS_LOG ?? (settings.NODE_ENV === 'production' ? 'errors' : 'all'),
    ...listenerSettings(settings),
  } as const
}

function isHttpOrigin(text: string): boolean {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && `${url.origin}/` === url.href
}

function isListOfOrigins(urls: string[]): boolean {
  return urls.every(isHttpOrigin) && new Set(urls.map(url => new URL(url).origin)).size === urls.length
}

// Loopback, RFC 1918, RFC 4193 and link-local. Not 100.64.0.0/10 (carrier-grade NAT): strangers share those addresses.
const isPrivateAddress = addressTest([
  '127.0.0.0/8',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '169.254.0.0/16',
  '::1',
  'fc00::/7',
  'fe80::/10',
])

/**
 * Private names have either no dot (compose, Kubernetes) or a domain that public name servers do not know (RFC 6761, RFC
 * 6762).
 */
function isPrivateOrTls(text: string): boolean {
  const { protocol, hostname } = new URL(text)
  if (protocol === 'https:') return true
  const host = hostname.replace(/^\[|\]$/g, '')
  if (isIP(host) !== 0) return isPrivateAddress(peerAddress({ remoteAddress: host }))
  return !host.includes('.') || /\.(internal|local|localhost)$/.test(host)
}
