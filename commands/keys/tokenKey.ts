// A key that signs tokens, for TOKEN_KEYS.
import { generateKeyPairSync, randomBytes } from 'node:crypto'

/** A private JWK. */
export function makeTokenKey(alg: 'EdDSA' | 'HS256'): Record<string, unknown> {
  const kid = randomBytes(6).toString('base64url')
  if (alg === 'HS256') return { kty: 'oct', k: randomBytes(32).toString('base64url'), alg, kid }
  return { ...generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' }), alg, kid }
}
