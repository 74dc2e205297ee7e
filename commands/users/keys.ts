// npm run keys: the operator's command for API keys and delegated tokens, also as `latchkey keys`.
import { runCommandLine } from '../commandLine.ts'
import { createKeysCommand } from './keysCommand.ts'

await runCommandLine(createKeysCommand('npm run keys --'))
