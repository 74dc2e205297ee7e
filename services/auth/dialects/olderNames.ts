// Translates the setting names of the older services to ours. Names are read only if the dialect of their service is opened; those
// of token-provider also come from a config.xml. The environment takes precedence over that file, and our names over older ones.
import { readFileSync } from 'node:fs'
import type { Environment } from '../../../shared/config/readSettings.ts'
import { seconds } from '../../../shared/config/settings.ts'
import type { DialectName } from './index.ts'

export const clearSetting = {
  TOKEN_CLEAR_FREQUENCY: seconds(15, 'seconds between sweeps, unless SWEEP_INTERVAL_SECONDS is set', 86_400),
}

const sweepSetting = 'SWEEP_INTERVAL_SECONDS'
const pythonLevels: Environment = { debug: 'debug', info: 'info', warning: 'warn', error: 'error', critical: 'error' }
const databaseName = /^POSTGRESQL_(USERNAME|PASSWORD|DB_NAME|HOST|DB_PORT|SSL_MODE)$/
const olderName = /^(TOKEN_EXPIRATION_TIME|TOKEN_CLEAR_FREQUENCY|LOG_LEVEL|BACKEND_APP_PORT)$/

/** Returns `env` with our names added, and adds sentences for the operator to `problems` and `warnings`. */
export function translateOlderNames(
  env: Environment,
  dialects: readonly DialectName[],
  problems: string[],
  warnings: string[],
): Environment {
  const known = dialects.includes('token-provider') ? withTokenProviderNames(env, problems, warnings) : env
  if (dialects.includes('flask-jwt')) {
    const keys = ['JWT_KEY', 'ENV_JWT_KEY'].filter(name => isSet(known, name))
    if (keys.length > 0) warnings.push(`${keys.join(', ')}: no effect here; tokens of flask-jwt are sessions of Auth`)
  }
  return { ...known, ...tokenStoreOf(known, dialects, warnings) }
}

/** The setting without blanks around it; '' if it is missing. */
function textOf(env: Environment, name: string): string {
  return env[name]?.trim() ?? ''
}

function isSet(env: Environment, name: string): boolean {
  return textOf(env, name) !== ''
}

function withTokenProviderNames(env: Environment, problems: string[], warnings: string[]): Environment {
  const file = readConfigXml(env, problems, warnings)
  const known = { ...file, ...Object.fromEntries(Object.entries(env).filter(([name]) => isSet(env, name))) }
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
    ...(TOKEN_CLEAR_FREQUENCY && isPause && !isSet(env, sweepSetting) && { [sweepSetting]: TOKEN_CLEAR_FREQUENCY }),
  }
}

/** TOKEN_STORE_URL from the first older name that has a database, unless the operator has set it. */
function tokenStoreOf(env: Environment, dialects: readonly DialectName[], warnings: string[]): Environment {
  const found: { dialect: DialectName; names: string[]; url: string | null }[] = [
    {
      dialect: 'token-provider',
      names: Object.keys(env).filter(name => databaseName.test(name) && isSet(env, name)),
      url: postgresUrl(env),
    },
    { dialect: 'token-manager', names: ['DATABASE_URL'], url: sqlAlchemyUrl(env) },
    { dialect: 'flask-jwt', names: ['REDIS_HOST', 'REDIS_PORT'].filter(name => isSet(env, name)), url: redisUrl(env) },
  ]
  let isDecided = isSet(env, 'TOKEN_STORE_URL') || isSet(env, 'TOKEN_STORE_URL_FILE')
  const store: Environment = {}
  for (const { dialect, names, url } of found) {
    if (!dialects.includes(dialect) || !names.some(name => isSet(env, name))) continue
    const isUsed = url !== null && !isDecided
    if (isUsed) store['TOKEN_STORE_URL'] = url
    isDecided ||= isUsed
    const effect = isUsed ? 'tokens are kept there; better set TOKEN_STORE_URL' : 'no effect here; set TOKEN_STORE_URL'
    warnings.push(`${names.join(', ')}: ${effect}`)
  }
  return store
}

/** Null also for a host that a URL cannot have, such as `db:5432`: the URL would keep its earlier one, and the password would go there. */
function postgresUrl(env: Environment): string | null {
  const host = textOf(env, 'POSTGRESQL_HOST')
  if (host === '') return null
  const url = new URL('postgres://localhost')
  url.hostname = host
  if (url.hostname !== host) return null
  url.port = textOf(env, 'POSTGRESQL_DB_PORT')
  url.username = encodeURIComponent(textOf(env, 'POSTGRESQL_USERNAME'))
  url.password = encodeURIComponent(textOf(env, 'POSTGRESQL_PASSWORD'))
  url.pathname = textOf(env, 'POSTGRESQL_DB_NAME')
  const sslMode = textOf(env, 'POSTGRESQL_SSL_MODE')
  if (sslMode !== '') url.searchParams.set('sslmode', sslMode)
  return url.href
}

/** Null also on Heroku, which puts the database of the users into DATABASE_URL. */
function sqlAlchemyUrl(env: Environment): string | null {
  if (isSet(env, 'DYNO')) return null
  const url = textOf(env, 'DATABASE_URL')
  const [, path] = /^sqlite(?:\+\w+)?:\/\/\/(.+)$/.exec(url) ?? []
  if (path !== undefined) return path === ':memory:' ? null : `sqlite:${path}`
  const [, rest] = /^postgres(?:ql)?(?:\+\w+)?:(.+)$/.exec(url) ?? []
  return rest === undefined ? null : `postgres:${rest}`
}

function redisUrl(env: Environment): string | null {
  const host = textOf(env, 'REDIS_HOST')
  return host === '' ? null : `redis://${host}:${textOf(env, 'REDIS_PORT') || 6379}`
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
  const isKnown = (name: string) => olderName.test(name) || databaseName.test(name)
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
