#!/usr/bin/env node
// The command `latchkey` of npm: runs the sources in a clone, and compiled code in the published package, because Node.js strips
// no types below node_modules.
import { existsSync } from 'node:fs'

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
// The versions of "engines" in package.json.
if (!((major === 22 && minor >= 19) || major === 24 || major >= 26)) {
  console.error(
    `Latchkey needs Node.js 22.19 or newer of line 22, 24, or 26 and newer; this is ${process.versions.node}.`,
  )
  process.exit(1)
}
const source = new URL('./latchkey.ts', import.meta.url)
await import(existsSync(source) ? source.href : new URL('../dist/commands/latchkey.js', import.meta.url).href)
