// What the links in mails lead to: POST /users/confirm, /users/confirm/email, /users/confirm/resend, /password/forgot, /password/reset.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import { invalidTokenError } from '../../../shared/invalidTokens.ts'
import type { Links } from '../users/links.ts'
import { choiceError } from './choiceProblems.ts'
import { clientOf, text } from './credentials.ts'
import { type AuthRoute, tooManyTokens } from './route.ts'
import { accepted, acceptedSchema } from './users.ts'

const token = z.string('expected the token of a link, as a string').max(2048, 'expected the token of a link')
const readToken = bodyReader(z.strictObject({ token }))
const readUsername = bodyReader(z.strictObject({ username: text('username') }))
const readReset = bodyReader(z.strictObject({ token, password: text('password') }))

const linkProblems = { 401: 'The token is unknown, used, expired, or replaced by a newer one.', 429: tooManyTokens }

export const confirm: AuthRoute<'links' | 'invalidTokens'> = {
  path: 'POST /users/confirm',
  guard: 'none',
  summary: 'Confirms an address with the token from a mail',
  tag: 'Account',
  body: readToken,
  answers: { 204: { description: 'The user may log in' } },
  problems: linkProblems,
  handler:
    ({ links, invalidTokens }) =>
    async ctx => {
      const { token } = await readToken(ctx)
      if (!(await links.confirm(token))) throw invalidTokenError(await invalidTokens.record(ctx.state))
      ctx.status = 204
    },
}

export const confirmEmail: AuthRoute<'links' | 'invalidTokens'> = {
  path: 'POST /users/confirm/email',
  guard: 'none',
  summary: 'Confirms a new e-mail address with the token from a mail, and revokes the other sessions',
  tag: 'Account',
  body: readToken,
  answers: { 204: { description: 'Mails go to this address from now on' } },
  problems: linkProblems,
  handler:
    ({ links, invalidTokens }) =>
    async ctx => {
      const { token } = await readToken(ctx)
      if (!(await links.confirmEmail(token, clientOf(ctx))))
        throw invalidTokenError(await invalidTokens.record(ctx.state))
      ctx.status = 204
    },
}

export const resendConfirmation = mailingRoute(
  'POST /users/confirm/resend',
  'Sends the confirmation link again',
  links => links.resend,
)

export const forgotPassword = mailingRoute(
  'POST /password/forgot',
  'Sends a link to choose a new password',
  links => links.forgot,
)

export const resetPassword: AuthRoute<'links' | 'invalidTokens'> = {
  path: 'POST /password/reset',
  guard: 'none',
  summary: 'Sets a new password with the token from a mail, and revokes every session',
  tag: 'Account',
  body: readReset,
  answers: { 204: { description: 'The password is changed' } },
  problems: linkProblems,
  handler:
    ({ links, invalidTokens }) =>
    async ctx => {
      const { token, password } = await readReset(ctx)
      const result = await links.reset(token, password, clientOf(ctx))
      if (result.outcome === 'rejected') throw choiceError(result.problem)
      if (result.outcome === 'invalid_token') throw invalidTokenError(await invalidTokens.record(ctx.state))
      ctx.status = 204
    },
}

/** A route whose response is the same whether there is such a user or not. */
function mailingRoute(
  path: string,
  summary: string,
  sendOf: (links: Links) => Links['forgot'],
): AuthRoute<'links' | 'config'> {
  return {
    path,
    guard: 'none',
    summary,
    tag: 'Account',
    body: readUsername,
    answers: { 202: { description: 'Accepted, whether the user exists or not', body: acceptedSchema } },
    problems: {
      404: 'No mail server is configured.',
      429: 'Too many mails were requested for this account or from this address.',
    },
    handler:
      ({ links, config: { hasMail } }) =>
      async ctx => {
        if (!hasMail) throw new AppError('not_found', 'This server sends no e-mail: SMTP_URL is not set.')
        const { username } = await readUsername(ctx)
        await sendOf(links)(username, { address: ctx.state.address })
        ctx.status = 202
        ctx.body = accepted
      },
  }
}
