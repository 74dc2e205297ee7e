// Environments for Postman with this machine's addresses and keys, so that users need not copy the keys. Git ignores them.
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

interface PostmanEnvironment {
  id: string
  name: string
  values: { key: string; value: string; type: string; enabled: boolean }[]
}

const folder = 'postman'
const name = 'Latchkey local with keys'

/** Writes both formats, if the folder `postman` has the environment without keys. */
export function writePostmanEnvironment(known: Record<string, string | undefined>): void {
  const template = join(folder, 'Latchkey local.postman_environment.json')
  if (!existsSync(template)) return
  try {
    const { values, ...environment } = JSON.parse(readFileSync(template, 'utf8')) as PostmanEnvironment
    const completed = values.map(variable => ({ ...variable, value: known[variable.key] ?? variable.value }))
    const id = environment.id.replace(/^.{8}/, '00000000') // it differs from that of the environment without keys
    const json = JSON.stringify({ ...environment, id, name, values: completed }, null, 2)
    // A JSON string is a YAML string too.
    const lines = completed.map(({ key, value, type }) => {
      return `  - key: ${key}\n    value: ${JSON.stringify(value)}\n    type: ${type}\n    enabled: true\n`
    })
    write(join(folder, `${name}.postman_environment.json`), `${json}\n`)
    write(join(folder, 'environments', `${name}.environment.yaml`), `name: ${name}\nvalues:\n${lines.join('')}`)
  } catch (error) {
    console.error(`The environment for Postman was not written: ${(error as Error).message}`)
  }
}

/** Only the user can read the keys, as in .env. A new file, because an old one keeps its mode, and a link leads elsewhere. */
function write(path: string, content: string): void {
  rmSync(path, { force: true })
  writeFileSync(path, content, { flag: 'wx', mode: 0o600 })
}
