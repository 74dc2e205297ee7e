// What /data serves. This is the file to replace with your own.
import { z } from 'zod'
import type { Route } from '../../shared/http/route.ts'
import { verdictOf } from './requireToken.ts'

export const getData: Route<unknown, 'bearer'> = {
  path: 'GET /data',
  guard: 'bearer',
  summary: 'What the token is for',
  tag: 'Data',
  answers: { 200: { description: 'The data', body: z.strictObject({ data: z.string() }) } },
  problems: {
    400: 'Two tokens.',
    401: 'No token, or one that opens nothing: unknown, expired, revoked; which is not told.',
    429: 'The same, from an address that has sent too many such tokens.',
  },
  handler: () => ctx => {
    const { username } = verdictOf(ctx)
    ctx.body = { data: `Hello, ${username ?? 'guest'}!` }
  },
}
