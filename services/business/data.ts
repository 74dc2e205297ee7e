// What /data serves. This is the file to replace with your own.
import { z } from 'zod'
import type { Admission } from '../../packages/client/contract.ts'
import type { Route } from '../../shared/http/route.ts'
import { verdictOf } from './requireToken.ts'

export const getData: Route<unknown, 'bearer'> = {
  path: 'GET /data',
  guard: 'bearer',
  summary: 'The protected data',
  tag: 'Data',
  answers: { 200: { description: 'The data', body: z.strictObject({ data: z.string() }) } },
  problems: {
    400: 'Two tokens were sent.',
    401: 'The token is missing, unknown, expired or revoked; the answer does not say which.',
    429: 'The token is used more often than it may be, or is invalid, and the address has sent too many invalid tokens.',
  },
  handler: () => ctx => {
    ctx.body = { data: greetingFor(verdictOf(ctx)) }
  },
}

export function greetingFor({ username }: Admission): string {
  return `Hello, ${username ?? 'guest'}!`
}
