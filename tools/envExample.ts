// npm run env-example: writes .env.example and docs/configuration.md from the settings of both services. A test fails if
// either file is out of date.
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { readArguments } from '../commands/arguments.ts'
import { makeConfigurationPage } from './configurationPage.ts'
import { type Setting, settingGroups } from './settings.ts'

const head = `# Every setting of Latchkey, each with its default. Copy what you want to change into .env, which ./startServer reads
# outside production; elsewhere these are environment variables. A secret may also come as NAME_FILE, the path of a
# file that holds it. PORT does not belong here: a platform sets it, and then both services share that one address.

# For real users, set at least these. The defaults below are those of the demo: users in memory, and sessions that end after 30
# seconds without use. docs/deploy.md compares the stores.
#
#   NODE_ENV=production
#   SERVICE_KEY=<openssl rand -hex 32>
#   ADMIN_KEY=<openssl rand -hex 32>
#   USER_STORE_URL=sqlite:/var/lib/latchkey/users.db
#   TOKEN_STORE_URL=sqlite:/var/lib/latchkey/tokens.db
#   TOKEN_TTL_SECONDS=1800
`
const width = 120

export function makeEnvExample(): string {
  return (
    head +
    settingGroups()
      .map(([title, settings]) => `\n# ${title}\n${settings.map(describe).join('')}`)
      .join('')
  )
}

function describe({ name, description, expected, fallback, secret, byDefault }: Setting): string {
  const inWords = fallback ? `; default: ${fallback}` : ''
  const lines = [description, `Expected: ${expected}${inWords}${secret ? `; or ${name}_FILE` : ''}`].flatMap(wrap)
  return `\n${lines.map(line => `# ${line}\n`).join('')}#${name}=${byDefault ?? ''}\n`
}

function wrap(text: string): string[] {
  const lines = ['']
  for (const word of `${text[0]?.toUpperCase()}${text.slice(1)}`.split(' ')) {
    const last = lines.at(-1) as string
    if (last !== '' && `# ${last} ${word}`.length > width) lines.push(word)
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`
  }
  return lines
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const usage =
    'Usage: npm run env-example\n\nWrites .env.example and docs/configuration.md from the settings of both services.'
  readArguments(usage, {})
  writeFileSync('.env.example', makeEnvExample())
  writeFileSync('docs/configuration.md', makeConfigurationPage())
}
