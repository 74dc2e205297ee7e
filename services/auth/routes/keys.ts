// /keys of a user: creates, lists, changes and ends API keys. Lists, changes and ends delegated tokens too.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { sessionOf } from '../guards/requireSession.ts'
import { isCanary, type Keys, type KeyTerms, keyEndOf, maxNameLength, ownerOf } from '../tokens/keys.ts'
import type { IssuedToken, TokenRecord } from '../tokens/tokens.ts'
import { pausedSchema, rateSchema, scopeSchema, shownRate, shownScope } from './authority.ts'
import { type AuthRoute, at, sessionProblems, tokenId } from './route.ts'

const nameExpected = `expected 1 to ${maxNameLength} characters, no control characters, and no space at either end`

/** What a user calls a key. */
export const keyNameSchema = z
  .string(nameExpected)
  .max(maxNameLength, nameExpected)
  .regex(/^[^\s\p{C}](?:[^\p{C}]*[^\s\p{C}])?$/u, nameExpected)

const maxExpiresAt = Date.UTC(2100)
const expiryExpected = 'expected an instant in the future, before 2100, in epoch milliseconds; null for never'

/** The members of a new key. */
export const newKeyMembers = {
  name: keyNameSchema,
  scope: scopeSchema.optional(),
  expiresAt: z.int(expiryExpected).max(maxExpiresAt, expiryExpected).nullable().optional(),
  rate: rateSchema.optional(),
  canary: z
    .boolean('expected true or false')
    .meta({ description: 'true: a key that opens nothing, and whose use is a security event' })
    .optional(),
}
const readNewKey = bodyReader(z.strictObject(newKeyMembers))
type NewKey = Awaited<ReturnType<typeof readNewKey>>

export const readKeyChange = bodyReader(
  z
    .strictObject({
      name: keyNameSchema.optional(),
      scope: scopeSchema.optional(),
      paused: pausedSchema.optional(),
      rate: rateSchema.optional(),
    })
    .refine(change => Object.keys(change).length > 0, 'expected name, scope, paused (true or false) or rate'),
)

export const newKeySchema = z
  .strictObject({
    id: tokenId,
    name: z.string(),
    scope: shownScope,
    rate: shownRate,
    canary: z.boolean(),
    createdAt: at,
    expiresAt: at.nullable(),
    secret: z.string().meta({ description: 'shown only now' }),
  })
  .meta({ id: 'NewKey' })

export const keySchema = z
  .strictObject({
    id: tokenId,
    name: z.string().nullable().meta({ description: 'a delegated token may have none' }),
    parentId: tokenId
      .nullable()
      .meta({ description: 'of a delegated token: the session or key that it ends with; null for a key' }),
    scope: shownScope,
    rate: shownRate,
    paused: z.boolean(),
    canary: z.boolean().meta({ description: 'the key opens nothing, and its use is a security event' }),
    createdAt: at,
    expiresAt: at.nullable().meta({ description: 'epoch milliseconds; null: never' }),
    lastUsedAt: at.nullable().meta({ description: 'epoch milliseconds; null if it was never used' }),
    useCount: z.int(),
  })
  .meta({ id: 'Key' })

const keyList = z.strictObject({ keys: z.array(keySchema) })
const tooManyKeys = 'You have as many keys as you may; or your sessions have just been revoked.'
const noSuchKey = 'You have no key with this id.'
const keyProblems = { ...sessionProblems, 404: noSuchKey }

export const createKey: AuthRoute<'keys' | 'now'> = {
  path: 'POST /keys',
  guard: 'session',
  summary: 'Creates an API key, with which a program may do what I may, or less',
  tag: 'Keys',
  body: readNewKey,
  answers: { 201: { description: 'The key; its secret is shown only once', body: newKeySchema } },
  problems: { ...sessionProblems, 409: tooManyKeys },
  handler:
    ({ keys, now }) =>
    async ctx => {
      const terms = await readNewKey(ctx)
      requireFuture(terms.expiresAt, now())
      const created = await createdBy(keys, ownerOf(sessionOf(ctx)), keyTermsOf(terms))
      ctx.status = 201
      ctx.body = newKey(created)
    },
}

export const listKeys: AuthRoute<'keys'> = {
  path: 'GET /keys',
  guard: 'session',
  summary: 'Lists my keys and delegated tokens, oldest first',
  tag: 'Keys',
  answers: { 200: { description: 'The keys, without secrets', body: keyList } },
  problems: sessionProblems,
  handler:
    ({ keys }) =>
    async ctx => {
      ctx.body = { keys: (await keys.list(sessionOf(ctx).userId)).map(shownKey) }
    },
}

export const changeKey: AuthRoute<'keys'> = {
  path: 'PATCH /keys/:id',
  guard: 'session',
  summary: 'Renames, restricts, pauses or resumes one of my keys or delegated tokens; every later validation obeys',
  tag: 'Keys',
  body: readKeyChange,
  answers: { 200: { description: 'The key', body: keySchema } },
  problems: keyProblems,
  handler:
    ({ keys }) =>
    async ctx => {
      const changes = await readKeyChange(ctx)
      const changed = await keys.change(String(ctx.params['id']), sessionOf(ctx).userId, changes)
      if (changed === null) throw new AppError('not_found', noSuchKey)
      ctx.body = shownKey(changed)
    },
}

export const deleteKey: AuthRoute<'keys'> = {
  path: 'DELETE /keys/:id',
  guard: 'session',
  summary: 'Ends one of my keys, with everything that was delegated from it, or one of my delegated tokens',
  tag: 'Keys',
  answers: { 204: { description: 'The key has ended' } },
  problems: keyProblems,
  handler:
    ({ keys }) =>
    async ctx => {
      if (!(await keys.revoke(String(ctx.params['id']), sessionOf(ctx).userId))) {
        throw new AppError('not_found', noSuchKey)
      }
      ctx.status = 204
    },
}

export function requireFuture(expiresAt: number | null | undefined, now: number): void {
  if (expiresAt != null && expiresAt <= now) {
    throw new AppError('invalid_request', `expiresAt: ${expiryExpected}`)
  }
}

/** The terms of a new key, from a body. */
export function keyTermsOf({ name, scope = null, expiresAt = null, rate = null, canary = false }: NewKey): KeyTerms {
  return { name, scope, expiresAt, rate, isCanary: canary }
}

/** Throws 409 if no key was created. */
export async function createdBy({ create, maxKeys }: Keys, ...key: Parameters<Keys['create']>): Promise<IssuedToken> {
  const created = await create(...key)
  if (created === 'too_many') {
    throw new AppError('conflict', `The user has ${maxKeys} keys, which is as many as there may be. Delete one first.`)
  }
  if (created === null) throw new AppError('conflict', 'The sessions of this user have just been revoked; try again.')
  return created
}

export function newKey({ secret, token }: IssuedToken) {
  const { id, name, scope, rate, createdAt } = token
  return { id, name, scope, rate, canary: isCanary(token), createdAt, expiresAt: keyEndOf(token), secret }
}

export function shownKey(token: TokenRecord) {
  const { id, name, parent, scope, rate, paused, createdAt, lastUsedAt, refreshCount } = token
  return {
    id,
    name,
    parentId: parent?.id ?? null,
    scope,
    rate,
    paused,
    canary: isCanary(token),
    createdAt,
    expiresAt: keyEndOf(token),
    lastUsedAt: refreshCount === 0 ? null : lastUsedAt,
    useCount: refreshCount,
  }
}
