// The operator's routes: GET and POST /tokens, PATCH and DELETE /tokens/:id, DELETE /tokens/expired.
import { z } from 'zod'
import { tokenKinds } from '../../../packages/client/contract.ts'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { isTokenId } from '../tokens/format.ts'
import { isSelected, listSelected } from '../tokens/selection.ts'
import type { TokenRecord, Tokens } from '../tokens/tokens.ts'
import {
  pausedSchema,
  rateSchema,
  scopeNameSchema,
  scopeSchema,
  shownRate,
  shownScope,
  usesSchema,
} from './authority.ts'
import { newSessionSchema } from './login.ts'
import { cursor, pageSize, pageSizeExpected, readQuery } from './query.ts'
import { type AuthRoute, at, noKey, tokenId } from './route.ts'
import { purposeSchema } from './validateToken.ts'

const maxSeconds = 10 * 365 * 86_400
const secondsExpected = `expected a whole number of seconds, 1 to ${maxSeconds}`
export const seconds = z.int(secondsExpected).min(1, secondsExpected).max(maxSeconds, secondsExpected)

const termsSchema = z
  .strictObject({
    kind: z.enum(tokenKinds, `expected one of ${tokenKinds.join(', ')}`),
    ttlSeconds: seconds,
    absoluteTtlSeconds: seconds.optional(),
    userId: z.string('expected the id of a user').optional(),
    purpose: purposeSchema.optional(),
    scope: scopeSchema.optional(),
    rate: rateSchema.optional(),
    uses: usesSchema.optional(),
  })
  .refine(({ kind, uses = null }) => kind !== 'single-use' || uses === null, {
    path: ['uses'],
    message: 'expected for sliding and fixed tokens only: single-use is one use',
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

const tokenQuerySchema = z.strictObject({
  limit: pageSize,
  after: cursor,
  userId: z.string().min(1).max(256).optional(),
  scope: scopeNameSchema.optional(),
  search: z.string().min(1).max(256).meta({ description: 'how the id or the username begins' }).optional(),
})
const tokenQueryExpected = `${pageSizeExpected}, after (next of the previous page), userId, scope (one name) and search (how the id or the username begins), each at most once`

export const shownUses = z.int().nullable().meta({ description: 'null: any number' })

const issuedToken = newSessionSchema
  .omit({ expires_in: true })
  .extend({
    tokenId,
    kind: z.enum(tokenKinds),
    purpose: z.string().nullable(),
    userId: z.string().nullable(),
    username: z.string().nullable(),
    createdAt: at,
    scope: shownScope,
    rate: shownRate,
    usesLeft: shownUses,
  })
  .meta({ id: 'IssuedToken' })

const shownToken = z
  .strictObject({
    id: tokenId,
    kind: z.enum(tokenKinds),
    purpose: z.string().nullable(),
    userId: z.string().nullable(),
    username: z.string().nullable(),
    createdAt: at,
    lastUsedAt: at,
    expiresAt: at,
    absoluteExpiresAt: at,
    refreshCount: z.int(),
    scope: shownScope,
    paused: z.boolean().meta({ description: 'the token is refused, but does not end' }),
    rate: shownRate,
    usesLeft: shownUses,
    name: z.string().nullable().meta({ description: 'of an API key, and perhaps of a delegated token' }),
    parentId: tokenId.nullable().meta({ description: 'the token that it was delegated from, and ends with' }),
  })
  .meta({ id: 'Token' })

const tokenPage = z.strictObject({
  counts: z.strictObject({ sliding: z.int(), fixed: z.int(), 'single-use': z.int() }),
  tokens: z.array(shownToken),
  next: z.string().nullable(),
})

export const listTokens: AuthRoute<'tokens'> = {
  path: 'GET /tokens',
  guard: 'adminKey',
  summary:
    'Counts the tokens of each kind and lists a page of them, without secrets: all, or those that the query selects',
  tag: 'For the operator',
  query: tokenQuerySchema,
  answers: { 200: { description: 'A page', body: tokenPage } },
  problems: { 401: noKey },
  handler:
    ({ tokens }) =>
    async ctx => {
      const query = readQuery(ctx, tokenQuerySchema, tokenQueryExpected)
      const page = await pageOf(tokens, query)
      ctx.body = {
        counts: await tokens.counts(),
        tokens: page.tokens.map(shown),
        next: page.next,
      }
    },
}

export const issueToken: AuthRoute<'users' | 'tokens' | 'config'> = {
  path: 'POST /tokens',
  guard: 'adminKey',
  summary: 'Issues a token, for example an API key, a one-time code or a guest token',
  tag: 'For the operator',
  body: readTerms,
  answers: { 201: { description: 'The token; its secret is shown only once', body: issuedToken } },
  problems: { 401: noKey, 409: 'The sessions of this user have just been revoked; try again.' },
  handler:
    ({ users, tokens, config }) =>
    async ctx => {
      const { kind, ttlSeconds, absoluteTtlSeconds, userId, purpose = null, ...rights } = await readTerms(ctx)
      const owner = userId === undefined ? null : await users.find(userId)
      if (userId !== undefined && owner === null) throw new AppError('invalid_request', 'userId: there is no such user')
      const ttlMs = ttlSeconds * 1000
      // Without `absoluteTtlSeconds`, a sliding token has the absolute lifetime of a session.
      const absoluteTtlMs =
        absoluteTtlSeconds === undefined ? Math.max(ttlMs, config.absoluteTtlMs) : absoluteTtlSeconds * 1000
      const issued = await tokens.issue({ kind, purpose, owner, login: null, ttlMs, absoluteTtlMs, ...rights })
      if (issued === null) {
        throw new AppError('conflict', 'The sessions of this user have just been revoked; try again.')
      }
      const { id, username, expiresAt, absoluteExpiresAt, createdAt, scope, rate, usesLeft } = issued.token
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
        scope,
        rate,
        usesLeft,
      }
    },
}

const readChange = bodyReader(
  z
    .strictObject({
      scope: scopeSchema.optional(),
      paused: pausedSchema.optional(),
      rate: rateSchema.optional(),
      uses: usesSchema.optional(),
    })
    .refine(change => Object.keys(change).length > 0, 'expected scope, paused (true or false), rate or uses'),
)

const noSuchToken = 'There is no token with this id.'

export const changeToken: AuthRoute<'tokens'> = {
  path: 'PATCH /tokens/:id',
  guard: 'adminKey',
  summary: 'Changes the scope and the limits of a live token, pauses or resumes it; every later validation obeys',
  tag: 'For the operator',
  body: readChange,
  answers: { 200: { description: 'The token', body: shownToken } },
  problems: { 401: noKey, 404: noSuchToken },
  handler:
    ({ tokens }) =>
    async ctx => {
      const { uses: usesLeft, ...changes } = await readChange(ctx)
      const { id = '' } = ctx.params
      const token = isTokenId(id) ? await tokens.change(id, { ...changes, usesLeft }) : null
      if (token === null) throw new AppError('not_found', noSuchToken)
      ctx.body = shown(token)
    },
}

export const sweepTokens: AuthRoute<'sweeper'> = {
  path: 'DELETE /tokens/expired',
  guard: 'adminKey',
  summary: 'Deletes dead tokens now',
  tag: 'For the operator',
  answers: { 200: { description: 'How many tokens were deleted', body: z.strictObject({ removed: z.int() }) } },
  problems: { 400: 'Two keys were sent.', 401: noKey },
  handler:
    ({ sweeper }) =>
    async ctx => {
      ctx.body = { removed: await sweeper.sweep() }
    },
}

export const revokeToken: AuthRoute<'tokens'> = {
  path: 'DELETE /tokens/:id',
  guard: 'adminKey',
  summary: 'Revokes a token by its id',
  tag: 'For the operator',
  answers: { 204: { description: 'The token is revoked' } },
  problems: { 400: 'Two keys were sent.', 401: noKey, 404: noSuchToken },
  handler:
    ({ tokens }) =>
    async ctx => {
      const { id = '' } = ctx.params
      if (!isTokenId(id) || !(await tokens.revokeById(id, null))) {
        throw new AppError('not_found', noSuchToken)
      }
      ctx.status = 204
    },
}

async function pageOf(tokens: Tokens, query: z.infer<typeof tokenQuerySchema>) {
  const { limit, after = null, userId, ...selection } = query
  if (userId === undefined) return listSelected(tokens, selection, after, limit)
  const own = await tokens.listByUser(userId)
  return { tokens: own.filter(token => isSelected(token, selection)), next: null }
}

/** What the operator sees. */
function shown({ credentialVersion, loginId, ttlMs, authority, parent, ...others }: TokenRecord) {
  return { ...others, parentId: parent?.id ?? null }
}
