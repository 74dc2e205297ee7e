// The secret's shape: `lk_` + routing tag + 256 random bits + checksum, all base62. Hides how it is drawn and hashed.
import { hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { TokenRef } from '../stores/ports.ts'

const prefix = 'lk_'
const tagLength = 4
const randomLength = 43 // 62^43 > 2^256
const checksumLength = 6 // 62^6 > 2^32
const shape = new RegExp(`^${prefix}[0-9A-Za-z]{${tagLength + randomLength + checksumLength}}$`)
const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** The routing tag of a user's tokens. */
export function tagOf(userId: string): string {
  const bits = Number.parseInt(hash('sha256', `tag:${userId}`, 'hex').slice(0, 12), 16)
  return base62(bits % 62 ** tagLength, tagLength)
}

/** A new secret under `tag`, from the system's CSPRNG. */
export function drawSecret(tag: string): string {
  const unchecked = prefix + tag + randomBase62(randomLength)
  return unchecked + checksumOf(unchecked)
}

/** A public name for a token, in logs and URLs: 16 characters, of which nothing follows about the secret. */
export function drawTokenId(tag: string): string {
  return tag + randomBase62(12)
}

/** Null for what is not one of our secrets: junk is refused here, without touching a store. */
export function parseSecret(secret: string): TokenRef | null {
  if (!shape.test(secret)) return null
  const checksumAt = secret.length - checksumLength
  if (secret.slice(checksumAt) !== checksumOf(secret.slice(0, checksumAt))) return null
  return refOf(secret)
}

/** The reference of a secret that is known to be well-formed. */
export function refOf(secret: string): TokenRef {
  return { tag: secret.slice(prefix.length, prefix.length + tagLength), hash: hash('sha256', secret, 'base64url') }
}

function checksumOf(text: string): string {
  return base62(crc32(text), checksumLength)
}

function base62(value: number, length: number): string {
  let digits = ''
  for (let rest = value; digits.length < length; rest = Math.floor(rest / 62)) digits = alphabet[rest % 62] + digits
  return digits
}

function randomBase62(length: number): string {
  let digits = ''
  while (digits.length < length) {
    for (const byte of randomBytes(length)) {
      // 248 = 4 * 62: a byte above would favour the first characters.
      if (byte < 248 && digits.length < length) digits += alphabet[byte % 62]
    }
  }
  return digits
}
