// Writes one JSON line per event to one stream, through winston. Hides how errors and long strings are made safe, and
// what happens to unread lines: some are buffered, further ones are dropped and counted.
import type { Writable } from 'node:stream'
import { createLogger, transports } from 'winston'

export const logLevels = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof logLevels)[number]

/**
 * Our code chooses the fields and never spreads a request into them, so input cannot collide with their names. Events
 * for an auditor have `channel: 'security'`.
 */
export type LogFields = Record<string, unknown>

export interface Log extends Record<LogLevel, LogEvent> {
  /**
   * Like `info`, for events of every request: all lines of one turn of the event loop are one write, which costs as
   * much as a single line. Other events flush these lines first.
   */
  batched: LogEvent
}

type LogEvent = (event: string, fields?: LogFields) => void

export interface LogOptions {
  service: string
  level: LogLevel
  stream: Writable
  /** Also gets every event with `channel: 'security'`, whatever its level. */
  securityStream?: Writable | null
  /** Reports failures of the log itself. */
  complain?: (sentence: string) => void
}

const unescaped = /[\x7f-\x9f\u2028\u2029]/g // valid in JSON, but terminals and line readers interpret them
const maxCauses = 5 // an error can be its own cause
const maxStringLength = 1000 // characters; one event stays far below the 10 KB line limit of log collectors
const mostWaiting = 4 * 1024 * 1024 // bytes; about ten thousand lines
const fixedFields = ['time', 'level', 'service', 'event'] // no field of an event can replace these

/**
 * Every line is `{"time", "level", "service", "event", …fields}`. Errors in fields are reduced by `describeError`. When
 * 4 MB wait for a reader, lines are dropped until all of them are read; then one line says how many.
 */
export function createLog({
  service,
  level,
  stream,
  securityStream = null,
  complain = complainOnStderr,
}: LogOptions): Log {
  const write = openWriter(service, stream, complain)
  const writeSecurity = securityStream && openWriter(service, securityStream, complain)
  // winston would format a line before dropping it, and most events are below the level.
  const rankOf = (level: LogLevel) => logLevels.indexOf(level)
  const logAt = (own: LogLevel) => {
    const isWritten = rankOf(own) <= rankOf(level)
    if (!isWritten && !writeSecurity) return () => {}
    return (event: string, fields?: LogFields) => {
      if (isWritten) write.now(own, event, fields)
      if (writeSecurity && fields?.['channel'] === 'security') writeSecurity.now(own, event, fields)
    }
  }
  const { info, ...others } = { error: logAt('error'), warn: logAt('warn'), info: logAt('info'), debug: logAt('debug') }
  const batched = rankOf('info') <= rankOf(level) ? write.batched : () => {}
  return { ...others, info, batched }
}

interface Writer {
  now(level: LogLevel, event: string, fields?: LogFields): void
  batched: LogEvent
}

function openWriter(service: string, stream: Writable, complain: (sentence: string) => void): Writer {
  let dropped = 0
  let ended = false
  let batch = '' // lines that were logged in this turn
  const logger = createLogger({
    level: 'debug',
    format: { transform: info => Object.assign(info, { [Symbol.for('message')]: info.message }) },
    transports: [new transports.Stream({ stream, eol: '' })],
  })
  // A reader that disconnects (EPIPE) must not end the service.
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (!ended)
      complain(`The log of ${service} has lost its reader (${error.code ?? error.name}): it is not written any more.`)
    ended = true
  })
  stream.on('drain', () => {
    const count = dropped
    dropped = 0
    if (count > 0) now('warn', 'log_lines_dropped', { count })
  })

  /** False if the line must be dropped. */
  function hasRoom(): boolean {
    if (ended) return false
    if (dropped === 0 && stream.writableLength + batch.length < mostWaiting) return true
    if (dropped++ === 0) complain(`The log of ${service} is not read as fast as it grows: lines are dropped.`)
    return false
  }

  function flush(): void {
    const text = batch
    batch = ''
    if (text !== '' && !ended) logger.log('info', text)
  }

  function now(level: LogLevel, event: string, fields?: LogFields): void {
    flush()
    if (hasRoom()) logger.log(level, `${lineOf(service, level, event, fields)}\n`)
  }

  return {
    now,
    batched(event, fields) {
      if (!hasRoom()) return
      if (batch === '') setImmediate(flush)
      batch += `${lineOf(service, 'info', event, fields)}\n`
    },
  }
}

/**
 * Does not use one JSON.stringify for the whole line: with the replacer that errors and long strings need, it takes
 * four times as long.
 */
function lineOf(service: string, level: LogLevel, event: string, fields: LogFields = {}): string {
  let line = `{"time":"${new Date().toISOString()}","level":"${level}","service":${quote(service)},"event":${quote(event)}`
  for (const name of Object.keys(fields)) {
    if (fixedFields.includes(name)) continue
    const value = fields[name]
    const text =
      typeof value === 'string'
        ? quote(value)
        : typeof value === 'number' && Number.isFinite(value)
          ? String(value)
          : JSON.stringify({ value }, safeValue).slice('{"value":'.length, -1)
    if (text !== '') line += `,${quote(name)}:${text}` // '' where JSON has no such value
  }
  return `${line}}`.replace(unescaped, escapeCharacter)
}

function quote(text: string): string {
  return JSON.stringify(text.length > maxStringLength ? `${text.slice(0, maxStringLength)}…` : text)
}

/** If stderr has no reader either, the message is lost. */
function complainOnStderr(sentence: string): void {
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => {})
  try {
    process.stderr.write(`${sentence}\n`)
  } catch {
    // stderr is a file on a full disk.
  }
}

function escapeCharacter(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}

function safeValue(this: LogFields, key: string, value: unknown): unknown {
  // Not `value`, which the error's own toJSON made, perhaps with the request and its headers.
  if (this[key] instanceof Error) return describeError(this[key])
  if (typeof value === 'string' && value.length > maxStringLength) return `${value.slice(0, maxStringLength)}…`
  return value
}

/**
 * Name, code and message of the error and its causes. Never the raw object, whose other members (`body`, `rawPacket`,
 * `detail`) contain passwords and tokens.
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

/** Writes at most one line a second, with the number of events since the last, so that clients cannot fill the disk. */
export function rateLimited(
  write: (fields: LogFields) => void,
  monotonicNow: () => number,
): (fields: LogFields) => void {
  let writtenAt = Number.NEGATIVE_INFINITY
  let times = 0
  return fields => {
    times++
    const now = monotonicNow()
    if (now - writtenAt < 1000) return
    write({ ...fields, times })
    writtenAt = now
    times = 0
  }
}
