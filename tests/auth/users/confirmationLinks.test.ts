// How a new user confirms the address by a link in a mail.
import { expect } from 'chai'
import { freshPlace } from '../../support/stores.ts'
import { until } from '../../support/until.ts'
import {
  accepted,
  ask,
  auth,
  bytesOf,
  clock,
  describeMailLogs,
  freshAddress,
  freshPassword,
  isGoodFor,
  linkTtlMs,
  mailsTo,
  openAccounts,
  places,
  registerConfirmed,
  sender,
  server,
  startMailingAuth,
  useMail,
} from './mailSetup.ts'

describe('a link that confirms an address', function () {
  this.slow(500)
  useMail()
  it('is mailed to this address alone, from MAIL_FROM, and begins with PUBLIC_URL', async () => {
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

  it('is required before the first log-in; until then a log-in gets the same 401 as with a wrong password', async () => {
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

  it('works once, even if twenty requests use it at the same moment', async () => {
    const { add, resend, confirm, slow } = await openAccounts(server.url)
    const username = freshAddress()
    await add(username, { confirmed: false })
    await resend(username)
    const { token } = await server.next(username)
    slow.add('update') // so that all twenty requests read the token before the first update
    const statuses = await Promise.all(Array.from({ length: 20 }, async () => (await confirm(token)).status))
    expect(statuses.toSorted()).to.deep.equal([204, ...Array(19).fill(401)])
    expect(await confirm(token)).to.include({ status: 401 })
  })

  it('is not used up by opening it: GET and HEAD /account change nothing', async () => {
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

  it('expires after 30 minutes, to the millisecond', async () => {
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

  it('is not sent to a confirmed address: the mail mentions the existing account, and nothing changes', async () => {
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

  it('activates no password if the address is registered again first: the owner of the mailbox chooses one', async () => {
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

  it('activates the password of its registration if there was only one', async () => {
    const [username, password] = [freshAddress(), freshPassword()]
    await auth.register(username, password)
    expect(await auth.confirm((await server.next(username)).token)).to.include({ status: 204 })
    expect(await auth.logIn(username, password)).to.include({ status: 200 })
  })

  it('asks for a password when it is sent again, if the address was registered more than once', async () => {
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
    it(`activates no password if two processes of Auth register the address, with ${scheme}`, async () => {
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

  it('never leaves the password of a second registration on an account that is being confirmed', async () => {
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
      // The registration found the account unconfirmed, so its mail asks the owner of the mailbox to choose a password.
      'confirm before update': { subject: 'Choose a password', statuses: [401, 401] },
      'reset before findById': ownersStill,
      'reset before update': ownersStill,
    })
  })

  it('is sent again on request, which ends the older one', async () => {
    const username = freshAddress()
    await auth.register(username, freshPassword())
    const old = await server.next(username)
    expect(await auth.resend(username)).to.deep.equal(accepted)
    const last = await server.next(username)
    expect(await auth.confirm(old.token)).to.include({ status: 401 })
    expect(await auth.confirm(last.token)).to.include({ status: 204 })
  })

  it('is not sent again to a confirmed or unknown user', async () => {
    const { username } = await registerConfirmed()
    const [unknown, unconfirmed] = [freshAddress('unknown'), freshAddress()]
    await auth.register(unconfirmed, freshPassword())
    await server.next(unconfirmed)
    for (const name of [username, unknown, unconfirmed]) expect(await auth.resend(name)).to.deep.equal(accepted)
    await server.next(unconfirmed) // requested last, so an earlier mail would have arrived by now
    expect(mailsTo(username)).to.have.length(1)
    expect(mailsTo(unknown)).to.have.length(0)
  })

  it('works for exactly one of several concurrent registrations, and keeps none of their passwords', async () => {
    const username = freshAddress()
    const attempts = Array.from({ length: 5 }, freshPassword)
    await Promise.all(attempts.map(password => auth.register(username, password)))
    await auth.forgot(freshAddress('unknown')) // by now the registrations are complete, except for their mails
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

describeMailLogs(['mail_sent', 'token_issued'])
