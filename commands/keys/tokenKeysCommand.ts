// Prints a JWK Set for TOKEN_KEYS with a new key at the front: `latchkey token-keys`.
import { readFileSync } from 'node:fs'
import { type Action, CommandLine } from '../commandLine.ts'
import { makeTokenKey } from './tokenKey.ts'

export function createTokenKeysCommand(): CommandLine {
  return new CommandLine('token-keys')
    .description(
      'print a set of private keys for TOKEN_KEYS (or TOKEN_KEYS_FILE); the first one is new and signs all new tokens',
    )
    .option('--algorithm <name>', 'EdDSA, with a public key that lets other services verify tokens, or HS256', 'EdDSA')
    .option(
      '--add-to <file>',
      'an existing set; its keys follow the new key, so that tokens signed with them stay valid',
    )
    .runs(async () => print)
}

const print: Action = async ({ textOf, refuse }) => {
  const [algorithm, addTo] = [textOf('algorithm'), textOf('addTo')]
  if (algorithm !== 'EdDSA' && algorithm !== 'HS256') {
    return refuse(`--algorithm: expected EdDSA or HS256; got ${JSON.stringify(algorithm)}.`)
  }
  const older = addTo === null ? [] : readKeys(addTo)
  console.log(JSON.stringify({ keys: [makeTokenKey(algorithm), ...older] }))
}

function readKeys(file: string): unknown[] {
  const keys = keysIn(readFileSync(file, 'utf8'))
  if (keys === null) throw new Error(`--add-to: expected a JWK Set, {"keys": […]}; ${file} is something else.`)
  return keys
}

/** Null if `text` is no JWK Set. The error of JSON.parse would quote it, and with it a private key. */
function keysIn(text: string): unknown[] | null {
  try {
    const { keys } = JSON.parse(text)
    return Array.isArray(keys) ? keys : null
  } catch {
    return null
  }
}
