// Makes docs/configuration.md from the settings of both services: the text around the tables, and one row per setting.
import { type Setting, settingGroups } from './settings.ts'

const head = `# Configuration

<!-- Generated from the settings of both services: npm run env-example -->

Settings are environment variables. \`./startServer --check-config\` lists what is wrong with them and starts nothing. Outside
production \`./startServer\` also reads the file \`.env\`, creates missing keys and stores them there. \`.env.example\` has every
setting with its default.

In development, the terminal shows a short line for each request, with its user if known, and at most 25 a second for each service. It leaves
out probes, calls of Business and files of pages; \`logs/latchkey.log\` has every request. \`NO_COLOR=1\` turns the colors off, and
\`ACCESS_LOG=off\` the lines.

In development, if another program uses one of the four default ports, \`./startServer\` says so and takes the next free one:

| | |
|---|---|
| what follows the port | the addresses in the banner and the console, Business's calls to Auth, and mailed links |
| what never moves | in production every port; in development a port that you set, also through \`PUBLIC_URL\`, \`AUTH_INTERNAL_URL\` or \`CONSOLE_BUSINESS_URL\`. If it is taken, the start fails |
| \`logs/ports.env\` | has the ports while both services run, for \`npm run users\` and \`npm run keys\` |
`

const tail = `
## One address: \`PORT\`

A platform such as Heroku sets \`PORT\`. Then Business listens on that port, on all addresses unless \`HOST\` is set, and
forwards the public routes of Auth. Auth stays on 127.0.0.1 and does not read \`PORT\`.

## Stores

| URL | users | tokens | |
|---|:-:|:-:|---|
| \`memory:\` | yes | yes | lost when the process ends |
| \`sqlite:path/to/file.db\` | yes | yes | Node's own SQLite, for one machine |
| \`postgres://user:password@host/database\` | yes | yes | append \`?sslmode=verify-full\`, or \`?sslmode=no-verify\` if a managed database signs its certificate itself |
| \`redis://\`, \`rediss://\` (TLS), \`redis-cluster://\`, \`redis-sentinel://\` | no | yes | |

Auth creates the schema and migrates it at start-up, one process at a time. \`./startServer --check-config\` lists the pending
migrations.

A restart with the memory store logs every user out. \`TOKEN_SNAPSHOT_FILE\` prevents that for a planned stop: Auth writes its
tokens to this file, as hashes, readable by its owner only. At its next start Auth reads and removes the file before it accepts
connections, so an old snapshot cannot restore a revoked token. After a crash there is no snapshot: \`./startServer\` restarts Auth,
and all tokens are lost.
`

export function makeConfigurationPage(): string {
  const groups = settingGroups()
  const secrets = groups.flatMap(([, settings]) => settings.filter(({ secret }) => secret))
  return [
    head,
    `\nThese settings are secrets. Each may also be given as \`NAME_FILE\`, the path of a file that holds the secret: ${listNames(secrets)}.\n`,
    ...groups.map(([title, settings]) => `\n## ${title}\n\n${table(settings)}`),
    tail,
  ].join('')
}

function listNames(settings: Setting[]): string {
  return settings.map(({ name }) => `\`${name}\``).join(', ')
}

function table(settings: Setting[]): string {
  const rows = settings.map(({ name, fallback, byDefault, description }) => [
    `\`${name}\``,
    fallback ?? byDefault ?? 'none',
    description,
  ])
  const lines = rows.map(cells => `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |\n`)
  return ['| setting | default | meaning |\n', '|---|---|---|\n', ...lines].join('')
}
