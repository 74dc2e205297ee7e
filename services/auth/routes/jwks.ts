// GET /.well-known/jwks.json: the public keys of the tokens, in JWT mode (RFC 7517).
import type { Handler } from '../../../shared/http/listener.ts'
import type { JwtFormat } from '../tokens/jwt.ts'

export function jwksRoute({ publicKeys }: JwtFormat): Handler {
  return function jwks(ctx) {
    ctx.body = { keys: publicKeys }
  }
}
