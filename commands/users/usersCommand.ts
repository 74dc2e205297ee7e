// The commands for users and their options: `latchkey users`.
import { CommandLine } from '../commandLine.ts'
import type * as Actions from './userActions.ts'

const after = `
Users and tokens are in the stores of USER_STORE_URL and TOKEN_STORE_URL; the command reads the same settings as the services.
With USER_STORE_URL=memory:, the default, it calls the running Auth at AUTH_INTERNAL_URL, with ADMIN_KEY.
Exit codes: 0 done, 1 not done, 2 wrong usage.`

const load = (name: keyof typeof Actions) => async () => (await import('./userActions.ts'))[name]

export function createUsersCommand(): CommandLine {
  const users = new CommandLine('users').description('add, find and change users').usage('<command>')
  users.addHelpText('after', after)

  users
    .command('add <username>')
    .description('ask for the password, add the user, and print the id')
    .option('--role <roles>', 'a list such as admin,editor')
    .option('--password-stdin', 'read the password from the first line of stdin')
    .option('--service', 'add a service account: a user without a password, for a program')
    .option('--json', 'print the user as JSON')
    .runs(load('add'))
  users.command('list').description('list all users').option('--json', 'one object per line').runs(load('list'))
  users
    .command('roles <username>')
    .description('show or change the roles; --set "" takes all away')
    .option('--set <roles>', 'a list such as admin,editor')
    .option('--add <roles>', 'roles that the user gets')
    .option('--remove <roles>', 'roles that the user loses')
    .option('--json', 'print username and roles as JSON')
    .runs(load('roles'))
  users
    .command('attributes <username>')
    .description('show the attributes as JSON, or replace all but the profile, which belongs to the user')
    .option('--set <json>', 'an object')
    .runs(load('attributes'))
  users
    .command('email <username>')
    .description('show, set or remove the address for mails; a change ends every session')
    .option('--set <address>', 'the new address')
    .option('--none', 'remove the address')
    .runs(load('email'))
  users
    .command('rename <username>')
    .argument('<new username>')
    .description('change the username, and end every session')
    .runs(load('rename'))
  users
    .command('rate <username>')
    .description('show, set or remove how many requests pass')
    .option('--per-minute <n>', 'requests in a minute')
    .option('--burst <n>', 'requests at once')
    .option('--none', 'remove the limit')
    .option('--json', 'print username and rate as JSON')
    .runs(load('rate'))
  users.command('pause <username>').description('refuse every token and log-in; nothing ends').runs(load('pause'))
  users.command('resume <username>').description('let the tokens of a paused user work again').runs(load('resume'))
  users
    .command('passwd <username>')
    .description('set a password, and end every session')
    .option('--password-stdin', 'read the password from the first line of stdin')
    .runs(load('passwd'))
  users
    .command('disable <username>')
    .description('end every session; the user can no longer log in')
    .runs(load('disable'))
  users.command('enable <username>').description('the user can log in again').runs(load('enable'))
  users
    .command('delete <username>')
    .description('end every session and delete the user')
    .option('--yes', 'skip the confirmation')
    .runs(load('remove'))
  users
    .command('sessions <username>')
    .description('list the live sessions, or end them all')
    .option('--end', 'end them all')
    .option('--json', 'one object per line')
    .runs(load('sessions'))
  users
    .command('unlock <username>')
    .description('lift the limits after wrong passwords; needs a running Auth')
    .runs(load('unlock'))
  users
    .command('reset <username>')
    .description('mail or print a link to choose a new password; needs a running Auth')
    .option('--json', 'print the result as JSON')
    .runs(load('reset'))
  users
    .command('import <file>')
    .description('import lines of username:hash, as written by htpasswd -B; the file - is stdin')
    .option('--dry-run', 'only check the lines')
    .option('--json', 'print the counts as JSON')
    .runs(load('importFile'))
  return users
}
