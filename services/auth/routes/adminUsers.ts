// /admin/users: the operator finds, creates, changes, unlocks, resets and deletes users.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import type { Context } from '../../../shared/http/types.ts'
import { attributesOf, wouldBeTooLarge } from '../users/attributes.ts'
import { isServiceAccount } from '../users/directory.ts'
import { problemWithNewName } from '../users/renaming.ts'
import type { UserRecord, Users } from '../users/users.ts'
import { attributesSchema, attributesTooLarge } from './attributes.ts'
import { pausedSchema, rateSchema, rolesSchema, shownRate } from './authority.ts'
import { choiceError, hasNoPassword, usernameTaken } from './choiceProblems.ts'
import { clientOf, emailSchema, text } from './credentials.ts'
import { pageSize, pageSizeExpected, readQuery } from './query.ts'
import { type AuthRoute, at, noKey } from './route.ts'
import { userFields } from './users.ts'

const querySchema = z
  .strictObject({
    limit: pageSize,
    after: z.string().max(256).optional(),
    username: z.string().max(256).optional(),
    search: z.string().max(256).optional(),
  })
  .refine(({ username, search }) => username === undefined || search === undefined)
const queryExpected = `${pageSizeExpected}, after (an id), and username or search (how usernames begin), each at most once`

const aServiceAccount = 'a user without a password, for a program'

const readNewUser = bodyReader(
  z
    .strictObject({
      username: text('username'),
      password: text('password').optional(),
      serviceAccount: z
        .boolean('expected true or false')
        .meta({ description: `true: ${aServiceAccount}; \`password\` must be missing` })
        .optional(),
      roles: rolesSchema.optional(),
      attributes: attributesSchema.optional(),
      email: emailSchema.optional(),
    })
    .refine(({ serviceAccount, password }) => serviceAccount !== true || password === undefined, {
      path: ['password'],
      error: 'expected none, because a service account has no password',
    }),
)
const changeExpected =
  'expected disabled, paused (each true or false), roles, rate, attributes, username, email or password'
const readChange = bodyReader(
  z
    .strictObject({
      disabled: z
        .boolean('expected true or false')
        .meta({ description: 'true: ends every token and refuses log-ins; false: the user can log in again' })
        .optional(),
      paused: pausedSchema.optional(),
      roles: rolesSchema.optional(),
      attributes: attributesSchema.optional(),
      username: text('username').meta({ description: 'a new username; ends every token' }).optional(),
      email: emailSchema.meta({ description: 'where mails go; you vouch for it; ends every token' }).optional(),
      rate: rateSchema.optional(),
      password: text('password').meta({ description: 'a new password; ends every token' }).optional(),
    })
    .refine(change => Object.keys(change).length > 0, changeExpected),
)

const adminUserSchema = userFields
  .extend({
    confirmedAt: at.nullable(),
    disabledAt: at.nullable(),
    deletedAt: at.nullable(),
    paused: z.boolean().meta({ description: 'every token is refused, and so is a log-in; nothing ends' }),
    rate: shownRate,
    serviceAccount: z.boolean().meta({ description: aServiceAccount }),
  })
  .meta({ id: 'UserRecord' })

export const noKeyOrUser = { 400: 'Two keys were sent.', 401: noKey, 404: 'There is no such user.' } as const

export const listUsers: AuthRoute<'users'> = {
  path: 'GET /admin/users',
  guard: 'adminKey',
  summary:
    'Lists users, without hashes: all, those whose username begins with `search`, or the one named `username` exactly',
  tag: 'For the operator',
  query: querySchema,
  answers: {
    200: {
      description: 'A page',
      body: z.strictObject({ users: z.array(adminUserSchema), next: z.string().nullable() }),
    },
  },
  problems: { 401: noKey },
  handler:
    ({ users }) =>
    async ctx => {
      const { limit, after = null, username, search } = readQuery(ctx, querySchema, queryExpected)
      if (username !== undefined) {
        const user = await users.findByUsername(username)
        ctx.body = { users: user ? [adminUser(user)] : [], next: null }
        return
      }
      const page = await (search === undefined ? users.list(after, limit) : users.search(search, after, limit))
      ctx.body = { users: page.map(adminUser), next: page.length === limit ? (page.at(-1) as UserRecord).id : null }
    },
}

export const createUser: AuthRoute<'registration' | 'authorities'> = {
  path: 'POST /admin/users',
  guard: 'adminKey',
  summary:
    'Creates a user, with a password, or with a link by mail to choose one; or a service account, which has none',
  tag: 'For the operator',
  body: readNewUser,
  answers: { 201: { description: 'The user', body: adminUserSchema } },
  problems: { 401: noKey, 409: 'The username is taken.' },
  handler:
    ({ registration, authorities }) =>
    async ctx => {
      const { username, password = null, serviceAccount, roles = [], attributes, email } = await readNewUser(ctx)
      const newUser = { username, attributes, email: email ?? undefined }
      const result = serviceAccount
        ? await registration.addServiceAccount(newUser)
        : await registration.add({ ...newUser, password }, clientOf(ctx))
      if (result.outcome === 'rejected') throw choiceError(result.problem)
      if (result.outcome === 'taken') throw usernameTaken()
      if (result.outcome === 'no_password') {
        throw new AppError('invalid_request', 'password: expected one, because no mail can go to this user')
      }
      const user = roles.length === 0 ? result.user : await authorities.change(result.user.id, { roles })
      ctx.status = 201
      ctx.body = adminUser(user ?? result.user)
    },
}

export const showUser: AuthRoute<'users'> = {
  path: 'GET /admin/users/:id',
  guard: 'adminKey',
  summary: 'One user, without the hash',
  tag: 'For the operator',
  answers: { 200: { description: 'The user', body: adminUserSchema } },
  problems: noKeyOrUser,
  handler:
    ({ users }) =>
    async ctx => {
      ctx.body = adminUser(await userOf(ctx, users))
    },
}

export const changeUser: AuthRoute<'users' | 'authorities' | 'attributes'> = {
  path: 'PATCH /admin/users/:id',
  guard: 'adminKey',
  summary:
    'Changes roles or attributes, limits how often, pauses or resumes a user, sets a username, an e-mail address or a password or disables a user and revokes every token, or enables the user again',
  tag: 'For the operator',
  body: readChange,
  answers: { 200: { description: 'The user', body: adminUserSchema } },
  problems: {
    401: noKey,
    404: 'There is no such user.',
    409: 'The username is taken, a service account has no password, or another request has just changed the password.',
  },
  handler:
    ({ users, authorities, attributes: userAttributes }) =>
    async ctx => {
      const { disabled, username, email, password, attributes, ...changes } = await readChange(ctx)
      const user = await userOf(ctx, users)
      const { id } = user
      await requireAcceptable(user, { username, password, attributes }, users)
      if (username !== undefined) {
        const result = await users.rename(id, username)
        if (result === null) throw noSuchUser()
        if (result.outcome === 'rejected') throw choiceError(result.problem)
        if (result.outcome === 'taken') throw usernameTaken()
      }
      if (attributes !== undefined) {
        const result = await userAttributes.replace(id, attributes)
        if (result === null) throw noSuchUser()
        if (result === 'too_large') throw attributesTooLarge()
      }
      if (email !== undefined && !(await users.setEmail(id, email))) throw noSuchUser()
      if (password !== undefined) {
        const result = await users.setPassword(id, password, clientOf(ctx))
        if (result === null) throw noSuchUser()
        if (result.outcome === 'service_account') throw hasNoPassword()
        if (result.outcome === 'rejected') throw choiceError(result.problem)
      }
      if (Object.keys(changes).length > 0 && !(await authorities.change(id, changes))) throw noSuchUser()
      if (disabled !== undefined && !(await (disabled ? users.disable(id) : users.enable(id)))) throw noSuchUser()
      ctx.body = adminUser(await userOf(ctx, users))
    },
}

export const unlockUser: AuthRoute<'users' | 'throttles'> = {
  path: 'POST /admin/users/:id/unlock',
  guard: 'adminKey',
  summary: 'Clears the failed log-ins that lock a user out at new addresses',
  tag: 'For the operator',
  answers: { 204: { description: 'The failed log-ins are cleared' } },
  problems: noKeyOrUser,
  handler:
    ({ users, throttles }) =>
    async ctx => {
      await throttles.unlock((await userOf(ctx, users)).username)
      ctx.status = 204
    },
}

export const resetUser: AuthRoute<'users' | 'links'> = {
  path: 'POST /admin/users/:id/reset',
  guard: 'adminKey',
  summary: 'Issues a link to choose a new password: by mail, or in the response if no mail can reach the user',
  tag: 'For the operator',
  answers: {
    200: {
      description: 'The link was sent, or is in the response',
      body: z.union([
        z.strictObject({ sent: z.literal(true) }),
        z.strictObject({ sent: z.literal(false), link: z.string(), expiresAt: at }),
      ]),
    },
  },
  problems: { ...noKeyOrUser, 409: 'A service account has no password, or another request has just changed the user.' },
  handler:
    ({ users, links }) =>
    async ctx => {
      const offer = await links.offerReset(await userOf(ctx, users), clientOf(ctx))
      if (offer === 'service_account') throw hasNoPassword()
      if (offer === null) throw new AppError('conflict', 'Another request has just changed this account. Try again.')
      ctx.body = offer
    },
}

export const deleteUser: AuthRoute<'users'> = {
  path: 'DELETE /admin/users/:id',
  guard: 'adminKey',
  summary: 'Revokes every token of a user, then deletes the user',
  tag: 'For the operator',
  answers: { 204: { description: 'The user is deleted' } },
  problems: noKeyOrUser,
  handler:
    ({ users }) =>
    async ctx => {
      if (!(await users.remove(String(ctx.params['id'])))) throw noSuchUser()
      ctx.status = 204
    },
}

type Change = Awaited<ReturnType<typeof readChange>>

/** Throws if a member is refused, so that the others do not change either. */
async function requireAcceptable(
  user: UserRecord,
  { username, password, attributes }: Pick<Change, 'username' | 'password' | 'attributes'>,
  users: Users,
): Promise<void> {
  if (password !== undefined && isServiceAccount(user)) throw hasNoPassword()
  const ofUsername = username === undefined ? null : problemWithNewName(users, user, username)
  const named = username ?? user.username
  const ofPassword = password === undefined ? null : users.problemWithPassword({ username: named, password })
  const problem = ofUsername ?? ofPassword
  if (problem !== null) throw choiceError(problem)
  if (attributes !== undefined && wouldBeTooLarge(user, attributes)) throw attributesTooLarge()
  const holder = username === undefined ? null : await users.findHolder(username)
  if (holder !== null && holder.id !== user.id) throw usernameTaken()
}

/** Throws `not_found` if there is no user of the id in the path. */
async function userOf(ctx: Context, users: Users): Promise<UserRecord> {
  const user = await users.find(String(ctx.params['id']))
  if (user === null) throw noSuchUser()
  return user
}

/** Everything but the hash. */
function adminUser(user: UserRecord) {
  const { id, username, createdAt, confirmedAt, disabledAt, deletedAt, authority, email, pendingEmail } = user
  const { roles, paused, rate } = authority
  const times = { createdAt, confirmedAt, disabledAt, deletedAt }
  const shown = { id, username, ...times, roles, paused, rate, email, pendingEmail, attributes: attributesOf(user) }
  return { ...shown, serviceAccount: isServiceAccount(user) }
}

function noSuchUser(): AppError {
  return new AppError('not_found', 'There is no such user.')
}
