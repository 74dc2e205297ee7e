// PATCH /tokens?scope=: the operator pauses or resumes every token whose scope contains a name.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { pauseByScope } from '../tokens/selection.ts'
import { pausedSchema, scopeNameSchema } from './authority.ts'
import { readQuery } from './query.ts'
import { type AuthRoute, noKey } from './route.ts'

const querySchema = z.strictObject({ scope: scopeNameSchema })
const queryExpected = 'scope (one name, such as orders:write) once, and nothing else'

const readPause = bodyReader(z.strictObject({ paused: pausedSchema }))

export const pauseTokensByScope: AuthRoute<'tokens'> = {
  path: 'PATCH /tokens',
  guard: 'adminKey',
  summary: 'Pauses or resumes every live token whose scope contains a name; tokens issued later are not paused',
  tag: 'For the operator',
  query: querySchema,
  body: readPause,
  answers: {
    200: { description: 'How many tokens were paused or resumed', body: z.strictObject({ changed: z.int() }) },
  },
  problems: { 401: noKey },
  handler:
    ({ tokens }) =>
    async ctx => {
      const { scope } = readQuery(ctx, querySchema, queryExpected)
      const { paused } = await readPause(ctx)
      ctx.body = { changed: await pauseByScope(tokens, scope, paused) }
    },
}
