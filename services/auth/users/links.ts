// Links in mails, which confirm an address or set a password. Hides that a link is a single-use token with a purpose, and
// that everything that depends on whether an account exists happens after the answer.
import type { Throttles } from '../defence/throttles.ts'
import type { TokenRecord, Tokens } from '../tokens/tokens.ts'
import type { ChoiceProblem } from './choiceRules.ts'
import type { Credentials } from './credentials.ts'
import { hasPassword } from './directory.ts'
import type { Mailer } from './mail.ts'
import {
  accountExistsMail,
  confirmationMail,
  firstPasswordMail,
  type MailText,
  operatorResetMail,
  passwordChangedMail,
  resetMail,
  usernameChangedMail,
} from './mailTexts.ts'
import type { Client } from './passwords.ts'
import { isAddress } from './usernames.ts'
import type { UserRecord, Users } from './users.ts'

export type LinkEvent = { type: 'link_not_sent'; userId: string | null; cause: unknown }

export interface LinksOptions {
  users: Users
  tokens: Pick<Tokens, 'issueOnly' | 'validate'>
  throttles: Pick<Throttles, 'requireMailAllowed' | 'clearFailures'>
  /** Null if mails cannot be sent; links that exist already still work. */
  mailer: Mailer | null
  /** What links begin with. Never taken from the Host of a request, which the client chooses. */
  publicUrl: string
  emit: (event: LinkEvent) => void
}

export type LinkResetOutcome =
  | { outcome: 'changed' }
  | { outcome: 'invalid_token' }
  /** The link still works. */
  | { outcome: 'rejected'; problem: ChoiceProblem }

export interface Links {
  /**
   * Registers a user who has yet to confirm the address. Resolves in the same way if the address already has an account. A
   * second registration before the confirmation removes the password, and mails a link that sets a new one. The caller has
   * checked the credentials against the rules. Throws if too many mails were requested.
   */
  registerUnconfirmed(credentials: Credentials, client: Client): Promise<void>

  /**
   * Sends the first link again. If the address is confirmed or unknown, sends nothing, but resolves in the same way. Throws if
   * too many mails were requested.
   */
  resend(username: string, client: Client): Promise<void>

  /**
   * Sends a link that sets a new password. Resolves in the same way if there is no such user. Throws if too many mails were
   * requested.
   */
  forgot(username: string, client: Client): Promise<void>

  /** Tells the user by mail that the password has changed. */
  notifyOfChange(user: UserRecord, client: Client): void

  /** Tells the user by mail, at the address that was the username. */
  notifyOfRename(user: Pick<UserRecord, 'id' | 'username'>, client: Client): void

  /** Whether a mail can be sent to a user of this name. */
  canMail(username: string): boolean

  /**
   * Lets an operator reset a password: sends the user a link to do so, or returns the link if the user cannot get mails.
   * Null if another request has just changed the user's credentials.
   */
  offerReset(
    user: UserRecord,
    client: Client,
  ): Promise<{ sent: true } | { sent: false; link: string; expiresAt: number } | null>

  /** False for a token that confirms nothing: unknown, used, expired, or replaced by a newer one. */
  confirm(secret: string): Promise<boolean>

  /**
   * Sets the password and notifies the user by mail. No separate step consumes the token: the change of the password
   * revokes it together with all other tokens of the user.
   */
  reset(secret: string, password: string, client: Client): Promise<LinkResetOutcome>
}

type Purpose = 'confirm' | 'reset'

const linkTtlMs = 30 * 60_000
const maxInBackground = 100

export function createLinks({ users, tokens, throttles, mailer, publicUrl, emit }: LinksOptions): Links {
  const afterTheAnswer = createBackground(emit)

  /** Revokes the older links of this purpose. Null if another request has just changed the user's credentials. */
  async function issueLink(user: UserRecord, purpose: Purpose): Promise<{ link: string; expiresAt: number } | null> {
    const life = { ttlMs: linkTtlMs, absoluteTtlMs: linkTtlMs }
    const issued = await tokens.issueOnly({ kind: 'single-use', purpose, owner: user, login: null, ...life })
    // The secret is behind the #, so that it reaches no server, log or Referer before the user presses the button on that
    // page.
    return issued && { link: `${publicUrl}/account#${purpose}=${issued.secret}`, expiresAt: issued.token.expiresAt }
  }

  async function sendLink(user: UserRecord, purpose: Purpose, client: Client, mail: (link: string) => MailText) {
    // Check first: a new link revokes the older ones, and a user without an address may hold a link from an operator.
    if (!isAddress(user.username)) return
    const issued = await issueLink(user, purpose)
    if (issued) send(user, client, mail(issued.link))
  }

  function send({ id, username }: Pick<UserRecord, 'id' | 'username'>, { address }: Client, text: MailText): void {
    if (isAddress(username)) mailer?.send({ userId: id, address, to: username, ...text })
  }

  /**
   * For a user who has not confirmed the address. If it was registered more than once, nothing shows which password came from
   * the owner of the mailbox, so the link asks for a new one.
   */
  const sendFirstLink = (user: UserRecord, client: Client) =>
    hasPassword(user)
      ? sendLink(user, 'confirm', client, confirmationMail)
      : sendLink(user, 'reset', client, firstPasswordMail)

  const notifyOfChange: Links['notifyOfChange'] = (user, client) => send(user, client, passwordChangedMail)

  /** The token of this secret and the user it was sent to; null if the token is not live. Consumes nothing. */
  async function holderOf(secret: string, purpose: Purpose): Promise<{ token: TokenRecord; user: UserRecord } | null> {
    const token = await tokens.validate(secret, { purpose, touch: false })
    const user = token?.userId ? await users.find(token.userId) : null
    return token && user && user.username === token.username ? { token, user } : null
  }

  async function register({ username }: Credentials, passwordHash: string, client: Client): Promise<void> {
    const registered = await users.insert({ username, passwordHash }, { confirmed: false })
    if (registered) return sendFirstLink(registered, client)
    const known = await users.findByUsername(username)
    if (known === null) return
    const withdrawn = known.confirmedAt === null ? await users.withdrawPassword(known.id) : null
    if (withdrawn) await sendFirstLink(withdrawn, client)
    else send(known, client, accountExistsMail)
  }

  return {
    async registerUnconfirmed(credentials, client) {
      const { username } = credentials
      await throttles.requireMailAllowed({ account: username, address: client.address })
      await users.findByUsername(username) // rejects if the store is unavailable, whether the account exists or not
      const passwordHash = await users.hash(credentials, client)
      afterTheAnswer(null, () => register(credentials, passwordHash, client))
    },

    async resend(username, client) {
      await throttles.requireMailAllowed({ account: username, address: client.address })
      const user = await users.findByUsername(username)
      if (user?.confirmedAt === null) afterTheAnswer(user.id, () => sendFirstLink(user, client))
    },

    async forgot(username, client) {
      await throttles.requireMailAllowed({ account: username, address: client.address })
      const user = await users.findByUsername(username)
      if (user === null || user.disabledAt !== null) return
      afterTheAnswer(user.id, () => sendLink(user, 'reset', client, resetMail))
    },

    notifyOfChange,
    notifyOfRename: (user, client) => send(user, client, usernameChangedMail),

    canMail: username => mailer !== null && isAddress(username),

    async offerReset(user, client) {
      const issued = await issueLink(user, 'reset')
      if (issued === null) return null
      if (mailer === null || !isAddress(user.username)) return { sent: false, ...issued }
      send(user, client, hasPassword(user) ? operatorResetMail(issued.link) : firstPasswordMail(issued.link))
      return { sent: true }
    },

    async confirm(secret) {
      const holder = await holderOf(secret, 'confirm')
      if (holder === null || !(await users.confirm(holder.user.id, holder.token.credentialVersion))) return false
      // Consume the token last: if this fails, repeating the call completes the confirmation.
      const used = await tokens.validate(secret, { purpose: 'confirm', touch: true })
      return used !== null
    },

    async reset(secret, password, client) {
      const holder = await holderOf(secret, 'reset')
      if (holder === null) return { outcome: 'invalid_token' }
      const { user, token } = holder
      const { credentialVersion } = token
      const result = await users.resetPassword({ id: user.id, credentialVersion }, password, client)
      if (result.outcome === 'rejected') return result
      if (result.outcome === 'stale') return { outcome: 'invalid_token' }
      notifyOfChange(user, client)
      await throttles.clearFailures({ account: user.username, address: client.address })
      return { outcome: 'changed' }
    },
  }
}

/** Runs jobs after the answer, so that the time to answer does not reveal what a job does. Limits them to `maxInBackground`. */
function createBackground(emit: (event: LinkEvent) => void) {
  let underWay = 0

  return function afterTheAnswer(userId: string | null, job: () => Promise<void>): void {
    if (underWay >= maxInBackground) {
      emit({ type: 'link_not_sent', userId, cause: new Error('too many links are waiting') })
      return
    }
    underWay++
    setImmediate(() =>
      job()
        .catch(cause => emit({ type: 'link_not_sent', userId, cause }))
        .finally(() => underWay--),
    )
  }
}
