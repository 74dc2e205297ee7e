// npm pack and npm publish run this first: it compiles what the package `latchkey` holds into dist/.
import { spawnSync } from 'node:child_process'
import { cpSync, rmSync } from 'node:fs'
import { basename } from 'node:path'
import { readArguments } from '../commands/arguments.ts'

const usage = `Usage: npm run prepack

Compiles both services and the command latchkey into dist/, for npm pack and npm publish. Nothing else uses dist/.`

/** The files of the pages. Their TypeScript is not compiled, because Auth strips the types when it serves them. */
const pages = ['account', 'console', 'docs']
const notServed = ['tsconfig.json', 'globals.d.ts']

readArguments(usage, {})
rmSync('dist', { recursive: true, force: true })
const { status } = spawnSync(process.execPath, ['node_modules/.bin/tsc', '--project', 'tsconfig.package.json'], {
  stdio: 'inherit',
})
if (status !== 0) process.exit(1)
for (const page of pages) {
  const folder = `services/auth/pages/${page}`
  rmSync(`dist/${folder}`, { recursive: true, force: true }) // tsc compiles modules whose types are imported
  cpSync(folder, `dist/${folder}`, { recursive: true, filter: file => !notServed.includes(basename(file)) })
}
