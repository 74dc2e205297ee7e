// npm run token-keys: prints a JWK Set for TOKEN_KEYS with a new key at the front. See --help.
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { readArguments, refuseUsage } from '../arguments.ts'

const usage = `Usage: npm run -s token-keys -- [--algorithm EdDSA|HS256] [--add-to file] > keys.json

Prints a set of private keys for TOKEN_KEYS (or TOKEN_KEYS_FILE). The first one is new; it signs all new tokens.

  --algorithm   EdDSA (default), with a public key that lets other services verify tokens, or HS256
  --add-to      an existing set; its keys follow the new key, so that tokens signed with them stay valid`

export function makeTokenKey(alg: string): Record<string, unknown> {
  const kid = randomBytes(6).toString('base64url')
  if (alg === 'HS256') return { kty: 'oct', k: randomBytes(32).toString('base64url'), alg, kid }
  return { ...generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' }), alg, kid }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const values = readArguments(usage, {
    algorithm: { type: 'string', default: 'EdDSA' },
    'add-to': { type: 'string' },
  })
  if (!['EdDSA', 'HS256'].includes(values.algorithm)) {
    refuseUsage(usage, `--algorithm: expected EdDSA or HS256; got ${JSON.stringify(values.algorithm)}.`)
  }
  const older = values['add-to'] === undefined ? [] : JSON.parse(readFileSync(values['add-to'], 'utf8')).keys
  console.log(JSON.stringify({ keys: [makeTokenKey(values.algorithm), ...older] }))
}
