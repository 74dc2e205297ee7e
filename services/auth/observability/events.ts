// The union of all events that Auth emits, and how they are logged: at which level, under which name, and whether they
// belong to the security log.
import type { LogLevel } from '../../../shared/log/levels.ts'
import { type Log, type LogFields, rateLimited } from '../../../shared/log/log.ts'
import type { ClockEvent } from '../clock.ts'
import type { LimitEvent } from '../defence/throttles.ts'
import type { KeyEvent } from '../guards/requireKey.ts'
import type { TokenEvent } from '../tokens/events.ts'
import type { SweepEvent } from '../tokens/sweeper.ts'
import type { AttributesEvent } from '../users/attributes.ts'
import type { AuthorityEvent } from '../users/authorities.ts'
import type { LinkEvent } from '../users/links.ts'
import type { MailEvent } from '../users/mail.ts'
import type { UserEvent } from '../users/users.ts'
import { currentCaller } from './requestContext.ts'
import type { DependencyEvent } from './storeHealth.ts'

export type AuthEvent =
  | TokenEvent
  | UserEvent
  | AuthorityEvent
  | AttributesEvent
  | LinkEvent
  | MailEvent
  | SweepEvent
  | LimitEvent
  | KeyEvent
  | DependencyEvent
  | ClockEvent

interface Line {
  level: LogLevel
  /** The name in the log, if it differs from the event type. */
  name?: string
  /** False keeps the event out of the security log. */
  isSecurity?: false
}

/** Null for events that are not logged. Malformed tokens are logged at `debug`, because any scanner sends them. */
function lineFor(event: AuthEvent): Line | null {
  switch (event.type) {
    case 'issued':
    case 'renewed':
    case 'revoked':
    case 'changed':
      return { level: 'info', name: `token_${event.type}` }
    case 'refused':
      return event.reason === 'malformed'
        ? { level: 'debug', name: 'token_refused', isSecurity: false }
        : { level: 'info', name: 'token_refused' }
    case 'swept':
      return event.removed > 0 ? { level: 'info', name: 'tokens_swept', isSecurity: false } : null
    case 'key_used':
    case 'held':
      return null // one per call to the internal listener, so only counted
    case 'clock_compared':
      return null // only a metric
    case 'clock_uncertain':
      return { level: 'error', isSecurity: false }
    case 'clock_certain':
      return { level: 'info', isSecurity: false }
    case 'sweep_failed':
      return { level: 'error', isSecurity: false }
    case 'mail_sent':
      return { level: 'info', isSecurity: false }
    case 'mail_lost':
    case 'link_not_sent':
      return { level: 'warn', isSecurity: false }
    case 'account_locked':
    case 'renewed_secret_reused':
    case 'canary_used':
    case 'key_refused':
    case 'dependency_failed':
      return { level: 'warn' }
    default:
      return { level: 'info' }
  }
}

/** Logs events. Those that matter to an auditor go to the channel `security`, together with the caller. */
export function logEvents(log: Log, monotonicNow: () => number): (event: AuthEvent) => void {
  // A client that is over a limit may keep sending requests, and must not fill the disk.
  const limited = new Map<string, (fields: LogFields) => void>()
  const logLimited = () => rateLimited(fields => log.warn('rate_limited', fields), monotonicNow)

  return event => {
    if (event.type === 'slid') return log.debug('token_slid', event) // one per request, so skip the work below
    const line = lineFor(event)
    if (line === null) return
    const { level, name = event.type, isSecurity = true } = line
    const { type, ...ofEvent } = event
    const fields = isSecurity ? { ...ofEvent, ...currentCaller(), channel: 'security' } : ofEvent
    const what = limitOf(event)
    if (what === null) return log[level](name, fields)
    const write = limited.get(what) ?? logLimited()
    limited.set(what, write)
    write({ ...fields, what })
  }
}

/** What was limited; null for other events. */
function limitOf(event: AuthEvent): string | null {
  if (event.type === 'refused') return event.reason === 'limited' ? 'token' : null
  return event.type === 'rate_limited' ? event.what : null
}
