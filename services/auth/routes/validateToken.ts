// POST /validateToken: what Business asks for every request. One token, or up to 256 in one call.
import { z } from 'zod'
import { bodyReader } from '../../../shared/body.ts'
import type { Handler } from '../../../shared/http.ts'
import { maxTokensPerCall, type Verdict } from '../../../shared/validateToken.ts'
import type { TokenRecord, Tokens } from '../tokens/tokens.ts'

const token = z.string({ error: 'expected a string' })
const request = z
  .strictObject({
    token: token.optional(),
    tokens: z
      .array(token, { error: 'expected an array of strings' })
      .min(1, `expected 1 to ${maxTokensPerCall} tokens`)
      .max(maxTokensPerCall, `expected 1 to ${maxTokensPerCall} tokens`)
      .optional(),
  })
  .refine(body => (body.token === undefined) !== (body.tokens === undefined), 'expected either token or tokens')

const readRequest = bodyReader(request, { limit: 512 * 1024 })

export function validateTokenRoute(tokens: Tokens): Handler {
  return async function validateToken(ctx) {
    const body = await readRequest(ctx)
    if (body.tokens) {
      ctx.body = { verdicts: (await tokens.validate(body.tokens)).map(verdictOf) }
    } else {
      const [found] = await tokens.validate([body.token as string])
      ctx.body = verdictOf(found ?? null)
    }
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
