// Derives the environment of each service from the common one, for two addresses, or for one if PORT is set. Also finds the stores
// on Heroku.
import type { Environment } from '../../shared/config/readSettings.ts'

export interface Layout {
  auth: Environment
  /** Without AUTH_PUBLIC_URL, which is known only once Auth has started, because the system may choose Auth's port. */
  business: Environment
  /** Whether PORT is set: then Business listens on PORT, and Auth on loopback behind Business. */
  isSingle: boolean
}

const loopback = '127.0.0.1'
const defaultPorts = { AUTH_PORT: '3001', AUTH_INTERNAL_PORT: '3101', BUSINESS_INTERNAL_PORT: '3100' }

export function layOut(env: Environment): Layout {
  const { PORT, ...rest } = env
  if (!isSet(PORT)) return { auth: rest, business: rest, isSingle: false }
  // The platform chooses PORT. If it equals the default of another port, let the system choose that other port.
  const taken = Object.entries(defaultPorts).filter(([name, port]) => !isSet(rest[name]) && port === PORT)
  const inner = { ...rest, ...Object.fromEntries(taken.map(([name]) => [name, '0'])), INTERNAL_HOST: loopback }
  const isKnown = rest['NODE_ENV'] !== 'production' && /^[1-9]\d*$/.test(PORT)
  const address = isKnown ? `${isSet(rest['TLS_CERT_FILE']) ? 'https' : 'http'}://localhost:${PORT}` : undefined
  return {
    auth: {
      ...inner,
      HOST: loopback,
      PUBLIC_URL: isSet(rest['PUBLIC_URL']) ? rest['PUBLIC_URL'] : address,
      CONSOLE_BUSINESS_URL: 'self',
      TRUSTED_PROXIES: '1', // trust only Business, not the proxies in front of it
      TLS_CERT_FILE: undefined, // the traffic stays on the machine, and no certificate is valid for 127.0.0.1
      TLS_KEY_FILE: undefined,
    },
    business: { ...inner, HOST: isSet(rest['HOST']) ? rest['HOST'] : '0.0.0.0', BUSINESS_PORT: PORT },
    isSingle: true,
  }
}

/**
 * On Heroku (DYNO is set), takes the store URLs from the add-ons unless the operator has set them. Both add-ons speak TLS with
 * self-signed certificates. Calls `onFound` with each setting and the variable it comes from.
 */
export function storesOfHeroku(env: Environment, onFound: (setting: string, variable: string) => void): Environment {
  const found: Environment = {}
  for (const [setting, variable] of [
    ['USER_STORE_URL', 'DATABASE_URL'],
    ['TOKEN_STORE_URL', 'REDIS_URL'],
  ] as const) {
    const url = env[variable]
    if (!isSet(env['DYNO']) || !isSet(url) || isSet(env[setting]) || isSet(env[`${setting}_FILE`])) continue
    found[setting] = withoutVerification(url)
    onFound(setting, variable)
  }
  return { ...env, ...found }
}

/** Adds the parameter that accepts any certificate, unless the URL already has that parameter or its host is this machine. */
function withoutVerification(text: string): string {
  const url = URL.parse(text)
  if (url === null) return text // the configuration will report it
  const isLocal = /^(localhost|127\..*|\[::1\]|)$/.test(url.hostname)
  const add = (name: string, value: string) =>
    url.searchParams.has(name) ? text : `${text}${url.search === '' ? '?' : '&'}${name}=${value}`
  if (url.protocol === 'rediss:') return add('tls', 'no-verify')
  return /^postgres(ql)?:$/.test(url.protocol) && !isLocal ? add('sslmode', 'no-verify') : text
}

/** Whether the setting is neither missing nor blank. */
export function isSet(text: string | undefined): text is string {
  return text !== undefined && text.trim() !== ''
}
