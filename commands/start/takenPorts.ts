// In development, replaces each default port that another program uses by the next free one. Keeps the choice in a file, so that
// the operator's commands find the internal listener of Auth.
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname } from 'node:path'
import { parseEnv } from 'node:util'
import type { Environment } from '../../shared/config/readSettings.ts'
import { isSet } from './layout.ts'

interface Listener {
  name: string
  setting: string
  byDefault: number
  hostSetting: string
  /** The setting with the URL of the listener. If it is set, the port must stay. */
  addressSetting: string | null
}

const listeners: Listener[] = [
  {
    name: 'Business',
    setting: 'BUSINESS_PORT',
    byDefault: 3000,
    hostSetting: 'HOST',
    addressSetting: 'CONSOLE_BUSINESS_URL',
  },
  { name: 'Auth', setting: 'AUTH_PORT', byDefault: 3001, hostSetting: 'HOST', addressSetting: 'PUBLIC_URL' },
  {
    name: "Business's internal listener",
    setting: 'BUSINESS_INTERNAL_PORT',
    byDefault: 3100,
    hostSetting: 'INTERNAL_HOST',
    addressSetting: null,
  },
  {
    name: "Auth's internal listener",
    setting: 'AUTH_INTERNAL_PORT',
    byDefault: 3101,
    hostSetting: 'INTERNAL_HOST',
    addressSetting: 'AUTH_INTERNAL_URL',
  },
]
const file = 'logs/ports.env'
const maxSteps = 100

/**
 * The ports to set: for each default port that is taken, the next free one. Calls `warn` with a line for each. A port that is set
 * stays, also if it is taken.
 */
export async function replaceTakenPorts(
  env: Environment,
  warn: (message: string) => void,
  isTaken: (port: number, host: string) => Promise<boolean> = isInUse,
): Promise<Environment> {
  const movable = listeners.filter(
    ({ setting, addressSetting }) =>
      !isSet(env[setting]) &&
      !(addressSetting !== null && isSet(env[addressSetting])) &&
      !(setting === 'BUSINESS_PORT' && isSet(env['PORT'])),
  )
  const reserved = new Set([...portsIn(env), ...movable.map(({ byDefault }) => byDefault)])
  const chosen: Environment = {}
  for (const { name, setting, byDefault, hostSetting } of movable) {
    const host = isSet(env[hostSetting]) ? env[hostSetting] : '127.0.0.1'
    if (!portsIn(env).has(byDefault) && !(await isTaken(byDefault, host))) continue
    for (let port = byDefault + 1; port <= byDefault + maxSteps; port++) {
      if (reserved.has(port) || (await isTaken(port, host))) continue
      reserved.add(port)
      chosen[setting] = String(port)
      warn(`Port ${byDefault} is in use: ${name} is on ${port}.`)
      break
    }
  }
  return chosen
}

/** The ports that settings name. */
function portsIn(env: Environment): Set<number> {
  const own = ['PORT', ...listeners.map(({ setting }) => setting)].map(name => env[name])
  const ofDialects = (env['DIALECTS'] ?? '').split(',').map(entry => entry.split(':')[1])
  return new Set([...own, ...ofDialects].map(Number))
}

/**
 * True also if only ::1 is taken, because a browser that opens http://localhost tries ::1 first. The service itself reports any
 * other problem with the host.
 */
async function isInUse(port: number, host: string): Promise<boolean> {
  for (const address of host === '127.0.0.1' ? [host, '::1'] : [host]) {
    const server = createServer().listen({ port, host: address })
    const problem = await once(server, 'listening').then(
      () => null,
      (error: NodeJS.ErrnoException) => error.code ?? error.name,
    )
    if (problem === null) await once(server.close(), 'close')
    if (problem === 'EADDRINUSE') return true
  }
  return false
}

/** Replaces what an earlier run has kept. Without ports, or if the file cannot be written, nothing is kept. */
export function keepPorts(ports: Environment): void {
  try {
    rmSync(file, { force: true })
    if (Object.keys(ports).length === 0) return
    mkdirSync(dirname(file), { recursive: true })
    const lines = Object.entries(ports).map(([name, port]) => `${name}=${port}\n`)
    writeFileSync(file, `# Ports of the running ./startServer that differ from the defaults\n${lines.join('')}`)
  } catch {
    // The folder is read-only. Commands then need AUTH_INTERNAL_PORT.
  }
}

/** The ports that the running ./startServer has kept in this folder. */
export function keptPorts(): Environment {
  try {
    return parseEnv(readFileSync(file, 'utf8'))
  } catch {
    return {}
  }
}
