// The settings of Business and what they become.
import { z } from 'zod'
import { commonSettings, type Environment, port, readSettings } from '../../shared/config.ts'

export const businessSettings = {
  ...commonSettings,
  BUSINESS_PORT: port(3000, 'public listener of Business'),
  AUTH_INTERNAL_URL: z
    .string()
    .refine(isHttpOrigin)
    .default('http://127.0.0.1:3101')
    .meta({ description: 'where Business asks Auth', expected: 'an http or https address without a path' }),
}

export type BusinessConfig = ReturnType<typeof readBusinessConfig>

/** Throws a `ConfigError` with every problem of `env`. */
export function readBusinessConfig(env: Environment) {
  const settings = readSettings(businessSettings, env)
  return {
    host: settings.HOST,
    port: settings.BUSINESS_PORT,
    authUrl: settings.AUTH_INTERNAL_URL,
    serviceKey: settings.SERVICE_KEY,
    logLevel: settings.LOG_LEVEL,
    accessLog: settings.ACCESS_LOG ?? (settings.NODE_ENV === 'production' ? 'errors' : 'all'),
  } as const
}

function isHttpOrigin(text: string): boolean {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && `${url.origin}/` === url.href
}
