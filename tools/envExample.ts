// npm run env-example: .env.example from the settings of both services. A test says when the file is behind them.
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { z } from 'zod'
import { readArguments } from '../commands/arguments.ts'
import { authSettings } from '../services/auth/config.ts'
import { clearSetting, lifeSettings } from '../services/auth/dialects/settings.ts'
import { businessSettings } from '../services/business/config.ts'
import { commonSettings, metaOf } from '../shared/config/config.ts'

const head = `# Every setting of Latchkey, each with its default. Copy what you want to change into .env, which ./startServer reads
# outside production; elsewhere these are environment variables. What is a secret may come as NAME_FILE, the path of a file
# that holds it. PORT is not for this file: a platform sets it, and both services are behind that one address then.
`
const width = 120

type Settings = Record<string, z.ZodType>

export function makeEnvExample(): string {
  const groups: [string, Settings][] = [
    ['Both services', commonSettings],
    ['Auth', without(authSettings, commonSettings)],
    ['Auth, for the dialects that DIALECTS opens', Object.assign({}, ...Object.values(lifeSettings), clearSetting)],
    ['Business', without(businessSettings, commonSettings)],
  ]
  return head + groups.map(([title, settings]) => `\n# ${title}\n${describe(settings)}`).join('')
}

function without(settings: Settings, others: Settings): Settings {
  return Object.fromEntries(Object.entries(settings).filter(([name]) => !(name in others)))
}

function describe(settings: Settings): string {
  return Object.entries(settings)
    .map(([name, schema]) => {
      const { description, expected, fallback, secret } = metaOf(schema)
      const { data } = schema.safeParse(undefined) // a default of the schema, which is never a secret
      const byDefault = fallback ? `; default: ${fallback}` : ''
      const lines = [description, `Expected: ${expected}${byDefault}${secret ? `; or ${name}_FILE` : ''}`].flatMap(wrap)
      return `\n${lines.map(line => `# ${line}\n`).join('')}#${name}=${data === undefined ? '' : asWritten(name, data)}\n`
    })
    .join('')
}

/** What a program makes of it is not what is written: seconds and minutes become milliseconds. */
function asWritten(name: string, value: unknown): unknown {
  if (typeof value !== 'number') return value
  if (/_MINUTES$/.test(name)) return value / 60_000
  return /_(SECONDS|TIME|FREQUENCY)$/.test(name) ? value / 1000 : value
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
  readArguments('Usage: npm run env-example\n\nWrites .env.example from the settings of both services.', {})
  writeFileSync('.env.example', makeEnvExample())
}
