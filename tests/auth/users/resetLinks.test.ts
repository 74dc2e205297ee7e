// How a user sets a new password by a link in a mail, and what the token of a link opens.
import { generateKeyPairSync } from 'node:crypto'
import { expect } from 'chai'
import { adminKey, demo } from '../../support/credentials.ts'
import { sendRaw } from '../../support/raw.ts'
import { startBusiness } from '../../support/servers.ts'
import {
  accepted,
  ask,
  auth,
  clock,
  describeMailLogs,
  freshAddress,
  freshPassword,
  isGoodFor,
  issue,
  linkTtlMs,
  mailedResetToken,
  mailsTo,
  openAccounts,
  openMailServer,
  registerConfirmed,
  server,
  startMailingAuth,
  useMail,
  userIdOf,
} from './mailSetup.ts'

describe('a link that resets a password', function () {
  this.slow(500)
  useMail()
  it('sets a new password, once: every session ends, the old password is refused, and a mail notifies the user', async () => {
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

  it('begins with PUBLIC_URL', async () => {
    await auth.forgot(demo.username)
    const { link } = await server.next(demo.username)
    expect(link).to.match(/^https:\/\/accounts\.example\/auth\/account#reset=lk_\w{63}$/)
  })

  it('is not sent for an unknown user, and the answer is the same', async () => {
    const { username } = await registerConfirmed()
    const unknown = freshAddress('unknown')
    expect(await auth.forgot(unknown)).to.deep.equal(accepted)
    await mailedResetToken(username) // requested later, so a mail to `unknown` would have arrived by now
    expect(mailsTo(unknown)).to.have.length(0)
  })

  it('is not sent to a disabled user', async () => {
    const { add, forgot } = await openAccounts(server.url)
    const [disabled, other] = [freshAddress(), freshAddress()]
    await add(disabled, { disabled: true })
    await add(other)
    for (const username of [disabled, other]) expect(await forgot(username)).to.deep.equal(accepted)
    await server.next(other) // requested last, so an earlier mail would have arrived by now
    expect(mailsTo(disabled)).to.have.length(0)
  })

  it('confirms the address too, because its holder has read the mail', async () => {
    const [username, chosen] = [freshAddress(), freshPassword()]
    await auth.register(username, freshPassword())
    await server.next(username)
    expect(await auth.reset(await mailedResetToken(username), chosen)).to.include({ status: 204 })
    expect(await auth.logIn(username, chosen)).to.include({ status: 200 })
  })

  it('works for one of twenty concurrent requests with different passwords, and sets that password', async () => {
    const { add, forgot, reset, logIn, slow } = await openAccounts(server.url)
    const username = freshAddress()
    await add(username)
    await forgot(username)
    const { token } = await server.next(username)
    const attempts = Array.from({ length: 20 }, freshPassword)
    slow.add('update') // so that all twenty requests read the token before the first update
    const statuses = await Promise.all(attempts.map(async password => (await reset(token, password)).status))
    expect(statuses.toSorted()).to.deep.equal([204, ...Array(19).fill(401)])
    const logIns = await Promise.all(attempts.map(async password => (await logIn(username, password)).status))
    expect(logIns.map(status => (status === 200 ? 204 : 401))).to.deep.equal(statuses)
  })

  it('ends when a newer one is sent', async () => {
    const { username } = await registerConfirmed()
    const old = await mailedResetToken(username)
    const last = await mailedResetToken(username)
    expect(await auth.reset(old, freshPassword())).to.include({ status: 401 })
    expect(await auth.reset(last, freshPassword())).to.include({ status: 204 })
  })

  it('works for exactly one of five links that are requested at once', async () => {
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

  it('expires after 30 minutes, to the millisecond', async () => {
    const { username } = await registerConfirmed()
    const token = await mailedResetToken(username)
    clock.advance(linkTtlMs - 1)
    expect(await isGoodFor('reset', token)).to.equal(true)
    clock.advance(1)
    expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
  })

  it('still works after an attempt with a password that breaks a rule, which the answer names', async () => {
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

  it('ends when the password is changed otherwise, and a mail reports that change too', async () => {
    const { username, password } = await registerConfirmed()
    const token = await mailedResetToken(username)
    const [bearer, chosen] = [await auth.session(username, password), freshPassword()]
    const body = { currentPassword: password, password: chosen }
    expect(await ask('PATCH', `${auth.url}/users/me`, { bearer, body })).to.include({ status: 200 })
    expect((await server.next(username)).headers.get('subject')).to.equal('Your password was changed')
    expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
    expect(await auth.logIn(username, chosen)).to.include({ status: 200 })
  })

  it('ends when an operator ends all sessions of the user', async () => {
    const { username } = await registerConfirmed()
    const token = await mailedResetToken(username)
    const url = `${auth.internalUrl}/admin/users/${await userIdOf(username)}/sessions`
    expect(await ask('DELETE', url, { bearer: adminKey })).to.include({ status: 204 })
    expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
  })

  it('changes only the user it was sent to, never a later user of the same name', async () => {
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

  it('can also be issued by an operator, as a token of any kind, and works once', async () => {
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

describe('the token of a link', function () {
  this.slow(500)
  useMail()
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

  it('that confirms opens nothing else', async () => {
    const username = freshAddress()
    await auth.register(username, freshPassword())
    const { token } = await server.next(username)
    await expectOpensNothingElse(token, 'confirm', 'reset')
    expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
    expect(await auth.confirm(token)).to.include({ status: 204 })
  })

  it('that resets opens nothing else', async () => {
    const username = freshAddress()
    await auth.register(username, freshPassword())
    await server.next(username)
    const token = await mailedResetToken(username)
    await expectOpensNothingElse(token, 'reset', 'confirm')
    expect(await auth.confirm(token)).to.include({ status: 401 })
    expect(await auth.reset(token, freshPassword())).to.include({ status: 204 })
  })

  it('is not a session: neither a session nor a token without a purpose confirms or resets', async () => {
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

  it('is a JWT if tokens are JWTs', async () => {
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

  it('begins with PUBLIC_URL, whatever Host a request has', async () => {
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
      // Remove the random parts, because one in a few thousand tokens contains 666.
      const random = /#reset=\w+|<[^<>@\s]+@/g
      expect(JSON.stringify([...mail.headers, mail.text]).replace(random, ''), request).to.not.match(/evil|666/)
    }
  })
})

describeMailLogs(['mail_sent', 'token_issued'])
