// The environment on a development machine: `.env`, with missing keys created once and saved there.
import { randomBytes } from 'node:crypto'
import { appendFileSync, chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import type { Environment } from '../../shared/config/readSettings.ts'
import { makeTokenKey } from '../keys/tokenKey.ts'

const file = '.env'
const createKey: Record<string, () => string> = {
  SERVICE_KEY: () => randomBytes(32).toString('hex'),
  ADMIN_KEY: () => randomBytes(32).toString('hex'),
  TOKEN_KEYS: () => JSON.stringify({ keys: [makeTokenKey('EdDSA')] }),
}

/** Completes `env` from `.env`, in development only. Calls `warn` with each change made to the file. */
export function completeEnvironment(env: Environment, warn: (message: string) => void): Environment {
  if (env['NODE_ENV'] && env['NODE_ENV'] !== 'development') return env
  const text = readIfPresent(file)
  const complete: Environment = { ...(text === null ? {} : parseEnv(text)), ...env }
  const keys = Object.keys(createKey).filter(key => key !== 'TOKEN_KEYS' || complete['TOKEN_FORMAT'] === 'jwt')
  const missing = keys.filter(key => !complete[key] && !complete[`${key}_FILE`])
  if (missing.length === 0) return complete

  const lines = missing.map(key => `${key}=${createKey[key]?.()}`).join('\n')
  const names = missing.join(' and ')
  try {
    if (text === null) writeFileSync(file, `${lines}\n`, { flag: 'wx', mode: 0o600 })
    else {
      if (restrictMode(file)) warn(`Other users could read ${file}; its mode is now 600.`)
      appendFileSync(file, `${text === '' || text.endsWith('\n') ? '' : '\n'}${lines}\n`)
    }
    warn(`Created ${names} and saved ${missing.length === 1 ? 'it' : 'them'} in ${file}.`)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    warn(`Created ${names} for this run only: ${file} is not writable (${code}).`)
  }
  return { ...complete, ...parseEnv(lines) }
}

/** Call before writing a key to the file. Returns whether the file was open to others; throws if its mode cannot change. */
function restrictMode(path: string): boolean {
  const isOpen = process.platform !== 'win32' && (statSync(path).mode & 0o077) !== 0
  if (isOpen) chmodSync(path, 0o600)
  return isOpen
}

function readIfPresent(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}
