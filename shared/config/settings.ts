// Schemas for settings: how an environment variable is read, and what reports and documents say about it.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { isBearerToken } from '../../packages/client/bearer.ts'
import { isAddressRule } from '../http/address.ts'

/** What reports and docs/configuration.md say about a setting. */
export interface SettingMeta {
  /** What it is for. */
  description: string
  /** Completes "expected …". */
  expected: string
  /** The value is never shown in a report. It may also be in a file, whose path is then in NAME_FILE. */
  secret?: true
  /** The default in words, if it depends on something else. */
  fallback?: string
}

/** Every schema of a setting registers here. */
export const settingMeta = z.registry<SettingMeta>()

export function metaOf(schema: z.ZodType): SettingMeta {
  const meta = settingMeta.get(schema)
  if (meta === undefined) throw new Error('The schema of a setting must be registered in settingMeta.')
  return meta
}

export const port = (fallback: number, description: string) =>
  z.coerce
    .number()
    .int()
    .min(0)
    .max(65535)
    .default(fallback)
    .register(settingMeta, { description, expected: 'a port from 0 to 65535' })

/** Whole seconds. The config of a service has milliseconds, to which `secondsToMs` converts. */
export const seconds = (fallback: number, description: string, max = 10 * 365 * 86400) =>
  z.coerce
    .number()
    .int()
    .min(1)
    .max(max)
    .default(fallback)
    .register(settingMeta, { description, expected: `a whole number of seconds, 1 to ${max}` })

export const secondsToMs = (value: number) => value * 1000

export const count = (fallback: number, description: string) =>
  z.coerce
    .number()
    .int()
    .min(1)
    .default(fallback)
    .register(settingMeta, { description, expected: 'a whole number, 1 or more' })

/** Whether the key looks typed by a person instead of drawn at random. */
export function isGuessable(key: string): boolean {
  return new Set(key).size < 10 || /change.?me|example|password/i.test(key)
}

const keyExpected = 'at least 32 random characters (openssl rand -hex 32)'
const keyText = z
  .string()
  .min(32)
  .refine(value => isBearerToken(value) && !isGuessable(value))

/** A key for the internal listeners. */
export const key = (description: string) =>
  keyText.clone().register(settingMeta, {
    description,
    expected: keyExpected,
    secret: true,
    fallback: 'generated in development, required in production',
  })

export const optionalKey = (description: string) =>
  keyText.optional().register(settingMeta, { description, expected: keyExpected, secret: true })

export const bindAddress = (description: string) =>
  z.string().default('127.0.0.1').register(settingMeta, { description, expected: 'an address to bind to' })

export const splitList = (text: string) => text.split(',').map(item => item.trim())

export const addressRules = (description: string) =>
  z
    .string()
    .transform(splitList)
    .refine(rules => rules.every(isAddressRule))
    .optional()
    .register(settingMeta, {
      description,
      expected: 'addresses and networks such as 192.0.2.7, 10.0.0.0/8, 2001:db8::/32',
    })

/** The path of a PEM file. The value of the setting is the content of the file. */
const pemFile = (description: string, content: string, parse: (text: string) => unknown) =>
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
    .register(settingMeta, { description, expected: `the path of a readable PEM file with ${content}` })

export const certificate = (description: string) =>
  pemFile(description, 'a certificate and its intermediates', text => new X509Certificate(text))

export const privateKey = (description: string) =>
  pemFile(description, 'an unencrypted private key', text => createPrivateKey(text))
