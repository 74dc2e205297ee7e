// POST /validateToken: what Business asks for every request. One token, or up to 256 in one call.

import { z } from 'zod'
import { maxTokensPerCall, type ValidateTokenRequest, type Verdict } from '../../../packages/client/contract.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import type { TokenRecord, Tokens } from '../tokens/tokens.ts'

const purposeExpected = 'expected a purpose: 1 to 64 letters, digits, dots, dashes or underscores'
/** What a token is for, if it is neither a session nor a key. */
export const purposeSchema = z.string(purposeExpected).regex(/^[\w.-]{1,64}$/, purposeExpected)

const token = z.string('expected a string')
const tokensExpected = `expected 1 to ${maxTokensPerCall} tokens`

/** One `token`, answered by a verdict, or `tokens`, answered by `{verdicts}` in the same order. */
export const validateTokenSchema = z
  .strictObject({
    token: token.optional(),
    tokens: z
      .array(token, 'expected an array of strings')
      .min(1, tokensExpected)
      .max(maxTokensPerCall, tokensExpected)
      .optional(),
    /** Only tokens of this purpose are admitted; without it, only those that have none. */
    purpose: purposeSchema.optional(),
    /** False looks: nothing is extended, nothing consumed. */
    touch: z.boolean('expected true or false').default(true),
  })
  .refine(
    body => (body.token === undefined) !== (body.tokens === undefined),
    'expected either token or tokens',
  ) satisfies z.ZodType<unknown, ValidateTokenRequest>

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
