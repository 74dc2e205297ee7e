// What goes by mail: addresses that are confirmed, passwords that are reset, and a mail server that is slow, hostile or away.
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { readAuthConfig } from '../../../services/auth/config.ts'
import { type AuthEvent, logEvents } from '../../../services/auth/observability/events.ts'
import { instrument } from '../../../services/auth/observability/instrument.ts'
import { confirm, forgotPassword, resendConfirmation, resetPassword } from '../../../services/auth/routes/links.ts'
import { login } from '../../../services/auth/routes/login.ts'
import { register } from '../../../services/auth/routes/users.ts'
import { openTokenStore, openUserStore } from '../../../services/auth/stores/memory/tokenStore.ts'
import { createTokens, type Tokens } from '../../../services/auth/tokens/tokens.ts'
import { createLinks } from '../../../services/auth/users/links.ts'
import { createLogIn } from '../../../services/auth/users/logIn.ts'
import {
  type MailEvent,
  type Mailer,
  openSmtpMailer,
  type SmtpMailerOptions,
} from '../../../services/auth/users/mail.ts'
import { openPasswords, type Passwords } from '../../../services/auth/users/passwords.ts'
import { createRegistration } from '../../../services/auth/users/registration.ts'
import { createUsers } from '../../../services/auth/users/users.ts'
import { ConfigError, type Environment } from '../../../shared/config/readSettings.ts'
import { createListener, type Listener } from '../../../shared/http/listener.ts'
import { mountRoutes } from '../../../shared/http/route.ts'
import {
  closeMailServers,
  type MailServer,
  type MailServerOptions,
  refusingUrl,
  startBadMailServer,
  startMailServer,
} from '../../support/mailServer.ts'
import { parseAnswer, sendRaw } from '../../support/raw.ts'
import {
  adminKey,
  closeServers,
  collectLog,
  createClock,
  demo,
  type LogLine,
  serviceKey,
  startAuth,
  startBusiness,
} from '../../support/servers.ts'
import { freshPlace, type Place } from '../../support/stores.ts'
import { createWideThrottles, wideInvalidTokens } from '../../support/throttles.ts'
import { until } from '../../support/until.ts'

const linkTtlMs = 30 * 60_000
const sender = 'latchkey@mail.example'
const publicUrl = 'https://accounts.example/auth'
const accepted = { status: 202, text: '{"status":"accepted"}' }
const productionBase = { NODE_ENV: 'production', SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey }

/** What nobody may register with where mails are sent: each is more, less or something else than one mailbox. */
const hostileUsernames = [
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

let names = 0
const freshAddress = (what = 'somebody') => `${what}-${++names}@users.example`
const freshPassword = () => `CANARY-PW-${randomUUID()}`

/** Of every Auth that sends by SMTP: nothing in them may be a secret. */
const logs: LogLine[][] = []
const mailServers: MailServer[] = []

/** A mail server whose recipients are all looked at when this file ends. */
async function openMailServer(options?: MailServerOptions): Promise<MailServer> {
  const server = await startMailServer(options)
  mailServers.push(server)
  return server
}

/** Asks on a connection of its own, so that servers close at once. */
async function ask(method: string, url: string, { bearer, body }: { bearer?: string; body?: unknown } = {}) {
  const headers = new Headers({ connection: 'close' })
  if (bearer !== undefined) headers.set('authorization', `Bearer ${bearer}`)
  if (body !== undefined) headers.set('content-type', 'application/json')
  const answer = await fetch(url, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) })
  return { status: answer.status, text: await answer.text() }
}

/** What users do with an Auth that has mail. */
function clientOf(url: string) {
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

/** The whole answer as it stands on the wire, but for the date. */
async function bytesOf(url: string, path: string, body: unknown): Promise<string> {
  const text = JSON.stringify(body)
  const head = `POST ${path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: same\r\nConnection: close\r\nContent-Type: application/json`
  const answer = await sendRaw(url, `${head}\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`, 5000)
  expect(answer.closed).to.equal(true)
  return answer.text.replace(/^Date: .*$/m, 'Date: -')
}

async function startMailingAuth(env: Environment, now?: () => number) {
  const started = await startAuth({ env: { MAIL_FROM: sender, PUBLIC_URL: publicUrl, ...env }, ...(now && { now }) })
  logs.push(started.lines)
  return { ...started, ...clientOf(started.url) }
}

describe('mail', function () {
  this.slow(500)
  const clock = createClock()
  let server: MailServer
  let auth: Awaited<ReturnType<typeof startMailingAuth>>
  let passwords: Passwords

  before(async () => {
    server = await openMailServer()
    auth = await startMailingAuth({ SMTP_URL: server.url, EMAIL_CONFIRMATION: 'required' }, clock.now)
    // Cost 4 is bcrypt's least: what is tested on these is not how long it takes.
    passwords = await openPasswords({ cost: 4, workers: 1, maxQueue: 1000, maxPerAccount: 1000 })
  })

  const listeners: Listener[] = []
  const mailers: Mailer[] = []
  const places: Place[] = []
  after(async () => {
    await closeServers()
    for (const place of places) await place.remove()
    await Promise.all(listeners.map(listener => listener.close({ lameDuckMs: 0, drainMs: 0 })))
    await closeMailServers()
    await Promise.all(mailers.map(mailer => mailer.close()))
    await passwords.close()
  })

  /** Registers, confirms, and returns what somebody can log in with. */
  async function registerConfirmed(username = freshAddress()) {
    const password = freshPassword()
    expect(await auth.register(username, password)).to.deep.equal(accepted)
    expect(await auth.confirm((await server.next(username)).token)).to.include({ status: 204 })
    return { username, password }
  }

  const mailsTo = (username: string) => server.mails.filter(mail => mail.to.includes(username))

  async function mailedResetToken(username: string): Promise<string> {
    expect(await auth.forgot(username)).to.deep.equal(accepted)
    return (await server.next(username)).token
  }

  /** Whether a look admits it: nothing is consumed. */
  async function isGoodFor(purpose: string | undefined, token: string): Promise<boolean> {
    const body = { token, touch: false, ...(purpose !== undefined && { purpose }) }
    const { text } = await ask('POST', `${auth.internalUrl}/validateToken`, { bearer: serviceKey, body })
    return JSON.parse(text).authenticated
  }

  async function userIdOf(username: string): Promise<string> {
    const { text } = await ask('GET', `${auth.internalUrl}/admin/users?limit=100`, { bearer: adminKey })
    const { users } = JSON.parse(text) as { users: { id: string; username: string }[] }
    const user = users.find(user => user.username === username)
    if (!user) throw new Error(`no user ${username} in ${text}`)
    return user.id
  }

  /** A token as an operator issues it. */
  async function issue(terms: object): Promise<string> {
    const { status, text } = await ask('POST', `${auth.internalUrl}/tokens`, { bearer: adminKey, body: terms })
    expect(status, text).to.equal(201)
    return JSON.parse(text).token
  }

  /**
   * The routes for users over memory stores that fail and dawdle where a test says so, and a mailer that does not wait
   * long between its tries.
   */
  async function openAccounts(url: string, options: Partial<SmtpMailerOptions> = {}) {
    const { log, lines } = collectLog('auth')
    const events: AuthEvent[] = []
    const write = logEvents(log, () => performance.now())
    const observe = (event: AuthEvent) => {
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
          if (slow.has(name)) await sleep(10)
          return method.apply(store, args)
        },
      ])
      return Object.fromEntries(methods)
    }
    const userStore = instrument(breakable(await openUserStore()), 'users', null)
    const tokenStore = instrument(breakable(await openTokenStore()), 'tokens', null)
    const now = Date.now
    const endTokens: Tokens['endUser'] = (...of) => tokens.endUser(...of)
    const rules = { minLength: 15 }
    const users = createUsers({ store: userStore, passwords, rules, addressesOnly: true, endTokens, now, observe })
    const limits = { perUser: 100, total: 100_000 }
    const tokens = createTokens({ store: tokenStore, now, ttlMs: 30_000, absoluteTtlMs: 60_000, limits, observe })
    const mailer = openSmtpMailer({ url, from: sender, tls: 'required', retryDelaysMs: [20, 20], observe, ...options })
    mailers.push(mailer)
    const throttles = createWideThrottles()
    const links = createLinks({ users, tokens, throttles, mailer, publicUrl, observe })
    const config = readAuthConfig({ NODE_ENV: 'test', SERVICE_KEY: serviceKey, ADMIN_KEY: adminKey })
    const routes = mountRoutes(
      [login, register, confirm, resendConfirmation, forgotPassword, resetPassword],
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
    const at = await listener.listen(0, '127.0.0.1')
    const told = (type: AuthEvent['type']) => events.filter(event => event.type === type)
    return {
      url: at,
      ...clientOf(at),
      users,
      userStore,
      tokens,
      lines,
      broken,
      slow,
      told,

      /** A user as he was before mails were sent: nobody has asked what he is called. */
      async add(username: string, { confirmed = true, disabled = false } = {}): Promise<string> {
        const passwordHash = await passwords.hash('CANARY-PW-before', { address: '192.0.2.1', account: username })
        const user = await users.insert({ username, passwordHash }, { confirmed })
        if (user === null) throw new Error(`${username} is taken`)
        if (disabled) await users.disable(user.id)
        return user.id
      },

      /** The first event of this type, once it was told. */
      async event<T extends AuthEvent['type']>(type: T): Promise<Extract<AuthEvent, { type: T }>> {
        await until(() => told(type).length > 0)
        return told(type)[0] as Extract<AuthEvent, { type: T }>
      },
    }
  }

  describe('to confirm an address', () => {
    it('goes to it alone, from MAIL_FROM, with a link that begins with PUBLIC_URL', async () => {
      const username = freshAddress()
      expect(await auth.register(username, freshPassword())).to.deep.equal(accepted)
      const mail = await server.next(username)
      expect(mail).to.include({ from: sender })
      expect(mail.to).to.deep.equal([username])
      expect(server.recipientLines).to.include(`RCPT TO:<${username}>`)
      expect(mail.headers.get('from')).to.equal(sender)
      expect(mail.headers.get('to')).to.equal(username)
      expect([...mail.headers.keys()]).to.not.include.members(['cc', 'bcc'])
      expect(mail.link).to.match(/^https:\/\/accounts\.example\/auth\/account#confirm=lk_\w{63}$/)
    })

    it('is what the first log-in waits for: before it is 401, the same bytes as for a wrong password', async () => {
      const [username, password] = [freshAddress(), freshPassword()]
      await auth.register(username, password)
      const { token } = await server.next(username)
      const right = await bytesOf(auth.url, '/login', { username, password })
      expect(right).to.match(/^HTTP\/1\.1 401 /)
      expect(await bytesOf(auth.url, '/login', { username, password: freshPassword() })).to.equal(right)
      expect(await bytesOf(auth.url, '/login', { username: freshAddress(), password })).to.equal(right)
      expect(await auth.confirm(token)).to.deep.equal({ status: 204, text: '' })
      expect(await auth.logIn(username, password)).to.include({ status: 200 })
    })

    it('is good for one time, also of twenty at once', async () => {
      const { add, resend, confirm, slow } = await openAccounts(server.url)
      const username = freshAddress()
      await add(username, { confirmed: false })
      await resend(username)
      const { token } = await server.next(username)
      slow.add('update') // all twenty have looked by then
      const statuses = await Promise.all(Array.from({ length: 20 }, async () => (await confirm(token)).status))
      expect(statuses.toSorted()).to.deep.equal([204, ...Array(19).fill(401)])
      expect(await confirm(token)).to.include({ status: 401 })
    })

    it('is not used up by who only looks: GET and HEAD /account change nothing', async () => {
      const [username, password] = [freshAddress(), freshPassword()]
      await auth.register(username, password)
      const { link, token } = await server.next(username)
      for (const method of ['GET', 'HEAD', 'GET', 'HEAD', 'GET', 'HEAD']) {
        expect(await ask(method, `${auth.url}/account${new URL(link).hash}`), method).to.include({ status: 200 })
        expect(await ask(method, `${auth.url}/account?confirm=${token}`), method).to.include({ status: 200 })
      }
      expect(await auth.logIn(username, password)).to.include({ status: 401 })
      expect(await auth.confirm(token)).to.include({ status: 204 })
    })

    it('is dead after 30 minutes, to the millisecond', async () => {
      const username = freshAddress()
      await auth.register(username, freshPassword())
      const { token } = await server.next(username)
      clock.advance(linkTtlMs - 1)
      expect(await isGoodFor('confirm', token)).to.equal(true)
      clock.advance(1)
      expect(await auth.confirm(token)).to.include({ status: 401 })
      await auth.resend(username)
      expect(await auth.confirm((await server.next(username)).token)).to.include({ status: 204 })
    })

    it('is not sent to who has confirmed it: the mail tells that there is an account, and nothing changes', async () => {
      const { username, password } = await registerConfirmed()
      const session = await auth.session(username, password)
      const other = freshPassword()
      expect(await auth.register(username.toUpperCase(), other)).to.deep.equal(accepted)
      const mail = await server.next(username)
      expect(mail.to).to.deep.equal([username])
      expect(mail.headers.get('subject')).to.equal('You have an account already')
      expect(mail).to.include({ link: '', token: '' })
      expect(await auth.logIn(username, other)).to.include({ status: 401 })
      expect(await auth.logIn(username, password)).to.include({ status: 200 })
      expect(await auth.isSession(session)).to.equal(true)
    })

    it('activates no password if the address is registered again first: the mailbox chooses one', async () => {
      for (const order of [['stranger', 'owner'] as const, ['owner', 'stranger'] as const]) {
        const username = freshAddress()
        const typed = { owner: freshPassword(), stranger: freshPassword() }
        for (const who of order) expect(await auth.register(username, typed[who])).to.deep.equal(accepted)
        const [first, last] = [await server.next(username), await server.next(username)]
        const statusesOf = async (...passwords: string[]) =>
          Promise.all(passwords.map(async password => (await auth.logIn(username, password)).status))

        expect(await auth.confirm(first.token), order.join()).to.include({ status: 401 })
        expect(await auth.confirm(last.token), 'it does not confirm by itself').to.include({ status: 401 })
        expect(await statusesOf(typed.owner, typed.stranger), order.join()).to.deep.equal([401, 401])

        const chosen = freshPassword()
        expect(await auth.reset(last.token, chosen)).to.include({ status: 204 })
        expect(await statusesOf(typed.owner, typed.stranger, chosen), order.join()).to.deep.equal([401, 401, 200])
      }
    })

    it('activates the password of its own registration, if there was one only', async () => {
      const [username, password] = [freshAddress(), freshPassword()]
      await auth.register(username, password)
      expect(await auth.confirm((await server.next(username)).token)).to.include({ status: 204 })
      expect(await auth.logIn(username, password)).to.include({ status: 200 })
    })

    it('asks for a password again on demand, if the address was registered more than once', async () => {
      const username = freshAddress()
      for (const password of [freshPassword(), freshPassword()]) {
        await auth.register(username, password)
        await server.next(username)
      }
      expect(await auth.resend(username)).to.deep.equal(accepted)
      const { token, link } = await server.next(username)
      expect(link).to.include('#reset=')
      const chosen = freshPassword()
      expect(await auth.reset(token, chosen)).to.include({ status: 204 })
      expect(await auth.logIn(username, chosen)).to.include({ status: 200 })
    })

    for (const scheme of ['sqlite', 'postgres', 'redis'] as const) {
      it(`activates no password if two Auths register the address, with ${scheme}`, async () => {
        const [userPlace, tokenPlace] = [
          await freshPlace(scheme === 'redis' ? 'sqlite' : scheme),
          await freshPlace(scheme),
        ]
        places.push(userPlace, tokenPlace)
        const env = {
          SMTP_URL: server.url,
          EMAIL_CONFIRMATION: 'required',
          USER_STORE_URL: userPlace.url,
          TOKEN_STORE_URL: tokenPlace.url,
        }
        const [here, there] = [await startMailingAuth(env), await startMailingAuth(env)]
        const [username, owner, stranger] = [freshAddress(), freshPassword(), freshPassword()]
        await here.register(username, owner)
        const first = await server.next(username)
        await there.register(username, stranger)
        const last = await server.next(username)
        expect(await here.confirm(first.token)).to.include({ status: 401 })
        expect(await here.confirm(last.token)).to.include({ status: 401 })
        const chosen = freshPassword()
        expect(await here.reset(last.token, chosen)).to.include({ status: 204 })
        const statuses = [owner, stranger, chosen].map(async password => (await there.logIn(username, password)).status)
        expect(await Promise.all(statuses)).to.deep.equal([401, 401, 200])
      })
    }

    it('never leaves the password of who registers again on an account that is confirmed meanwhile', async () => {
      const outcomes: Record<string, object> = {}
      for (const act of ['confirm', 'reset'] as const) {
        for (const moment of ['findById', 'update'] as const) {
          const { users, userStore, add, register, logIn } = await openAccounts(server.url)
          const [username, stranger, chosen] = [freshAddress(), freshPassword(), freshPassword()]
          const id = await add(username, { confirmed: false })
          const owner = act === 'confirm' ? 'CANARY-PW-before' : chosen
          const before = userStore[moment] as (...args: unknown[]) => Promise<unknown>
          const meanwhile = async (...args: unknown[]) => {
            Object.assign(userStore, { [moment]: before })
            if (act === 'confirm') expect(await users.confirm(id, 1)).to.equal(true)
            else await users.resetPassword({ id, credentialVersion: 1 }, chosen, { address: '192.0.2.1' })
            return before(...args)
          }
          Object.assign(userStore, { [moment]: meanwhile })
          expect(await register(username, stranger)).to.deep.equal(accepted)
          const subject = (await server.next(username)).headers.get('subject')
          const statuses = [(await logIn(username, owner)).status, (await logIn(username, stranger)).status]
          outcomes[`${act} before ${moment}`] = { subject, statuses }
        }
      }
      const ownersStill = { subject: 'You have an account already', statuses: [200, 401] }
      expect(outcomes).to.deep.equal({
        'confirm before findById': ownersStill,
        // Too late: the link asks for a password of the owner of the mailbox.
        'confirm before update': { subject: 'Choose a password', statuses: [401, 401] },
        'reset before findById': ownersStill,
        'reset before update': ownersStill,
      })
    })

    it('is sent again on demand, and kills the older one', async () => {
      const username = freshAddress()
      await auth.register(username, freshPassword())
      const old = await server.next(username)
      expect(await auth.resend(username)).to.deep.equal(accepted)
      const last = await server.next(username)
      expect(await auth.confirm(old.token)).to.include({ status: 401 })
      expect(await auth.confirm(last.token)).to.include({ status: 204 })
    })

    it('is not sent again to who is confirmed or unknown', async () => {
      const { username } = await registerConfirmed()
      const [unknown, unconfirmed] = [freshAddress('unknown'), freshAddress()]
      await auth.register(unconfirmed, freshPassword())
      await server.next(unconfirmed)
      for (const name of [username, unknown, unconfirmed]) expect(await auth.resend(name)).to.deep.equal(accepted)
      await server.next(unconfirmed) // it was asked for last and is there
      expect(mailsTo(username)).to.have.length(1)
      expect(mailsTo(unknown)).to.have.length(0)
    })

    it('of one who registers several times at once leaves exactly one link good, and no password', async () => {
      const username = freshAddress()
      const attempts = Array.from({ length: 5 }, freshPassword)
      await Promise.all(attempts.map(password => auth.register(username, password)))
      await auth.forgot(freshAddress('unknown')) // a turn later all that those had to do is done, but for the mails
      const good = await until(async () => {
        const good: string[] = []
        for (const { token } of mailsTo(username)) if (await isGoodFor('reset', token)) good.push(token)
        return good.length > 0 ? good : null
      })
      expect(good).to.have.length(1)
      for (const { token } of mailsTo(username)) expect(await isGoodFor('confirm', token)).to.equal(false)
      const chosen = freshPassword()
      expect(await auth.reset(good[0] as string, chosen)).to.include({ status: 204 })
      const passwords = [...attempts, chosen]
      const statuses = await Promise.all(passwords.map(async password => (await auth.logIn(username, password)).status))
      expect(statuses).to.deep.equal([401, 401, 401, 401, 401, 200])
    })
  })

  describe('to reset a password', () => {
    it('sets a new one, once: every session ends, the old password is dead, and a mail tells', async () => {
      const { username, password } = await registerConfirmed()
      const sessions = [await auth.session(username, password), await auth.session(username, password)]
      const token = await mailedResetToken(username)
      const chosen = freshPassword()
      expect(await auth.reset(token, chosen)).to.deep.equal({ status: 204, text: '' })
      for (const session of sessions) expect(await auth.isSession(session)).to.equal(false)
      expect(await auth.logIn(username, password)).to.include({ status: 401 })
      expect(await auth.logIn(username, chosen)).to.include({ status: 200 })
      const mail = await server.next(username)
      expect(mail.headers.get('subject')).to.equal('Your password was changed')
      expect(mail).to.include({ link: '', token: '' })
      expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
      expect(await auth.reset(token, chosen)).to.include({ status: 401 })
      expect(await auth.logIn(username, chosen)).to.include({ status: 200 })
    })

    it('is a link that begins with PUBLIC_URL', async () => {
      await auth.forgot(demo.username)
      const { link } = await server.next(demo.username)
      expect(link).to.match(/^https:\/\/accounts\.example\/auth\/account#reset=lk_\w{63}$/)
    })

    it('is sent to nobody for an unknown user, with the same answer', async () => {
      const { username } = await registerConfirmed()
      const unknown = freshAddress('unknown')
      expect(await auth.forgot(unknown)).to.deep.equal(accepted)
      await mailedResetToken(username) // it was asked for later and is there
      expect(mailsTo(unknown)).to.have.length(0)
    })

    it('is not sent to a user who may not log in', async () => {
      const { add, forgot } = await openAccounts(server.url)
      const [disabled, other] = [freshAddress(), freshAddress()]
      await add(disabled, { disabled: true })
      await add(other)
      for (const username of [disabled, other]) expect(await forgot(username)).to.deep.equal(accepted)
      await server.next(other) // it was asked for last and is there
      expect(mailsTo(disabled)).to.have.length(0)
    })

    it('confirms the address too: whoever holds it has read the mail', async () => {
      const [username, chosen] = [freshAddress(), freshPassword()]
      await auth.register(username, freshPassword())
      await server.next(username)
      expect(await auth.reset(await mailedResetToken(username), chosen)).to.include({ status: 204 })
      expect(await auth.logIn(username, chosen)).to.include({ status: 200 })
    })

    it('is good for one of twenty that come at once with different passwords, and that one is set', async () => {
      const { add, forgot, reset, logIn, slow } = await openAccounts(server.url)
      const username = freshAddress()
      await add(username)
      await forgot(username)
      const { token } = await server.next(username)
      const attempts = Array.from({ length: 20 }, freshPassword)
      slow.add('update') // all twenty have looked by then
      const statuses = await Promise.all(attempts.map(async password => (await reset(token, password)).status))
      expect(statuses.toSorted()).to.deep.equal([204, ...Array(19).fill(401)])
      const logIns = await Promise.all(attempts.map(async password => (await logIn(username, password)).status))
      expect(logIns.map(status => (status === 200 ? 204 : 401))).to.deep.equal(statuses)
    })

    it('is dead once a newer one was sent', async () => {
      const { username } = await registerConfirmed()
      const old = await mailedResetToken(username)
      const last = await mailedResetToken(username)
      expect(await auth.reset(old, freshPassword())).to.include({ status: 401 })
      expect(await auth.reset(last, freshPassword())).to.include({ status: 204 })
    })

    it('is good for exactly one of five that were asked for at once', async () => {
      const { username } = await registerConfirmed()
      await Promise.all(Array.from({ length: 5 }, () => auth.forgot(username)))
      const tokens: string[] = []
      for (let i = 0; i < 5; i++) tokens.push((await server.next(username)).token)
      expect(new Set(tokens).size).to.equal(5)
      const good: boolean[] = []
      for (const token of tokens) good.push(await isGoodFor('reset', token))
      expect(good.filter(Boolean)).to.have.length(1)
      for (const [i, token] of tokens.entries()) {
        if (!good[i]) expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
      }
      expect(await auth.reset(tokens[good.indexOf(true)] as string, freshPassword())).to.include({ status: 204 })
    })

    it('is dead after 30 minutes, to the millisecond', async () => {
      const { username } = await registerConfirmed()
      const token = await mailedResetToken(username)
      clock.advance(linkTtlMs - 1)
      expect(await isGoodFor('reset', token)).to.equal(true)
      clock.advance(1)
      expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
    })

    it('is still good after a password that breaks a rule, which is named', async () => {
      const { username, password } = await registerConfirmed()
      const token = await mailedResetToken(username)
      const short = await auth.reset(token, 'short')
      expect(short).to.include({ status: 400 })
      expect(JSON.parse(short.text).detail).to.include('password: expected at least 15 characters')
      const common = await auth.reset(token, 'password12345678')
      expect(common, common.text).to.include({ status: 400 })
      expect(await auth.reset(token, username)).to.include({ status: 400 })
      expect(await auth.logIn(username, password)).to.include({ status: 200 })
      expect(await auth.reset(token, freshPassword())).to.include({ status: 204 })
    })

    it('is dead once the password was changed otherwise, and a mail tells of that change too', async () => {
      const { username, password } = await registerConfirmed()
      const token = await mailedResetToken(username)
      const [bearer, chosen] = [await auth.session(username, password), freshPassword()]
      const body = { currentPassword: password, password: chosen }
      expect(await ask('PATCH', `${auth.url}/users/me`, { bearer, body })).to.include({ status: 200 })
      expect((await server.next(username)).headers.get('subject')).to.equal('Your password was changed')
      expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
      expect(await auth.logIn(username, chosen)).to.include({ status: 200 })
    })

    it('is dead once all sessions of the user were ended by an operator', async () => {
      const { username } = await registerConfirmed()
      const token = await mailedResetToken(username)
      const url = `${auth.internalUrl}/admin/users/${await userIdOf(username)}/sessions`
      expect(await ask('DELETE', url, { bearer: adminKey })).to.include({ status: 204 })
      expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
    })

    it('changes the one user it was sent to, never his namesake who came after him', async () => {
      const [one, other] = [await registerConfirmed(), await registerConfirmed()]
      const token = await mailedResetToken(one.username)
      const late = await mailedResetToken(other.username)
      const chosen = freshPassword()
      expect(await auth.reset(token, chosen)).to.include({ status: 204 })
      expect(await auth.logIn(other.username, chosen)).to.include({ status: 401 })
      expect(await auth.logIn(other.username, other.password)).to.include({ status: 200 })
      const gone = `${auth.internalUrl}/admin/users/${await userIdOf(other.username)}`
      expect(await ask('DELETE', gone, { bearer: adminKey })).to.include({ status: 204 })
      const namesake = await registerConfirmed(other.username)
      expect(await auth.reset(late, freshPassword())).to.include({ status: 401 })
      expect(await auth.logIn(namesake.username, namesake.password)).to.include({ status: 200 })
    })

    it('may also be issued by an operator, as a token of any kind, and is good once', async () => {
      const { username } = await registerConfirmed()
      const userId = await userIdOf(username)
      for (const kind of ['single-use', 'fixed', 'sliding']) {
        const token = await issue({ kind, purpose: 'reset', userId, ttlSeconds: 3600 })
        const chosen = freshPassword()
        expect(await auth.reset(token, chosen), kind).to.include({ status: 204 })
        expect(await auth.logIn(username, chosen), kind).to.include({ status: 200 })
        expect(await auth.reset(token, freshPassword()), kind).to.include({ status: 401 })
      }
      const guest = await issue({ kind: 'single-use', purpose: 'reset', ttlSeconds: 3600 })
      expect(await auth.reset(guest, freshPassword())).to.include({ status: 401 })
    })
  })

  describe('carries a token that', () => {
    let business: Awaited<ReturnType<typeof startBusiness>>
    before(async () => {
      business = await startBusiness(auth.internalUrl)
    })

    async function expectOpensNothingElse(token: string, purpose: string, other: string): Promise<void> {
      const calls = [
        ['GET', `${business.url}/data`],
        ['GET', `${auth.url}/users/me`],
        ['DELETE', `${auth.url}/users/me`],
        ['GET', `${auth.url}/sessions`],
        ['DELETE', `${auth.url}/sessions`],
        ['POST', `${auth.url}/renew`],
        ['POST', `${auth.url}/logout`],
      ] as const
      for (const [method, url] of calls) {
        expect(await ask(method, url, { bearer: token }), `${method} ${url}`).to.include({ status: 401 })
      }
      expect(await isGoodFor(undefined, token)).to.equal(false)
      expect(await isGoodFor(other, token)).to.equal(false)
      expect(await isGoodFor(purpose, token)).to.equal(true)
    }

    it('confirms, and opens nothing else', async () => {
      const username = freshAddress()
      await auth.register(username, freshPassword())
      const { token } = await server.next(username)
      await expectOpensNothingElse(token, 'confirm', 'reset')
      expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
      expect(await auth.confirm(token)).to.include({ status: 204 })
    })

    it('resets, and opens nothing else', async () => {
      const username = freshAddress()
      await auth.register(username, freshPassword())
      await server.next(username)
      const token = await mailedResetToken(username)
      await expectOpensNothingElse(token, 'reset', 'confirm')
      expect(await auth.confirm(token)).to.include({ status: 401 })
      expect(await auth.reset(token, freshPassword())).to.include({ status: 204 })
    })

    it('is no session: a session neither confirms nor resets, nor does a token without a purpose', async () => {
      const { username, password } = await registerConfirmed()
      const session = await auth.session(username, password)
      const userId = await userIdOf(username)
      const tokens = [session, await issue({ kind: 'single-use', userId, ttlSeconds: 60 })]
      for (const token of [...tokens, 'junk', `lk_${'a'.repeat(63)}`, '\0', '\u{1f511}']) {
        expect(await auth.confirm(token), token).to.include({ status: 401 })
        expect(await auth.reset(token, freshPassword()), token).to.include({ status: 401 })
      }
      expect(await auth.isSession(session)).to.equal(true)
    })
  })

  it('carries a JWT where tokens are JWTs', async () => {
    const key = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
    const TOKEN_KEYS = JSON.stringify({ keys: [{ ...key, alg: 'EdDSA', kid: 'one' }] })
    const env = { SMTP_URL: server.url, EMAIL_CONFIRMATION: 'required', TOKEN_FORMAT: 'jwt', TOKEN_KEYS }
    const { register, confirm, forgot, reset, logIn } = await startMailingAuth(env)
    const [username, chosen] = [freshAddress(), freshPassword()]
    await register(username, freshPassword())
    const { token } = await server.next(username)
    expect(token).to.match(/^eyJ[\w-]+\.[\w-]+\.[\w-]+$/)
    expect(await confirm(token)).to.include({ status: 204 })
    expect(await confirm(token)).to.include({ status: 401 })
    await forgot(username)
    const link = await server.next(username)
    expect(await confirm(link.token)).to.include({ status: 401 })
    expect(await reset(link.token, chosen)).to.include({ status: 204 })
    expect(await reset(link.token, chosen)).to.include({ status: 401 })
    expect(await logIn(username, chosen)).to.include({ status: 200 })
  })

  it('links to PUBLIC_URL, whatever Host a request claims', async () => {
    const own = await openMailServer()
    const { url, add } = await openAccounts(own.url)
    const username = freshAddress()
    await add(username)
    const body = JSON.stringify({ username })
    const requests = [
      'Host: evil.example',
      'Host: evil@accounts.example',
      'Host: accounts.example@evil.example',
      'Host: accounts.example:666',
      'Host: a\r\nX-Forwarded-Host: evil.example',
      'Host: a\r\nX-Forwarded-Proto: evil\r\nX-Forwarded-Port: 666\r\nX-Forwarded-Prefix: /evil',
      'Host: a\r\nForwarded: host=evil.example;proto=evil',
      'Host: a\r\nX-Original-URL: https://evil.example\r\nX-Host: evil.example\r\nOrigin: https://evil.example',
      'Host: a\r\nReferer: https://evil.example/',
    ].map(headers => `POST /password/forgot HTTP/1.1\r\n${headers}`)
    requests.push('POST http://evil.example/password/forgot HTTP/1.1\r\nHost: evil.example')
    const rest = `Connection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    for (const request of requests) {
      expect(await sendRaw(url, `${request}\r\n${rest}`, 5000), request).to.include({ status: 202 })
      const mail = await own.next(username)
      expect(mail.link, request).to.match(/^https:\/\/accounts\.example\/auth\/account#reset=\w+$/)
      // Without what is random: three sixes in a row are in one of some thousand tokens.
      const random = /#reset=\w+|<[^<>@\s]+@/g
      expect(JSON.stringify([...mail.headers, mail.text]).replace(random, ''), request).to.not.match(/evil|666/)
    }
  })

  describe('goes to exactly one mailbox:', () => {
    it('whoever chooses a username that is anything else is told 400', async () => {
      const own = await openMailServer()
      for (const EMAIL_CONFIRMATION of ['required', 'off']) {
        const { register, forgot, resend } = await startMailingAuth({ SMTP_URL: own.url, EMAIL_CONFIRMATION })
        for (const username of hostileUsernames) {
          const { status, text } = await register(username, freshPassword())
          expect(status, JSON.stringify(username)).to.equal(400)
          expect(JSON.parse(text).detail).to.match(/^username: /)
          expect(await forgot(username), JSON.stringify(username)).to.deep.equal(accepted)
          expect(await resend(username), JSON.stringify(username)).to.deep.equal(accepted)
        }
        await forgot(demo.username)
        await own.next(demo.username) // it was asked for last and is there
      }
      expect(own.recipientLines).to.deep.equal(Array(2).fill(`RCPT TO:<${demo.username}>`))
    })

    it('what turns out to be more or less than one is never read as another', async () => {
      const own = await startMailServer()
      const told: MailEvent[] = []
      const observe = (event: MailEvent) => told.push(event)
      const mailer = openSmtpMailer({ url: own.url, from: sender, tls: 'required', retryDelaysMs: [], observe })
      mailers.push(mailer)
      const bare = (address: string) => address.replace(/[\s\0"\\<>]/g, '').toLowerCase()
      const ascii = hostileUsernames.filter(username => !/[\x80-\u2000]/.test(username))
      for (const [i, to] of ascii.entries()) {
        mailer.send({ userId: `${i}`, address: '192.0.2.1', to, subject: 'a subject', text: 'a text' })
        await until(() => told.length === i + 1)
        const lines = own.recipientLines.splice(0)
        expect(lines, JSON.stringify(to)).to.have.length.at.most(1)
        // Quoted, trimmed, or refused by the server: it is still the whole of what was given.
        for (const line of lines) expect(bare(line.replace(/^RCPT TO:<(.*)>$/s, '$1'))).to.equal(bare(to))
      }
    })

    it('a username that becomes an address once normalised is that address', async () => {
      const address = freshAddress()
      for (const typed of [address.toUpperCase(), address.replace('@', '\uff20'), address.replace('s', '\u017f')]) {
        expect(await auth.register(typed, freshPassword()), typed).to.deep.equal(accepted)
        expect((await server.next(address)).headers.get('to')).to.equal(address)
        expect(server.recipientLines).to.include(`RCPT TO:<${address}>`)
      }
    })

    it('a user who was called otherwise before there was mail gets none, and keeps the link an operator gave him', async () => {
      const own = await openMailServer()
      const { add, forgot, resend, userStore, tokens, reset, told } = await openAccounts(own.url)
      const given: string[] = []
      for (const [i, username] of hostileUsernames.entries()) {
        await userStore.insert({
          id: `hostile-${i}`,
          username,
          passwordHash: 'CANARY-PW-none',
          credentialVersion: 1,
          endedVersion: 1,
          createdAt: 0,
          confirmedAt: i % 2 === 0 ? 0 : null,
          disabledAt: null,
          deletedAt: null,
        })
        const owner = { id: `hostile-${i}`, username, credentialVersion: 1 }
        const ttl = { ttlMs: 60_000, absoluteTtlMs: 60_000 }
        const issued = await tokens.issue({ kind: 'single-use', purpose: 'reset', owner, login: null, ...ttl })
        given.push(issued?.secret as string)
        expect(await forgot(username), JSON.stringify(username)).to.deep.equal(accepted)
        expect(await resend(username), JSON.stringify(username)).to.deep.equal(accepted)
      }
      const address = freshAddress()
      await add(address)
      await forgot(address)
      await own.next(address) // it was asked for last and is there
      expect(own.recipientLines).to.deep.equal([`RCPT TO:<${address}>`])
      for (const token of given) expect(await reset(token, freshPassword())).to.include({ status: 204 })
      expect(told('mail_lost')).to.deep.equal([])
    })
  })

  describe('by a server that', () => {
    const faults: [name: string, open: () => Promise<string>][] = [
      ['is not there', refusingUrl],
      ['never says a word', () => startBadMailServer(() => {})],
      ['hangs up', () => startBadMailServer(socket => socket.end())],
      ['resets', () => startBadMailServer(socket => socket.resetAndDestroy())],
      ['drips', () => startBadMailServer(drip)],
      ['greets with 421', async () => (await openMailServer({ refusal: onConnect('421 4.3.2 closing') })).url],
      ['greets with 554', async () => (await openMailServer({ refusal: onConnect('554 5.3.2 no service') })).url],
      ['takes half a second', async () => (await openMailServer({ delayMs: 500 })).url],
      ['has a certificate that nobody vouches for', async () => (await openMailServer({ tls: 'demanded' })).url],
    ]
    const onConnect = (answer: string) => (step: string) => (step === 'connect' ? answer : null)

    /** Greets, and then says a little now and then for ever. */
    function drip(socket: Socket): void {
      socket.write('220 slow\r\n')
      const timer = setInterval(() => socket.write('250-and so on\r\n'), 50)
      socket.once('close', () => clearInterval(timer))
    }

    for (const [name, open] of faults) {
      it(`${name} holds up no answer`, async () => {
        const { url, add } = await openAccounts(await open())
        const [known, unconfirmed] = [freshAddress(), freshAddress()]
        await add(known)
        await add(unconfirmed, { confirmed: false })
        const calls = [
          ['/users', { username: freshAddress(), password: freshPassword() }],
          ['/users', { username: known, password: freshPassword() }],
          ['/users/confirm/resend', { username: unconfirmed }],
          ['/password/forgot', { username: known }],
        ] as const
        const seen = new Set<string>()
        for (const [path, body] of calls) {
          const startedAt = performance.now()
          seen.add(await bytesOf(url, path, body))
          expect(performance.now() - startedAt, path).to.be.below(1500)
        }
        expect([...seen].join()).to.match(/^HTTP\/1\.1 202 Accepted\r\n.*\{"status":"accepted"\}$/s)
        expect(seen.size).to.equal(1)
      })
    }

    for (const answer of ['421 4.3.2 closing', '450 4.2.0 greylisted', '452 4.2.2 full']) {
      for (const at of ['to', 'mail'] as const) {
        it(`says ${answer.slice(0, 3)} to ${at === 'to' ? 'a recipient' : 'a mail'} once gets it again, and delivers it once`, async () => {
          let refusals = 0
          const refusing = await openMailServer({
            refusal: step => (step === at && refusals++ === 0 ? answer : null),
          })
          const { add, forgot, reset, event, told } = await openAccounts(refusing.url)
          const username = freshAddress()
          await add(username)
          await forgot(username)
          const { token } = await refusing.next(username)
          expect(await event('mail_sent')).to.deep.include({ tries: 2 })
          expect(await reset(token, freshPassword())).to.include({ status: 204 })
          await refusing.next(username) // that it was changed: nothing came between
          expect(refusing.mails).to.have.length(2)
          expect(told('mail_lost')).to.deep.equal([])
        })
      }
    }

    it('says no for a while loses the mail after the last try, each later than the one before, and it is told', async () => {
      const refusedAt: number[] = []
      const refusing = await openMailServer({
        refusal(step) {
          if (step !== 'to') return null
          refusedAt.push(performance.now())
          return '450 4.2.0 later'
        },
      })
      const { add, forgot, event } = await openAccounts(refusing.url, { retryDelaysMs: [50, 200] })
      const username = freshAddress()
      const userId = await add(username)
      await forgot(username)
      expect(await event('mail_lost')).to.deep.include({ userId, tries: 3 })
      const [first = 0, second = 0, third = 0] = refusedAt
      expect(refusedAt).to.have.length(3)
      expect(second - first).to.be.at.least(45)
      expect(third - second).to.be.at.least(195)
    })

    it('is away for a moment gets the mail when it is back', async () => {
      let connections = 0
      const url = await startBadMailServer(socket => {
        // A server that is being restarted: the first connections end at once, the next reach the real one.
        if (++connections <= 2) return void socket.resetAndDestroy()
        const { hostname, port } = new URL(server.url)
        const onward = connect(Number(port), hostname)
        onward.on('error', () => {})
        socket.pipe(onward).pipe(socket)
      })
      const { add, forgot, event } = await openAccounts(url)
      const username = freshAddress()
      await add(username)
      await forgot(username)
      expect((await server.next(username)).token).to.match(/^lk_/)
      expect(await event('mail_sent'))
        .to.have.property('tries')
        .that.is.above(1)
    })

    for (const at of ['to', 'mail'] as const) {
      it(`says 550 to ${at === 'to' ? 'a recipient' : 'a mail'} is not asked again, and what it says is not logged`, async () => {
        let refusals = 0
        const refusing = await openMailServer({
          refusal(step, { to, text }) {
            if (step !== at) return null
            refusals++
            const excerpt = /\S*account#\S*/.exec(text)?.[0] ?? 'nothing'
            return `550 5.1.1 <${to}>: Recipient address rejected: ${excerpt}`
          },
        })
        const { add, forgot, event, lines } = await openAccounts(refusing.url)
        const username = freshAddress()
        const userId = await add(username)
        await forgot(username)
        expect(await event('mail_lost')).to.deep.include({ userId, tries: 1 })
        expect(refusals).to.equal(1)
        const line = lines.find(line => line.event === 'mail_lost')
        expect(line).to.include({ level: 'warn', userId, tries: 1 })
        // What the operator needs: the codes of RFC 5321 and RFC 3463.
        expect(JSON.stringify(line)).to.include('550').and.include('5.1.1')
        expect(JSON.stringify(lines)).to.not.include(username.split('@')[0])
        expect(JSON.stringify(lines)).to.not.match(/account#|lk_|Recipient/)
      })
    }

    for (const tls of ['demanded', 'offered'] as const) {
      it(`has a certificate that nobody vouches for gets nothing, where TLS is ${tls}`, async () => {
        const untrusted = await openMailServer({ tls })
        const { add, forgot, event, lines } = await openAccounts(untrusted.url)
        const username = freshAddress()
        await add(username)
        await forgot(username)
        expect(await event('mail_lost')).to.deep.include({ tries: 3 })
        expect(JSON.stringify(lines.find(line => line.event === 'mail_lost'))).to.match(/certificate/)
        expect(untrusted.mails).to.deep.equal([])
      })
    }

    describe('and is on another machine', () => {
      // The name of every address of this machine: it is reached over loopback, and is no name of loopback.
      const elsewhere = (url: string, login = '') => url.replace('127.0.0.1', `${login}0.0.0.0`)

      it('gets no mail in the clear, unless SMTP_TLS is optional', async () => {
        for (const tls of ['required', 'optional'] as const) {
          const plain = await openMailServer()
          const { add, forgot, event } = await openAccounts(elsewhere(plain.url), { tls })
          const username = freshAddress()
          await add(username)
          await forgot(username)
          if (tls === 'optional') {
            await event('mail_sent')
            expect((await plain.next(username)).token).to.match(/^lk_/)
          } else {
            const { cause } = await event('mail_lost')
            expect(cause.message).to.include('TLS')
            expect(plain.mails).to.have.length(0)
          }
        }
      })

      it('gets no password in the clear, whatever SMTP_TLS says', async () => {
        const login = { user: 'me', password: 'CANARY-smtp' }
        const plain = await openMailServer({ login })
        const url = elsewhere(plain.url, `${login.user}:${login.password}@`)
        const { add, forgot, event } = await openAccounts(url, { tls: 'optional' })
        const username = freshAddress()
        await add(username)
        await forgot(username)
        await event('mail_lost')
        expect(plain.mails).to.have.length(0)
      })
    })

    it('wants a name and a password gets those of SMTP_URL, whatever characters they are of', async () => {
      const login = { user: 'mail@users.example', password: 'CANARY-PW/%:@ü' }
      const asking = await openMailServer({ login })
      const url = (password: string) => {
        const whole = new URL(asking.url)
        Object.assign(whole, { username: encodeURIComponent(login.user), password: encodeURIComponent(password) })
        return whole.href
      }
      const right = await openAccounts(url(login.password))
      const username = freshAddress()
      await right.add(username)
      await right.forgot(username)
      await asking.next(username)

      const wrong = await openAccounts(url('CANARY-PW-wrong'))
      await wrong.add(username)
      await wrong.forgot(username)
      expect(await wrong.event('mail_lost')).to.deep.include({ tries: 1 })
      expect(asking.mails).to.have.length(1)
    })

    it('drips for ever is given up', async () => {
      const { add, forgot, event } = await openAccounts(await startBadMailServer(drip), {
        retryDelaysMs: [],
        tryTimeoutMs: 200,
      })
      const username = freshAddress()
      await add(username)
      await forgot(username)
      expect(await event('mail_lost')).to.deep.include({ tries: 1 })
    })
  })

  describe('that waits', () => {
    let clients = 0
    const mail = (userId: string) => {
      const address = `198.51.${clients >> 8}.${clients++ & 255}`
      return { userId, address, to: freshAddress(), subject: 'a subject', text: 'a text' }
    }
    const open = (url: string) => {
      const events: MailEvent[] = []
      const mailer = openSmtpMailer({ url, from: sender, tls: 'required', observe: event => events.push(event) })
      mailers.push(mailer)
      return { mailer, events, ofType: (type: string) => events.filter(event => event.type === type) }
    }

    it('is at most 1000: one more is lost at once, and told', async () => {
      const { mailer, events } = open(await refusingUrl())
      for (let i = 0; i < 1100; i++) mailer.send(mail(`user-${i}`))
      expect(events).to.have.length(100)
      for (const [i, event] of events.entries()) {
        expect(event).to.deep.include({ type: 'mail_lost', userId: `user-${1000 + i}`, tries: 0 })
      }
      await mailer.close()
      expect(new Set(events.map(event => event.userId)).size).to.equal(1100)
      expect(events).to.have.length(1100)
    })

    it('is at most ten for one user, and a hundred for one network: one more is lost at once, and told', async () => {
      const { mailer, events } = open(await refusingUrl())
      const lost = () => events.splice(0).map(({ userId }) => userId)
      for (let i = 0; i < 12; i++) mailer.send(mail('busy'))
      expect(lost()).to.deep.equal(['busy', 'busy'])
      const from = (address: string, userId: string) => mailer.send({ ...mail(userId), address })
      for (let i = 0; i < 102; i++) from(`2001:db8::${i.toString(16)}`, `user-${i}`)
      expect(lost()).to.deep.equal(['user-100', 'user-101'])
      from('192.0.2.1', 'user-102')
      expect(lost()).to.deep.equal([])
      await mailer.close()
    })

    it('is sent in turn with those of other networks, not behind all that one network asked for', async () => {
      const slow = await openMailServer({ delayMs: 20 })
      const { mailer, events } = open(slow.url)
      for (let i = 0; i < 30; i++) mailer.send({ ...mail(`user-${i}`), address: '203.0.113.66' })
      mailer.send({ ...mail('victim'), address: '192.0.2.1' })
      await until(() => events.length === 31)
      const at = events.findIndex(({ userId }) => userId === 'victim')
      expect(at).to.be.below(6) // two are under way, and two turns later it is sent
      expect(events.every(({ type }) => type === 'mail_sent')).to.equal(true)
    })

    it('is told as lost within 3.5 s where the server hangs when all ends, however many there are', async () => {
      const { mailer, events } = open(await startBadMailServer(() => {}))
      for (let i = 0; i < 20; i++) mailer.send(mail(`user-${i}`))
      const startedAt = performance.now()
      await mailer.close()
      expect(performance.now() - startedAt).to.be.below(3500)
      expect(events.map(event => event.type)).to.deep.equal(Array(20).fill('mail_lost'))
      expect(new Set(events.map(event => event.userId)).size).to.equal(20)
    })

    it('for its next try is tried once more when all ends, and told', async () => {
      let ended = 0
      const url = await startBadMailServer(socket => {
        socket.resume().once('close', () => ended++)
        socket.end('421 4.3.2 closing\r\n')
      })
      const { mailer, events } = open(url) // the next try would be a second later
      mailer.send(mail('patient'))
      await until(() => ended === 1)
      const startedAt = performance.now()
      await mailer.close()
      expect(performance.now() - startedAt).to.be.below(900)
      expect(events).to.have.length(1)
      expect(events[0]).to.deep.include({ type: 'mail_lost', userId: 'patient', tries: 2 })
    })

    it('is sent before all ends, where the server is well', async () => {
      const well = await openMailServer({ delayMs: 20 })
      const { mailer, ofType } = open(well.url)
      for (let i = 0; i < 20; i++) mailer.send(mail(`user-${i}`))
      await mailer.close()
      expect(well.mails).to.have.length(20)
      expect(ofType('mail_sent')).to.have.length(20)
    })

    it('is not taken any more once all has ended, and told', async () => {
      const { mailer, events } = open(server.url)
      await mailer.close()
      mailer.send(mail('late'))
      expect(events).to.have.length(1)
      expect(events[0]).to.deep.include({ type: 'mail_lost', userId: 'late', tries: 0 })
    })

    it('goes out again under the Message-ID it had: who got it twice sees it once', async () => {
      const ids: string[] = []
      let tries = 0
      const refusing = await openMailServer({
        refusal: step => (step === 'mail' && ++tries === 1 ? '451 4.3.0 later' : null),
      })
      const url = await startBadMailServer(socket => {
        const { hostname, port } = new URL(refusing.url)
        const onward = connect(Number(port), hostname)
        onward.on('error', () => {})
        socket.on('data', chunk => ids.push(...(String(chunk).match(/^Message-ID: .*$/gim) ?? [])))
        socket.pipe(onward).pipe(socket)
      })
      const { add, forgot } = await openAccounts(url)
      const username = freshAddress()
      await add(username)
      await forgot(username)
      await refusing.next(username)
      expect(ids).to.have.length(2)
      expect(ids[0]).to.equal(ids[1])
    })
  })

  describe('tells nobody whether there is an account:', () => {
    const samples = 60
    const writes = ['insert', 'update', 'endUser', 'findByUser', 'deleteById']

    async function openAll() {
      const slow = await openMailServer({ delayMs: 500 })
      const accounts = await openAccounts(slow.url)
      const names = {
        existing: freshAddress(),
        unconfirmed: freshAddress(),
        disabled: freshAddress(),
        'disabled and unconfirmed': freshAddress(),
      }
      await accounts.add(names.existing)
      await accounts.add(names.unconfirmed, { confirmed: false })
      await accounts.add(names.disabled, { disabled: true })
      await accounts.add(names['disabled and unconfirmed'], { confirmed: false, disabled: true })
      const classes: [name: string, username: () => string][] = [
        ['unknown', freshAddress],
        ...Object.entries(names).map(([name, username]): [string, () => string] => [name, () => username]),
      ]
      return { accounts, classes }
    }

    const paths = ['/users', '/users/confirm/resend', '/password/forgot']
    const bodyFor = (path: string, username: string) =>
      path === '/users' ? { username, password: freshPassword() } : { username }

    it('every answer is the same, to the byte', async () => {
      const { accounts, classes } = await openAll()
      for (const path of paths) {
        const seen = new Map<string, string>()
        for (const [name, username] of classes) {
          seen.set(name, await bytesOf(accounts.url, path, bodyFor(path, username())))
        }
        expect(parseAnswer([...seen.values()][0] as string).status, path).to.equal(202)
        for (const [name, bytes] of seen) expect(bytes, `${path} ${name}`).to.equal(seen.get('unknown'))
      }
    })

    for (const path of paths) {
      it(`POST ${path} takes the same time`, async () => {
        const { accounts, classes } = await openAll()
        for (const method of writes) accounts.slow.add(method) // that somebody waits for one would show
        let report = ''
        for (let attempt = 0; attempt < 3; attempt++) {
          const times = new Map<string, number[]>(classes.map(([name]) => [name, []]))
          for (let i = 0; i < samples; i++) {
            // What one leaves behind must not always fall to the same other.
            const order = classes.map(
              (_, at) => classes[(i + at * (1 + (i % 4))) % classes.length] as (typeof classes)[0],
            )
            for (const [name, username] of order) {
              const body = bodyFor(path, username())
              const startedAt = performance.now()
              await ask('POST', accounts.url + path, { body })
              times.get(name)?.push(performance.now() - startedAt)
            }
          }
          const medians = [...times].map(
            ([name, all]) => [name, all.toSorted((a, b) => a - b)[samples / 2] as number] as const,
          )
          const [least, most] = [Math.min(...medians.map(([, ms]) => ms)), Math.max(...medians.map(([, ms]) => ms))]
          report = medians.map(([name, ms]) => `${name} ${ms.toFixed(2)} ms`).join(', ')
          if (most - least <= 2 || most <= least * 1.3) return
        }
        throw new Error(`the times differ: ${report}`)
      })
    }
  })

  describe('whose making fails', () => {
    it('after the answer is told, and the next one goes out', async () => {
      const { add, register, resend, forgot, broken, event, told, url } = await openAccounts(server.url)
      const [known, unconfirmed] = [freshAddress(), freshAddress()]
      const knownId = await add(known)
      const unconfirmedId = await add(unconfirmed, { confirmed: false })
      broken.add('insert') // of users and of tokens
      expect(await register(freshAddress(), freshPassword())).to.deep.equal(accepted)
      expect(await event('link_not_sent')).to.include({ userId: null })
      expect(await resend(unconfirmed)).to.deep.equal(accepted)
      expect(await forgot(known)).to.deep.equal(accepted)
      await until(() => told('link_not_sent').length === 3)
      expect(told('link_not_sent').map(event => 'userId' in event && event.userId)).to.have.members([
        null,
        unconfirmedId,
        knownId,
      ])
      broken.clear()
      broken.add('findByUser') // the new link is there, the older ones are not ended
      expect(await forgot(known)).to.deep.equal(accepted)
      await until(() => told('link_not_sent').length === 4)
      broken.clear()
      expect(await forgot(known)).to.deep.equal(accepted)
      await server.next(known)
      expect(mailsTo(known)).to.have.length(1)
      expect(await ask('POST', `${url}/login`, { body: { username: known, password: 'CANARY-PW-before' } })).to.include(
        {
          status: 200,
        },
      )
    })

    it('after the answer to who registers again leaves him able to do so once more', async () => {
      const { add, register, reset, logIn, broken, event } = await openAccounts(server.url)
      const [username, password] = [freshAddress(), freshPassword()]
      await add(username, { confirmed: false })
      broken.add('endUser')
      expect(await register(username, freshPassword())).to.deep.equal(accepted)
      await event('link_not_sent')
      broken.clear()
      expect(await register(username, freshPassword())).to.deep.equal(accepted)
      expect(await reset((await server.next(username)).token, password)).to.include({ status: 204 })
      expect(await logIn(username, password)).to.include({ status: 200 })
    })

    it('before the answer is 503, for every username alike', async () => {
      const { add, register, resend, forgot, broken } = await openAccounts(server.url)
      const known = freshAddress()
      await add(known)
      broken.add('findByUsername')
      for (const username of [known, freshAddress()]) {
        expect(await register(username, freshPassword())).to.include({ status: 503 })
        expect(await resend(username)).to.include({ status: 503 })
        expect(await forgot(username)).to.include({ status: 503 })
      }
      broken.clear()
      expect(await forgot(known)).to.deep.equal(accepted)
      await server.next(known)
    })

    it('while a link is used is 503, and the same call completes it', async () => {
      const { add, resend, forgot, confirm, reset, logIn, broken, users } = await openAccounts(server.url)
      const username = freshAddress()
      const id = await add(username, { confirmed: false })
      await resend(username)
      const { token } = await server.next(username)
      for (const method of ['look', 'findById', 'update', 'touch']) {
        broken.add(method)
        expect(await confirm(token), method).to.include({ status: 503 })
        broken.clear()
      }
      expect(await confirm(token)).to.include({ status: 204 })
      expect((await users.find(id))?.confirmedAt).to.be.a('number')

      await forgot(username)
      const link = await server.next(username)
      const chosen = freshPassword()
      for (const method of ['look', 'findById', 'update', 'endUser']) {
        broken.add(method)
        expect(await reset(link.token, chosen), method).to.include({ status: 503 })
        broken.clear()
      }
      expect(await reset(link.token, chosen)).to.include({ status: 204 })
      expect(await reset(link.token, chosen)).to.include({ status: 401 })
      expect(await logIn(username, chosen)).to.include({ status: 200 })
    })
  })

  describe('where there is no SMTP_URL', () => {
    it('is logged with its link in development', async () => {
      const developing = await startAuth({ env: { NODE_ENV: 'development', EMAIL_CONFIRMATION: 'required' } })
      const { register, confirm, forgot, reset } = clientOf(developing.url)
      const logged = async (subject: string) => {
        const found = () => developing.lines.find(line => line.event === 'mail' && line['subject'] === subject)
        await until(found)
        return found() as LogLine
      }
      const username = freshAddress()
      await register(username, freshPassword())
      const line = await logged('Confirm your address')
      expect(line).to.include({ level: 'info', to: username })
      expect(await confirm(tokenIn(line, 'confirm'))).to.include({ status: 204 })
      await forgot(username)
      const chosen = freshPassword()
      expect(await reset(tokenIn(await logged('Choose a new password'), 'reset'), chosen)).to.include({ status: 204 })
      await logged('Your password was changed')
    })

    it('is off in production: 404 says why, users register without, operators still hand out links', async () => {
      const silent = await startAuth({ env: { NODE_ENV: 'production', REGISTRATION: 'open' } })
      logs.push(silent.lines)
      const { register, resend, forgot, reset, logIn } = clientOf(silent.url)
      for (const answer of [await forgot(freshAddress()), await resend(freshAddress())]) {
        expect(answer).to.include({ status: 404 })
        expect(JSON.parse(answer.text).detail).to.include('SMTP_URL is not set')
      }
      const [username, password, chosen] = ['somebody', freshPassword(), freshPassword()]
      const registered = await register(username, password)
      expect(registered).to.include({ status: 201 })
      const terms = { kind: 'single-use', purpose: 'reset', userId: JSON.parse(registered.text).id, ttlSeconds: 3600 }
      const issued = await ask('POST', `${silent.internalUrl}/tokens`, { bearer: adminKey, body: terms })
      const { token } = JSON.parse(issued.text)
      expect(await reset(token, chosen)).to.include({ status: 204 })
      expect(await reset(token, freshPassword())).to.include({ status: 401 })
      expect(await logIn(username, password)).to.include({ status: 401 })
      expect(await logIn(username, chosen)).to.include({ status: 200 })
    })

    const tokenIn = ({ text }: LogLine, purpose: string) =>
      new RegExp(`http://localhost:\\d+/account#${purpose}=(\\w+)\\n`).exec(String(text))?.[1] as string
  })

  it('that is set up by halves is refused at the start, and what is missing is named', () => {
    const problemsOf = (env: Environment): string[] => {
      try {
        readAuthConfig({ ...productionBase, ...env })
        return []
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error
        return error.problems.map(problem => problem.slice(0, problem.indexOf(':')))
      }
    }
    const whole = { SMTP_URL: 'smtp://mail.example', MAIL_FROM: sender, PUBLIC_URL: publicUrl }
    expect(problemsOf(whole)).to.deep.equal([])
    expect(problemsOf({ ...whole, EMAIL_CONFIRMATION: 'required' })).to.deep.equal([])
    expect(problemsOf({ EMAIL_CONFIRMATION: 'required' })).to.deep.equal(['EMAIL_CONFIRMATION'])
    expect(problemsOf({ SMTP_URL: whole.SMTP_URL })).to.deep.equal(['MAIL_FROM', 'PUBLIC_URL'])
    expect(problemsOf({ ...whole, MAIL_FROM: '' })).to.deep.equal(['MAIL_FROM'])
    expect(problemsOf({ ...whole, PUBLIC_URL: undefined })).to.deep.equal(['PUBLIC_URL'])
    expect(problemsOf({ ...whole, MAIL_FROM: `${sender}, other@mail.example` })).to.deep.equal(['MAIL_FROM'])
    expect(problemsOf({ ...whole, SMTP_URL: 'http://mail.example' })).to.deep.equal(['SMTP_URL'])
  })

  describe('of this whole file', () => {
    it('left no token and no password in a log', () => {
      const text = JSON.stringify(logs)
      expect(text).to.include('mail_sent').and.include('mail_lost').and.include('token_issued')
      expect(text).to.not.match(/CANARY-PW/)
      expect(text).to.not.match(/lk_[0-9A-Za-z]{14,}|eyJ[\w-]{14,}/)
      expect(text).to.not.match(/account#/)
    })

    it('went to addresses that are usernames, one at a time', () => {
      const lines = mailServers.flatMap(({ recipientLines }) => recipientLines)
      expect(lines).to.have.length.above(100)
      for (const line of lines) expect(line).to.match(/^RCPT TO:<([a-z]+-\d+@users|demo@example)\.(example|com)>$/)
      for (const { to } of mailServers.flatMap(({ mails }) => mails)) expect(to).to.have.length(1)
      expect(lines.join()).to.not.include('unknown-')
    })
  })
})
