// The secret's shape: `lk_` + the token's id + 256 random bits + a checksum, all base62. Hides how it is drawn and hashed.
// The id begins with the routing tag and contains the second of issue; it is public, and a log can be searched for it. A
// renewal keeps the first 125 of the random bits, the lineage, so that any earlier secret of a session can be recognised.
import { hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { base62, readBase62, writeBase62 } from '../../../shared/base62.ts'
import { type TokenRecord, type TokenRef, tagLength, tagOf } from '../stores/ports.ts'

/** A secret and what the store knows of it. */
export interface DrawnSecret {
  secret: string
  ref: TokenRef
}

/** The shape of the secrets that are issued. Two services with different formats do not know each other's tokens. */
export interface TokenFormat {
  /** A new secret for this token; no two are the same. `renewed` is the secret it replaces, whose lineage it keeps. */
  draw(token: TokenRecord, renewed: string | null): Promise<DrawnSecret>
  /** Null if this is not one of these secrets, so that junk is refused without touching a store. */
  parse(secret: string): TokenRef | null
  /** A hash of the part that a well-formed secret shares with all secrets that it was renewed from or to. */
  lineageOf(secret: string): string
}

const prefix = 'lk_'
const timeLength = 5 // seconds since `epoch`, for 29 years
const idLength = tagLength + timeLength + 5
const randomLength = 43 // 62^43 > 2^256
const lineageLength = 21 // of those: 62^21 > 2^125, and the other 22 are new with each renewal: 62^22 > 2^130
const checksumLength = 6 // 62^6 > 2^32
const epoch = Date.UTC(2025)
const shape = new RegExp(`^${prefix}[0-9A-Za-z]{${idLength + randomLength + checksumLength}}$`)
const idShape = new RegExp(`^[0-9A-Za-z]{${idLength}}$`)

/** Secrets without any content that a client could read. */
export const opaqueFormat: TokenFormat = {
  async draw({ id }, renewed) {
    const secret = drawSecret(id, renewed === null ? '' : lineagePartOf(renewed))
    return { secret, ref: refOf(secret) }
  },
  parse: parseSecret,
  lineageOf: secret =>
    hash(
      'sha256',
      `lineage:${secret.slice(prefix.length, prefix.length + idLength)}${lineagePartOf(secret)}`,
      'base64url',
    ),
}

/** A new public name, under the user's tag or, for a guest, under a random one. */
export function drawTokenId(userId: string | null, now: number): string {
  const tag = userId === null ? randomBase62(tagLength) : tagOf(userId)
  const seconds = Math.floor((now - epoch) / 1000) % 62 ** timeLength
  return tag + writeBase62(seconds, timeLength) + randomBase62(idLength - tagLength - timeLength)
}

export function isTokenId(text: string): boolean {
  return idShape.test(text)
}

/** The reference of a token that does not exist; a different one each time. */
export function drawUnknownRef(now: number): TokenRef {
  return refOf(drawSecret(drawTokenId(null, now)))
}

/** When the token of this id was issued: epoch milliseconds, to the second. */
export function issuedAtOf(id: string): number {
  return epoch + readBase62(id, tagLength, tagLength + timeLength) * 1000
}

/** A new secret for the token of this id, from the system's CSPRNG. Without `lineagePart` it starts a lineage. */
export function drawSecret(id: string, lineagePart = ''): string {
  const unchecked = prefix + id + lineagePart + randomBase62(randomLength - lineagePart.length)
  return unchecked + checksumOf(unchecked)
}

/** Null if this is not one of our secrets. */
export function parseSecret(secret: string): TokenRef | null {
  if (!shape.test(secret)) return null
  const checksumAt = secret.length - checksumLength
  if (secret.slice(checksumAt) !== checksumOf(secret.slice(0, checksumAt))) return null
  return refOf(secret)
}

/** The reference of a well-formed secret. 256 random bits need no slow hash. */
export function refOf(secret: string): TokenRef {
  return { id: secret.slice(prefix.length, prefix.length + idLength), hash: hash('sha256', secret, 'base64url') }
}

function lineagePartOf(secret: string): string {
  const from = prefix.length + idLength
  return secret.slice(from, from + lineageLength)
}

function checksumOf(text: string): string {
  return writeBase62(crc32(text), checksumLength)
}

function randomBase62(length: number): string {
  let digits = ''
  while (digits.length < length) {
    for (const byte of randomBytes(length)) {
      // 248 = 4 * 62: a byte above would favour the first characters.
      if (byte < 248 && digits.length < length) digits += base62[byte % 62]
    }
  }
  return digits
}
