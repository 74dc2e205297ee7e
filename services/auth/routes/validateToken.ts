// POST /validateToken: what Business asks for every request. One token, or up to 256 in one call.
import { bodyReader } from '../../../shared/http/body.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import { type Verdict, validateTokenSchema } from '../../../packages/client/contract.ts'
import type { TokenRecord, Tokens } from '../tokens/tokens.ts'

const readRequest = bodyReader(validateTokenSchema, { limit: 512 * 1024 })

export function validateTokenRoute(tokens: Tokens): Handler {
  return async function validateToken(ctx) {
    const { token, tokens: many, purpose = null, touch } = await readRequest(ctx)
    const found = await tokens.validate(many ?? [token as string], { purpose, touch })
    ctx.body = many ? { verdicts: found.map(verdictOf) } : verdictOf(found[0] ?? null)
  }
}

function verdictOf(token: TokenRecord | null): Verdict {
  if (token === null) return { authenticated: false }
  const { id, kind, username, userId, createdAt, expiresAt, absoluteExpiresAt, refreshCount } = token
  return {
    authenticated: true,
    tokenId: id,
    kind,
    username,
    userId,
    createdAt,
    expiresAt,
    absoluteExpiresAt,
    refreshCount,
  }
}
