// What /shadowRules shows the operator: whom the rules in the shadow would have refused.
import { z } from 'zod'
import type { ShadowRules } from '../../packages/client/shadowRules.ts'
import type { Route } from '../../shared/http/route.ts'

const durationMs = z.int().meta({ description: 'milliseconds' })

export const getShadowRules: Route<{ shadowRules: Pick<ShadowRules, 'list'> }, 'none'> = {
  path: 'GET /shadowRules',
  guard: 'none',
  summary: 'What each rule of SHADOW_RULES has counted in this process',
  tag: 'Health',
  answers: {
    200: {
      description: 'The rules; a rule can be enforced if `unmet` stays 0',
      body: z.strictObject({
        rules: z.array(
          z.strictObject({
            rule: z.string(),
            countedMs: durationMs,
            met: z.int().meta({ description: 'requests that met the rule' }),
            unmet: z.int().meta({ description: 'requests that it would have refused' }),
            last: z
              .strictObject({
                requestId: z.string(),
                tokenId: z.string(),
                userId: z.string().nullable(),
                agoMs: durationMs,
              })
              .nullable()
              .meta({ description: 'the last request that it would have refused' }),
          }),
        ),
      }),
    },
  },
  handler:
    ({ shadowRules }) =>
    ctx => {
      ctx.body = { rules: shadowRules.list() }
    },
}
