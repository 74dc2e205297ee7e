// /admin/users: the operator finds, creates, disables, unlocks, resets and deletes users.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import type { Context, Handler } from '../../../shared/http/listener.ts'
import type { Throttles } from '../defence/throttles.ts'
import type { Links } from '../users/links.ts'
import type { Registration } from '../users/registration.ts'
import type { UserRecord, Users } from '../users/users.ts'
import { choiceError } from './choiceProblems.ts'
import { clientOf, text } from './credentials.ts'
import { pageSize, pageSizeExpected, readQuery } from './query.ts'

export const userQuerySchema = z
  .strictObject({
    limit: pageSize,
    after: z.string().max(256).optional(),
    username: z.string().max(256).optional(),
    search: z.string().max(256).optional(),
  })
  .refine(({ username, search }) => username === undefined || search === undefined)
const userQueryExpected = `${pageSizeExpected}, after (an id), and username or search (how usernames begin), each at most once`

export const newUserSchema = z.strictObject({ username: text('username'), password: text('password').optional() })
export const userChangeSchema = z.strictObject({ disabled: z.boolean('expected disabled, true or false') })

const readNewUser = bodyReader(newUserSchema)
const readChange = bodyReader(userChangeSchema)

export interface AdminUserRoutesOptions {
  users: Users
  registration: Pick<Registration, 'add'>
  links: Pick<Links, 'offerReset'>
  throttles: Pick<Throttles, 'unlock'>
}

export function adminUserRoutes({ users, registration, links, throttles }: AdminUserRoutesOptions) {
  async function userOf(ctx: Context): Promise<UserRecord> {
    const user = await users.find(String(ctx.params['id']))
    if (user === null) throw noSuchUser()
    return user
  }

  const list: Handler = async ctx => {
    const { limit, after = null, username, search } = readQuery(ctx, userQuerySchema, userQueryExpected)
    if (username !== undefined) {
      const user = await users.findByUsername(username)
      ctx.body = { users: user ? [adminUser(user)] : [], next: null }
      return
    }
    const page = await (search === undefined ? users.list(after, limit) : users.search(search, after, limit))
    ctx.body = { users: page.map(adminUser), next: page.length === limit ? (page.at(-1) as UserRecord).id : null }
  }

  const create: Handler = async ctx => {
    const { username, password = null } = await readNewUser(ctx)
    const result = await registration.add({ username, password }, clientOf(ctx))
    if (result.outcome === 'rejected') throw choiceError(result.problem)
    if (result.outcome === 'taken') throw new AppError('conflict', 'This username is taken.')
    if (result.outcome === 'no_password') {
      throw new AppError('invalid_request', 'password: expected one, because no mail can go to this username')
    }
    ctx.status = 201
    ctx.body = adminUser(result.user)
  }

  const show: Handler = async ctx => {
    ctx.body = adminUser(await userOf(ctx))
  }

  const change: Handler = async ctx => {
    const { disabled } = await readChange(ctx)
    const { id } = await userOf(ctx)
    if (!(await (disabled ? users.disable(id) : users.enable(id)))) throw noSuchUser()
    ctx.body = adminUser(await userOf(ctx))
  }

  const remove: Handler = async ctx => {
    if (!(await users.remove(String(ctx.params['id'])))) throw noSuchUser()
    ctx.status = 204
  }

  const unlock: Handler = async ctx => {
    await throttles.unlock((await userOf(ctx)).username)
    ctx.status = 204
  }

  const reset: Handler = async ctx => {
    const offer = await links.offerReset(await userOf(ctx), clientOf(ctx))
    if (offer === null) throw new AppError('conflict', 'Another request has just changed this account. Try again.')
    ctx.body = offer
  }

  return { list, create, show, change, remove, unlock, reset }
}

/** Everything but the hash. */
function adminUser({ id, username, createdAt, confirmedAt, disabledAt, deletedAt }: UserRecord) {
  return { id, username, createdAt, confirmedAt, disabledAt, deletedAt }
}

function noSuchUser(): AppError {
  return new AppError('not_found', 'There is no such user.')
}
