// The secret's shape: `lk_` + the token's id + 256 random bits + a checksum, all base62. Hides how it is drawn and hashed.
// The id begins with the routing tag and tells when the token was issued; it is public, and a log can be searched for it.
// A renewal keeps the first 125 of the random bits, the lineage, so that any earlier secret of a session can be recognised.
import { hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { TokenRecord, TokenRef } from '../stores/ports.ts'

/** The shape of the secrets that are issued. Two services with different formats do not know each other's tokens. */
export interface TokenFormat {
  /** A new secret for this token; no two are the same. `renewed`: the secret whose place it takes, and lineage it keeps. */
  draw(token: TokenRecord, renewed: string | null): Promise<string>
  /** Null for what is not one of these secrets: junk is refused here, without touching a store. */
  parse(secret: string): TokenRef | null
  /** A hash of what a secret has in common with all those that it was renewed from or to. Of a well-formed one. */
  lineageOf(secret: string): string
}

const prefix = 'lk_'
const tagLength = 4
const timeLength = 5 // seconds since `epoch`, for 29 years
const idLength = tagLength + timeLength + 5
const randomLength = 43 // 62^43 > 2^256
const lineageLength = 21 // of those: 62^21 > 2^125, and the other 22 are new with each renewal: 62^22 > 2^130
const checksumLength = 6 // 62^6 > 2^32
const epoch = Date.UTC(2025)
const shape = new RegExp(`^${prefix}[0-9A-Za-z]{${idLength + randomLength + checksumLength}}$`)
const idShape = new RegExp(`^[0-9A-Za-z]{${idLength}}$`)
const alphabet = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** Secrets that mean nothing to whoever holds them. */
export const opaqueFormat: TokenFormat = {
  draw: async ({ id }, renewed) => drawSecret(id, renewed === null ? '' : lineagePartOf(renewed)),
  parse: parseSecret,
  lineageOf: secret =>
    hash(
      'sha256',
      `lineage:${secret.slice(prefix.length, prefix.length + idLength)}${lineagePartOf(secret)}`,
      'base64url',
    ),
}

/** The routing tag of a user's tokens. */
export function tagOf(userId: string): string {
  const bits = Number.parseInt(hash('sha256', `tag:${userId}`, 'hex').slice(0, 12), 16)
  return base62(bits % 62 ** tagLength, tagLength)
}

/** A new public name: under the tag of the user, or under any where there is none. */
export function drawTokenId(userId: string | null, now: number): string {
  const tag = userId === null ? randomBase62(tagLength) : tagOf(userId)
  const seconds = Math.floor((now - epoch) / 1000) % 62 ** timeLength
  return tag + base62(seconds, timeLength) + randomBase62(idLength - tagLength - timeLength)
}

export function isTokenId(text: string): boolean {
  return idShape.test(text)
}

/** Of a token that nobody has, another each time. */
export function drawUnknownRef(now: number): TokenRef {
  return refOf(drawSecret(drawTokenId(null, now)))
}

/** To the second; epoch milliseconds. */
export function issuedAtOf(id: string): number {
  let seconds = 0
  for (const digit of id.slice(tagLength, tagLength + timeLength)) seconds = seconds * 62 + alphabet.indexOf(digit)
  return epoch + seconds * 1000
}

/** A new secret for the token of this id, from the system's CSPRNG, of a lineage of its own if none is given. */
export function drawSecret(id: string, lineagePart = ''): string {
  const unchecked = prefix + id + lineagePart + randomBase62(randomLength - lineagePart.length)
  return unchecked + checksumOf(unchecked)
}

/** Null for what is not one of our secrets. */
export function parseSecret(secret: string): TokenRef | null {
  if (!shape.test(secret)) return null
  const checksumAt = secret.length - checksumLength
  if (secret.slice(checksumAt) !== checksumOf(secret.slice(0, checksumAt))) return null
  return refOf(secret)
}

/** The reference of a secret that is known to be well-formed. 256 random bits need no slow hash. */
export function refOf(secret: string): TokenRef {
  return { id: secret.slice(prefix.length, prefix.length + idLength), hash: hash('sha256', secret, 'base64url') }
}

function lineagePartOf(secret: string): string {
  const from = prefix.length + idLength
  return secret.slice(from, from + lineageLength)
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
