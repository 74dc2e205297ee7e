// What is done by a link in a mail: confirm an address, reset a password. Hides that a link is a single-use token with a
// purpose, and that everything that depends on whether an account exists happens after the answer.
import type { TokenRecord, Tokens } from '../tokens/tokens.ts'
import { hasPassword } from './directory.ts'
import type { Mail, Mailer } from './mail.ts'
import type { Client } from './passwords.ts'
import { isAddress } from './usernames.ts'
import type { Credentials, UserRecord, Users } from './users.ts'

export type LinkEvent = { type: 'link_not_sent'; userId: string | null; cause: unknown }

export interface LinksOptions {
  users: Users
  tokens: Pick<Tokens, 'issueOnly' | 'validate'>
  /** Null where there is no mail: then nothing is sent, and what somebody holds is still good. */
  mailer: Mailer | null
  /** What links begin with: never the Host of a request, which whoever sends it chooses. */
  publicUrl: string
  observe: (event: LinkEvent) => void
}

export type Links = ReturnType<typeof createLinks>

type Purpose = 'confirm' | 'reset'
type Content = Pick<Mail, 'subject' | 'text'>

const linkTtlMs = 30 * 60_000
const mostInBackground = 100

export function createLinks({ users, tokens, mailer, publicUrl, observe }: LinksOptions) {
  let inBackground = 0

  /** After the answer, which must not tell by its time what there is to do. */
  function afterTheAnswer(userId: string | null, job: () => Promise<void>): void {
    if (inBackground >= mostInBackground) {
      observe({ type: 'link_not_sent', userId, cause: new Error('too many links wait') })
      return
    }
    inBackground++
    setImmediate(() =>
      job()
        .catch(cause => observe({ type: 'link_not_sent', userId, cause }))
        .finally(() => inBackground--),
    )
  }

  /** The older links of this purpose end. Null if the user's credentials changed at this moment. */
  async function issueLink(user: UserRecord, purpose: Purpose): Promise<{ link: string; expiresAt: number } | null> {
    const life = { ttlMs: linkTtlMs, absoluteTtlMs: linkTtlMs }
    const issued = await tokens.issueOnly({ kind: 'single-use', purpose, owner: user, login: null, ...life })
    // Behind the #, so that it reaches no server, log or Referer before the button on that page is pressed.
    return issued && { link: `${publicUrl}/account#${purpose}=${issued.secret}`, expiresAt: issued.token.expiresAt }
  }

  async function sendLink(user: UserRecord, purpose: Purpose, client: Client, mail: (link: string) => Content) {
    // Checked first, because a new link ends the older ones: one from an operator may be all that this user has.
    if (!isAddress(user.username)) return
    const issued = await issueLink(user, purpose)
    if (issued) send(user, client, mail(issued.link))
  }

  function send({ id, username }: UserRecord, { address }: Client, content: Content): void {
    if (isAddress(username)) mailer?.send({ userId: id, address, to: username, ...content })
  }

  const sendConfirmation = (user: UserRecord, client: Client) =>
    sendLink(user, 'confirm', client, link => ({
      subject: 'Confirm your address',
      text: `Somebody, probably you, has registered with this address. To confirm it, open\n\n${link}\n\nwithin 30 minutes. If it was not you, do nothing: the account stays closed.\n`,
    }))

  /** For a user without a password. */
  const choosePassword = (link: string) => ({
    subject: 'Choose a password',
    text: `There is an account with this address that has no password: an operator made it, or the address was registered more than once before it was confirmed, and then none of those passwords is valid. To confirm the address and choose a password, open\n\n${link}\n\nwithin 30 minutes. If you do not expect this, do nothing: the account stays closed.\n`,
  })

  /**
   * For an unconfirmed user. If the address was registered more than once, nothing tells which of the passwords was typed
   * by the owner of the mailbox: then the link asks for one.
   */
  const sendFirstLink = (user: UserRecord, client: Client) =>
    hasPassword(user) ? sendConfirmation(user, client) : sendLink(user, 'reset', client, choosePassword)

  /** Tells the user by mail that the password has changed. */
  function tellOfChange(user: UserRecord, client: Client): void {
    send(user, client, {
      subject: 'Your password was changed',
      text: 'The password of your account was changed just now, and your other sessions were ended.\nIf it was not you, ask for a new password at once.\n',
    })
  }

  /** The live token of this secret and the user it was sent to; null for every other. Consumes nothing. */
  async function holderOf(secret: string, purpose: Purpose): Promise<{ token: TokenRecord; user: UserRecord } | null> {
    const [token] = await tokens.validate([secret], { purpose, touch: false })
    const user = token?.userId ? await users.find(token.userId) : null
    return token && user && user.username === token.username ? { token, user } : null
  }

  return {
    /**
     * Registers a user who has yet to confirm the address, and answers the same for one that is there. A second
     * registration before that leaves no password: the link in its mail sets one. The caller has checked the credentials
     * against the rules.
     */
    async register(credentials: Credentials, client: Client): Promise<void> {
      const { username } = credentials
      await users.findByUsername(username) // could the store be asked? That it is 503 otherwise tells of no account
      const passwordHash = await users.hash(credentials, client)
      afterTheAnswer(null, async () => {
        const registered = await users.insert({ username, passwordHash }, { confirmed: false })
        if (registered) return sendConfirmation(registered, client)
        const known = await users.findByUsername(username)
        if (known === null) return
        const withdrawn = known.confirmedAt === null ? await users.withdrawPassword(known.id) : null
        if (withdrawn) await sendFirstLink(withdrawn, client)
        else {
          send(known, client, {
            subject: 'You have an account already',
            text: `Somebody, probably you, tried to register with this address, which has an account already.\nIf you have forgotten its password, ask for a new one.\n`,
          })
        }
      })
    },

    /** Sends the link again if the address is still to be confirmed. Answers the same if it is not. */
    async resend(username: string, client: Client): Promise<void> {
      const user = await users.findByUsername(username)
      if (user?.confirmedAt === null) afterTheAnswer(user.id, () => sendFirstLink(user, client))
    },

    /** A link to choose a new password, where there is such a user. Answers the same where there is none. */
    async forgot(username: string, client: Client): Promise<void> {
      const user = await users.findByUsername(username)
      if (user === null || user.disabledAt !== null) return
      afterTheAnswer(user.id, () =>
        sendLink(user, 'reset', client, link => ({
          subject: 'Choose a new password',
          text: `Somebody, probably you, has asked for a new password for this address. To choose one, open\n\n${link}\n\nwithin 30 minutes. If it was not you, do nothing: your password stays as it is.\n`,
        })),
      )
    },

    tellOfChange,

    /** Whether a mail can go to a user of this name. */
    canMail: (username: string) => mailer !== null && isAddress(username),

    /**
     * For the operator: a link to choose a password, by mail, or as the answer if no mail can go to this user. Null if the
     * user's credentials changed at this moment.
     */
    async offerReset(
      user: UserRecord,
      client: Client,
    ): Promise<{ sent: true } | { sent: false; link: string; expiresAt: number } | null> {
      const issued = await issueLink(user, 'reset')
      if (issued === null) return null
      if (mailer === null || !isAddress(user.username)) return { sent: false, ...issued }
      const fromOperator = {
        subject: 'Choose a new password',
        text: `An operator has asked you to choose a new password. To do so, open\n\n${issued.link}\n\nwithin 30 minutes. Until then your password stays as it is.\n`,
      }
      send(user, client, hasPassword(user) ? fromOperator : choosePassword(issued.link))
      return { sent: true }
    },

    /** False for a token that confirms nothing: unknown, used, expired, replaced by a newer one. */
    async confirm(secret: string): Promise<boolean> {
      const holder = await holderOf(secret, 'confirm')
      if (holder === null || !(await users.confirm(holder.user.id, holder.token.credentialVersion))) return false
      // Used up last: where this fails, the same call completes it.
      const [used] = await tokens.validate([secret], { purpose: 'confirm', touch: true })
      return used !== null
    },

    /**
     * Whose password it is now; null for a token that resets nothing. The token is not touched: it ends with all others of the user, in the step
     * that makes the new password the only one. Throws what is wrong with the password; then the token is still good.
     */
    async reset(secret: string, password: string, client: Client): Promise<UserRecord | null> {
      const holder = await holderOf(secret, 'reset')
      if (holder === null) return null
      const { user, token } = holder
      const done = await users.resetPassword(
        { id: user.id, credentialVersion: token.credentialVersion },
        password,
        client,
      )
      if (!done) return null
      tellOfChange(user, client)
      return user
    },
  }
}
