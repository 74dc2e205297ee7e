// What each service is given of the environment: an address each, or with PORT one for both, Business's, behind which Auth
// stays on loopback. And where Heroku says that the stores are.
import type { Environment } from '../../shared/config/readSettings.ts'

export interface Layout {
  auth: Environment
  /** Lacks AUTH_PUBLIC_URL still: Auth's port may be for the system to choose. */
  business: Environment
  /** PORT is set. */
  isSingle: boolean
}

const loopback = '127.0.0.1'
const usualPorts = { AUTH_PORT: '3001', AUTH_INTERNAL_PORT: '3101', BUSINESS_INTERNAL_PORT: '3100' }

export function layOut(env: Environment): Layout {
  const { PORT, ...rest } = env
  if (!isSet(PORT)) return { auth: rest, business: rest, isSingle: false }
  // PORT is somebody else's choice. Where it is one of the usual ones, the system finds another for whose that is.
  const taken = Object.entries(usualPorts).filter(([name, usual]) => !isSet(rest[name]) && usual === PORT)
  const inner = { ...rest, ...Object.fromEntries(taken.map(([name]) => [name, '0'])), INTERNAL_HOST: loopback }
  const isKnown = rest['NODE_ENV'] !== 'production' && /^[1-9]\d*$/.test(PORT)
  const address = isKnown ? `${isSet(rest['TLS_CERT_FILE']) ? 'https' : 'http'}://localhost:${PORT}` : undefined
  return {
    auth: {
      ...inner,
      HOST: loopback,
      PUBLIC_URL: isSet(rest['PUBLIC_URL']) ? rest['PUBLIC_URL'] : address,
      CONSOLE_BUSINESS_URL: 'self',
      TRUSTED_PROXIES: '1', // Business, and nobody who called Business
      TLS_CERT_FILE: undefined, // it never leaves the machine; and no certificate is for 127.0.0.1
      TLS_KEY_FILE: undefined,
    },
    business: { ...inner, HOST: isSet(rest['HOST']) ? rest['HOST'] : '0.0.0.0', BUSINESS_PORT: PORT },
    isSingle: true,
  }
}

/**
 * On Heroku (DYNO is set) the stores are where the add-ons say, unless the operator has said it. Both speak TLS with
 * certificates that they signed themselves. `tell` hears which setting comes from which variable.
 */
export function storesOfHeroku(env: Environment, tell: (setting: string, variable: string) => void): Environment {
  const found: Environment = {}
  for (const [setting, variable] of [
    ['USER_STORE_URL', 'DATABASE_URL'],
    ['TOKEN_STORE_URL', 'REDIS_URL'],
  ] as const) {
    const url = env[variable]
    if (!isSet(env['DYNO']) || !isSet(url) || isSet(env[setting]) || isSet(env[`${setting}_FILE`])) continue
    found[setting] = withoutVerifying(url)
    tell(setting, variable)
  }
  return { ...env, ...found }
}

/** Changes nothing where the URL says what it wants, or its host is this machine. */
function withoutVerifying(text: string): string {
  const url = URL.parse(text)
  if (url === null) return text // whoever reads it says what is wrong with it
  const isLocal = /^(localhost|127\..*|\[::1\]|)$/.test(url.hostname)
  const add = (name: string, value: string) =>
    url.searchParams.has(name) ? text : `${text}${url.search === '' ? '?' : '&'}${name}=${value}`
  if (url.protocol === 'rediss:') return add('tls', 'no-verify')
  return /^postgres(ql)?:$/.test(url.protocol) && !isLocal ? add('sslmode', 'no-verify') : text
}

function isSet(text: string | undefined): text is string {
  return text !== undefined && text.trim() !== ''
}
