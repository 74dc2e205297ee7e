// The JWTs for comparison, signed as a service that issues JWTs would sign them: RFC 9068.
import { SignJWT } from 'jose'

export function signTokens(count: number, alg: string, key: Parameters<SignJWT['sign']>[0]): Promise<string[]> {
  const sign = (i: number) =>
    new SignJWT({ username: 'demo@example.com', client_id: 'bench', jti: `token-${i}` })
      .setProtectedHeader({ alg, typ: 'at+jwt' })
      .setIssuer('latchkey')
      .setAudience('business')
      .setSubject(`user-${i}`)
      .setIssuedAt()
      .setExpirationTime('2h')
      .sign(key)
  return Promise.all(Array.from({ length: count }, (_, i) => sign(i)))
}
