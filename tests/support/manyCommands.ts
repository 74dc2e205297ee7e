// Runs many commands in one process, because each process takes a second of CPU to load what all of them import. Every command
// must end while it reads its arguments. Standard input: a JSON array of command lines, each an array of a file and its
// arguments. Standard output: a JSON array of `Ended`.
import { resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'
import { format } from 'node:util'

export interface Ended {
  /** Null if the command did not call `process.exit`. */
  code: number | null
  stdout: string
  stderr: string
}

class Exit extends Error {}

const lines = JSON.parse(await text(process.stdin)) as [file: string, ...args: string[]][]
const print = console.log
const exit = process.exit
const results: Ended[] = []
for (const [i, [file, ...args]] of lines.entries()) {
  const ended: Ended = { code: null, stdout: '', stderr: '' }
  console.log = (...parts) => {
    ended.stdout += `${format(...parts)}\n`
  }
  console.error = (...parts) => {
    ended.stderr += `${format(...parts)}\n`
  }
  process.exit = code => {
    ended.code ??= Number(code)
    throw new Exit()
  }
  process.argv = [process.execPath, resolve(file), ...args]
  // With another query a module is evaluated again, but not what it imports.
  await import(`${pathToFileURL(file)}?${i}`).catch(error => {
    if (!(error instanceof Exit)) ended.stderr += `${error.stack}\n`
  })
  results.push(ended)
}
print(JSON.stringify(results))
exit(0)
