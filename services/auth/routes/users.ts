// POST /users, and GET, PATCH, DELETE /users/me: what a user does with his own account.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import type { Throttles } from '../defence/throttles.ts'
import { sessionOf } from '../guards/requireSession.ts'
import type { Links } from '../users/links.ts'
import type { UserRecord, Users } from '../users/users.ts'
import { clientOf, credentialsSchema, invalidCredentials, text } from './credentials.ts'

export const changeSchema = z.strictObject({ currentPassword: text('password'), password: text('password') })
export const proofSchema = z.strictObject({ currentPassword: text('password') })

const readCredentials = bodyReader(credentialsSchema)
const readChange = bodyReader(changeSchema)
const readProof = bodyReader(proofSchema)

export interface UserRoutesOptions {
  users: Users
  links: Links
  throttles: Throttles
  registration: 'open' | 'closed'
  emailConfirmation: 'required' | 'off'
}

export function userRoutes({ users, links, throttles, registration, emailConfirmation }: UserRoutesOptions) {
  const register: Handler = async ctx => {
    if (registration === 'closed') throw new AppError('forbidden', 'Nobody can register here; ask the operator.')
    const credentials = await readCredentials(ctx)
    const { address } = ctx.state
    users.requireGoodCredentials(credentials) // before it counts: who chooses badly tries again
    await throttles.mayRegister(address)
    if (emailConfirmation === 'required') {
      await throttles.mayMail(credentials.username, address)
      await links.register(credentials, clientOf(ctx))
      ctx.status = 202
      ctx.body = accepted
      return
    }
    const passwordHash = await users.hash(credentials, clientOf(ctx))
    const user = await users.insert({ username: credentials.username, passwordHash })
    if (user === null) throw new AppError('conflict', 'This username is taken.')
    ctx.status = 201
    ctx.body = publicUser(user)
  }

  const show: Handler = async ctx => {
    const user = await users.find(sessionOf(ctx).userId)
    if (user === null) throw gone()
    ctx.body = publicUser(user)
  }

  const changePassword: Handler = async ctx => {
    const { id, userId, username } = sessionOf(ctx)
    const change = await readChange(ctx)
    const client = clientOf(ctx)
    const claim = { account: username, address: client.address }
    const user = await throttles.attemptInSession(claim, () => users.changePassword(userId, change, id, client))
    if (user === null) throw wrongPassword()
    links.tellOfChange(user, client)
    ctx.body = publicUser(user)
  }

  const remove: Handler = async ctx => {
    const { currentPassword } = await readProof(ctx)
    const { userId, username } = sessionOf(ctx)
    const client = clientOf(ctx)
    const claim = { account: username, address: client.address }
    const proveAndRemove = async () => (await users.removeOwn(userId, currentPassword, client)) || null
    if ((await throttles.attemptInSession(claim, proveAndRemove)) === null) throw wrongPassword()
    ctx.status = 204
  }

  return { register, show, changePassword, remove }
}

/** The same for every address, whether there is an account or not. */
export const accepted = { status: 'accepted' }

/** What users see of themselves. */
function publicUser({ id, username, createdAt }: UserRecord) {
  return { id, username, createdAt }
}

function wrongPassword(): AppError {
  return invalidCredentials('The current password is wrong.')
}

/** Deleted between the check of his session and this. */
function gone(): AppError {
  return new AppError('not_found', 'There is no such user any more.')
}
