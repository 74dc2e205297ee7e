// What an operator reads of an error.
import { ConfigError } from '../shared/config/readSettings.ts'
import { AppError } from '../shared/http/errors.ts'
import { printable } from './text.ts'

export function describeError(error: unknown): string {
  if (error instanceof ConfigError) return ['The configuration is invalid:', ...error.problems].join('\n  ')
  const { message, cause } = error as Error
  const reason = error instanceof AppError && cause instanceof Error ? ` (${cause.message})` : ''
  return printable(message + reason)
}
