// The lines of `users list`.

import type { ShownUser } from '../operator/operatorClient.ts'
import { columns, instant, printable } from '../text.ts'

type State = 'being deleted' | 'disabled' | 'paused' | 'unconfirmed' | 'active'

/** One line of `list --json`. */
export function jsonLine(user: ShownUser): string {
  const { id, username, createdAt, roles, paused, rate, serviceAccount } = user
  const shown = { id, username, createdAt, state: stateOf(user), roles, paused, rate, serviceAccount }
  return `${printable(JSON.stringify(shown))}\n`
}

const widths = [36, 24, 13, 7, 16]

export const tableHead = columns(widths, ['ID', 'CREATED', 'STATE', 'KIND', 'ROLES', 'USERNAME'])

/** One line of `list`. The username comes last because it may contain blanks. */
export function tableLine(user: ShownUser): string {
  const { id, createdAt, roles, username, serviceAccount } = user
  const kind = serviceAccount ? 'service' : 'user'
  return `${columns(widths, [id, instant(createdAt), stateOf(user), kind, roles.join(','), username])}\n`
}

function stateOf({ deletedAt, disabledAt, paused, confirmedAt }: ShownUser): State {
  if (deletedAt !== null) return 'being deleted'
  if (disabledAt !== null) return 'disabled'
  if (paused) return 'paused'
  return confirmedAt === null ? 'unconfirmed' : 'active'
}
