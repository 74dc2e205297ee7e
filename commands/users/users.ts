// npm run users: the operator's command for users, also as `latchkey users`.
import { runCommandLine } from '../commandLine.ts'
import { createUsersCommand } from './usersCommand.ts'

await runCommandLine(createUsersCommand('npm run users --'))
