// The secrets of JWT mode: signed JWTs (RFC 9068, with the rules of RFC 8725). Hides jose and the keys.
// Anyone can verify with the published keys that we issued a JWT; only Auth knows whether it is still live. Auth finds the
// token by its `jti` and compares the hash of the whole JWT, so only the exact bytes that were issued match. Therefore
// no signature is verified here, and no claim is trusted.
import { hash, randomBytes } from 'node:crypto'
import { exportJWK, importJWK, type JWK, SignJWT } from 'jose'
import { isBearerToken } from '../../../packages/client/bearer.ts'
import { isApiKey, type TokenRef } from '../stores/tokenPort.ts'
import { isKeyLike, isTokenId, opaqueFormat, type TokenFormat } from './format.ts'

export interface JwtFormatOptions {
  /** Private keys. The first one signs; tokens signed with another are accepted until that key is removed. */
  keys: JWK[]
  issuer: string
  audience: string
}

export interface JwtFormat extends TokenFormat {
  /** Has no HS256 keys, because such a key can also sign. */
  publicKeys: JWK[]
}

const clientId = 'latchkey' // RFC 9068, section 2.2 requires a client id; there is only this client

export async function openJwtFormat({ keys, issuer, audience }: JwtFormatOptions): Promise<JwtFormat> {
  const [first] = keys as [JWK]
  const { alg = '', kid = '' } = first
  const signingKey = await importJWK(first, alg)
  const algorithmOf = new Map(keys.map(key => [key.kid, key.alg]))
  const publicKeys: JWK[] = []
  for (const { kty, crv, x, alg, kid } of keys) {
    if (kty === 'OKP')
      publicKeys.push({
        ...(await exportJWK(await importJWK({ kty, crv, x } as JWK, alg))),
        alg,
        kid,
        use: 'sig',
      } as JWK)
  }

  return {
    publicKeys,

    async draw(token, renewed) {
      if (isApiKey(token)) return opaqueFormat.draw(token, renewed) // the prefix is worth more than claims
      const { id, userId, username, createdAt, absoluteExpiresAt } = token
      // The nonce makes each renewal a different secret. Renewals keep the nonce of the first secret, as the lineage.
      const nonce = randomBytes(12).toString('base64url')
      const lineage = renewed === null ? {} : { lineage: lineagePartOf(renewed) }
      const issuedAt = Math.floor(createdAt / 1000)
      const claims = { client_id: clientId, nonce, ...lineage, ...(username !== null && { username }) }
      const secret = await new SignJWT(claims)
        .setProtectedHeader({ alg, typ: 'at+jwt', kid })
        .setIssuer(issuer)
        .setAudience(audience)
        .setSubject(userId ?? id)
        .setJti(id)
        .setIssuedAt(issuedAt)
        .setNotBefore(issuedAt)
        .setExpirationTime(Math.floor(absoluteExpiresAt / 1000))
        .sign(signingKey)
      return { secret, ref: refOf(id, secret) }
    },

    parse(secret) {
      if (isKeyLike(secret)) return opaqueFormat.parse(secret)
      if (!isBearerToken(secret)) return null
      const [header, payload, signature, ...more] = secret.split('.')
      if (header === undefined || payload === undefined || !signature || more.length > 0) return null
      const { typ, alg, kid } = membersOf(header)
      const { jti } = membersOf(payload)
      if (typ !== 'at+jwt' || typeof kid !== 'string' || alg === undefined || algorithmOf.get(kid) !== alg) return null
      return typeof jti === 'string' && isTokenId(jti) ? refOf(jti, secret) : null
    },

    lineageOf(secret) {
      return hash('sha256', `lineage:${lineagePartOf(secret)}`, 'base64url')
    },
  }
}

function refOf(id: string, secret: string): TokenRef {
  return { id, hash: hash('sha256', secret, 'base64url') }
}

/** The 96 random bits that all renewals of a JWT have in common. Empty if `secret` is not one of our JWTs. */
function lineagePartOf(secret: string): string {
  const { nonce, lineage } = membersOf(secret.split('.')[1] ?? '')
  const part = lineage ?? nonce
  return typeof part === 'string' ? part : ''
}

/** The members of one part of a JWT; none if it is not a JSON object. */
function membersOf(part: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString())
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
