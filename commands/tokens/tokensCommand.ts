// The commands for tokens and their options: `latchkey tokens`.
import { CommandLine } from '../commandLine.ts'
import { throughAuth } from '../keys/keysCommand.ts'
import type * as Actions from './tokenActions.ts'

const load = (name: keyof typeof Actions) => async () => (await import('./tokenActions.ts'))[name]

export function createTokensCommand(): CommandLine {
  const tokens = new CommandLine('tokens').description('list, issue, pause and revoke tokens').usage('<command>')
  tokens.addHelpText('after', throughAuth)

  tokens
    .command('list')
    .description('list the live tokens')
    .option('--user <username>', 'only those of one user')
    .option('--scope <name>', 'only those whose scope contains this name')
    .option('--search <text>', 'only those whose id or username begins with it')
    .option('--json', 'one object per line')
    .runs(load('list'))
  tokens
    .command('show <id>')
    .description('show one token, without its secret')
    .option('--json', 'as JSON')
    .runs(load('show'))
  tokens
    .command('issue')
    .description('issue a token; print its id, and its secret, which is shown only once')
    .requiredOption('--ttl <duration>', 'how long it lives, such as 90s, 15m, 12h or 30d; a sliding one, when unused')
    .option('--kind <kind>', 'fixed, sliding or single-use', 'fixed')
    .option('--absolute-ttl <duration>', 'how long a sliding token lives at most')
    .option('--user <username>', 'the user of the token; without it, a guest token')
    .option('--purpose <name>', 'what it is for; then it opens nothing else')
    .option('--scope <names>', 'names separated by spaces')
    .option('--uses <n>', 'how many requests it can be used for')
    .option('--per-minute <n>', 'requests in a minute')
    .option('--burst <n>', 'requests at once')
    .option('--json', 'print the token as JSON')
    .runs(load('issue'))
  tokens.command('pause <id>').description('refuse the token; it does not end').runs(load('pause'))
  tokens.command('resume <id>').description('let the paused token work again').runs(load('resume'))
  tokens
    .command('revoke <id>')
    .description('end the token and what was delegated from it')
    .option('--yes', 'skip the confirmation')
    .runs(load('revoke'))
  return tokens
}
