// Reads an environment through a zod schema: blank is unset, NAME_FILE for secrets, every problem reported at once.
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { isBearerToken } from './bearer.ts'
import { accessLogModes } from './http.ts'
import { logLevels } from './log.ts'

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
export const seconds = (fallback: number, description: string) =>
  z.coerce
    .number()
    .int()
    .min(1)
    .max(10 * 365 * 86400)
    .default(fallback)
    .transform(value => value * 1000)
    .meta({ description, expected: 'a whole number of seconds, 1 or more' })

/** A key for one of our listeners: long enough and not something a person would type. */
export const count = (fallback: number, description: string) =>
  z.coerce.number().int().min(1).default(fallback).meta({ description, expected: 'a whole number, 1 or more' })

const keyExpected = 'at least 32 random characters (openssl rand -hex 32)'
const keyText = z
  .string()
  .min(32)
  .refine(value => isBearerToken(value) && new Set(value).size >= 10 && !/change.?me|example|password/i.test(value))

export const key = (description: string) =>
  keyText.meta({
    description,
    expected: keyExpected,
    secret: true,
    fallback: 'made in development, needed in production',
  })

export const optionalKey = (description: string) =>
  keyText.optional().meta({ description, expected: keyExpected, secret: true })

export const address = (description: string) =>
  z.string().default('127.0.0.1').meta({ description, expected: 'an address to bind to' })

/** What both services read. */
export const commonSettings = {
  NODE_ENV: z.enum(['development', 'production', 'test']).default('development').meta({
    description: '`production` refuses defaults and missing secrets',
    expected: 'development, production or test',
  }),
  HOST: address('address of the public listeners; 0.0.0.0 in a container'),
  SERVICE_KEY: key('what Business shows to Auth'),
  LOG_LEVEL: z
    .enum(logLevels)
    .default('info')
    .meta({ description: 'least level that is logged', expected: logLevels.join(', ') }),
  ACCESS_LOG: z
    .enum(accessLogModes)
    .optional()
    .meta({
      description: 'one log line per request: all, only answers of 500 and above, or none',
      expected: accessLogModes.join(', '),
      fallback: 'all; errors in production',
    }),
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
  if (problems.length > 0) throw new ConfigError(problems)
  return settings as Settings<T>
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
