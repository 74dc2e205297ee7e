// What the use cases tell, and what the log makes of it. Who else wants to know listens here too.
import type { Log } from '../../shared/log.ts'
import type { SweepEvent } from './tokens/sweeper.ts'
import type { TokenEvent } from './tokens/tokens.ts'
import type { UserEvent } from './users/users.ts'

export type AuthEvent = TokenEvent | UserEvent | SweepEvent

/** Validations are many: they are logged at `debug`. A sweep that found nothing is not news. */
export function logEvents(log: Log): (event: AuthEvent) => void {
  return ({ type, ...fields }) => {
    if (type === 'slid' || type === 'refused') log.debug(`token ${type}`, fields)
    else if (type === 'issued' || type === 'revoked') log.info(`token ${type}`, fields)
    else if (type === 'sweep failed') log.error(type, fields)
    else if (type !== 'swept') log.info(type, fields)
    else if ('removed' in fields && fields.removed > 0) log.info('tokens swept', fields)
  }
}
