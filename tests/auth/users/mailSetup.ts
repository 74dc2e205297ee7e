// Set-up of the suites about mails: an Auth with a mail server, use cases over stores that fail on request, and the check that
// no log holds a secret.
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { readAuthConfig } from '../../../services/auth/config.ts'
import { type AuthEvent, logEvents } from '../../../services/auth/observability/events.ts'
import { instrument } from '../../../services/auth/observability/instrument.ts'
import { confirm, forgotPassword, resendConfirmation, resetPassword } from '../../../services/auth/routes/links.ts'
import { login } from '../../../services/auth/routes/login.ts'
import { register } from '../../../services/auth/routes/users.ts'
import { openTokenStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { openUserStore } from '../../../services/auth/stores/memory/userStore.ts'
import { createTokens, type Tokens } from '../../../services/auth/tokens/tokens.ts'
import { createLinks } from '../../../services/auth/users/links.ts'
import { createLogIn } from '../../../services/auth/users/logIn.ts'
import { type Mailer, openSmtpMailer, type SmtpMailerOptions } from '../../../services/auth/users/mail.ts'
import { openPasswords, type Passwords } from '../../../services/auth/users/passwords.ts'
import { createRegistration } from '../../../services/auth/users/registration.ts'
import { createUsers } from '../../../services/auth/users/users.ts'
import type { Environment } from '../../../shared/config/readSettings.ts'
import { createListener, type Listener } from '../../../shared/http/listener.ts'
import { mountRoutes } from '../../../shared/http/route.ts'
import { ask as send } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, serviceKey } from '../../support/credentials.ts'
import { hashThreads } from '../../support/hashThreads.ts'
import { collectLog, type LogLine } from '../../support/log.ts'
import { closeMailServers, type MailServer, type MailServerOptions, startMailServer } from '../../support/mailServer.ts'
import { sendRaw } from '../../support/raw.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import type { Place } from '../../support/stores.ts'
import { createWideThrottles, wideInvalidTokens } from '../../support/throttles.ts'
import { until } from '../../support/until.ts'

export const linkTtlMs = 30 * 60_000
export const sender = 'latchkey@mail.example'
export const publicUrl = 'https://accounts.example/auth'
export const accepted = { status: 202, text: '{"status":"accepted"}' }

/** Not allowed as usernames if mails are sent, because none of them is exactly one mailbox. */
export const hostileUsernames = [
  'a@b.example\r\nBcc: c@d.example',
  'a@b.example\nRCPT TO:<c@d.example>',
  'a\r\n@b.example',
  'a@b.example\0',
  'a@b.example\u2028c@d.example',
  'a@b.example,c@d.example',
  'a@b.example;c@d.example',
  'a@b.example c@d.example',
  'a@b.c,d@e.f',
  '"a b"@c.example',
  '"a@b.example"@c.example',
  '"a\\"b"@c.example',
  'a(comment)@b.example',
  'a@(comment)b.example',
  'x@y.example (c)',
  '(c) x@y.example',
  '<x@y.example>',
  'X Y <x@y.example>',
  'x@y.example>',
  '<x@y.example> SIZE=1',
  'x@y.example> ORCPT=rfc822;c@d.example',
  'g:a@b.example;',
  'g:a@b.example,c@d.example;',
  '@a.example:b@c.example',
  'mailto:a@b.example',
  `${'a'.repeat(246)}@b.example`,
  'a@bücher.example',
  'ü@b.example',
  'a@b.еxample',
  'a@localhost',
  'a@b',
  'a@b.c',
  'a@127.0.0.1',
  'a@[127.0.0.1]',
  'a@b@c.example',
  'a@b.example@',
  'a@@b.example',
  '.a@b.example',
  'a.@b.example',
  'a..b@c.example',
  'a@.b.example',
  'a@b.example.',
  'a@b..example',
  'a@-b.example',
  'a%b.example@c.example',
  'b.example!a@c.example',
  'a@b.example!c',
  ' a@b.example',
  'a@b.example ',
  'a\t@b.example',
  '@b.example',
  'a@',
  'somebody',
  '|touch /tmp/x@b.example',
  '-oQ/tmp@b.example\n',
  'a@b.example?subject=x',
  'a@b.example&c@d.example',
  '=?utf-8?q?a=40b.example?=',
]

/** How long a call to a slow store takes. */
export const writeMs = 10

let names = 0
export const freshAddress = (what = 'somebody') => `${what}-${++names}@users.example`
export const freshPassword = () => `CANARY-PW-${randomUUID()}`

/** The logs of every Auth that sends by SMTP. They must not contain a secret. */
export const logs: LogLine[][] = []
const mailServers: MailServer[] = []

/** A mail server whose recipients `describeMailLogs` checks. */
export async function openMailServer(options?: MailServerOptions): Promise<MailServer> {
  const server = await startMailServer(options)
  mailServers.push(server)
  return server
}

export async function ask(method: string, url: string, { bearer, body }: { bearer?: string; body?: unknown } = {}) {
  const { status, text } = await send(method, url, bearer, body)
  return { status, text }
}

/** The requests of users to an Auth that has mail. */
export function clientOf(url: string) {
  const post = (path: string, body: unknown) => ask('POST', url + path, { body })
  return {
    register: (username: string, password: string) => post('/users', { username, password }),
    confirm: (token: string) => post('/users/confirm', { token }),
    resend: (username: string) => post('/users/confirm/resend', { username }),
    forgot: (username: string) => post('/password/forgot', { username }),
    reset: (token: string, password: string) => post('/password/reset', { token, password }),
    logIn: (username: string, password: string) => post('/login', { username, password }),

    async session(username: string, password: string): Promise<string> {
      const { status, text } = await post('/login', { username, password })
      expect(status, text).to.equal(200)
      return JSON.parse(text).token
    },

    isSession: async (token: string) => (await ask('GET', `${url}/users/me`, { bearer: token })).status === 200,
  }
}

/** The whole answer in bytes, except for the date. */
export async function bytesOf(url: string, path: string, body: unknown): Promise<string> {
  const text = JSON.stringify(body)
  const head = `POST ${path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: same\r\nConnection: close\r\nContent-Type: application/json`
  const answer = await sendRaw(url, `${head}\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`, 5000)
  expect(answer.closed).to.equal(true)
  return answer.text.replace(/^Date: .*$/m, 'Date: -')
}

export async function startMailingAuth(env: Environment, now?: () => number) {
  const started = await startAuth({ env: { MAIL_FROM: sender, PUBLIC_URL: publicUrl, ...env }, ...(now && { now }) })
  logs.push(started.lines)
  return { ...started, ...clientOf(started.url) }
}

export const clock = createClock()
/** The mail server and the Auth of `useMail`. */
export let server: MailServer
export let auth: Awaited<ReturnType<typeof startMailingAuth>>
let passwords: Passwords

const listeners: Listener[] = []
export const mailers: Mailer[] = []
export const places: Place[] = []

/** Starts `server` and `auth` before the tests of the enclosing suite, and closes everything after them. */
export function useMail(): void {
  before(async () => {
    server = await openMailServer()
    auth = await startMailingAuth({ SMTP_URL: server.url, EMAIL_CONFIRMATION: 'required' }, clock.now)
    // Cost 4 is bcrypt's minimum: these suites do not measure how long a hash takes.
    passwords = await openPasswords({ cost: 4, threads: hashThreads, maxQueue: 1000, maxPerAccount: 1000 })
  })

  after(async () => {
    await closeServers()
    for (const place of places.splice(0)) await place.remove()
    await Promise.all(listeners.splice(0).map(listener => listener.close({ lameDuckMs: 0, drainMs: 0 })))
    await closeMailServers()
    await Promise.all(mailers.splice(0).map(mailer => mailer.close()))
    passwords.close()
  })
}

/** Checks the logs and the recipients of all tests in this file. `events` are the events that the logs must contain. */
export function describeMailLogs(events: string[]): void {
  describe('the mails of this file', () => {
    it('left no token and no password in a log', () => {
      const text = JSON.stringify(logs.splice(0))
      for (const event of events) expect(text).to.include(event)
      expect(text).to.not.match(/CANARY-PW/)
      expect(text).to.not.match(/lk_[0-9A-Za-z]{14,}|eyJ[\w-]{14,}/)
      expect(text).to.not.match(/account#/)
    })

    it('went to addresses that are usernames, one at a time', () => {
      const all = mailServers.splice(0)
      const lines = all.flatMap(({ recipientLines }) => recipientLines)
      expect(lines).to.have.length.above(0)
      for (const line of lines) expect(line).to.match(/^RCPT TO:<([a-z]+-\d+@users|demo@example)\.(example|com)>$/)
      for (const { to } of all.flatMap(({ mails }) => mails)) expect(to).to.have.length(1)
      expect(lines.join()).to.not.include('unknown-')
    })
  })
}

/** Registers a user and confirms the address. */
export async function registerConfirmed(username = freshAddress()) {
  const password = freshPassword()
  expect(await auth.register(username, password)).to.deep.equal(accepted)
  expect(await auth.confirm((await server.next(username)).token)).to.include({ status: 204 })
  return { username, password }
}

export const mailsTo = (username: string) => server.mails.filter(mail => mail.to.includes(username))

export async function mailedResetToken(username: string): Promise<string> {
  expect(await auth.forgot(username)).to.deep.equal(accepted)
  return (await server.next(username)).token
}

/** Whether the token is valid for this purpose. Consumes nothing. */
export async function isGoodFor(purpose: string | undefined, token: string): Promise<boolean> {
  const body = { token, touch: false, ...(purpose !== undefined && { purpose }) }
  const { text } = await ask('POST', `${auth.internalUrl}/validateToken`, { bearer: serviceKey, body })
  return JSON.parse(text).authenticated
}

export async function userIdOf(username: string): Promise<string> {
  const { text } = await ask('GET', `${auth.internalUrl}/admin/users?limit=100`, { bearer: adminKey })
  const { users } = JSON.parse(text) as { users: { id: string; username: string }[] }
  const user = users.find(user => user.username === username)
  if (!user) throw new Error(`no user ${username} in ${text}`)
  return user.id
}

/** A token that an operator issues. */
export async function issue(terms: object): Promise<string> {
  const { status, text } = await ask('POST', `${auth.internalUrl}/tokens`, { bearer: adminKey, body: terms })
  expect(status, text).to.equal(201)
  return JSON.parse(text).token
}

/**
 * The routes for users, with memory stores that fail or are slow on request, and with a mailer that waits only briefly
 * between its tries.
 */
export async function openAccounts(url: string, options: Partial<SmtpMailerOptions> = {}) {
  const { log, lines } = collectLog('auth')
  const events: AuthEvent[] = []
  const write = logEvents(log, () => performance.now())
  const emit = (event: AuthEvent) => {
    events.push(event)
    write(event)
  }
  const broken = new Set<string>()
  const slow = new Set<string>()
  const breakable = <T extends object>(store: T): T => {
    const methods = Object.entries(store).map(([name, method]) => [
      name,
      async (...args: unknown[]) => {
        if (broken.has(name)) throw new Error('the store is away')
        if (slow.has(name)) await sleep(writeMs)
        return method.apply(store, args)
      },
    ])
    return Object.fromEntries(methods)
  }
  const userStore = instrument(breakable(await openUserStore()), 'users', null)
  const tokenStore = instrument(breakable(await openTokenStore()), 'tokens', null)
  const now = Date.now
  const revokeTokens: Tokens['revokeByUser'] = (...of) => tokens.revokeByUser(...of)
  const rules = { minLength: 15 }
  const users = createUsers({ store: userStore, passwords, rules, addressesOnly: true, revokeTokens, now, emit })
  const limits = { perUser: 100, total: 100_000 }
  const tokens = createTokens({ store: tokenStore, now, ttlMs: 30_000, absoluteTtlMs: 60_000, limits, emit })
  const mailer = openSmtpMailer({ url, from: sender, tls: 'required', retryDelaysMs: [20, 20], emit, ...options })
  mailers.push(mailer)
  const throttles = createWideThrottles()
  const links = createLinks({ users, tokens, throttles, mailer, publicUrl, emit })
  const config = readAuthConfig({ NODE_ENV: 'test', SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey })
  const routes = mountRoutes(
    { login, register, confirm, resendConfirmation, forgotPassword, resetPassword },
    {
      tokens,
      links,
      logIn: createLogIn({ users, throttles }),
      registration: createRegistration({ users, links, throttles, isOpen: true, needsConfirmation: true }),
      invalidTokens: wideInvalidTokens(),
      config,
    },
    { none: null, bearer: null, session: null, serviceKey: null, client: null, adminKey: null },
  )
  const listener = createListener(routes, {
    name: 'auth',
    portSetting: 'AUTH_PORT',
    log,
    accessLog: 'all',
    monotonicNow: () => performance.now(),
  })
  listeners.push(listener)
  logs.push(lines)
  const baseUrl = await listener.listen(0, '127.0.0.1')
  const emitted = (type: AuthEvent['type']) => events.filter(event => event.type === type)
  return {
    url: baseUrl,
    ...clientOf(baseUrl),
    users,
    userStore,
    tokens,
    lines,
    broken,
    slow,
    emitted,

    /** Inserts a user as if registered before Auth had a mail server: the username is not checked. */
    async add(username: string, { confirmed = true, disabled = false } = {}): Promise<string> {
      const passwordHash = await passwords.hash('CANARY-PW-before', { address: '192.0.2.1', account: username })
      const user = await users.insert({ username, passwordHash }, { confirmed })
      if (user === null) throw new Error(`${username} is taken`)
      if (disabled) await users.disable(user.id)
      return user.id
    },

    /** Waits for the first event of this type. */
    async event<T extends AuthEvent['type']>(type: T): Promise<Extract<AuthEvent, { type: T }>> {
      await until(() => emitted(type).length > 0)
      return emitted(type)[0] as Extract<AuthEvent, { type: T }>
    },
  }
}
