// What /data serves. This is the file to replace with your own.

import type { Handler } from '../../shared/http/listener.ts'
import { verdictOf } from './requireToken.ts'

export const data: Handler = ctx => {
  const { username } = verdictOf(ctx)
  ctx.body = { data: `Hello, ${username ?? 'guest'}!` }
}
