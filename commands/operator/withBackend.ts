// Opens the stores for one command and closes them when it ends.
import type { AuthConfig } from '../../services/auth/config.ts'
import type { Action, Invocation } from '../commandLine.ts'
import { type Backend, openBackend } from './accounts.ts'
import { readSettings } from './settings.ts'

interface Session extends Invocation {
  backend: Backend
  config: AuthConfig
}

export function withBackend(run: (session: Session) => Promise<void>): Action {
  return async invocation => {
    process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (code !== 'EPIPE') process.exitCode ||= 1 // EPIPE: `| head` has read enough
      process.exit()
    })
    process.stderr.on('error', () => {})
    const settings = readSettings()
    const backend = openBackend(settings)
    try {
      await run({ ...invocation, backend, config: settings.config })
    } finally {
      await backend.close()
    }
  }
}
