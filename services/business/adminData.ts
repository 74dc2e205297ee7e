// What /admin/data serves: an example of a route for users with a role.
import { z } from 'zod'
import type { Route } from '../../shared/http/route.ts'
import { getData, greetingFor } from './data.ts'
import { verdictOf } from './requireToken.ts'

export const getAdminData: Route<unknown, 'bearer'> = {
  path: 'GET /admin/data',
  guard: 'bearer',
  needs: { role: 'admin' },
  summary: 'Protected data for administrators',
  tag: 'Data',
  answers: {
    200: {
      description: 'The data',
      body: z.strictObject({
        data: z.string(),
        roles: z.array(z.string()).meta({ description: 'all roles of the user' }),
      }),
    },
  },
  problems: getData.problems ?? {},
  handler: () => ctx => {
    const verdict = verdictOf(ctx)
    ctx.body = { data: greetingFor(verdict), roles: verdict.roles }
  },
}
