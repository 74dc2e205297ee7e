// The shape of secrets: `lk_`, or `lk_key_` for an API key, + the token's id + 256 random bits + a checksum, all base62. Hides how
// they are drawn and hashed. The id begins with the routing tag and contains the second in which the token was issued; it is public and may be
// logged. A renewal keeps the first 125 random bits, the lineage, by which any earlier secret of a session is recognised.
import { hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { base62, readBase62, writeBase62 } from '../../../shared/base62.ts'
import { isApiKey, type TokenRecord, type TokenRef, tagLength, tagOf } from '../stores/tokenPort.ts'

/** A secret and what the store knows about it. */
export interface DrawnSecret {
  secret: string
  ref: TokenRef
}

/** How secrets are drawn and read. Services with different formats do not recognise each other's tokens. */
export interface TokenFormat {
  /** A new secret for this token, different each time. If `renewed` is a secret, the new one keeps its lineage. */
  draw(token: TokenRecord, renewed: string | null): Promise<DrawnSecret>
  /** Null if `secret` does not have this format, so that junk is refused without a call to the store. */
  parse(secret: string): TokenRef | null
  /** A hash of the lineage of a well-formed secret. The lineage is the part of the secret that renewals keep. */
  lineageOf(secret: string): string
}

const prefix = 'lk_'
/** Secret scanners look for it: keys are kept in files, sessions are not. */
const keyPrefix = 'lk_key_'
const timeLength = 5 // seconds since `epoch`; enough for 29 years
const idLength = tagLength + timeLength + 5
const randomLength = 43 // 62^43 > 2^256
const lineageLength = 21 // of these 43: 62^21 > 2^125; the other 22 are drawn again for each renewal: 62^22 > 2^130
const checksumLength = 6 // 62^6 > 2^32
const epoch = Date.UTC(2025)
const shape = new RegExp(`^(?:${prefix}|${keyPrefix})[0-9A-Za-z]{${idLength + randomLength + checksumLength}}$`)
const idShape = new RegExp(`^[0-9A-Za-z]{${idLength}}$`)

/** Secrets that contain nothing for clients to read, unlike JWTs. */
export const opaqueFormat: TokenFormat = {
  async draw(token, renewed) {
    const lineagePart = renewed === null ? '' : lineagePartOf(renewed)
    const secret = drawSecret(token.id, lineagePart, isApiKey(token) ? keyPrefix : prefix)
    return { secret, ref: refOf(secret) }
  },
  parse: parseSecret,
  lineageOf: secret => hash('sha256', `lineage:${idOf(secret)}${lineagePartOf(secret)}`, 'base64url'),
}

/** A new token id. It begins with the user's tag or, for a guest, with a random tag. */
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

/** When the token of this id was issued: epoch milliseconds, rounded down to the second. */
export function issuedAtOf(id: string): number {
  return epoch + readBase62(id, tagLength, tagLength + timeLength) * 1000
}

/** A new secret for the token of this id, from the system's CSPRNG. Without `lineagePart` it starts a new lineage. */
export function drawSecret(id: string, lineagePart = '', ownPrefix = prefix): string {
  const unchecked = ownPrefix + id + lineagePart + randomBase62(randomLength - lineagePart.length)
  return unchecked + checksumOf(unchecked)
}

/** Null if this is not one of our secrets. */
export function parseSecret(secret: string): TokenRef | null {
  if (!shape.test(secret)) return null
  const checksumAt = secret.length - checksumLength
  if (readBase62(secret, checksumAt, secret.length) !== crc32(secret.slice(0, checksumAt))) return null
  return refOf(secret)
}

/** The reference of a well-formed secret. 256 random bits need no slow hash. */
export function refOf(secret: string): TokenRef {
  return { id: idOf(secret), hash: hash('sha256', secret, 'base64url') }
}

/** Whether this text begins like an API key. */
export function isKeyLike(secret: string): boolean {
  return secret.startsWith(keyPrefix)
}

const idAt = (secret: string): number => (isKeyLike(secret) ? keyPrefix : prefix).length

function idOf(secret: string): string {
  const from = idAt(secret)
  return secret.slice(from, from + idLength)
}

function lineagePartOf(secret: string): string {
  const from = idAt(secret) + idLength
  return secret.slice(from, from + lineageLength)
}

function checksumOf(text: string): string {
  return writeBase62(crc32(text), checksumLength)
}

function randomBase62(length: number): string {
  let digits = ''
  while (digits.length < length) {
    for (const byte of randomBytes(length)) {
      // 248 = 4 * 62: to use larger bytes too would favour the first characters.
      if (byte < 248 && digits.length < length) digits += base62[byte % 62]
    }
  }
  return digits
}
