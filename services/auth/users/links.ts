// Links in mails, which confirm an address or set a password. Hides that a link is a single-use token with a purpose, and
// that everything that depends on whether an account exists happens after the answer.
import type { Throttles } from '../defence/throttles.ts'
import type { Session, TokenRecord, Tokens } from '../tokens/tokens.ts'
import type { ChoiceProblem } from './choiceRules.ts'
import type { Credentials } from './credentials.ts'
import { hasPassword, isServiceAccount } from './directory.ts'
import { mailboxOf } from './emails.ts'
import type { Mailer } from './mail.ts'
import {
  accountExistsMail,
  confirmationMail,
  confirmEmailMail,
  emailChangedMail,
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
  tokens: Pick<Tokens, 'issue' | 'issueOnly' | 'validate'>
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

type ResetOffer = { sent: true } | { sent: false; link: string; expiresAt: number }

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
   * Sends a link that sets a new password. Resolves in the same way if there is no such user, or for a service account, to
   * which nothing is sent. Throws if too many mails were requested.
   */
  forgot(username: string, client: Client): Promise<void>

  /** Tells the user by mail that the password has changed. */
  notifyOfChange(user: UserRecord, client: Client): void

  /** Tells the user by mail that the username has changed, at the address where mails went before. */
  notifyOfRename(before: Recipient, client: Client): void

  /** Tells the user by mail, at the address where mails went before. */
  notifyOfNewEmail(before: Recipient, client: Client): void

  /** Whether a mail can be sent to such a user. */
  canMail(user: Omit<Recipient, 'id'>): boolean

  /**
   * Sends a link to an address that a user wants to have; links that were sent before no longer work. False if another request
   * has just changed the user's credentials. Throws if too many mails were requested.
   */
  offerEmail(user: UserRecord, email: string, session: Pick<Session, 'loginId'>, client: Client): Promise<boolean>

  /** Sets the address that the link was sent to. False for a token that confirms none. */
  confirmEmail(secret: string, client: Client): Promise<boolean>

  /**
   * Lets an operator reset a password: sends the user a link to do so, or returns the link if the user cannot get mails.
   * `service_account` if the user never has a password. Null if another request has just changed the user's credentials.
   */
  offerReset(user: UserRecord, client: Client): Promise<ResetOffer | 'service_account' | null>

  /** False for a token that confirms nothing: unknown, used, expired, or replaced by a newer one. */
  confirm(secret: string): Promise<boolean>

  /**
   * Sets the password and notifies the user by mail. No separate step consumes the token: the change of the password
   * revokes it together with all other tokens of the user.
   */
  reset(secret: string, password: string, client: Client): Promise<LinkResetOutcome>
}

type Recipient = Pick<UserRecord, 'id' | 'username' | 'email'>

type Purpose = 'confirm' | 'reset' | 'email'

const linkTtlMs = 30 * 60_000
const life = { ttlMs: linkTtlMs, absoluteTtlMs: linkTtlMs }
const maxInBackground = 100

export function createLinks({ users, tokens, throttles, mailer, publicUrl, emit }: LinksOptions): Links {
  const afterTheAnswer = createBackground(emit)

  /** Revokes the older links of this purpose. Null if another request has just changed the user's credentials. */
  async function issueLink(
    user: UserRecord,
    purpose: 'confirm' | 'reset',
  ): Promise<{ link: string; expiresAt: number } | null> {
    const issued = await tokens.issueOnly({ kind: 'single-use', purpose, owner: user, login: null, ...life })
    return issued && { link: linkOf(purpose, issued.secret), expiresAt: issued.token.expiresAt }
  }

  /** The secret is behind the #, so that it reaches no server, log or Referer before the user presses the button on that page. */
  const linkOf = (purpose: Purpose, secret: string) => `${publicUrl}/account#${purpose}=${secret}`

  async function sendLink(
    { user, to }: { user: UserRecord; to: string | null },
    purpose: 'confirm' | 'reset',
    client: Client,
    mail: (link: string) => MailText,
  ) {
    // Check first: a new link revokes the older ones, and a user without an address may hold a link from an operator.
    if (to === null) return
    const issued = await issueLink(user, purpose)
    if (issued) sendTo(to, user.id, client, mail(issued.link))
  }

  const sendTo = (to: string, userId: string, { address }: Client, text: MailText) =>
    mailer?.send({ userId, address, to, ...text })

  function send(user: Recipient, client: Client, text: MailText): void {
    const to = mailboxOf(user)
    if (to !== null) sendTo(to, user.id, client, text)
  }

  /**
   * For a user who has not confirmed the address. If it was registered more than once, nothing shows which password came from
   * the owner of the mailbox, so the link asks for a new one.
   */
  const sendFirstLink = (user: UserRecord, client: Client) =>
    hasPassword(user)
      ? sendLink({ user, to: addressIn(user) }, 'confirm', client, confirmationMail)
      : sendLink({ user, to: mailboxOf(user) }, 'reset', client, firstPasswordMail)

  const notifyOfChange: Links['notifyOfChange'] = (user, client) => send(user, client, passwordChangedMail)
  const notifyOfNewEmail: Links['notifyOfNewEmail'] = (before, client) => send(before, client, emailChangedMail)

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
    else if (addressIn(known) && !isServiceAccount(known)) sendTo(known.username, known.id, client, accountExistsMail) // the address that was typed
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
      if (user === null || user.disabledAt !== null || isServiceAccount(user)) return
      afterTheAnswer(user.id, () => sendLink({ user, to: mailboxOf(user) }, 'reset', client, resetMail))
    },

    notifyOfChange,
    notifyOfRename: (before, client) => send(before, client, usernameChangedMail),
    notifyOfNewEmail,

    canMail: user => mailer !== null && mailboxOf(user) !== null,

    async offerEmail(user, email, session, client) {
      await throttles.requireMailAllowed({ account: email, address: client.address })
      const terms = { kind: 'single-use', purpose: 'email', owner: user, login: session, ...life } as const
      const issued = await tokens.issue(terms)
      if (issued === null || !(await users.expectEmail(user, { email, tokenId: issued.token.id }))) return false
      sendTo(email, user.id, client, confirmEmailMail(linkOf('email', issued.secret)))
      return true
    },

    async confirmEmail(secret, client) {
      const holder = await holderOf(secret, 'email')
      const confirmed = holder && (await users.confirmEmail(holder.user, holder.token))
      if (!confirmed) return false
      notifyOfNewEmail(confirmed.before, client)
      return true
    },

    async offerReset(user, client) {
      if (isServiceAccount(user)) return 'service_account'
      const issued = await issueLink(user, 'reset')
      if (issued === null) return null
      if (mailer === null || mailboxOf(user) === null) return { sent: false, ...issued }
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

const addressIn = ({ username }: UserRecord): string | null => (isAddress(username) ? username : null)

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
