// Makes docs/configuration.md from the settings of both services: the text around the tables, and one row per setting.
import { type Setting, settingGroups } from './settings.ts'

const head = `# Configuration

<!-- Generated from the settings of both services: npm run env-example -->

Settings are environment variables. \`./startServer --check-config\` lists what is wrong with them and starts nothing. Outside
production \`./startServer\` also reads the file \`.env\`, creates missing keys and stores them there. \`.env.example\` has every
setting with its default.

In development on a terminal each request also gets a short line there, with the user if one is known; the log in
\`logs/latchkey.log\` has all of them. Probes, the calls of Business and the files of pages get none, and a second has at most 25 lines
for each service. \`NO_COLOR=1\` leaves out the colors, and \`ACCESS_LOG=off\` the lines.

In development, if another program uses one of the four default ports, the next free one is taken, and \`./startServer\` says so. What
depends on the port follows: the addresses of the banner, of the console, of Business's calls to Auth, and of mailed links.
\`logs/ports.env\` has the ports while the pair runs, for \`npm run users\` and \`npm run keys\`. A port that is set never moves: if it is
taken, the start fails, as it does for every port in production. The same holds for a port whose address is set by \`PUBLIC_URL\`,
\`AUTH_INTERNAL_URL\` or \`CONSOLE_BUSINESS_URL\`.
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
