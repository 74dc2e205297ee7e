// What the use cases tell, and what the log makes of it. Who else wants to know listens here too.
import type { Log } from '../../shared/log.ts'
import type { SweepEvent } from './tokens/sweeper.ts'
import type { TokenEvent } from './tokens/tokens.ts'
import type { UserEvent } from './users/users.ts'

export type AuthEvent = TokenEvent | UserEvent | SweepEvent

/** At `debug`: what slid, which is too much for a log, and junk, which any scanner makes. An empty sweep is not news. */
export function logEvents(log: Log): (event: AuthEvent) => void {
  return event => {
    switch (event.type) {
      case 'slid':
        return log.debug('token slid', event)
      case 'issued':
      case 'renewed':
      case 'revoked':
        return log.info(`token ${event.type}`, event)
      case 'refused':
        return log[event.reason === 'malformed' ? 'debug' : 'info']('token refused', event)
      case 'swept':
        return event.removed > 0 ? log.info('tokens swept', event) : undefined
      case 'sweep failed':
        return log.error('sweep failed', event)
      default:
        return log.info(event.type, event)
    }
  }
}
