// Writes one JSON line per event to a stream, through winston. Hides how errors and long strings are made safe to write, and
// what happens if the reader is slow: 4 MB of lines wait, further ones are dropped and counted.
import type { Writable } from 'node:stream'
import { createLogger, transports } from 'winston'
import { type LogLevel, logLevels } from './levels.ts'

/**
 * The code names every field and never spreads a request into an event, so that clients cannot add fields. Events for auditors
 * have `channel: 'security'`.
 */
export type LogFields = Record<string, unknown>

export interface Log extends Record<LogLevel, LogEvent> {
  /**
   * Writes the line of a request, at level info. All such lines of one turn of the event loop are written together, at the cost of
   * a single line. The order of all lines is kept. `user` is a username, for the terminal only: it is never written to the log.
   */
  request: (fields: RequestFields, user: string | null) => void
}

export interface RequestFields extends LogFields {
  method: string
  path: string
  status: number
  durationMs: number
}

type LogEvent = (event: string, fields?: LogFields) => void

export interface LogOptions {
  service: string
  level: LogLevel
  stream: Writable
  /** Also receives events with `channel: 'security'`, whatever their level. */
  securityStream?: Writable | null
  /** Reports problems of the log itself. By default on stderr. */
  complain?: (message: string) => void
}

const unescaped = /[\x7f-\x9f\u2028\u2029]/g // valid in JSON, but terminals and line readers interpret them
const maxCauses = 5 // an error can be its own cause
const maxStringLength = 1000 // characters; one event stays far below the 10 KB line limit of log collectors
const maxWaitingBytes = 4 * 1024 * 1024 // some ten thousand lines
const fixedFields = ['time', 'level', 'service', 'event'] // an event's own fields with these names are ignored

/**
 * Every line is `{"time", "level", "service", "event", …fields}`. Errors in fields are reduced by `describeError`. While 4 MB
 * wait for the reader, lines are dropped; once it has caught up, one line says how many.
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
  // Check the level here, because winston would format a line before dropping it, and most events are below the level.
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
  const hasRequests = rankOf('info') <= rankOf(level)
  return { ...others, info, request: fields => hasRequests && write.batched('request', fields) }
}

interface Writer {
  now(level: LogLevel, event: string, fields?: LogFields): void
  batched: LogEvent
}

function openWriter(service: string, stream: Writable, complain: (message: string) => void): Writer {
  let dropped = 0
  let ended = false
  let batch = '' // the lines of this turn of the event loop
  const logger = createLogger({
    level: 'debug',
    format: { transform: info => Object.assign(info, { [Symbol.for('message')]: info.message }) },
    transports: [new transports.Stream({ stream, eol: '' })],
  })
  // A reader that has gone (EPIPE) must not end the service.
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (!ended)
      complain(`The reader of the log of ${service} has gone (${error.code ?? error.name}): no more lines are written.`)
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
    if (dropped === 0 && stream.writableLength + batch.length < maxWaitingBytes) return true
    if (dropped++ === 0) complain(`The reader of the log of ${service} is too slow: lines are dropped.`)
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

/** One JSON.stringify of all fields would be four times as slow, because errors and long strings need a replacer. */
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
    if (text !== '') line += `,${quote(name)}:${text}` // '' if JSON has no such value, as for undefined
  }
  return `${line}}`.replace(unescaped, escapeCharacter)
}

function quote(text: string): string {
  return JSON.stringify(text.length > maxStringLength ? `${text.slice(0, maxStringLength)}…` : text)
}

/** Does nothing if stderr has no reader either. */
function complainOnStderr(message: string): void {
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => {})
  try {
    process.stderr.write(`${message}\n`)
  } catch {
    // stderr is a file on a full disk.
  }
}

function escapeCharacter(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}

function safeValue(this: LogFields, key: string, value: unknown): unknown {
  // Do not use `value`: it is the result of the error's own toJSON and can contain the request and its headers.
  if (this[key] instanceof Error) return describeError(this[key])
  if (typeof value === 'string' && value.length > maxStringLength) return `${value.slice(0, maxStringLength)}…`
  return value
}

/**
 * The name, code and message of an error, and of its cause. Never the raw object: its other members (`body`, `rawPacket`,
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

/** Writes at most one line a second, with the number of calls since the last line, so that clients cannot fill the disk. */
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
