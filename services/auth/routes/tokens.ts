// The operator's routes: GET and POST /tokens, DELETE /tokens/:id, DELETE /tokens/expired.
import { z } from 'zod'
import { tokenKinds } from '../../../packages/client/contract.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import { isTokenId } from '../tokens/format.ts'
import type { Sweeper } from '../tokens/sweeper.ts'
import type { Tokens } from '../tokens/tokens.ts'
import type { Users } from '../users/users.ts'
import { pageSize, pageSizeExpected, readQuery } from './query.ts'
import { purposeSchema } from './validateToken.ts'

const mostSeconds = 10 * 365 * 86_400
const secondsExpected = `expected a whole number of seconds, 1 to ${mostSeconds}`
const seconds = z.int(secondsExpected).min(1, secondsExpected).max(mostSeconds, secondsExpected)

export const termsSchema = z
  .strictObject({
    kind: z.enum(tokenKinds, `expected one of ${tokenKinds.join(', ')}`),
    ttlSeconds: seconds,
    absoluteTtlSeconds: seconds.optional(),
    userId: z.string('expected the id of a user').optional(),
    purpose: purposeSchema.optional(),
  })
  .refine(({ kind, absoluteTtlSeconds }) => kind === 'sliding' || absoluteTtlSeconds === undefined, {
    path: ['absoluteTtlSeconds'],
    message: 'expected for sliding tokens only: the others end after ttlSeconds',
  })
  .refine(({ ttlSeconds, absoluteTtlSeconds = ttlSeconds }) => absoluteTtlSeconds >= ttlSeconds, {
    path: ['absoluteTtlSeconds'],
    message: 'expected at least ttlSeconds',
  })

const readTerms = bodyReader(termsSchema)

export const tokenQuerySchema = z.strictObject({
  limit: pageSize,
  after: z
    .string()
    .regex(/^[\w:-]{1,64}$/)
    .optional(),
  userId: z.string().min(1).max(256).optional(),
})
const tokenQueryExpected = `${pageSizeExpected}, after (the next of the page before), userId, each at most once`

export interface TokenRoutesOptions {
  users: Users
  tokens: Tokens
  sweeper: Sweeper
  /** The absolute end of a sliding token that is issued without one of its own, in milliseconds. */
  absoluteTtlMs: number
}

export function tokenRoutes({ users, tokens, sweeper, absoluteTtlMs }: TokenRoutesOptions) {
  const issue: Handler = async ctx => {
    const { kind, ttlSeconds, absoluteTtlSeconds, userId, purpose = null } = await readTerms(ctx)
    const owner = userId === undefined ? null : await users.find(userId)
    if (userId !== undefined && owner === null) throw new AppError('invalid_request', 'userId: there is no such user')
    const ttlMs = ttlSeconds * 1000
    const absolute = absoluteTtlSeconds === undefined ? Math.max(ttlMs, absoluteTtlMs) : absoluteTtlSeconds * 1000
    const life = { ttlMs, absoluteTtlMs: absolute }
    const issued = await tokens.issue({ kind, purpose, owner, login: null, ...life })
    if (issued === null)
      throw new AppError('conflict', 'The sessions of this user were ended at this moment; try again.')
    const { id, username, expiresAt, absoluteExpiresAt, createdAt } = issued.token
    ctx.status = 201
    ctx.body = {
      token: issued.secret,
      tokenType: 'Bearer',
      tokenId: id,
      kind,
      purpose,
      userId: owner?.id ?? null,
      username,
      createdAt,
      expiresAt,
      absoluteExpiresAt,
    }
  }

  const list: Handler = async ctx => {
    const { limit, after = null, userId } = readQuery(ctx, tokenQuerySchema, tokenQueryExpected)
    const page =
      userId === undefined ? await tokens.page(after, limit) : { tokens: await tokens.tokensOf(userId), next: null }
    ctx.body = {
      counts: await tokens.census(),
      tokens: page.tokens.map(({ credentialVersion, loginId, ttlMs, ...shown }) => shown),
      next: page.next,
    }
  }

  const end: Handler = async ctx => {
    const { id = '' } = ctx.params
    if (!isTokenId(id) || !(await tokens.revokeById(id)))
      throw new AppError('not_found', 'There is no token of this id.')
    ctx.status = 204
  }

  const sweep: Handler = async ctx => {
    ctx.body = { removed: await sweeper.sweep() }
  }

  return { list, issue, end, sweep }
}
