// Reads an environment through a zod schema: blank is unset, NAME_FILE for secrets, every problem reported at once.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'
import { z } from 'zod'
import { isBearerToken } from '../../packages/client/bearer.ts'
import type { AccessPolicy } from '../http/accessPolicy.ts'
import { isAddressRule } from '../http/address.ts'
import { accessLogModes } from '../http/requestRecord.ts'
import { logLevels } from '../log/log.ts'

export type Environment = Record<string, string | undefined>

/** What a problem report and the table in the README say of a setting. */
export interface SettingMeta {
  /** What it is for. */
  description: string
  /** Completes "expected …". */
  expected: string
  /** Never repeated in a report, and may come as NAME_FILE, the path of a file that holds it. */
  secret?: true
  /** The default in words, where it depends on something else. */
  fallback?: string
}

/** Every problem of an environment, one line each. */
export class ConfigError extends Error {
  readonly problems: string[]

  constructor(problems: string[]) {
    super(problems.join('\n'))
    this.name = 'ConfigError'
    this.problems = problems
  }
}

export const port = (fallback: number, description: string) =>
  z.coerce.number().int().min(0).max(65535).default(fallback).meta({ description, expected: 'a port from 0 to 65535' })

/** Whole seconds in the environment, milliseconds in the program. */
export const seconds = (fallback: number, description: string, most = 10 * 365 * 86400) =>
  z.coerce
    .number()
    .int()
    .min(1)
    .max(most)
    .default(fallback)
    .transform(value => value * 1000)
    .meta({ description, expected: `a whole number of seconds, 1 to ${most}` })

export const count = (fallback: number, description: string) =>
  z.coerce.number().int().min(1).default(fallback).meta({ description, expected: 'a whole number, 1 or more' })

/** Something a person would type where a random key is wanted. */
export function isGuessable(key: string): boolean {
  return new Set(key).size < 10 || /change.?me|example|password/i.test(key)
}

/** Keys for our listeners. */
const keyExpected = 'at least 32 random characters (openssl rand -hex 32)'
const keyText = z
  .string()
  .min(32)
  .refine(value => isBearerToken(value) && !isGuessable(value))

export const key = (description: string) =>
  keyText.meta({
    description,
    expected: keyExpected,
    secret: true,
    fallback: 'made in development, needed in production',
  })

export const optionalKey = (description: string) =>
  keyText.optional().meta({ description, expected: keyExpected, secret: true })

const address = (description: string) =>
  z.string().default('127.0.0.1').meta({ description, expected: 'an address to bind to' })

const list = (text: string) => text.split(',').map(item => item.trim())

const addressRules = (description: string) =>
  z
    .string()
    .transform(list)
    .refine(rules => rules.every(isAddressRule))
    .optional()
    .meta({ description, expected: 'addresses and networks such as 192.0.2.7, 10.0.0.0/8, 2001:db8::/32' })

/** The path of a PEM file; becomes its text. */
const pemFile = (description: string, what: string, parse: (text: string) => unknown) =>
  z
    .string()
    .transform((path, ctx) => {
      try {
        const text = readFileSync(path, 'utf8')
        parse(text)
        return text
      } catch {
        ctx.addIssue({ code: 'custom' })
        return z.NEVER
      }
    })
    .optional()
    .meta({ description, expected: `the path of a readable PEM file with ${what}` })

const certificate = (description: string) =>
  pemFile(description, 'a certificate, and those between it and its root', text => new X509Certificate(text))

const privateKey = (description: string) =>
  pemFile(description, 'a private key that is not encrypted', text => createPrivateKey(text))

/** What both services read. */
export const commonSettings = {
  NODE_ENV: z.enum(['development', 'production', 'test']).default('development').meta({
    description: '`production` refuses defaults and missing secrets',
    expected: 'development, production or test',
  }),
  HOST: address('address of the public listeners; 0.0.0.0 in a container'),
  INTERNAL_HOST: address('address of the internal listeners; never one that the public reaches'),
  SERVICE_KEY: key('what Business shows to Auth'),
  LOG_LEVEL: z
    .enum(logLevels)
    .default('info')
    .meta({ description: 'least level that is logged', expected: logLevels.join(', ') }),
  ACCESS_LOG: z
    .enum(accessLogModes)
    .optional()
    .meta({
      description: 'one log line per request: `all`, `errors` (only answers of 500 and above) or `off`',
      expected: accessLogModes.join(', '),
      fallback: 'all; errors in production',
    }),
  TRUSTED_PROXIES: z
    .string()
    .transform(text => (/^\d$/.test(text) ? Number(text) : list(text)))
    .refine(trusted => typeof trusted === 'number' || trusted.every(isAddressRule))
    .optional()
    .meta({
      description:
        'whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed on the public listeners: how many proxies are in front (Heroku: 1), or their addresses',
      expected: 'how many (0 to 9), or addresses and networks such as 10.0.0.0/8, 2001:db8::/32',
    }),
  ALLOWED_ADDRESSES: addressRules('who may call the public listeners: addresses and networks; none means everybody'),
  DENIED_ADDRESSES: addressRules('who may not, even where allowed'),
  TLS_CERT_FILE: certificate('with TLS_KEY_FILE: the public listeners speak TLS, with this certificate'),
  TLS_KEY_FILE: privateKey('its private key'),
  INTERNAL_TLS_CERT_FILE: certificate('the same for the internal listeners'),
  INTERNAL_TLS_KEY_FILE: privateKey('its private key'),
  CORS_ORIGINS: z
    .string()
    .transform(list)
    .refine(origins => origins.every(isWebOrigin))
    .optional()
    .meta({
      description: 'pages of these origins may call the public listeners',
      expected: 'origins such as https://app.example.com, http://localhost:5173',
      fallback: 'none; in development `./startServer` lets the console call Business',
    }),
  API_DOCS: z.enum(['on', 'off']).default('on').meta({
    description:
      'whether the public listeners describe their routes at `/openapi.json`, `/docs` and `/redoc`; the internal ones always do',
    expected: 'on or off',
  }),
  INVALID_TOKEN_LIMIT_PER_ADDRESS: count(
    100,
    'invalid tokens from one address in a minute; further ones are 429, valid ones never',
  ),
  MAX_CONNECTIONS: count(
    10_000,
    'connections that each listener of each process holds; one more costs the network with the most its longest idle one',
  ),
  SECURITY_LOG_FILE: z.string().optional().meta({
    description:
      'what has `"channel":"security"` in the log goes to this file, too; it links to the newest of a series',
    expected: 'the path of a file',
  }),
  SECURITY_LOG_MAX_MB: count(
    20,
    'a file of the security log that is as large is followed by another; so it is each day',
  ),
  SECURITY_LOG_KEEP_DAYS: count(90, 'files of the security log that are older are removed'),
}

type CommonSettings = Settings<typeof commonSettings>

/** The rules of `commonSettings` that concern several of them: for the rules of each service. */
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
  const isTold = [certName, keyName].some(name => problems.some(problem => problem.startsWith(`${name}:`)))
  if (isTold || (cert === undefined && key === undefined)) return
  if (cert === undefined || key === undefined) {
    problems.push(`${certName}, ${keyName}: expected both or neither; one is missing`)
    return
  }
  try {
    createSecureContext({ cert, key })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    problems.push(
      `${certName}, ${keyName}: expected a certificate and its own private key; together they fail (${code})`,
    )
  }
}

/** What `commonSettings` say of the listeners. */
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

/** As browsers send it: no path, no slash at the end, no default port; neither `null` nor `*`. */
function isWebOrigin(text: string): boolean {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && url.origin === text && !text.includes('*')
}

type Settings<T extends z.ZodRawShape> = z.output<z.ZodObject<T>>

/**
 * Throws a `ConfigError` with every problem: the setting, what is expected, and what was there. `rules` adds those that
 * concern several settings; a setting that is itself not usable is undefined there.
 */
export function readSettings<T extends z.ZodRawShape>(
  shape: T,
  env: Environment,
  rules: (settings: Partial<Settings<T>>, problems: string[]) => void = () => {},
): Settings<T> {
  const problems: string[] = []
  const settings: Record<string, unknown> = {}
  for (const [name, schema] of Object.entries(shape)) {
    const { expected, secret } = metaOf(schema as z.ZodType)
    const value = unlessBlank(env[name]) ?? (secret && readSecretFile(`${name}_FILE`, env, problems))
    const result = (schema as z.ZodType).safeParse(value)
    if (result.success) {
      settings[name] = result.data
    } else {
      const found = value === undefined ? 'it is missing' : secret ? 'it is not' : `got ${JSON.stringify(value)}`
      problems.push(`${name}: expected ${expected}; ${found}`)
    }
  }
  rules(settings as Partial<Settings<T>>, problems)
  problems.push(...misspelt(Object.keys(shape), env))
  if (problems.length > 0) throw new ConfigError(problems)
  return settings as Settings<T>
}

/** The environment is everybody's, so that unknown names are no error; one that was meant for ours would be silently lost. */
function misspelt(known: string[], env: Environment): string[] {
  return Object.keys(env).flatMap(name => {
    if (known.includes(name)) return []
    const meant = known.find(setting => setting.length >= 8 && isSlipAway(name.toUpperCase(), setting))
    return meant === undefined ? [] : [`${name}: expected ${meant}; no setting has this name`]
  })
}

/** One character is missing, too many, or another, or two have changed places. */
function isSlipAway(typed: string, meant: string): boolean {
  let start = 0
  while (start < typed.length && typed[start] === meant[start]) start++
  let end = 0
  while (end < Math.min(typed.length, meant.length) - start && typed.at(-1 - end) === meant.at(-1 - end)) end++
  const [left, right] = [typed.slice(start, typed.length - end), meant.slice(start, meant.length - end)]
  return (left.length <= 1 && right.length <= 1) || (left.length === 2 && left === `${right[1]}${right[0]}`)
}

export function metaOf(schema: z.ZodType): SettingMeta {
  return schema.meta() as unknown as SettingMeta
}

function unlessBlank(value: string | undefined): string | undefined {
  return value?.trim() === '' ? undefined : value
}

function readSecretFile(name: string, env: Environment, problems: string[]): string | undefined {
  const path = unlessBlank(env[name])
  if (path === undefined) return undefined
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (error) {
    problems.push(`${name}: expected a readable file; ${path}: ${(error as NodeJS.ErrnoException).code}`)
    return undefined
  }
}

/** What the settings of the security log become; null where it has no file. */
export function securityLogOf({
  SECURITY_LOG_FILE: path,
  SECURITY_LOG_MAX_MB: megabytes,
  SECURITY_LOG_KEEP_DAYS: keepDays,
}: CommonSettings) {
  return path === undefined ? null : { path, maxBytes: megabytes * 1024 * 1024, keepDays }
}
