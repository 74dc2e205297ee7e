// /keys on the internal listener: the operator creates keys for users and service accounts, and sees, changes and ends every key.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { listHeldByPrograms } from '../tokens/selection.ts'
import type { TokenRecord } from '../tokens/tokens.ts'
import {
  createdBy,
  keySchema,
  keyTermsOf,
  newKey,
  newKeyMembers,
  newKeySchema,
  readKeyChange,
  requireFuture,
  shownKey,
} from './keys.ts'
import { cursor, pageSize, pageSizeExpected, readQuery } from './query.ts'
import { type AuthRoute, noKey } from './route.ts'

const readKeyOfUser = bodyReader(
  z.strictObject({ ...newKeyMembers, userId: z.string('expected the id of a user or a service account') }),
)

const owned = { userId: z.string(), username: z.string() }
const keyOfUser = keySchema.extend(owned).meta({ id: 'KeyOfUser' })

const querySchema = z.strictObject({ limit: pageSize, after: cursor, userId: z.string().min(1).max(256).optional() })
const queryExpected = `${pageSizeExpected}, after (next of the previous page) and userId, each at most once`

const noSuchKey = 'There is no key with this id.'
const description = { guard: 'adminKey', tag: 'For the operator' } as const

export const listAllKeys: AuthRoute<'keys' | 'tokens'> = {
  ...description,
  path: 'GET /keys',
  summary: 'Lists a page of the keys and delegated tokens of all users, or those of one user, without secrets',
  query: querySchema,
  answers: {
    200: {
      description: 'A page, which may have fewer than `limit` keys, or none, as long as `next` is not null',
      body: z.strictObject({ keys: z.array(keyOfUser), next: z.string().nullable() }),
    },
  },
  problems: { 401: noKey },
  handler:
    ({ keys, tokens }) =>
    async ctx => {
      const { limit, after = null, userId } = readQuery(ctx, querySchema, queryExpected)
      const page =
        userId === undefined
          ? await listHeldByPrograms(tokens, after, limit)
          : { tokens: await keys.list(userId), next: null }
      ctx.body = { keys: page.tokens.map(shown), next: page.next }
    },
}

export const createKeyOfUser: AuthRoute<'keys' | 'users' | 'now'> = {
  ...description,
  path: 'POST /keys',
  summary: 'Creates a key of a user or a service account',
  body: readKeyOfUser,
  answers: {
    201: {
      description: 'The key; its secret is shown only once',
      body: newKeySchema.extend(owned).meta({ id: 'NewKeyOfUser' }),
    },
  },
  problems: { 401: noKey, 409: 'The user has as many keys as there may be, or is disabled or being deleted.' },
  handler:
    ({ keys, users, now }) =>
    async ctx => {
      const { userId, ...terms } = await readKeyOfUser(ctx)
      requireFuture(terms.expiresAt, now())
      const owner = await users.find(userId)
      if (owner === null) throw new AppError('invalid_request', 'userId: there is no such user')
      if (owner.disabledAt !== null || owner.deletedAt !== null) {
        throw new AppError('conflict', 'The user is disabled or being deleted.')
      }
      const created = await createdBy(keys, owner, keyTermsOf(terms))
      ctx.status = 201
      ctx.body = { ...newKey(created), userId, username: owner.username }
    },
}

export const changeAnyKey: AuthRoute<'keys'> = {
  ...description,
  path: 'PATCH /keys/:id',
  summary: 'Renames, restricts, pauses or resumes a key or a delegated token; every later validation obeys',
  body: readKeyChange,
  answers: { 200: { description: 'The key', body: keyOfUser } },
  problems: { 401: noKey, 404: noSuchKey },
  handler:
    ({ keys }) =>
    async ctx => {
      const changes = await readKeyChange(ctx)
      const changed = await keys.change(String(ctx.params['id']), null, changes)
      if (changed === null) throw new AppError('not_found', noSuchKey)
      ctx.body = shown(changed)
    },
}

export const deleteAnyKey: AuthRoute<'keys'> = {
  ...description,
  path: 'DELETE /keys/:id',
  summary: 'Ends a key, with everything that was delegated from it, or a delegated token',
  answers: { 204: { description: 'The key has ended' } },
  problems: { 400: 'Two keys were sent.', 401: noKey, 404: noSuchKey },
  handler:
    ({ keys }) =>
    async ctx => {
      if (!(await keys.revoke(String(ctx.params['id']), null))) throw new AppError('not_found', noSuchKey)
      ctx.status = 204
    },
}

function shown(token: TokenRecord) {
  return { ...shownKey(token), userId: token.userId, username: token.username }
}
