// latchkey: every command of an operator under one name. Loads the code of a command only when it runs.
import { version } from '../shared/version.ts'
import { runBench } from './bench.ts'
import { type Action, CommandLine, runCommandLine } from './commandLine.ts'
import { addCompletion } from './completion.ts'
import { createKeysCommand } from './keys/keysCommand.ts'
import { createTokenKeysCommand } from './keys/tokenKeysCommand.ts'
import { createDoctorCommand } from './smoke/doctorCommand.ts'
import { createTokensCommand } from './tokens/tokensCommand.ts'
import { createUsersCommand } from './users/usersCommand.ts'

const checkConfig: Action = async ({ isSet }) =>
  (await import('./start/checkConfig.ts')).checkConfig({ isJson: isSet('json') })

const serve: Action = async ({ isSet }) => {
  if (isSet('migrate')) return (await import('./start/checkConfig.ts')).migrate()
  process.argv.splice(2) // startServer.ts reads the arguments of its process
  await import('./start/startServer.ts')
}

const program = new CommandLine('latchkey')
  .description('Opaque bearer tokens that slide, can be revoked at once, and are checked with Auth on every request.')
  .usage('<command>')
program.helpCommand('help [command]', 'show the help of a command')
program.version(version, '-V, --version', 'print the version')

program
  .command('serve')
  .description('start Auth and Business, and stay with them; settings and keys are in .env of this folder')
  .option('--migrate', 'migrate the stores and exit')
  .runs(async () => serve)
program.addCommand(createUsersCommand())
program.addCommand(createKeysCommand())
program.addCommand(createTokensCommand())
program.addCommand(createTokenKeysCommand())
program.addCommand(createDoctorCommand())
program
  .command('check-config')
  .description('report problems with the settings and the stores, list the migrations, and start nothing')
  .option('--json', 'one object with valid, problems and stores')
  .runs(async () => checkConfig)
program
  .command('bench')
  .description(
    'compare /data with other checks; needs a clone of the repository, and takes the options of npm run bench',
  )
  .argument('[options...]')
  .allowUnknownOption()
  .helpOption(false)
  .runs(async () => runBench)
addCompletion(program)

await runCommandLine(program)
