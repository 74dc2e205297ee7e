// Sends mails through an SMTP server in the background, with a fair, bounded queue and a few tries for each. Hides nodemailer
// and its traps, and the replies of servers, which repeat addresses and links.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { createTransport } from 'nodemailer'
import { networkOf } from '../../../shared/http/address.ts'
import { createFairQueue, type Party } from './fairQueue.ts'

export interface Mail {
  /** The recipient. Events name the user, never the mailbox. */
  userId: string
  /** The address of the client that requested the mail; '' if no client did. Networks take turns, and all without one are one. */
  address: string
  /** One mailbox, already checked; it is not parsed here. */
  to: string
  subject: string
  text: string
}

export type MailEvent =
  | { type: 'mail_sent'; userId: string; tries: number }
  | { type: 'mail_lost'; userId: string; tries: number; cause: Error }

export interface Mailer {
  /** Returns at once. Emits `mail_sent` or `mail_lost` later. */
  send(mail: Mail): void
  /** Refuses further mails and waits up to three seconds for the mails under way; what is not sent by then is lost. */
  close(): Promise<void>
}

export interface SmtpMailerOptions {
  /** `smtp://user:password@host:port`, `smtps://…`. */
  url: string
  /** One mailbox. */
  from: string
  /**
   * `optional`: mails are sent without TLS if the server has none, but never the password. Loopback needs no TLS.
   */
  tls: 'required' | 'optional'
  /** How long to wait before each further try. */
  retryDelaysMs?: number[]
  /** A try that takes longer has failed, even if the server is still sending. */
  tryTimeoutMs?: number
  emit: (event: MailEvent) => void
}

// Mails under way, including those that wait for another try. Further mails are lost, so that a mail server that is down for
// an hour costs little memory.
const maxUnderWay = 1000
const maxPerNetwork = 100
const maxPerAccount = 10 // each change of a password sends a mail, and changes are not limited
const maxConnections = 2
const closeTimeoutMs = 3000

export function openSmtpMailer({
  url,
  from,
  tls,
  retryDelaysMs = [1000, 10_000, 60_000],
  tryTimeoutMs = 60_000,
  emit,
}: SmtpMailerOptions): Mailer {
  const transport = createTransport({
    url,
    pool: true,
    maxConnections,
    connectionTimeout: 10_000,
    greetingTimeout: 10_000,
    socketTimeout: 20_000,
    requireTLS: needsTls(url, tls), // otherwise a machine in the middle could strip STARTTLS
    disableFileAccess: true,
    disableUrlAccess: true,
  })
  const closing = new AbortController()
  const closed = new AbortController() // aborts the tries that are still running after the close timeout
  const underWay = new Map<Promise<void>, Party>()
  const turns = createFairQueue<Party & { begin: () => void }>({
    maxWaiting: maxUnderWay,
    maxPerAccount,
  })
  let free = maxConnections

  function beginNext(): void {
    while (free > 0) {
      const next = turns.next()
      if (next === null) return
      free--
      next.begin()
    }
  }

  /** Waits here rather than in nodemailer's own queue, where the timeout of the try would already run. */
  async function inTurn<T>(party: Party, work: () => Promise<T>): Promise<T> {
    const { promise: turn, resolve: begin } = Promise.withResolvers<void>()
    const job = { ...party, begin }
    turns.add(job) // refuses none, because `lossReason` has bounded the mails under way
    beginNext()
    await turn
    try {
      return await work()
    } finally {
      turns.done(job)
      free++
      beginNext()
    }
  }

  /** Null if the mail can be sent. */
  function lossReason({ network, account }: Party): string | null {
    if (closing.signal.aborted) return 'the mailer is closed'
    if (underWay.size >= maxUnderWay) return 'too many mails are waiting'
    const parties = [...underWay.values()]
    if (parties.filter(party => party.account === account).length >= maxPerAccount) {
      return 'too many mails to this user are waiting'
    }
    const ofNetwork = parties.filter(party => party.network === network).length
    return ofNetwork >= maxPerNetwork ? 'too many mails from this network are waiting' : null
  }

  async function deliver({ userId, to, subject, text }: Mail, party: Party): Promise<void> {
    // The id is the same in each try, so that a mailbox shows one mail if the server accepted a try but its reply was lost.
    const messageId = `<${randomUUID()}@${from.slice(from.lastIndexOf('@') + 1)}>`
    // An object, in the envelope too: nodemailer would split a string into a list and drop comments and quotes.
    const mailbox = { name: '', address: to }
    const message = { from, to: mailbox, envelope: { from, to: [mailbox] }, subject, text, messageId }
    for (let tries = 1; ; tries++) {
      try {
        await inTurn(party, () => {
          // `socketTimeout` covers silent servers only.
          const signal = AbortSignal.any([closed.signal, AbortSignal.timeout(tryTimeoutMs)])
          return transport.sendMail({ ...message, signal })
        })
        return emit({ type: 'mail_sent', userId, tries })
      } catch (error) {
        const delayMs = retryDelaysMs[tries - 1]
        if (delayMs === undefined || isFinal(error) || closing.signal.aborted) {
          return emit({ type: 'mail_lost', userId, tries, cause: withoutReply(error) })
        }
        await sleep(delayMs, undefined, { signal: closing.signal }).catch(() => {})
      }
    }
  }

  return {
    send(mail) {
      const party = { network: networkOf(mail.address), account: mail.userId }
      const reason = lossReason(party)
      if (reason !== null) return emit({ type: 'mail_lost', userId: mail.userId, tries: 0, cause: new Error(reason) })
      const delivery = deliver(mail, party).finally(() => underWay.delete(delivery))
      underWay.set(delivery, party)
    },

    async close() {
      closing.abort()
      await Promise.race([Promise.all(underWay.keys()), sleep(closeTimeoutMs, undefined, { ref: false })])
      closed.abort()
      await Promise.all(underWay.keys())
      transport.close()
    },
  }
}

interface SendingError extends Error {
  code?: string
  /** The reply of the server, if there was one. Its first line begins with `responseCode`. */
  response?: string
  responseCode?: number
}

/** Whether the server has refused the mail for good (RFC 5321 section 4.2.1). */
function isFinal(error: unknown): boolean {
  return Number((error as SendingError).responseCode) >= 500
}

/** The errors whose message is nodemailer's own, unless they have a `response`. */
const ownErrors = ['ESOCKET', 'EDNS', 'ETLS', 'ECONNECTION', 'ETIMEDOUT', 'EABORT']

/** Keeps only the codes of a reply, for the log (RFC 5321 section 4.2, RFC 3463 section 2). */
function withoutReply(error: unknown): Error {
  const { code = 'unknown', message, response } = error as SendingError
  if (code === 'ETLS' && response !== undefined)
    return Object.assign(new Error('the mail server does not speak TLS; see SMTP_TLS'), { code })
  const codes = /^\d{3}([ -]\d\.\d{1,3}\.\d{1,3})?\b/.exec(response ?? '')?.[0]
  if (codes !== undefined) return Object.assign(new Error(`the mail server answered ${codes}`), { code })
  const isOwn = response === undefined && ownErrors.includes(code)
  return Object.assign(new Error(isOwn ? message : 'the conversation with the mail server failed'), { code })
}

/** TLS protects the links in the mails and the password, which are secrets. */
function needsTls(url: string, tls: SmtpMailerOptions['tls']): boolean {
  const { password, hostname } = new URL(url)
  const isLoopback = /^(localhost|127\.[\d.]+|\[::1\])$/.test(hostname)
  return !isLoopback && (tls === 'required' || password !== '')
}
