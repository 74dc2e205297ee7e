// A mail server in this process that records what it receives, and servers that fail in various ways. Hides SMTP and
// MIME: a test sees addresses, a text, and the token of its link.
import { EventEmitter, once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { SMTPServer, type SMTPServerOptions } from 'smtp-server'

export interface ReceivedMail {
  /** `from` and `to` are those of the envelope, whatever the headers say. */
  from: string
  to: string[]
  /** Names in lower case. */
  headers: Map<string, string>
  text: string
  /** The first URL in the text; '' if there is none. `token` is the token in this URL. */
  link: string
  token: string
}

export interface MailServerOptions {
  /**
   * Returns the answer to send instead of an acceptance, such as `450 4.2.1 later`, or null to accept. Called for
   * each connection, recipient and mail.
   */
  refusal?: (step: 'connect' | 'to' | 'mail', of: { to: string; text: string }) => string | null
  /** Delay of the answer to each recipient. */
  delayMs?: number
  /** The credentials that are required; if undefined, every client may send. */
  login?: { user: string; password: string }
  /** TLS: never, offered (STARTTLS), or required from the first byte; the certificate is self-signed. */
  tls?: 'never' | 'offered' | 'demanded'
}

export interface MailServer {
  url: string
  mails: ReceivedMail[]
  /** Every `RCPT TO` line, as on the wire. */
  recipientLines: string[]
  /** The next mail to this address that was not returned before. Rejects if none arrives. */
  next(to: string, timeoutMs?: number): Promise<ReceivedMail>
}

const closers: (() => Promise<void>)[] = []

/** Closes everything that this file opened. For a suite's `after(closeMailServers)`. */
export async function closeMailServers(): Promise<void> {
  await Promise.all(closers.splice(0).map(close => close()))
}

export async function startMailServer({
  refusal = () => null,
  delayMs = 0,
  login,
  tls = 'never',
}: MailServerOptions = {}): Promise<MailServer> {
  const mails: ReceivedMail[] = []
  const taken = new Set<ReceivedMail>()
  const arrivals = new EventEmitter().setMaxListeners(100)
  const recipientLines: string[] = []
  const refuse = (answer: string | null) => {
    if (answer === null) return null
    return Object.assign(new Error(answer.slice(4)), { responseCode: Number(answer.slice(0, 3)) })
  }

  const options: SMTPServerOptions = {
    secure: tls === 'demanded',
    authOptional: login === undefined,
    allowInsecureAuth: true,
    disabledCommands: [...(login ? [] : ['AUTH']), ...(tls === 'offered' ? [] : ['STARTTLS'])],
    onAuth({ username, password }, _session, done) {
      const isRight = username === login?.user && password === login?.password
      done(isRight ? null : new Error(`no ${username} ${password}`), { user: username })
    },
    disableReverseLookup: true,
    closeTimeout: 100,
    logger: {
      debug: (entry: { tnx?: string }, ...words: string[]) => {
        const line = words.join(' ')
        if (entry.tnx === 'command' && /RCPT/i.test(line)) recipientLines.push(line.replace(/^.*?C: /s, ''))
      },
      info: () => {},
    },
    onConnect: (_session, done) => done(refuse(refusal('connect', { to: '', text: '' }))),
    onRcptTo: ({ address }, _session, done) => {
      setTimeout(() => done(refuse(refusal('to', { to: address, text: '' }))), delayMs)
    },
    async onData(stream, { envelope }, done) {
      const chunks: Buffer[] = []
      for await (const chunk of stream) chunks.push(chunk)
      const from = envelope.mailFrom ? envelope.mailFrom.address : ''
      const to = envelope.rcptTo.map(({ address }) => address)
      const mail = { from, to, ...parseMail(Buffer.concat(chunks).toString('latin1')) }
      const refused = refuse(refusal('mail', { to: to.join(), text: mail.text }))
      if (!refused) {
        mails.push(mail)
        arrivals.emit('mail')
      }
      done(refused)
    },
  }
  // With a logger the server would warn about the self-signed certificate.
  const server = new SMTPServer(tls === 'never' ? options : { ...options, logger: false })
  server.on('error', () => {}) // a client may reject the certificate
  await once(server.listen(0, '127.0.0.1'), 'listening')
  closers.push(() => new Promise(resolve => server.close(resolve)))

  return {
    url: `${tls === 'demanded' ? 'smtps' : 'smtp'}://127.0.0.1:${(server.server.address() as AddressInfo).port}`,
    mails,
    recipientLines,

    async next(to, timeoutMs = 5000) {
      const signal = AbortSignal.timeout(timeoutMs)
      for (;;) {
        const mail = mails.find(mail => mail.to.includes(to) && !taken.has(mail))
        if (mail) {
          taken.add(mail)
          return mail
        }
        await once(arrivals, 'mail', { signal }).catch(() => {
          throw new Error(`no mail to ${to} came within ${timeoutMs} ms; there are ${mails.length} to others`)
        })
      }
    },
  }
}

/** A TCP server that calls `onConnection` for each connection. Resolves to its smtp:// URL. */
export async function startBadMailServer(onConnection: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
    onConnection(socket)
  })
  const url = `smtp://127.0.0.1:${await listen(server)}`
  closers.push(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise(resolve => server.close(resolve))
  })
  return url
}

/** The URL of a server that does not exist. */
export async function refusingUrl(): Promise<string> {
  const server = createServer()
  const port = await listen(server)
  await new Promise(resolve => server.close(resolve))
  return `smtp://127.0.0.1:${port}`
}

async function listen(server: Server): Promise<number> {
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

function parseMail(raw: string): Pick<ReceivedMail, 'headers' | 'text' | 'link' | 'token'> {
  const end = raw.indexOf('\r\n\r\n')
  const lines = raw
    .slice(0, end)
    .replace(/\r\n[ \t]+/g, ' ')
    .split('\r\n')
  const headers = new Map(
    lines.map(line => [line.slice(0, line.indexOf(':')).toLowerCase(), line.replace(/^.*?: */, '')]),
  )
  const text = decode(raw.slice(end + 4), headers.get('content-transfer-encoding')).replaceAll('\r\n', '\n')
  const link = /https?:\S+/.exec(text)?.[0] ?? ''
  return { headers, text, link, token: /#\w+=(\S+)$/.exec(link)?.[1] ?? '' }
}

/** RFC 2045 section 6. */
function decode(body: string, encoding = '7bit'): string {
  if (encoding === 'base64') return Buffer.from(body, 'base64').toString()
  if (encoding !== 'quoted-printable') return body
  const bytes = body
    .replace(/=\r\n/g, '')
    .replace(/=([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)))
  return Buffer.from(bytes, 'latin1').toString()
}
