// The dialect of flask-lightweight-token-service: any client can get a UUID, and check whether one is still valid.
// Hides how a single UUID serves as both the id and the secret of a token, though it has room for only one of them.
import { createCipheriv, createDecipheriv, hash, randomBytes } from 'node:crypto'
import type { Handler, Routes } from '../../../shared/http/types.ts'
import { isTokenId, type TokenFormat } from '../tokens/format.ts'
import type { DialectParts } from './dialect.ts'
import { answer, bearerOf, countInvalid, guestIssuer } from './requests.ts'

const purpose = 'token-provider'
const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i
const badRequest = 'Invalid request. Your Request must have Authorization layer in a specific format. (Check the docs)'

export function tokenProvider({
  openTokens,
  throttles,
  invalidTokens,
  keys,
  ttlMs,
}: Pick<DialectParts, 'openTokens' | 'throttles' | 'invalidTokens' | 'keys' | 'ttlMs'>): Routes {
  const tokens = openTokens(uuidFormat(keys))
  const issueToGuest = guestIssuer({ tokens, throttles, purpose, ttlMs })

  const generate: Handler = async ctx => {
    ctx.body = { token: await issueToGuest(ctx) }
  }

  const verify: Handler = async ctx => {
    const secret = bearerOf(ctx)
    if (secret === null || !uuid.test(secret)) return answer(ctx, 400, { error: badRequest })
    const token = await tokens.validate(secret, { purpose, touch: true })
    if (!token) await countInvalid(ctx, invalidTokens)
    ctx.body = { valid: Boolean(token) }
  }

  const root: Handler = ctx => answer(ctx, 401, { message: 'Please enter a valid URL.' })

  return {
    'POST /generate_token': [generate],
    'GET /verify_token': [verify],
    'GET /': [root],
    'POST /': [root],
  }
}

const blockLength = 16 // bytes in a UUID, and in a block of AES
const idLength = 14 // characters of a token id, one byte each
const triesAtOnce = 256 // one for each value of a byte; enough in 98 % of cases

/**
 * A version 4 UUID that is the token id plus two bytes, encrypted as one AES block. Without the key it looks like 122
 * random bits: the id can neither be read from the UUID nor turned into it. The first key makes new UUIDs; any key
 * reads them.
 */
function uuidFormat(keys: DialectParts['keys']): TokenFormat {
  // ECB is safe here: each message is a single block, and no block is encrypted twice because ids are unique.
  const cipher = createCipheriv('aes-256-ecb', keys[0], null).setAutoPadding(false)
  const deciphers = keys.map(key => createDecipheriv('aes-256-ecb', key, null).setAutoPadding(false))

  return {
    async draw({ id }) {
      for (;;) {
        // One block in 64 has the version and variant bits that RFC 9562, section 5.4 requires. Encrypting all
        // candidates in one call is cheapest.
        const tries = Buffer.alloc(triesAtOnce * blockLength, `${id}??`, 'latin1')
        const random = randomBytes(1).readUInt8()
        for (let i = 0; i < triesAtOnce; i++) tries.set([random, i], i * blockLength + idLength)
        const encrypted = cipher.update(tries)
        for (let at = 0; at < encrypted.length; at += blockLength) {
          const block = encrypted.subarray(at, at + blockLength)
          if (!isVersion4(block)) continue
          const secret = block.toString('hex').replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
          return { secret, ref: { id, hash: hash('sha256', secret, 'base64url') } }
        }
      }
    },

    parse(secret) {
      if (!uuid.test(secret)) return null
      const text = secret.toLowerCase()
      const encrypted = Buffer.from(text.replaceAll('-', ''), 'hex')
      const ids = deciphers.map(decipher => decipher.update(encrypted).toString('latin1', 0, idLength))
      // With the wrong key the bytes are random and look like an id once in 4e8 times; then the hash does not match.
      const id = ids.find(isTokenId)
      return id === undefined ? null : { id, hash: hash('sha256', text, 'base64url') }
    },

    lineageOf: secret => hash('sha256', secret, 'base64url'), // these tokens are never renewed
  }
}

function isVersion4(bytes: Buffer): boolean {
  return bytes.readUInt8(6) >> 4 === 0b0100 && bytes.readUInt8(8) >> 6 === 0b10
}
