// The settings of Business and what they become.
import { isIP } from 'node:net'
import { z } from 'zod'
import {
  checkCommonSettings,
  commonSettings,
  count,
  type Environment,
  listenerSettings,
  port,
  readSettings,
  securityLogOf,
} from '../../shared/config/config.ts'
import { addressTest, peerAddress } from '../../shared/http/address.ts'

export const businessSettings = {
  ...commonSettings,
  BUSINESS_PORT: port(3000, 'public listener of Business'),
  BUSINESS_INTERNAL_PORT: port(3100, 'internal listener of Business: metrics'),
  WEB_CONCURRENCY: count(1, 'how many processes of Business `./startServer` runs; they share the port'),
  AUTH_INTERNAL_URL: z
    .string()
    .refine(isHttpOrigin)
    .default('http://127.0.0.1:3101')
    .meta({ description: 'where Business asks Auth', expected: 'an http or https address without a path' }),
  AUTH_PUBLIC_URL: z.string().refine(isHttpOrigin).optional().meta({
    description:
      'where Business passes the public routes of Auth on to, so that both have one address: what `PORT` does',
    expected: 'an http or https address without a path',
    fallback: 'none; set by ./startServer with PORT',
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
      const url = found[name]
      if (found.NODE_ENV !== 'production' || !url || isPrivateOrTls(url)) continue
      problems.push(
        `${name}: expected https in production, or a host that is loopback, private, *.internal or a name without dots; ${what} would be readable on the way`,
      )
    }
  })
  return {
    host: settings.HOST,
    port: settings.BUSINESS_PORT,
    internalHost: settings.INTERNAL_HOST,
    internalPort: settings.BUSINESS_INTERNAL_PORT,
    workers: settings.WEB_CONCURRENCY,
    authUrl: settings.AUTH_INTERNAL_URL,
    /** Null where each service has an address of its own. */
    forwardUrl: settings.AUTH_PUBLIC_URL ?? null,
    serviceKey: settings.SERVICE_KEY,
    invalidTokenLimit: settings.INVALID_TOKEN_LIMIT_PER_ADDRESS,
    logLevel: settings.LOG_LEVEL,
    securityLog: securityLogOf(settings),
    accessLog: settings.ACCESS_LOG ?? (settings.NODE_ENV === 'production' ? 'errors' : 'all'),
    ...listenerSettings(settings),
  } as const
}

function isHttpOrigin(text: string): boolean {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && `${url.origin}/` === url.href
}

// Loopback, RFC 1918, RFC 4193 and link-local. Not 100.64.0.0/10: others share it.
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

/** Names: of a compose or Kubernetes network, or of a domain that public name servers do not know (RFC 6761, RFC 6762). */
function isPrivateOrTls(text: string): boolean {
  const { protocol, hostname } = new URL(text)
  if (protocol === 'https:') return true
  const host = hostname.replace(/^\[|\]$/g, '')
  if (isIP(host) !== 0) return isPrivateAddress(peerAddress({ remoteAddress: host }))
  return !host.includes('.') || /\.(internal|local|localhost)$/.test(host)
}
