// latchkey bench: runs the benchmark of /data, which only a clone of the repository has.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Action } from './commandLine.ts'

const project = join(import.meta.dirname, '..')
const script = 'bench/data.ts'

export const runBench: Action = async ({ args }) => {
  if (!existsSync(join(project, script))) {
    throw new Error(
      'The benchmarks are not in the installed package. Clone the repository, and run npm run bench there.',
    )
  }
  const child = spawn('commands/node', [script, ...args], { cwd: project, stdio: 'inherit' })
  // Ctrl-C reaches the benchmark too, which then ends by itself.
  process.on('SIGINT', () => {})
  const [code] = await once(child, 'exit')
  process.exitCode = code ?? 1
}
