// The Python that the tests of packages/client-python use: Debian's, or another one that has what they need.
import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Its modules are found, and no compiled code is left in the sources. */
export const pythonEnv: NodeJS.ProcessEnv = {
  ...process.env,
  PYTHONPATH: 'packages/client-python',
  PYTHONPYCACHEPREFIX: join(tmpdir(), `latchkey-pycache-${process.getuid?.() ?? 0}`),
}

/** A Python 3.11 or newer that can import all of these modules; undefined if there is none. */
export function findPython(...modules: string[]): string | undefined {
  const check = ['import sys', ...modules.map(name => `import ${name}`), 'sys.exit(sys.version_info < (3, 11))'].join(
    '\n',
  )
  return ['python3', '/usr/bin/python3'].find(path => spawnSync(path, ['-c', check]).status === 0)
}
