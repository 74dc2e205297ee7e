// The environment of a development machine: `.env`, and the keys that are missing, made once and kept there.
import { randomBytes } from 'node:crypto'
import { appendFileSync, chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { parseEnv } from 'node:util'
import type { Environment } from '../../shared/config/readSettings.ts'
import { makeTokenKey } from '../keys/tokenKeys.ts'

const file = '.env'
const makers: Record<string, () => string> = {
  SERVICE_KEY: () => randomBytes(32).toString('hex'),
  ADMIN_KEY: () => randomBytes(32).toString('hex'),
  TOKEN_KEYS: () => JSON.stringify({ keys: [makeTokenKey('EdDSA')] }),
}

/** `env` as it is where NODE_ENV is neither unset nor `development`; else completed, and `tell` hears what was written. */
export function completeEnvironment(env: Environment, tell: (message: string) => void): Environment {
  if (env['NODE_ENV'] && env['NODE_ENV'] !== 'development') return env
  const text = readIfThere(file)
  const complete: Environment = { ...(text === null ? {} : parseEnv(text)), ...env }
  const keys = Object.keys(makers).filter(key => key !== 'TOKEN_KEYS' || complete['TOKEN_FORMAT'] === 'jwt')
  const missing = keys.filter(key => !complete[key] && !complete[`${key}_FILE`])
  if (missing.length === 0) return complete

  const lines = missing.map(key => `${key}=${makers[key]?.()}`).join('\n')
  try {
    if (text === null) writeFileSync(file, `${lines}\n`, { flag: 'wx', mode: 0o600 })
    else {
      if (closeToOthers(file)) tell(`${file} could be read by other users; its mode is 600 now.`)
      appendFileSync(file, `${text === '' || text.endsWith('\n') ? '' : '\n'}${lines}\n`)
    }
    tell(`Made ${missing.join(' and ')} and kept ${missing.length === 1 ? 'it' : 'them'} in ${file}.`)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    tell(`Made ${missing.join(' and ')} for this run only: ${file} cannot be written (${code}).`)
  }
  return { ...complete, ...parseEnv(lines) }
}

/** Before a key is in it. Returns whether it was open; throws if its mode cannot be changed. */
function closeToOthers(path: string): boolean {
  const isOpen = process.platform !== 'win32' && (statSync(path).mode & 0o077) !== 0
  if (isOpen) chmodSync(path, 0o600)
  return isOpen
}

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw error
  }
}
