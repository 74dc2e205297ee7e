// The settings of the dialects: which ones are opened, and how long their tokens live.
import { z } from 'zod'
import { ConfigError, type Environment, readSettings } from '../../../shared/config/readSettings.ts'
import { seconds, settingMeta } from '../../../shared/config/settings.ts'
import { type DialectName, dialectNames } from './index.ts'
import { clearSetting, translateOlderNames } from './olderNames.ts'

export interface DialectConfig {
  name: DialectName
  /** 0 lets the operating system choose. */
  port: number
  /** Lifetime of its tokens, in milliseconds. */
  ttlMs: number
  /** Replaces the title of its documentation. */
  title?: string
  /** Replaces the description in its documentation. */
  description?: string
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

/**
 * Returns the dialects of `env`, the problems of their settings, warnings for the operator, and `env` with older names
 * translated to ours. If DIALECTS is invalid, returns no dialects; the check of that setting reports the problem.
 */
export function readDialects(env: Environment) {
  const problems: string[] = []
  const warnings: string[] = []
  const opened = dialectsSetting.safeParse(env['DIALECTS']?.trim() || undefined).data ?? []
  const names = opened.map(({ name }) => name)
  const known = translateOlderNames(env, names, problems, warnings)
  const dialects = opened.map(({ name, port }): DialectConfig => {
    const [life = 0] = Object.values(read(lifeSettings[name]))
    return { name, port, ttlMs: life * lifeUnitMs[name], ...headingOf(name, known) }
  })
  if (names.includes('token-provider')) read(clearSetting)

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

/** The service of token-manager reads these from its environment. */
function headingOf(name: DialectName, env: Environment): Pick<DialectConfig, 'title' | 'description'> {
  if (name !== 'token-manager') return {}
  const { APP_TITLE: title = '', APP_DESCRIPTION: description = '' } = env
  return { ...(title !== '' && { title }), ...(description !== '' && { description }) }
}

function parseDialects(text: string): Omit<DialectConfig, 'ttlMs'>[] | null {
  const found = text.split(',').map(part => {
    const [, name, port] = /^([a-z-]+):(\d{1,5})$/.exec(part.trim()) ?? []
    return { name: name as DialectName, port: Number(port) }
  })
  const areKnown = found.every(({ name, port }) => dialectNames.includes(name) && port <= 65_535)
  return areKnown && new Set(found.map(({ name }) => name)).size === found.length ? found : null
}
