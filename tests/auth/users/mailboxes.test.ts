// Which mailbox a mail goes to.
import { expect } from 'chai'
import { noAuthority } from '../../../services/auth/stores/tokenPort.ts'
import { type MailEvent, openSmtpMailer } from '../../../services/auth/users/mail.ts'
import { demo } from '../../support/credentials.ts'
import { startMailServer } from '../../support/mailServer.ts'
import { newUserAt } from '../../support/storeFixtures.ts'
import { until } from '../../support/until.ts'
import {
  accepted,
  auth,
  describeMailLogs,
  freshAddress,
  freshPassword,
  hostileUsernames,
  mailers,
  openAccounts,
  openMailServer,
  sender,
  server,
  startMailingAuth,
  useMail,
} from './mailSetup.ts'

describe('a mail goes to exactly one mailbox:', function () {
  this.slow(500)
  useMail()
  it('a username that is anything else is 400', async () => {
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
      await own.next(demo.username) // requested last, so an earlier mail would have arrived by now
    }
    expect(own.recipientLines).to.deep.equal(Array(2).fill(`RCPT TO:<${demo.username}>`))
  })

  it('text that is not exactly one mailbox is never read as another mailbox', async () => {
    const own = await startMailServer()
    const told: MailEvent[] = []
    const emit = (event: MailEvent) => told.push(event)
    const mailer = openSmtpMailer({ url: own.url, from: sender, tls: 'required', retryDelaysMs: [], emit })
    mailers.push(mailer)
    const bare = (address: string) => address.replace(/[\s\0"\\<>]/g, '').toLowerCase()
    const ascii = hostileUsernames.filter(username => !/[\x80-\u2000]/.test(username))
    for (const [i, to] of ascii.entries()) {
      mailer.send({ userId: `${i}`, address: '192.0.2.1', to, subject: 'a subject', text: 'a text' })
      await until(() => told.length === i + 1)
      const lines = own.recipientLines.splice(0)
      expect(lines, JSON.stringify(to)).to.have.length.at.most(1)
      // The text may be quoted, trimmed, or refused by the server, but the recipient is always the whole text.
      for (const line of lines) expect(bare(line.replace(/^RCPT TO:<(.*)>$/s, '$1'))).to.equal(bare(to))
    }
  })

  it('a username that becomes an address when it is normalised is that address', async () => {
    const address = freshAddress()
    for (const typed of [address.toUpperCase(), address.replace('@', '\uff20'), address.replace('s', '\u017f')]) {
      expect(await auth.register(typed, freshPassword()), typed).to.deep.equal(accepted)
      expect((await server.next(address)).headers.get('to')).to.equal(address)
      expect(server.recipientLines).to.include(`RCPT TO:<${address}>`)
    }
  })

  it('a user with another kind of name, from before there was mail, gets no mail and keeps the link of an operator', async () => {
    const own = await openMailServer()
    const { add, forgot, resend, userStore, tokens, reset, emitted } = await openAccounts(own.url)
    const given: string[] = []
    for (const [i, username] of hostileUsernames.entries()) {
      const confirmedAt = i % 2 === 0 ? 0 : null
      await userStore.insert(
        newUserAt(0, { id: `hostile-${i}`, username, passwordHash: 'CANARY-PW-none', confirmedAt }),
      )
      const owner = { id: `hostile-${i}`, username, credentialVersion: 1, authority: noAuthority }
      const ttl = { ttlMs: 60_000, absoluteTtlMs: 60_000 }
      const issued = await tokens.issue({ kind: 'single-use', purpose: 'reset', owner, login: null, ...ttl })
      given.push(issued?.secret as string)
      expect(await forgot(username), JSON.stringify(username)).to.deep.equal(accepted)
      expect(await resend(username), JSON.stringify(username)).to.deep.equal(accepted)
    }
    const address = freshAddress()
    await add(address)
    await forgot(address)
    await own.next(address) // requested last, so an earlier mail would have arrived by now
    expect(own.recipientLines).to.deep.equal([`RCPT TO:<${address}>`])
    for (const token of given) expect(await reset(token, freshPassword())).to.include({ status: 204 })
    expect(emitted('mail_lost')).to.deep.equal([])
  })
})

describeMailLogs(['mail_sent', 'token_issued'])
