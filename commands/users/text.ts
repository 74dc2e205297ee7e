// Text for the terminal. Escapes names that other people chose, because a terminal would obey an escape sequence in them.
import { ConfigError } from '../../shared/config/readSettings.ts'
import { AppError } from '../../shared/http/errors.ts'
import type { ShownUser } from './operatorClient.ts'

type State = 'being deleted' | 'disabled' | 'paused' | 'unconfirmed' | 'active'

function stateOf({ deletedAt, disabledAt, paused, confirmedAt }: ShownUser): State {
  if (deletedAt !== null) return 'being deleted'
  if (disabledAt !== null) return 'disabled'
  if (paused) return 'paused'
  return confirmedAt === null ? 'unconfirmed' : 'active'
}

/** One line of `list --json`. */
export function jsonLine(user: ShownUser): string {
  const { id, username, createdAt, roles, paused, rate, serviceAccount } = user
  const shown = { id, username, createdAt, state: stateOf(user), roles, paused, rate, serviceAccount }
  return `${printable(JSON.stringify(shown))}\n`
}

export const tableHead = columns(
  ['ID', 36],
  ['CREATED', 24],
  ['STATE', 13],
  ['KIND', 7],
  ['ROLES', 16],
  ['USERNAME', 0],
)

/** One line of `list`. The username comes last because it may contain blanks. */
export function tableLine(user: ShownUser): string {
  const { id, createdAt, roles, username, serviceAccount } = user
  const cells = [
    [id, 36],
    [instant(createdAt), 24],
    [stateOf(user), 13],
    [serviceAccount ? 'service' : 'user', 7],
    [roles.join(','), 16],
    [username, 0],
  ] as const
  return `${columns(...cells)}\n`
}

export function printJson(value: unknown): void {
  console.log(printable(JSON.stringify(value)))
}

export function columns(...cells: (readonly [text: string, width: number])[]): string {
  return cells.map(([text, width]) => escaped(text).padEnd(width)).join('  ')
}

export function instant(at: number): string {
  return new Date(at).toISOString()
}

/** Escaped as in JSON, without the quotes. */
export function escaped(text: string): string {
  return printable(JSON.stringify(text).slice(1, -1))
}

/** Escapes control characters and characters that reorder text, as JSON does. */
export function printable(text: string): string {
  return text.replace(/[^\P{C}\n]|[\p{Zl}\p{Zp}]/gu, found =>
    [...Array(found.length).keys()].map(at => `\\u${found.charCodeAt(at).toString(16).padStart(4, '0')}`).join(''),
  )
}

export function describeError(error: unknown): string {
  if (error instanceof ConfigError) return ['The configuration is invalid:', ...error.problems].join('\n  ')
  const { message, cause } = error as Error
  const reason = error instanceof AppError && cause instanceof Error ? ` (${cause.message})` : ''
  return printable(message + reason)
}
