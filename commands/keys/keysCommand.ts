// The commands for API keys and delegated tokens, and their options: `latchkey keys`.
import { CommandLine } from '../commandLine.ts'
import type * as Actions from './keyActions.ts'

export const throughAuth = `
The command calls the running Auth at AUTH_INTERNAL_URL, with ADMIN_KEY; it reads the same settings as the services.
Exit codes: 0 done, 1 not done, 2 wrong usage.`

const load = (name: keyof typeof Actions) => async () => (await import('./keyActions.ts'))[name]

export function createKeysCommand(): CommandLine {
  const keys = new CommandLine('keys').description('create, list, pause and end API keys').usage('<command>')
  keys.addHelpText('after', throughAuth)

  keys
    .command('add <username> <name>')
    .description('create a key of a user or a service account; print its id, and its secret, which is shown only once')
    .option('--scope <names>', 'names separated by spaces')
    .option('--expires <date>', 'a date such as 2027-12-31')
    .option('--per-minute <n>', 'requests in a minute')
    .option('--burst <n>', 'requests at once')
    .option('--json', 'print id and secret as JSON')
    .runs(load('add'))
  keys
    .command('list')
    .description('list the keys and delegated tokens')
    .option('--user <username>', 'only those of one user')
    .option('--json', 'one object per line')
    .runs(load('list'))
  keys
    .command('usage <id>')
    .description('show how often the key was used; needs KEY_USAGE_DAYS at Auth')
    .option('--by <unit>', 'hour or minute, of UTC', 'hour')
    .option('--json', 'one object per line')
    .runs(load('showUsage'))
  keys
    .command('pause <id>')
    .description('refuse the key and what was delegated from it; nothing ends')
    .runs(load('pause'))
  keys.command('resume <id>').description('let the paused key work again').runs(load('resume'))
  keys
    .command('end <id>')
    .description('end the key and what was delegated from it')
    .option('--yes', 'skip the confirmation')
    .runs(load('end'))
  return keys
}
