// The options of the smoke test: `latchkey doctor`.
import { CommandLine } from '../commandLine.ts'

const after = `
Prefer SMOKE_USERNAME, SMOKE_PASSWORD and SERVICE_KEY in the environment, which ps does not show. The checks create two or
three sessions, end them again, and try one wrong password; other sessions are not affected. The last line is
"N passed, N failed". Exit codes: 0 every check passed, 1 a check failed, 2 wrong usage.`

export function createDoctorCommand(): CommandLine {
  return new CommandLine('doctor')
    .description(
      'check a running deployment against the contract; without addresses the one of the settings in this folder',
    )
    .option('--auth <url>', 'the public listener of Auth; if one address serves both services, give it twice')
    .option('--business <url>', 'the public listener of Business')
    .option('--username <name>', 'a user to log in with, for the checks that need a token')
    .option('--password <password>', 'the password of this user')
    .option('--internal <url>', 'the internal listener of Auth, if this machine can reach it')
    .option('--service-key <key>', 'the service key, for --internal')
    .option(
      '--internal-ports <list>',
      'ports that must be closed from here; not checked on this machine itself',
      '3100,3101',
    )
    .option('--allow-http', 'accept http://, if the network in between is your own')
    .option('--json', 'one object per check and line; the last line has the counts')
    .addHelpText('after', after)
    .runs(async () => (await import('./doctor.ts')).doctor)
}
