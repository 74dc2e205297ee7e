// The e-mail address that a user has besides the username: a link confirms it, or an operator sets it.
import { expect } from 'chai'
import { accountLimits } from '../../../services/auth/defence/throttles.ts'
import { adminKey } from '../../support/credentials.ts'
import { startAuth } from '../../support/servers.ts'
import {
  accepted,
  ask,
  auth,
  clock,
  describeMailLogs,
  freshAddress,
  freshPassword,
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

interface ShownUser {
  id: string
  email: string | null
  pendingEmail: string | null
}

describe('an e-mail address apart from the username', function () {
  this.slow(500)
  useMail()

  const patch = (bearer: string, body: object, url = auth.url) => ask('PATCH', `${url}/users/me`, { bearer, body })
  const operate = (method: string, path: string, body?: unknown, { internalUrl } = auth) =>
    ask(method, `${internalUrl}/admin/users${path}`, { bearer: adminKey, body })
  const confirmEmail = (token: string, url = auth.url) => ask('POST', `${url}/users/confirm/email`, { body: { token } })
  const shown = async (bearer: string): Promise<ShownUser> =>
    JSON.parse((await ask('GET', `${auth.url}/users/me`, { bearer })).text)

  async function loggedIn() {
    const { username, password } = await registerConfirmed()
    const bearer = await auth.session(username, password)
    const wanted = (email: string | null, currentPassword = password) => patch(bearer, { email, currentPassword })
    return { username, password, bearer, wanted }
  }

  /** A user who has confirmed another address. */
  async function withEmail() {
    const user = await loggedIn()
    const email = freshAddress('mail')
    expect(await user.wanted(email)).to.deep.equal(accepted)
    expect(await confirmEmail((await server.next(email)).token)).to.deep.equal({ status: 204, text: '' })
    await server.next(user.username) // the notice
    return { ...user, email }
  }

  it('is set by the link that a mail brings there, and not before; the earlier address is notified', async () => {
    const { username, password, bearer, wanted } = await loggedIn()
    const other = await auth.session(username, password)
    expect(await shown(bearer)).to.include({ email: null, pendingEmail: null })
    const email = freshAddress('mail')
    expect(await wanted(email)).to.deep.equal(accepted)
    expect(await shown(bearer)).to.include({ email: null, pendingEmail: email })
    const mail = await server.next(email)
    expect(mail.headers.get('subject')).to.equal('Confirm your address')
    expect(mail.link).to.match(/^https:\/\/accounts\.example\/auth\/account#email=lk_\w{63}$/)
    expect(await confirmEmail(mail.token)).to.deep.equal({ status: 204, text: '' })
    expect(await shown(bearer)).to.include({ email, pendingEmail: null })
    expect(await auth.isSession(other), 'the session that did not ask').to.equal(false)
    expect((await server.next(username)).headers.get('subject')).to.equal('Your address was changed')
    expect(await confirmEmail(mail.token), 'used').to.include({ status: 401 })
  })

  it('is where resets and notices go from then on, and nothing goes to the username', async () => {
    const { username, email, bearer, password } = await withEmail()
    const before = mailsTo(username).length
    expect(await auth.forgot(username)).to.deep.equal(accepted)
    const chosen = freshPassword()
    expect(await auth.reset((await server.next(email)).token, chosen)).to.include({ status: 204 })
    expect((await server.next(email)).headers.get('subject')).to.equal('Your password was changed')
    expect(await auth.isSession(bearer)).to.equal(false)
    expect(await auth.logIn(username, password)).to.include({ status: 401 })
    expect(await auth.logIn(username, chosen)).to.include({ status: 200 })
    const id = await userIdOf(username)
    expect(await operate('POST', `/${id}/reset`)).to.deep.equal({ status: 200, text: '{"sent":true}' })
    await server.next(email)
    expect(mailsTo(username)).to.have.length(before)
  })

  it('ends the links that went to the earlier address', async () => {
    const { username, wanted } = await loggedIn()
    const reset = await mailedResetToken(username)
    const email = freshAddress('mail')
    await wanted(email)
    const { token } = await server.next(email)
    expect(await confirmEmail(token)).to.include({ status: 204 })
    expect(await auth.reset(reset, freshPassword())).to.include({ status: 401 })
  })

  it('is that of the latest link only', async () => {
    const { bearer, wanted } = await loggedIn()
    const [first, second] = [freshAddress('mail'), freshAddress('mail')]
    await wanted(first)
    const older = await server.next(first)
    await wanted(second)
    const newer = await server.next(second)
    expect(await confirmEmail(older.token)).to.include({ status: 401 })
    expect(await shown(bearer)).to.include({ email: null, pendingEmail: second })
    expect(await confirmEmail(newer.token)).to.include({ status: 204 })
    expect(await shown(bearer)).to.include({ email: second, pendingEmail: null })
  })

  it('is not set by a link that is older than 30 minutes or of another purpose, or after a change of the password', async () => {
    const { username, password, bearer, wanted } = await loggedIn()
    const email = freshAddress('mail')
    const next = async () => {
      expect(await wanted(email)).to.deep.equal(accepted)
      return (await server.next(email)).token
    }
    expect(await confirmEmail(await mailedResetToken(username))).to.include({ status: 401 })
    const token = await next()
    expect(await auth.confirm(token)).to.include({ status: 401 })
    expect(await auth.reset(token, freshPassword())).to.include({ status: 401 })
    await patch(bearer, { currentPassword: password, password: freshPassword() })
    expect(await confirmEmail(token)).to.include({ status: 401 })
    const late = await loggedIn()
    const lateEmail = freshAddress('mail')
    await late.wanted(lateEmail)
    const lateToken = (await server.next(lateEmail)).token
    clock.advance(linkTtlMs)
    expect(await confirmEmail(lateToken)).to.include({ status: 401 })
  })

  it('is removed with the password; then mails go to the username again, and the removed address is notified', async () => {
    const { username, email, bearer, password, wanted } = await withEmail()
    const other = await auth.session(username, password)
    expect(await wanted(null, freshPassword())).to.include({ status: 401 })
    expect(await wanted(null)).to.include({ status: 200 })
    expect(await shown(bearer)).to.include({ email: null })
    expect(await auth.isSession(other)).to.equal(false)
    expect((await server.next(email)).headers.get('subject')).to.equal('Your address was changed')
    await mailedResetToken(username)
    expect(await wanted(null), 'nothing to remove').to.include({ status: 200 })
  })

  it('needs the password, and must be one address', async () => {
    const { bearer, password, wanted } = await loggedIn()
    const email = freshAddress('mail')
    expect(await wanted(email, freshPassword())).to.include({ status: 401 })
    const bad = await patch(bearer, { email })
    expect(bad).to.include({ status: 400 })
    expect(bad.text).to.include('currentPassword: expected a password')
    for (const wrong of ['ann', 'a@b.example,c@d.example', '', `${'a'.repeat(250)}@b.example`, 7]) {
      const { status, text } = await patch(bearer, { email: wrong, currentPassword: password })
      expect(status, String(wrong)).to.equal(400)
      expect(text).to.include('email: expected an e-mail address of at most 254 characters, or null')
    }
    expect(mailsTo(email)).to.deep.equal([])
    expect(await shown(bearer)).to.include({ email: null, pendingEmail: null })
  })

  it('is set by an operator without a link, which ends every token, and then resets go there', async () => {
    const { username, bearer } = await loggedIn()
    const id = await userIdOf(username)
    const email = freshAddress('mail')
    const set = await operate('PATCH', `/${id}`, { email })
    expect(set).to.include({ status: 200 })
    expect(JSON.parse(set.text)).to.include({ email, pendingEmail: null })
    expect(await auth.isSession(bearer)).to.equal(false)
    await auth.forgot(username)
    await server.next(email)
    expect(JSON.parse((await operate('PATCH', `/${id}`, { email: null })).text)).to.include({ email: null })
    await mailedResetToken(username)
    expect(await operate('PATCH', `/${id}`, { email: 'ann' })).to.include({ status: 400 })
    expect(await operate('PATCH', '/nobody', { email })).to.include({ status: 404 })
  })

  it('is where a user whom an operator creates with it chooses the password', async () => {
    const [username, email, chosen] = [freshAddress(), freshAddress('mail'), freshPassword()]
    const created = await operate('POST', '', { username, email })
    expect(created).to.include({ status: 201 })
    expect(JSON.parse(created.text)).to.include({ email })
    expect(await auth.reset((await server.next(email)).token, chosen)).to.include({ status: 204 })
    expect(await auth.logIn(username, chosen)).to.include({ status: 200 })
    expect(mailsTo(username)).to.deep.equal([])
  })

  it('gets at most five mails in an hour, whoever asks', async () => {
    const limited = await startAuth({ limitsPerAccount: accountLimits }) // in development the log has the mails
    const email = freshAddress('mail')
    const statuses = []
    for (let i = 0; i < 6; i++) {
      const credentials = { username: freshAddress(), password: freshPassword() }
      await ask('POST', `${limited.url}/users`, { body: credentials })
      const { text } = await ask('POST', `${limited.url}/login`, { body: credentials })
      const change = { email, currentPassword: credentials.password }
      statuses.push((await patch(JSON.parse(text).token, change, limited.url)).status)
    }
    expect(statuses).to.deep.equal([202, 202, 202, 202, 202, 429])
  })

  it('is completed by repeating the call, if ending the tokens failed', async () => {
    const own = await openMailServer()
    const { users, userStore, add, broken, tokens, emitted } = await openAccounts(own.url)
    const id = await add(freshAddress())
    const user = await userStore.findById(id)
    if (user === null) throw new Error('the user is gone')
    const session = await tokens.issueSession(user)
    const terms = { kind: 'single-use', purpose: 'email', owner: user, ttlMs: 60_000, absoluteTtlMs: 60_000 } as const
    const link = await tokens.issue({ ...terms, login: session?.token ?? null })
    if (session === null || link === null) throw new Error('no token was issued')
    const email = freshAddress('mail')
    expect(await users.expectEmail(user, { email, tokenId: link.token.id })).to.equal(true)
    const confirm = async () => users.confirmEmail((await userStore.findById(id)) ?? user, link.token)
    broken.add('raiseFloor')
    const failed = await confirm().then(
      () => 'resolved',
      error => error.code,
    )
    expect(failed).to.equal('unavailable')
    broken.clear()
    expect(await confirm()).to.have.nested.include({ 'after.email': email })
    expect(await confirm()).to.equal(null)
    expect(await userStore.findUnfinished(10)).to.deep.equal([])
    expect(emitted('email_changed')).to.deep.equal([{ type: 'email_changed', userId: id, proof: 'link' }])
  })

  it('is 403 for users if this server sends no mail; an operator sets it, and hands over the links', async () => {
    const silent = await startAuth({ env: { NODE_ENV: 'production', REGISTRATION: 'open' } })
    const password = freshPassword()
    const username = freshAddress()
    const created = await operate('POST', '', { username, password }, silent as typeof auth)
    const { id } = JSON.parse(created.text) as ShownUser
    const logIn = await ask('POST', `${silent.url}/login`, { body: { username, password } })
    const { token } = JSON.parse(logIn.text) as { token: string }
    const email = freshAddress('mail')
    const refused = await patch(token, { email, currentPassword: password }, silent.url)
    expect(refused).to.include({ status: 403 })
    expect(refused.text).to.include('ask the operator to set yours')
    expect(await operate('PATCH', `/${id}`, { email }, silent as typeof auth)).to.include({ status: 200 })
    const reset = await operate('POST', `/${id}/reset`, undefined, silent as typeof auth)
    expect(JSON.parse(reset.text)).to.include({ sent: false })
  })

  it('gets the notice of a change of the username', async () => {
    const open = await startMailingAuth({ SMTP_URL: server.url, REGISTRATION: 'open' })
    const [username, password, email] = [freshAddress(), freshPassword(), freshAddress('mail')]
    await open.register(username, password)
    const bearer = await open.session(username, password)
    await patch(bearer, { email, currentPassword: password }, open.url)
    expect(await confirmEmail((await server.next(email)).token, open.url)).to.include({ status: 204 })
    const renamed = await patch(bearer, { username: freshAddress(), currentPassword: password }, open.url)
    expect(renamed).to.include({ status: 200 })
    expect((await server.next(email)).headers.get('subject')).to.equal('Your username was changed')
  })
})

describeMailLogs(['email_changed'])
