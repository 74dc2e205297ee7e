// POST /users, and GET, PATCH, DELETE /users/me: what users do with their own account.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import { sessionOf } from '../guards/requireSession.ts'
import type { OwnAccount } from '../users/ownAccount.ts'
import type { Registration } from '../users/registration.ts'
import type { UserRecord, Users } from '../users/users.ts'
import { choiceError } from './choiceProblems.ts'
import { clientOf, credentialsSchema, invalidCredentials, text } from './credentials.ts'

export const changeSchema = z.strictObject({ currentPassword: text('password'), password: text('password') })
export const proofSchema = z.strictObject({ currentPassword: text('password') })

const readCredentials = bodyReader(credentialsSchema)
const readChange = bodyReader(changeSchema)
const readProof = bodyReader(proofSchema)

export interface UserRoutesOptions {
  users: Pick<Users, 'find'>
  registration: Registration
  ownAccount: OwnAccount
}

export function userRoutes({ users, registration, ownAccount }: UserRoutesOptions) {
  const register: Handler = async ctx => {
    requireOpenRegistration(registration)
    const result = await registration.register(await readCredentials(ctx), clientOf(ctx))
    if (result.outcome === 'rejected') throw choiceError(result.problem)
    if (result.outcome === 'taken') throw new AppError('conflict', 'This username is taken.')
    if (result.outcome === 'mailed') {
      ctx.status = 202
      ctx.body = accepted
    } else {
      ctx.status = 201
      ctx.body = publicUser(result.user)
    }
  }

  const show: Handler = async ctx => {
    const user = await users.find(sessionOf(ctx).userId)
    if (user === null) throw gone()
    ctx.body = publicUser(user)
  }

  const changePassword: Handler = async ctx => {
    const result = await ownAccount.changePassword(sessionOf(ctx), await readChange(ctx), clientOf(ctx))
    if (result.outcome === 'rejected') throw choiceError(result.problem)
    if (result.outcome === 'wrong_password') throw wrongPassword()
    ctx.body = publicUser(result.user)
  }

  const remove: Handler = async ctx => {
    const { currentPassword } = await readProof(ctx)
    const result = await ownAccount.remove(sessionOf(ctx), currentPassword, clientOf(ctx))
    if (result.outcome === 'wrong_password') throw wrongPassword()
    ctx.status = 204
  }

  return { register, show, changePassword, remove }
}

/** Throws 403 if only the operator adds users. */
export function requireOpenRegistration({ isOpen }: Registration): void {
  if (!isOpen) throw new AppError('forbidden', 'Registration is closed here; ask the operator for an account.')
}

/** The same for every address, whether it has an account or not. */
export const accepted = { status: 'accepted' }

/** What users see of themselves. */
function publicUser({ id, username, createdAt }: UserRecord) {
  return { id, username, createdAt }
}

function wrongPassword(): AppError {
  return invalidCredentials('The current password is wrong.')
}

/** The user was deleted after the session was checked. */
function gone(): AppError {
  return new AppError('not_found', 'This user has been deleted.')
}
