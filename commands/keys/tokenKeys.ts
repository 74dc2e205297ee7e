// Prints a JWK Set for TOKEN_KEYS with a new key at the front: npm run token-keys, and `latchkey token-keys`.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { type Action, CommandLine, runCommandLine } from '../commandLine.ts'

export function makeTokenKey(alg: string): Record<string, unknown> {
  const kid = randomBytes(6).toString('base64url')
  if (alg === 'HS256') return { kty: 'oct', k: randomBytes(32).toString('base64url'), alg, kid }
  return { ...generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' }), alg, kid }
}

export function createTokenKeysCommand(name = 'token-keys'): CommandLine {
  return new CommandLine(name)
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
  const [algorithm, addTo] = [textOf('algorithm') ?? '', textOf('addTo')]
  if (!['EdDSA', 'HS256'].includes(algorithm)) {
    refuse(`--algorithm: expected EdDSA or HS256; got ${JSON.stringify(algorithm)}.`)
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

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await runCommandLine(createTokenKeysCommand('npm run -s token-keys --'))
}
