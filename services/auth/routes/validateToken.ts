// POST /validateToken: what Business asks for every request. One token, or up to 256 in one call, some of which may be held by
// open connections.
import { z } from 'zod'
import {
  maxTokensPerCall,
  type NoVerdict,
  tokenKinds,
  type ValidateTokenRequest,
  type Verdict,
} from '../../../packages/client/contract.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import { actorOf, keyNameOf, rightsOf } from '../tokens/rights.ts'
import type { Found, Tokens, ValidateOptions } from '../tokens/tokens.ts'
import { shownScope } from './authority.ts'
import { type AuthRoute, at, noKey, tokenId } from './route.ts'

const purposeExpected = 'expected a purpose: 1 to 64 letters, digits, dots, dashes or underscores'
/** What a token is for, if it is neither a session nor a key. */
export const purposeSchema = z.string(purposeExpected).regex(/^[\w.-]{1,64}$/, purposeExpected)

const token = z.string('expected a string')
const tokensExpected = `expected 1 to ${maxTokensPerCall} tokens`
const tokenList = z
  .array(token, 'expected an array of strings')
  .min(1, tokensExpected)
  .max(maxTokensPerCall, tokensExpected)

/**
 * One `token`, whose response is a verdict, or `tokens`, whose response is `{verdicts}` in the same order. With `held`, the
 * response is `{verdicts, held}`.
 */
const requestSchema = z
  .strictObject({
    token: token.optional(),
    tokens: tokenList.optional(),
    /** Only looked at, whatever `touch` says. */
    held: tokenList.optional(),
    /** Only tokens of this purpose are valid; if it is missing, only tokens without a purpose. */
    purpose: purposeSchema.optional(),
    /** False: extend and consume nothing. */
    touch: z.boolean('expected true or false').default(true),
  })
  .refine(
    ({ token, tokens, held }) => (token === undefined) !== (tokens === undefined && held === undefined),
    'expected either token or tokens',
  )
  .refine(
    ({ tokens, held }) => held === undefined || held.length + (tokens?.length ?? 0) <= maxTokensPerCall,
    `expected at most ${maxTokensPerCall} tokens, including held ones`,
  ) satisfies z.ZodType<unknown, ValidateTokenRequest>

const readRequest = bodyReader(requestSchema, { limit: 512 * 1024, isHot: true })

const verdictSchema = z
  .union([
    z.strictObject({ authenticated: z.literal(false) }),
    z
      .strictObject({ authenticated: z.literal(false), limited: z.literal(true), retryAfterMs: z.int().positive() })
      .meta({ description: 'the token is valid, but its limits or those of its user allow no request now' }),
    z.strictObject({ unavailable: z.literal(true) }).meta({
      description: 'only in an answer to `tokens`: the part of the store that holds this token does not answer',
    }),
    z.strictObject({
      authenticated: z.literal(true),
      tokenId,
      kind: z.enum(tokenKinds),
      username: z.string().nullable(),
      userId: z.string().nullable(),
      createdAt: at,
      expiresAt: at,
      absoluteExpiresAt: at,
      refreshCount: z.int(),
      roles: z.array(z.string()).meta({ description: 'the roles that the user has at this moment' }),
      scope: shownScope,
      keyName: z.string().nullable().meta({ description: 'the API key behind the token; null if there is none' }),
      actor: z
        .strictObject({ sub: z.string() })
        .nullable()
        .meta({ description: 'who acts for the user, if the token was delegated (RFC 8693, section 4.1)' }),
    }),
  ])
  .meta({ id: 'Verdict' }) satisfies z.ZodType<Verdict | NoVerdict>

export const validateToken: AuthRoute<'tokens'> = {
  path: 'POST /validateToken',
  guard: 'serviceKey',
  summary:
    'Validates one token, or up to 256 in one call, and extends or consumes those that are valid; looks at held tokens',
  tag: 'For services',
  body: readRequest,
  answers: {
    200: {
      description: 'A verdict, or the verdicts in the order of the tokens',
      body: z.union([
        verdictSchema,
        z.strictObject({
          verdicts: z.array(verdictSchema),
          held: z
            .array(verdictSchema)
            .nullable()
            .optional()
            .meta({ description: 'only if the request had `held`; null if the store answered for `tokens` alone' }),
        }),
      ]),
    },
  },
  problems: { 401: noKey },
  handler:
    ({ tokens }) =>
    async ctx => {
      const { token, tokens: many, held, purpose = null, touch } = await readRequest(ctx)
      if (held) {
        ctx.body = await answerWithHeld(tokens, many ?? [], held, { purpose, touch })
        return
      }
      ctx.body = many
        ? { verdicts: (await tokens.validateAll(many, { purpose, touch })).map(verdictOf) }
        : verdictOf((await tokens.validateAll([token as string], { purpose, touch }))[0] ?? null)
    },
}

/** Asks about both lists at the same time. A look that fails costs the requests of the call nothing. */
async function answerWithHeld(tokens: Tokens, asked: string[], held: string[], options: ValidateOptions) {
  const looking = tokens.lookAtHeld(held, options.purpose)
  if (asked.length === 0) return { verdicts: [], held: (await looking).map(verdictOf) }
  const [found, looked] = await Promise.all([tokens.validateAll(asked, options), looking.catch(() => null)])
  return { verdicts: found.map(verdictOf), held: looked?.map(verdictOf) ?? null }
}

function verdictOf(found: Found): Verdict | NoVerdict {
  if (found === null) return { authenticated: false }
  if (found === 'unavailable') return { unavailable: true }
  if ('limited' in found) return { authenticated: false, ...found }
  const { id, kind, username, userId, createdAt, expiresAt, absoluteExpiresAt, refreshCount } = found
  const { roles, scope } = rightsOf(found)
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
    roles,
    scope,
    keyName: keyNameOf(found),
    actor: actorOf(found),
  }
}
