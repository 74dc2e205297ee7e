// POST /users, and GET, PATCH, DELETE /users/me: what users do with their own account.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { sessionOf } from '../guards/requireSession.ts'
import { attributesOf } from '../users/attributes.ts'
import type { UserRecord } from '../users/users.ts'
import { attributesTooLarge, ownAttributesSchema, shownAttributes } from './attributes.ts'
import { choiceError, usernameTaken } from './choiceProblems.ts'
import {
  clientOf,
  credentialsSchema,
  emailSchema,
  invalidCredentials,
  requireOpenRegistration,
  text,
} from './credentials.ts'
import { type AuthRoute, at, sessionProblems, tooManyAttempts } from './route.ts'

const readCredentials = bodyReader(credentialsSchema)
const readChange = bodyReader(
  z
    .strictObject({
      attributes: ownAttributesSchema.optional(),
      username: text('username').meta({ description: 'needs `currentPassword`' }).optional(),
      password: text('password').meta({ description: 'needs `currentPassword`' }).optional(),
      email: emailSchema
        .meta({ description: 'needs `currentPassword`; null: mails go to the username, if it is an address' })
        .optional(),
      currentPassword: text('password').optional(),
    })
    .superRefine(({ currentPassword, ...changes }, { addIssue }) => {
      const [change, ...others] = Object.keys(changes)
      if (change === undefined || others.length > 0)
        addIssue('expected one of attributes, username, email and password')
      else if (currentPassword === undefined && change !== 'attributes') {
        addIssue({ code: 'custom', path: ['currentPassword'], message: 'expected a password, as a string' })
      }
    }),
)
const readProof = bodyReader(z.strictObject({ currentPassword: text('password') }))

export const userFields = z.strictObject({
  id: z.string().meta({ examples: ['5b1c6f0e-3f0f-4df8-9f1e-0a6f3f1c2d11'] }),
  username: z.string(),
  createdAt: at,
  roles: z.array(z.string()).meta({ description: 'the roles that services see in a verdict' }),
  email: z.string().nullable().meta({ description: 'where mails go; null: to the username, if it is an address' }),
  pendingEmail: z.string().nullable().meta({ description: 'the address that a link was last sent to' }),
  attributes: shownAttributes,
})
const userSchema = userFields.meta({ id: 'User' })

/** Problems of a route that requires a session and the password. */
const proofProblems = {
  400: 'Two tokens were sent, or the body is not as expected; `detail` says what is expected.',
  401: 'The current password is wrong (`invalid_credentials`), or the token is not that of a session (`invalid_token`).',
  409: 'Another request has just changed the user.',
  429: tooManyAttempts,
}

/** The same for every address, whether it has an account or not. */
export const accepted = { status: 'accepted' }
export const acceptedSchema = z.strictObject({ status: z.literal('accepted') }).meta({ id: 'Accepted' })

export const register: AuthRoute<'registration'> = {
  path: 'POST /users',
  guard: 'none',
  summary: 'Registers a user',
  tag: 'Account',
  body: readCredentials,
  answers: {
    201: { description: 'The user', body: userSchema },
    202: { description: 'With EMAIL_CONFIRMATION=required, whether the account exists or not', body: acceptedSchema },
  },
  problems: {
    403: 'Registration is closed.',
    409: 'The username is taken.',
    429: 'Too many registrations from this address, or mails to this username.',
  },
  handler:
    ({ registration }) =>
    async ctx => {
      requireOpenRegistration(registration)
      const result = await registration.register(await readCredentials(ctx), clientOf(ctx))
      if (result.outcome === 'rejected') throw choiceError(result.problem)
      if (result.outcome === 'taken') throw usernameTaken()
      if (result.outcome === 'mailed') {
        ctx.status = 202
        ctx.body = accepted
      } else {
        ctx.status = 201
        ctx.body = publicUser(result.user)
      }
    },
}

export const showAccount: AuthRoute<'users'> = {
  path: 'GET /users/me',
  guard: 'session',
  summary: 'Shows my account',
  tag: 'Account',
  answers: { 200: { description: 'The user', body: userSchema } },
  problems: { ...sessionProblems, 404: 'The user has been deleted.' },
  handler:
    ({ users }) =>
    async ctx => {
      const user = await users.find(sessionOf(ctx).userId)
      if (user === null) throw gone()
      ctx.body = publicUser(user)
    },
}

export const changeAccount: AuthRoute<'ownAccount' | 'attributes' | 'config'> = {
  path: 'PATCH /users/me',
  guard: 'session',
  summary:
    'Changes my profile, my e-mail address, my username, which revokes every session, or my password, which revokes the others',
  tag: 'Account',
  body: readChange,
  answers: {
    200: { description: 'The user', body: userSchema },
    202: { description: 'A mail with a link is on its way to the new address', body: acceptedSchema },
  },
  problems: {
    ...proofProblems,
    403: 'Only an operator changes usernames here, or sets addresses.',
    409: 'The username is taken, or another request has just changed the user.',
    429: `${tooManyAttempts} Or too many mails to this address.`,
  },
  handler:
    ({ ownAccount, attributes: userAttributes, config }) =>
    async ctx => {
      const { attributes, username, email, currentPassword = '', password = '' } = await readChange(ctx)
      const session = sessionOf(ctx)
      const client = clientOf(ctx)
      if (attributes !== undefined) {
        const user = await userAttributes.replaceProfile(session.userId, attributes.profile)
        if (user === 'too_large') throw attributesTooLarge()
        if (user === null) throw gone()
        ctx.body = publicUser(user)
        return
      }
      if (typeof email === 'string' && !config.hasMail) throw onlyOperatorSetsEmail()
      const result =
        username !== undefined
          ? await ownAccount.rename(session, { currentPassword, username }, client)
          : email !== undefined
            ? await ownAccount.changeEmail(session, { currentPassword, email }, client)
            : await ownAccount.changePassword(session, { currentPassword, password }, client)
      if (result.outcome === 'mailed') {
        ctx.status = 202
        ctx.body = accepted
        return
      }
      if (result.outcome === 'forbidden') throw onlyOperatorRenames()
      if (result.outcome === 'taken') throw usernameTaken()
      if (result.outcome === 'rejected') throw choiceError(result.problem)
      if (result.outcome === 'wrong_password') throw wrongPassword()
      ctx.body = publicUser(result.user)
    },
}

export const deleteAccount: AuthRoute<'ownAccount'> = {
  path: 'DELETE /users/me',
  guard: 'session',
  summary: 'Deletes my account and revokes my sessions',
  tag: 'Account',
  body: readProof,
  answers: { 204: { description: 'The account is deleted' } },
  problems: proofProblems,
  handler:
    ({ ownAccount }) =>
    async ctx => {
      const { currentPassword } = await readProof(ctx)
      const result = await ownAccount.remove(sessionOf(ctx), currentPassword, clientOf(ctx))
      if (result.outcome === 'wrong_password') throw wrongPassword()
      ctx.status = 204
    },
}

/** What users see of themselves. */
function publicUser(user: UserRecord) {
  const { id, username, createdAt, authority, email, pendingEmail } = user
  return { id, username, createdAt, roles: authority.roles, email, pendingEmail, attributes: attributesOf(user) }
}

function onlyOperatorRenames(): AppError {
  return new AppError('forbidden', 'Usernames are given or confirmed here; ask the operator to change yours.')
}

function onlyOperatorSetsEmail(): AppError {
  return new AppError(
    'forbidden',
    'This server sends no e-mail, so no address can be confirmed; ask the operator to set yours.',
  )
}

function wrongPassword(): AppError {
  return invalidCredentials('The current password is wrong.')
}

/** The user was deleted after the session was checked. */
function gone(): AppError {
  return new AppError('not_found', 'This user has been deleted.')
}
