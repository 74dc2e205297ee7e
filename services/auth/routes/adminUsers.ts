// GET /admin/users and DELETE /admin/users/:id: the operator's view of the users.
import { z } from 'zod'
import { AppError } from '../../../shared/errors.ts'
import type { Handler } from '../../../shared/http.ts'
import type { UserRecord, Users } from '../users/users.ts'
import { pageSize, pageSizeExpected, readQuery } from './query.ts'

export const userQuerySchema = z.strictObject({
  limit: pageSize,
  after: z.string().max(256).optional(),
  username: z.string().max(256).optional(),
})
const userQueryExpected = `${pageSizeExpected}, after (an id), username, each at most once`

export function adminUserRoutes(users: Users) {
  const list: Handler = async ctx => {
    const { limit, after = null, username } = readQuery(ctx, userQuerySchema, userQueryExpected)
    if (username !== undefined) {
      const user = await users.findByUsername(username)
      ctx.body = { users: user ? [adminUser(user)] : [], next: null }
      return
    }
    const page = await users.list(after, limit)
    ctx.body = { users: page.map(adminUser), next: page.length === limit ? (page.at(-1) as UserRecord).id : null }
  }

  const remove: Handler = async ctx => {
    if (!(await users.remove(String(ctx.params['id'])))) throw new AppError('not_found', 'There is no such user.')
    ctx.status = 204
  }

  return { list, remove }
}

/** Everything but the hash. */
function adminUser({ id, username, createdAt, confirmedAt, disabledAt, deletedAt }: UserRecord) {
  return { id, username, createdAt, confirmedAt, disabledAt, deletedAt }
}
