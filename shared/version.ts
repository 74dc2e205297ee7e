// The version of Latchkey, from package.json.
import { readFileSync } from 'node:fs'
import { codeExtension } from './codeExtension.ts'

const file = new URL(codeExtension === '.ts' ? '../package.json' : '../../package.json', import.meta.url)

export const version = (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
