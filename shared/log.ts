// One JSON line per event on one stream, through winston. Hides how errors and over-long strings are made safe to write.
import type { Writable } from 'node:stream'
import { createLogger, transports } from 'winston'

export const logLevels = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof logLevels)[number]

/** Fields are chosen by our code, never spread from a request: their names cannot collide with somebody's input. */
export type LogFields = Record<string, unknown>

export type Log = Record<LogLevel, (event: string, fields?: LogFields) => void>

export interface LogOptions {
  service: string
  level: LogLevel
  stream: Writable
}

const unescaped = /[\x7f-\x9f\u2028\u2029]/g // JSON allows them; terminals and line readers take them for more than text
const maxCauses = 5 // an error can be its own cause
const maxStringLength = 1000 // characters; one event stays far below the 10 KB line limit of log collectors

/** Every line is `{"time", "level", "service", "event", …fields}`. Errors in fields are reduced by `describeError`. */
export function openLog({ service, level, stream }: LogOptions): Log {
  // A reader that went away (EPIPE) must not take the service with it. Without transports winston would keep every line.
  stream.on('error', () => {
    logger.silent = true
  })
  const logger = createLogger({
    level,
    format: {
      transform: info => {
        const fixed = { time: new Date().toISOString(), level: info.level, service, event: info.message }
        const line = JSON.stringify({ ...fixed, ...(info['fields'] as LogFields), ...fixed }, safeValue)
        return Object.assign(info, { [Symbol.for('message')]: line.replace(unescaped, escapeCharacter) })
      },
    },
    transports: [new transports.Stream({ stream })],
  })
  const write = (own: LogLevel) =>
    // winston would format the line first and drop it then; events below the level are the many.
    logLevels.indexOf(own) > logLevels.indexOf(level)
      ? () => {}
      : (event: string, fields?: LogFields) => void logger.log(own, event, { fields })
  return { error: write('error'), warn: write('warn'), info: write('info'), debug: write('debug') }
}

function escapeCharacter(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}

function safeValue(this: LogFields, key: string, value: unknown): unknown {
  // Not `value`: that is what an error's own toJSON made of it, the request and its headers included.
  if (this[key] instanceof Error) return describeError(this[key])
  if (typeof value === 'string' && value.length > maxStringLength) return `${value.slice(0, maxStringLength)}…`
  return value
}

/**
 * Name, code, message, and the same of the cause: never the raw object, whose other members (`body`, `rawPacket`,
 * `detail`) carry passwords and tokens.
 */
export function describeError(error: unknown, depth = 0): LogFields {
  if (!(error instanceof Error)) return { name: typeof error }
  const { name, message, cause } = error
  const code = (error as { code?: unknown }).code
  return {
    name,
    ...(typeof code === 'string' && { code }),
    message,
    ...(cause !== undefined && depth < maxCauses && { cause: describeError(cause, depth + 1) }),
  }
}
