// What the links in mails lead to: POST /users/confirm, /users/confirm/resend, /password/forgot, /password/reset.
import { z } from 'zod'
import { bodyReader } from '../../../shared/http/body.ts'
import { AppError } from '../../../shared/http/errors.ts'
import type { Handler } from '../../../shared/http/listener.ts'
import { type InvalidTokens, invalidTokenError } from '../../../shared/invalidTokens.ts'
import type { Links } from '../users/links.ts'
import type { Client } from '../users/passwords.ts'
import { choiceError } from './choiceProblems.ts'
import { clientOf, text } from './credentials.ts'
import { accepted } from './users.ts'

const token = z.string('expected the token of a link, as a string').max(2048, 'expected the token of a link')
export const linkSchema = z.strictObject({ token })
export const usernameSchema = z.strictObject({ username: text('username') })
export const resetSchema = z.strictObject({ token, password: text('password') })

const readToken = bodyReader(linkSchema)
const readUsername = bodyReader(usernameSchema)
const readReset = bodyReader(resetSchema)

export interface LinkRoutesOptions {
  links: Links
  hasMail: boolean
  invalidTokens: InvalidTokens
}

export function linkRoutes({ links, hasMail, invalidTokens }: LinkRoutesOptions) {
  function requireMail(): void {
    if (!hasMail) throw new AppError('not_found', 'There is no e-mail here: SMTP_URL is not set.')
  }

  const confirm: Handler = async ctx => {
    const { token } = await readToken(ctx)
    if (!(await links.confirm(token))) throw invalidTokenError(await invalidTokens.record(ctx.state))
    ctx.status = 204
  }

  /** `send` answers the same whether there is such a user or not. */
  const mailing =
    (send: (username: string, client: Client) => Promise<void>): Handler =>
    async ctx => {
      requireMail()
      const { username } = await readUsername(ctx)
      await send(username, { address: ctx.state.address })
      ctx.status = 202
      ctx.body = accepted
    }

  const reset: Handler = async ctx => {
    const { token, password } = await readReset(ctx)
    const result = await links.reset(token, password, clientOf(ctx))
    if (result.outcome === 'rejected') throw choiceError(result.problem)
    if (result.outcome === 'invalid_token') throw invalidTokenError(await invalidTokens.record(ctx.state))
    ctx.status = 204
  }

  return { confirm, resend: mailing(links.resend), forgot: mailing(links.forgot), reset }
}
