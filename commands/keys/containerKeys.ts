// Creates the missing secrets of docker-compose.yml, each in its own file: `containerKeys.ts [folder]`.
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { refuseUsage } from '../arguments.ts'

const usage = `Usage: node commands/keys/containerKeys.ts [folder]

Creates the missing secrets of docker-compose.yml, each in its own file in the folder (default /keys).`

const [folder = '/keys', ...others] = process.argv.slice(2)
if (folder === '--help') {
  console.log(usage)
  process.exit(0)
}
if (folder.startsWith('-') || others.length > 0) refuseUsage(usage, `Unexpected argument '${others[0] ?? folder}'.`)

const secret = () => randomBytes(32).toString('hex')

create('service/key', secret, 0o400)
create('admin/key', secret, 0o400)
// The file is readable by all, because PostgreSQL runs as another user. Only containers with this volume see it.
const password = create('database/password', secret, 0o444)
create('database/postgres', () => `postgres://latchkey:${password}@postgres/latchkey`, 0o400)
create('database/sqlite', () => 'sqlite:/data/users.db', 0o400)

/** Creates the file if it is missing. Returns its content. */
function create(name: string, text: () => string, mode: number): string {
  const file = join(folder, name)
  mkdirSync(dirname(file), { recursive: true })
  try {
    writeFileSync(file, `${text()}\n`, { flag: 'wx', mode })
    console.log(`Created ${file}.`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return readFileSync(file, 'utf8').trim()
}
