// The settings of the dialects: which ones are opened, and how long their tokens live. token-provider also accepts the
// setting names of its older service, from the environment and from a config.xml.
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { ConfigError, type Environment, readSettings } from '../../../shared/config/readSettings.ts'
import { seconds, settingMeta } from '../../../shared/config/settings.ts'
import { type DialectName, dialectNames } from './index.ts'

export interface DialectConfig {
  name: DialectName
  /** 0 lets the operating system choose. */
  port: number
  /** Lifetime of its tokens, in milliseconds. */
  ttlMs: number
}

const expected = `name:port, separated by commas; names are ${dialectNames.join(', ')}, each at most once, and ports 0 to 65535`

export const dialectsSetting = z
  .string()
  .transform((text, ctx) => {
    const dialects = parseDialects(text)
    if (dialects === null) ctx.addIssue({ code: 'custom' })
    return dialects ?? z.NEVER
  })
  .optional()
  .register(settingMeta, {
    description: 'wire formats of older services, `name:port,…`, each on its own listener (docs/dialects.md)',
    expected,
  })

const minutes = (fallback: number, description: string) =>
  z.coerce
    .number()
    .int()
    .min(1)
    .max(10 * 365 * 1440)
    .default(fallback)
    .register(settingMeta, { description, expected: 'a whole number of minutes, 1 or more' })

/** Seconds or minutes, as `lifeUnitMs` says. Read only if the dialect is opened. */
export const lifeSettings = {
  'token-provider': { TOKEN_EXPIRATION_TIME: seconds(60, 'seconds for which a token of token-provider lives') },
  'token-manager': { TOKEN_TTL_MINUTES: minutes(60, 'lifetime of a token of token-manager') },
  'flask-jwt': { FLASK_JWT_TTL_MINUTES: minutes(35, 'a session of flask-jwt ends after this long without use') },
  'flask-auth': { FLASK_AUTH_TTL_MINUTES: minutes(15, 'lifetime of an access token of flask-auth') },
} satisfies Record<DialectName, Record<string, z.ZodType<number>>>

const lifeUnitMs: Record<DialectName, number> = {
  'token-provider': 1000,
  'token-manager': 60_000,
  'flask-jwt': 60_000,
  'flask-auth': 60_000,
}

export const clearSetting = {
  TOKEN_CLEAR_FREQUENCY: seconds(15, 'seconds between sweeps, unless SWEEP_INTERVAL_SECONDS is set', 86_400),
}

const sweepSetting = 'SWEEP_INTERVAL_SECONDS'
const pythonLevels: Environment = { debug: 'debug', info: 'info', warning: 'warn', error: 'error', critical: 'error' }
const storeName = /^POSTGRESQL_(USERNAME|PASSWORD|DB_NAME|HOST|DB_PORT|SSL_MODE)$/
const olderName = /^(TOKEN_EXPIRATION_TIME|TOKEN_CLEAR_FREQUENCY|LOG_LEVEL|BACKEND_APP_PORT)$/

/**
 * Returns the dialects of `env`, the problems of their settings, warnings for the operator, and `env` with older names
 * translated to ours. If DIALECTS is invalid, returns no dialects; the check of that setting reports the problem.
 */
export function readDialects(env: Environment) {
  const problems: string[] = []
  const warnings: string[] = []
  const opened = dialectsSetting.safeParse(env['DIALECTS']?.trim() || undefined).data ?? []
  const hasOlderNames = opened.some(({ name }) => name === 'token-provider')
  const known = hasOlderNames ? withOlderNames(env, problems, warnings) : env
  const dialects = opened.map(({ name, port }): DialectConfig => {
    const [life = 0] = Object.values(read(lifeSettings[name]))
    return { name, port, ttlMs: life * lifeUnitMs[name] }
  })
  if (hasOlderNames) read(clearSetting)

  function read<T extends z.ZodRawShape>(shape: T) {
    try {
      return readSettings(shape, known) as Record<string, number>
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      problems.push(...error.problems)
      return {}
    }
  }

  return { dialects, problems, warnings, env: known }
}

function parseDialects(text: string): Omit<DialectConfig, 'ttlMs'>[] | null {
  const found = text.split(',').map(part => {
    const [, name, port] = /^([a-z-]+):(\d{1,5})$/.exec(part.trim()) ?? []
    return { name: name as DialectName, port: Number(port) }
  })
  const areKnown = found.every(({ name, port }) => dialectNames.includes(name) && port <= 65_535)
  return areKnown && new Set(found.map(({ name }) => name)).size === found.length ? found : null
}

/** The environment takes precedence over config.xml, and our names over the older ones. */
function withOlderNames(env: Environment, problems: string[], warnings: string[]): Environment {
  const isSet = (name: string) => Boolean(env[name]?.trim())
  const file = readConfigXml(env, problems, warnings)
  const known = { ...file, ...Object.fromEntries(Object.entries(env).filter(([name]) => isSet(name))) }
  const stores = Object.keys(known).filter(name => storeName.test(name))
  if (stores.length > 0) {
    warnings.push(`${stores.join(', ')}: no effect here; TOKEN_STORE_URL decides where tokens are kept`)
  }
  if (known['BACKEND_APP_PORT'] !== undefined) {
    warnings.push('BACKEND_APP_PORT: no effect here; DIALECTS sets the port of token-provider')
  }
  const { LOG_LEVEL, TOKEN_CLEAR_FREQUENCY } = known
  const level = LOG_LEVEL && (pythonLevels[LOG_LEVEL.trim().toLowerCase()] ?? LOG_LEVEL)
  // An invalid number of seconds is not translated, so that it is reported under the name that the operator used.
  const isPause = clearSetting.TOKEN_CLEAR_FREQUENCY.safeParse(TOKEN_CLEAR_FREQUENCY).success
  return {
    ...known,
    ...(level && { LOG_LEVEL: level }),
    ...(TOKEN_CLEAR_FREQUENCY && isPause && !isSet(sweepSetting) && { [sweepSetting]: TOKEN_CLEAR_FREQUENCY }),
  }
}

/** Reads the file that CONFIG_XML names, or `config.xml` if it exists. */
function readConfigXml(env: Environment, problems: string[], warnings: string[]): Environment {
  const named = env['CONFIG_XML']?.trim()
  const path = named || 'config.xml'
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (named || code !== 'ENOENT') problems.push(`CONFIG_XML: expected a readable file; ${path}: ${code}`)
    return {}
  }
  const found = parseConfigXml(text)
  if (found === null) {
    const form = '<config><environment> with one element for each setting, without a DTD, attributes or CDATA'
    problems.push(`CONFIG_XML: expected ${form}; ${path} is not`)
    return {}
  }
  // Accept only these names, so that a stray file cannot set keys.
  const isKnown = (name: string) => olderName.test(name) || storeName.test(name)
  for (const name of Object.keys(found)) {
    if (!isKnown(name)) warnings.push(`${path}: ${name} is ignored; only settings of the older service are read`)
  }
  return Object.fromEntries(Object.entries(found).filter(([name]) => isKnown(name)))
}

const maxCharacters = 16_384 // the older service's file has 605 characters; the expressions below take quadratic time at worst
const element = /\s*<([A-Za-z_][\w.-]*)>([^<]*)<\/\1\s*>/y
const entities: Environment = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

/**
 * Maps name to text for the elements in `<config><environment>`. Null for any other XML. DTDs are rejected, so there
 * are no entities to expand and no other files or URLs to fetch.
 */
export function parseConfigXml(text: string): Record<string, string> | null {
  if (text.length > maxCharacters) return null
  const bare = text.replace(/^\uFEFF?\s*(<\?xml [^<>]*\?>)?/, '').replace(/<!--.*?-->/gs, '')
  const [, inner] = /^\s*<config>\s*<environment>(.*)<\/environment>\s*<\/config>\s*$/s.exec(bare) ?? []
  if (inner === undefined) return null
  const found = new Map<string, string>()
  element.lastIndex = 0
  let end = 0
  for (let match = element.exec(inner); match !== null; match = element.exec(inner)) {
    const [, name = '', value = ''] = match
    const plain = value.replace(/&(\w+);/g, (whole, entity: string) => entities[entity] ?? whole)
    if (found.has(name) || /&(?!(amp|lt|gt|quot|apos);)/.test(value)) return null
    found.set(name, plain.trim())
    end = element.lastIndex
  }
  return inner.slice(end).trim() === '' ? Object.fromEntries(found) : null
}
