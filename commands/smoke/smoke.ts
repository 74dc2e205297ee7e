// npm run smoke: checks from outside whether a deployment keeps the contract, also as `latchkey doctor`.
import { runCommandLine } from '../commandLine.ts'
import { createSmokeCommand } from './smokeCommand.ts'

await runCommandLine(createSmokeCommand('npm run -s smoke --'))
