// Takes the place of services/business/requireToken.ts in a Business with another check: see otherGuard.ts.
import { readBearerToken } from '../packages/client/bearer.ts'
import type { Admission } from '../packages/client/contract.ts'
import type * as real from '../services/business/requireToken.ts'
import { requestValue } from '../shared/http/requestValue.ts'
import type { Context } from '../shared/http/types.ts'
import { check, hasCheck } from './checks.ts'

const verdicts = requestValue<Admission>('verdict')

const admission: Admission = {
  authenticated: true,
  tokenId: 'bench',
  kind: 'sliding',
  username: 'demo@example.com',
  userId: 'bench',
  createdAt: 0,
  expiresAt: 0,
  absoluteExpiresAt: 0,
  refreshCount: 0,
  roles: [],
  scope: null,
  keyName: null,
  actor: null,
}

function admit(ctx: Context, username: string, next: () => Promise<unknown>) {
  verdicts.set(ctx, { ...admission, username })
  return next()
}

export const requireToken: typeof real.requireToken = () => {
  if (!hasCheck) {
    return (ctx, next) => {
      verdicts.set(ctx, admission)
      return next()
    }
  }
  return (ctx, next) => {
    const username = check(readBearerToken(ctx.req))
    return typeof username === 'string' ? admit(ctx, username, next) : username.then(name => admit(ctx, name, next))
  }
}

export const verdictOf: typeof real.verdictOf = ctx => verdicts.of(ctx)
