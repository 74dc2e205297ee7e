// POST /tokens/delegate: a session or a key issues a weaker token, for an agent or a single job.
import { z } from 'zod'
import { readBearerToken } from '../../../packages/client/bearer.ts'
import { tokenKinds } from '../../../packages/client/contract.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { invalidTokenError } from '../../../shared/invalidTokens.ts'
import type { Excess } from '../tokens/keys.ts'
import { rateSchema, scopeSchema, shownRate, shownScope, usesSchema } from './authority.ts'
import { keyNameSchema } from './keys.ts'
import { type AuthRoute, at, noToken, tokenId, tooManyTokens } from './route.ts'
import { seconds, shownUses } from './tokens.ts'

const readTerms = bodyReader(
  z.strictObject({
    scope: scopeSchema.optional(),
    ttlSeconds: seconds.meta({ description: 'an hour by default, or less if the token has less left' }).optional(),
    uses: usesSchema.optional(),
    rate: rateSchema.optional(),
    name: keyNameSchema.meta({ description: 'who acts for the user, for example an agent' }).optional(),
  }),
)

const delegatedToken = z
  .strictObject({
    token: z.string(),
    tokenType: z.literal('Bearer'),
    tokenId,
    kind: z.enum(tokenKinds),
    parentId: tokenId,
    name: z.string().nullable(),
    userId: z.string(),
    username: z.string(),
    createdAt: at,
    expiresAt: at,
    scope: shownScope,
    rate: shownRate,
    usesLeft: shownUses,
  })
  .meta({ id: 'DelegatedToken' })

export const delegateToken: AuthRoute<'keys' | 'invalidTokens'> = {
  path: 'POST /tokens/delegate',
  guard: 'bearer',
  summary: 'Issues a token that may do less than this session or key, and ends with it',
  tag: 'Keys',
  body: readTerms,
  answers: { 201: { description: 'The token; its secret is shown only once', body: delegatedToken } },
  problems: {
    401: `${noToken} Neither delegated tokens nor those of other kinds can delegate.`,
    409: 'The session or key has just ended.',
    429: tooManyTokens,
  },
  handler:
    ({ keys, invalidTokens }) =>
    async ctx => {
      const { ttlSeconds, ...terms } = await readTerms(ctx)
      const parent = await keys.useParent(readBearerToken(ctx.req))
      if (parent === null) throw invalidTokenError(await invalidTokens.record(ctx.state))
      const ttlMs = ttlSeconds === undefined ? undefined : ttlSeconds * 1000
      const issued = await keys.delegate(parent, { ...terms, ttlMs })
      if (issued === null) throw new AppError('conflict', 'The token that delegates has just ended.')
      if ('exceeds' in issued) throw new AppError('invalid_request', excessText(issued))
      const { secret, token } = issued
      const { id, kind, name, userId, username, createdAt, expiresAt, scope, rate, usesLeft } = token
      ctx.status = 201
      ctx.body = {
        token: secret,
        tokenType: 'Bearer',
        tokenId: id,
        kind,
        parentId: parent.id,
        name,
        userId,
        username,
        createdAt,
        expiresAt,
        scope,
        rate,
        usesLeft,
      }
    },
}

/** What is wrong and what is expected. */
function excessText(excess: Excess): string {
  switch (excess.exceeds) {
    case 'scope':
      return `scope: expected names among those of the token that delegates: ${excess.max}`
    case 'ttl':
      return `ttlSeconds: expected at most ${Math.floor(excess.max / 1000)}, what the token that delegates has left`
    case 'uses':
      return `uses: expected at most ${excess.max}, what the token that delegates has left`
    case 'rate':
      return `rate: expected at most that of the token that delegates: perMinute ${excess.max.perMinute}, burst ${excess.max.burst}`
  }
}
