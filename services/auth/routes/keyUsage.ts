// GET /keys/:id/usage: how often a key was used, for its user and for the operator.
import { z } from 'zod'
import { AppError } from '../../../shared/http/errors.ts'
import type { Context } from '../../../shared/http/types.ts'
import { sessionOf } from '../guards/requireSession.ts'
import type { KeyUsage } from '../tokens/keyUsage.ts'
import { readQuery } from './query.ts'
import { type AuthRoute, at, noKey, sessionProblems } from './route.ts'

const spanSchema = z.enum(['minute', 'hour'])
const querySchema = z.strictObject({ by: spanSchema.default('hour') })
const queryExpected = 'by (minute or hour), at most once'

const usageSchema = z
  .strictObject({
    by: spanSchema,
    buckets: z.array(
      z.strictObject({
        startsAt: at.meta({ description: 'when the minute or hour of UTC begins, in epoch milliseconds' }),
        count: z.int().meta({ description: 'uses of the key itself' }),
        delegatedCount: z.int().meta({ description: 'uses of tokens that were delegated from it' }),
      }),
    ),
  })
  .meta({ id: 'KeyUsage' })

const notCounted = 'The server does not count the uses of keys: KEY_USAGE_DAYS is not set.'
const answers = { 200: { description: 'The minutes or hours that have uses, oldest first', body: usageSchema } }
const notFound = 'There is no such key, or KEY_USAGE_DAYS is not set.'

export const showUsage: AuthRoute<'keyUsage'> = {
  path: 'GET /keys/:id/usage',
  guard: 'session',
  summary: 'Shows how often one of my keys was used, by the hour or by the minute',
  tag: 'Keys',
  query: querySchema,
  answers,
  problems: { ...sessionProblems, 404: notFound },
  handler:
    ({ keyUsage }) =>
    async ctx => {
      ctx.body = await usageOf(keyUsage, sessionOf(ctx).userId, ctx, 'You have no key with this id.')
    },
}

export const showUsageOfAnyKey: AuthRoute<'keyUsage'> = {
  path: 'GET /keys/:id/usage',
  guard: 'adminKey',
  summary: 'Shows how often a key was used, by the hour or by the minute',
  tag: 'For the operator',
  query: querySchema,
  answers,
  problems: { 401: noKey, 404: notFound },
  handler:
    ({ keyUsage }) =>
    async ctx => {
      ctx.body = await usageOf(keyUsage, null, ctx, 'There is no key with this id.')
    },
}

async function usageOf(keyUsage: KeyUsage | null, userId: string | null, ctx: Context, noSuchKey: string) {
  const { by } = readQuery(ctx, querySchema, queryExpected)
  if (keyUsage === null) throw new AppError('not_found', notCounted)
  const buckets = await keyUsage.read(String(ctx.params['id']), userId, by)
  if (buckets === null) throw new AppError('not_found', noSuchKey)
  return { by, buckets }
}
