// What the use cases tell, and what the log makes of it. Who else wants to know listens here too.
import type { Log } from '../../shared/log.ts'
import type { SweepEvent } from './tokens/sweeper.ts'
import type { TokenEvent } from './tokens/tokens.ts'
import type { UserEvent } from './users/users.ts'

export type AuthEvent = TokenEvent | UserEvent | SweepEvent

/** Validations are many: they are logged at `debug`. A sweep that found nothing is not news. */
export function logEvents(log: Log): (event: AuthEvent) => void {
  return event => {
    switch (event.type) {
      case 'slid':
      case 'refused':
        return log.debug(`token ${event.type}`, event)
      case 'issued':
      case 'revoked':
        return log.info(`token ${event.type}`, event)
      case 'swept':
        return event.removed > 0 ? log.info('tokens swept', event) : undefined
      case 'sweep failed':
        return log.error('sweep failed', event)
      default:
        return log.info(event.type, event)
    }
  }
}
