// The checks of tokens that are compared with Latchkey. VARIANT names the one of this process.
import { createPublicKey } from 'node:crypto'
import { createVerifier } from 'fast-jwt'
import { jwtVerify } from 'jose'
import { openAuthClient } from '../packages/client/authClient.ts'
import { invalidToken } from '../packages/client/bearer.ts'
import { createLog } from '../shared/log/log.ts'
import { openOutput } from '../shared/log/output.ts'

const { VARIANT = '', AUTH_INTERNAL_URL = '', SERVICE_KEY = '', JWT_SECRET = '', JWT_PUBLIC_KEY = '' } = process.env

export const hasCheck = VARIANT !== 'no check'

/** Returns the owner of the token; throws or rejects if the token is invalid. */
export const check = createCheck()

function createCheck(): (token: string) => Promise<string> | string {
  const claims = { allowedIss: 'latchkey', allowedAud: 'business', requiredClaims: ['sub', 'exp'] }
  const jose = { issuer: 'latchkey', audience: 'business', requiredClaims: ['sub', 'exp'] }
  switch (VARIANT) {
    case 'no check':
      return () => 'demo@example.com'
    case 'batched':
    case 'one call per request': {
      const single = VARIANT === 'batched' ? {} : { maxBatch: 1, maxCalls: 1000 }
      const log = createLog({ service: 'bench', level: 'warn', stream: openOutput(process.stdout) })
      const monotonicNow = () => performance.now()
      const auth = openAuthClient({ url: AUTH_INTERNAL_URL, key: SERVICE_KEY, log, monotonicNow, ...single })
      return async token => {
        const { verdict } = await auth.validate(token, { requestId: 'bench' })
        if (!verdict.authenticated) throw invalidToken()
        return String(verdict.username)
      }
    }
    case 'fast-jwt HS256':
    case 'fast-jwt HS256, cached': {
      const cache = VARIANT.endsWith('cached')
      const verify = createVerifier({ key: JWT_SECRET, algorithms: ['HS256'], cache, ...claims })
      return token => (verify(token) as { username: string }).username
    }
    case 'jose HS256': {
      const key = new TextEncoder().encode(JWT_SECRET)
      return async token =>
        String((await jwtVerify(token, key, { algorithms: ['HS256'], ...jose })).payload['username'])
    }
    case 'jose EdDSA': {
      const key = createPublicKey(JWT_PUBLIC_KEY)
      return async token =>
        String((await jwtVerify(token, key, { algorithms: ['EdDSA'], ...jose })).payload['username'])
    }
    default:
      throw new Error(`there is no variant ${VARIANT}`)
  }
}
