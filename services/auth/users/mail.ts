// Sends mails through an SMTP server, in the background: a fair, bounded queue and a few tries for each. Hides nodemailer and
// its traps, and what servers say: that repeats addresses and links.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { createTransport } from 'nodemailer'
import { networkOf } from '../../../shared/http/address.ts'
import { createFairQueue, type Party } from './fairQueue.ts'

export interface Mail {
  /** The user it is for: events name the user, never the mailbox. */
  userId: string
  /** Of the client whose request made the mail: networks take turns. */
  address: string
  /** One mailbox, checked: nothing is parsed out of it here. */
  to: string
  subject: string
  text: string
}

export type MailEvent =
  | { type: 'mail_sent'; userId: string; tries: number }
  | { type: 'mail_lost'; userId: string; tries: number; cause: Error }

export interface Mailer {
  /** Returns at once; what becomes of it is told as an event. */
  send(mail: Mail): void
  /** Takes no more, and waits a little for those under way; the rest is told as lost. */
  close(): Promise<void>
}

export interface SmtpMailerOptions {
  /** `smtp://user:password@host:port`, `smtps://…`. */
  url: string
  /** One mailbox. */
  from: string
  /** `optional`: mails may go in the clear to a server without TLS. A password never does, and loopback needs no TLS. */
  tls: 'required' | 'optional'
  /** How long to wait before each further try. */
  retryAfterMs?: number[]
  /** A try that takes longer has failed, however much the server still has to say. */
  tryWithinMs?: number
  observe: (event: MailEvent) => void
}

// Mails under way, retries included. One more is lost: a mail server that is down for an hour must not cost memory.
const maxUnderWay = 1000
const maxUnderWayOfNetwork = 100
const maxUnderWayOfAccount = 10 // each change of a password sends one, and changes are not limited
const atOnce = 2 // connections
const closeWithinMs = 3000

export function openSmtpMailer({
  url,
  from,
  tls,
  retryAfterMs = [1000, 10_000, 60_000],
  tryWithinMs = 60_000,
  observe,
}: SmtpMailerOptions): Mailer {
  const transport = createTransport({
    url,
    pool: true,
    maxConnections: atOnce,
    connectionTimeout: 10_000,
    greetingTimeout: 10_000,
    socketTimeout: 20_000,
    requireTLS: needsTls(url, tls), // otherwise a machine in between can strip STARTTLS and read along
    disableFileAccess: true,
    disableUrlAccess: true,
  })
  const closing = new AbortController()
  const givenUp = new AbortController()
  const underWay = new Map<Promise<void>, Party>()
  const turns = createFairQueue<Party & { begin: () => void }>({
    maxWaiting: maxUnderWay,
    maxPerAccount: maxUnderWayOfAccount,
  })
  let free = atOnce

  function beginNext(): void {
    while (free > 0) {
      const next = turns.next()
      if (next === null) return
      free--
      next.begin()
    }
  }

  /** Waits here and not in nodemailer's own queue, where the time of a try would already run. */
  async function inTurn<T>(party: Party, work: () => Promise<T>): Promise<T> {
    const { promise: turn, resolve: begin } = Promise.withResolvers<void>()
    const job = { ...party, begin }
    turns.add(job) // refuses none: what is under way is bounded already
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

  /** Null if the mail may be sent. */
  function whyNotSend({ network, account }: Party): string | null {
    if (closing.signal.aborted) return 'the mailer is closed'
    if (underWay.size >= maxUnderWay) return 'too many mails wait'
    const parties = [...underWay.values()]
    if (parties.filter(party => party.account === account).length >= maxUnderWayOfAccount) {
      return 'too many mails to this user wait'
    }
    const ofNetwork = parties.filter(party => party.network === network).length
    return ofNetwork >= maxUnderWayOfNetwork ? 'too many mails of this network wait' : null
  }

  async function deliver({ userId, to, subject, text }: Mail, party: Party): Promise<void> {
    // The same in each try: of a mail that the server took without being able to say so, mailboxes show one.
    const messageId = `<${randomUUID()}@${from.slice(from.lastIndexOf('@') + 1)}>`
    // As an object, in the envelope too: of a string nodemailer makes a list, and throws comments and quotes away.
    const mailbox = { name: '', address: to }
    const message = { from, to: mailbox, envelope: { from, to: [mailbox] }, subject, text, messageId }
    for (let tries = 1; ; tries++) {
      try {
        await inTurn(party, () => {
          // socketTimeout is for a silent server only.
          const signal = AbortSignal.any([givenUp.signal, AbortSignal.timeout(tryWithinMs)])
          return transport.sendMail({ ...message, signal })
        })
        return observe({ type: 'mail_sent', userId, tries })
      } catch (error) {
        const pauseMs = retryAfterMs[tries - 1]
        if (pauseMs === undefined || isFinal(error) || closing.signal.aborted) {
          return observe({ type: 'mail_lost', userId, tries, cause: withoutWords(error) })
        }
        await sleep(pauseMs, undefined, { signal: closing.signal }).catch(() => {})
      }
    }
  }

  return {
    send(mail) {
      const party = { network: networkOf(mail.address), account: mail.userId }
      const why = whyNotSend(party)
      if (why !== null) return observe({ type: 'mail_lost', userId: mail.userId, tries: 0, cause: new Error(why) })
      const delivery = deliver(mail, party).finally(() => underWay.delete(delivery))
      underWay.set(delivery, party)
    },

    async close() {
      closing.abort()
      await Promise.race([Promise.all(underWay.keys()), sleep(closeWithinMs, undefined, { ref: false })])
      givenUp.abort()
      await Promise.all(underWay.keys())
      transport.close()
    },
  }
}

interface SendingError extends Error {
  code?: string
  /** What the server said, if it did: its first line begins with `responseCode`. */
  response?: string
  responseCode?: number
}

/** The server has said no for good: RFC 5321 section 4.2.1. */
function isFinal(error: unknown): boolean {
  return Number((error as SendingError).responseCode) >= 500
}

const ownWords = ['ESOCKET', 'EDNS', 'ETLS', 'ECONNECTION', 'ETIMEDOUT', 'EABORT']

/** For the log: of what the server said the codes only (RFC 5321 section 4.2, RFC 3463 section 2). */
function withoutWords(error: unknown): Error {
  const { code = 'unknown', message, response } = error as SendingError
  if (code === 'ETLS' && response !== undefined)
    return Object.assign(new Error('the mail server does not speak TLS; see SMTP_TLS'), { code })
  const codes = /^\d{3}([ -]\d\.\d{1,3}\.\d{1,3})?\b/.exec(response ?? '')?.[0]
  if (codes !== undefined) return Object.assign(new Error(`the mail server answered ${codes}`), { code })
  const isOwn = response === undefined && ownWords.includes(code)
  return Object.assign(new Error(isOwn ? message : 'the mail server cannot be spoken with'), { code })
}

/** The links in mails are secrets, as is the password. */
function needsTls(url: string, tls: SmtpMailerOptions['tls']): boolean {
  const { password, hostname } = new URL(url)
  const isLoopback = /^(localhost|127\.[\d.]+|\[::1\])$/.test(hostname)
  return !isLoopback && (tls === 'required' || password !== '')
}
