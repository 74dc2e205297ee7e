// The secrets of docker-compose.yml, each in a file of its own, made where they are missing: `containerKeys.ts [folder]`.
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { refuseUsage } from '../arguments.ts'

const usage = `Usage: node commands/keys/containerKeys.ts [folder]

Makes the secrets of docker-compose.yml that are missing, each in a file of its own below the folder (/keys).`

const [folder = '/keys', ...others] = process.argv.slice(2)
if (folder === '--help') {
  console.log(usage)
  process.exit(0)
}
if (folder.startsWith('-') || others.length > 0) refuseUsage(usage, `Unexpected argument '${others[0] ?? folder}'.`)

const secret = () => randomBytes(32).toString('hex')

make('service/key', secret, 0o400)
make('admin/key', secret, 0o400)
// For everybody who has this volume: PostgreSQL reads it as another user.
const password = make('database/password', secret, 0o444)
make('database/postgres', () => `postgres://latchkey:${password}@postgres/latchkey`, 0o400)
make('database/sqlite', () => 'sqlite:/data/users.db', 0o400)

/** What is in the file, which is written where it is not there. */
function make(name: string, text: () => string, mode: number): string {
  const file = join(folder, name)
  mkdirSync(dirname(file), { recursive: true })
  try {
    writeFileSync(file, `${text()}\n`, { flag: 'wx', mode })
    console.log(`Made ${file}.`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return readFileSync(file, 'utf8').trim()
}
