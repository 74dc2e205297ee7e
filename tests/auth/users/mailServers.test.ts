// Mail servers that are slow, hostile or down, and mails that wait to be sent.
import { connect, type Socket } from 'node:net'
import { expect } from 'chai'
import { type MailEvent, openSmtpMailer } from '../../../services/auth/users/mail.ts'
import { refusingUrl, startBadMailServer } from '../../support/mailServer.ts'
import { until } from '../../support/until.ts'
import {
  bytesOf,
  describeMailLogs,
  freshAddress,
  freshPassword,
  mailers,
  openAccounts,
  openMailServer,
  sender,
  server,
  useMail,
} from './mailSetup.ts'

describe('a mail server that', function () {
  this.slow(500)
  useMail()
  const faults: [name: string, open: () => Promise<string>][] = [
    ['is not there', refusingUrl],
    ['never answers', () => startBadMailServer(() => {})],
    ['hangs up', () => startBadMailServer(socket => socket.end())],
    ['resets', () => startBadMailServer(socket => socket.resetAndDestroy())],
    ['drips for ever', () => startBadMailServer(sendSlowly)],
    ['greets with 421', async () => (await openMailServer({ refusal: onConnect('421 4.3.2 closing') })).url],
    ['greets with 554', async () => (await openMailServer({ refusal: onConnect('554 5.3.2 no service') })).url],
    ['takes eight seconds', async () => (await openMailServer({ delayMs: 8000 })).url],
    ['has an untrusted certificate', async () => (await openMailServer({ tls: 'demanded' })).url],
  ]
  const onConnect = (answer: string) => (step: string) => (step === 'connect' ? answer : null)

  /** Greets, then sends lines for ever, one every 50 ms. */
  function sendSlowly(socket: Socket): void {
    socket.write('220 slow\r\n')
    const timer = setInterval(() => socket.write('250-and so on\r\n'), 50)
    socket.once('close', () => clearInterval(timer))
  }

  for (const [name, open] of faults) {
    it(`${name} delays no answer`, async () => {
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
        expect(performance.now() - startedAt, path).to.be.below(5000) // on a busy machine; the mail takes longer
      }
      expect([...seen].join()).to.match(/^HTTP\/1\.1 202 Accepted\r\n.*\{"status":"accepted"\}$/s)
      expect(seen.size).to.equal(1)
    })
  }

  for (const answer of ['421 4.3.2 closing', '450 4.2.0 greylisted', '452 4.2.2 full']) {
    for (const at of ['to', 'mail'] as const) {
      it(`answers ${answer.slice(0, 3)} to ${at === 'to' ? 'a recipient' : 'a mail'} once gets it again, and delivers it once`, async () => {
        let refusals = 0
        const refusing = await openMailServer({
          refusal: step => (step === at && refusals++ === 0 ? answer : null),
        })
        const { add, forgot, reset, event, emitted } = await openAccounts(refusing.url)
        const username = freshAddress()
        await add(username)
        await forgot(username)
        const { token } = await refusing.next(username)
        expect(await event('mail_sent')).to.deep.include({ tries: 2 })
        expect(await reset(token, freshPassword())).to.include({ status: 204 })
        await refusing.next(username) // the notice of the change, which is the second mail
        expect(refusing.mails).to.have.length(2)
        expect(emitted('mail_lost')).to.deep.equal([])
      })
    }
  }

  it('never accepts a mail: the mail is lost after tries at growing intervals, and an event reports it', async () => {
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

  it('is down briefly gets the mail when it is back', async () => {
    let connections = 0
    const url = await startBadMailServer(socket => {
      // Like a server that restarts: the first two connections are reset, later ones reach the real server.
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
    it(`answers 550 to ${at === 'to' ? 'a recipient' : 'a mail'} gets no further try, and its reply is not logged`, async () => {
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
      // The operator needs the reply code (RFC 5321) and the status code (RFC 3463).
      expect(JSON.stringify(line)).to.include('550').and.include('5.1.1')
      expect(JSON.stringify(lines)).to.not.include(username.split('@')[0])
      expect(JSON.stringify(lines)).to.not.match(/account#|lk_|Recipient/)
    })
  }

  for (const tls of ['demanded', 'offered'] as const) {
    it(`has an untrusted certificate gets nothing, if TLS is ${tls}`, async () => {
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
    // A name of this machine that is reached over loopback but does not count as loopback.
    const elsewhere = (url: string, login = '') => url.replace('127.0.0.1', `${login}0.0.0.0`)

    it('gets no mail without TLS, unless SMTP_TLS is optional', async () => {
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

    it('gets no password without TLS, whatever SMTP_TLS is', async () => {
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

  it('requires a log-in gets the credentials of SMTP_URL, whatever characters they contain', async () => {
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

  it('drips for ever makes the try fail after its timeout', async () => {
    const { add, forgot, event } = await openAccounts(await startBadMailServer(sendSlowly), {
      retryDelaysMs: [],
      tryTimeoutMs: 200,
    })
    const username = freshAddress()
    await add(username)
    await forgot(username)
    expect(await event('mail_lost')).to.deep.include({ tries: 1 })
  })
})

describe('a mail that waits', function () {
  this.slow(500)
  useMail()
  let clients = 0
  const mail = (userId: string) => {
    const address = `198.51.${clients >> 8}.${clients++ & 255}`
    return { userId, address, to: freshAddress(), subject: 'a subject', text: 'a text' }
  }
  const open = (url: string) => {
    const events: MailEvent[] = []
    const mailer = openSmtpMailer({ url, from: sender, tls: 'required', emit: event => events.push(event) })
    mailers.push(mailer)
    return { mailer, events, ofType: (type: string) => events.filter(event => event.type === type) }
  }

  it('is one of at most 1000; further ones are lost at once, with an event', async () => {
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

  it('is one of at most ten for one user and a hundred from one network; further ones are lost at once, with an event', async () => {
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

  it('takes turns with those of other networks, so it does not wait for all mails of one network', async () => {
    const slow = await openMailServer({ delayMs: 20 })
    const { mailer, events } = open(slow.url)
    for (let i = 0; i < 30; i++) mailer.send({ ...mail(`user-${i}`), address: '203.0.113.66' })
    mailer.send({ ...mail('victim'), address: '192.0.2.1' })
    await until(() => events.length === 31)
    const at = events.findIndex(({ userId }) => userId === 'victim')
    expect(at).to.be.below(6) // the victim's mail waits for the two mails under way, then for at most two more
    expect(events.every(({ type }) => type === 'mail_sent')).to.equal(true)
  })

  it('is reported as lost within 3.5 s of closing if the server hangs, however many there are', async () => {
    const { mailer, events } = open(await startBadMailServer(() => {}))
    for (let i = 0; i < 20; i++) mailer.send(mail(`user-${i}`))
    const startedAt = performance.now()
    await mailer.close()
    expect(performance.now() - startedAt).to.be.below(3500)
    expect(events.map(event => event.type)).to.deep.equal(Array(20).fill('mail_lost'))
    expect(new Set(events.map(event => event.userId)).size).to.equal(20)
  })

  it('for its next try is tried once more on closing, and an event reports it', async () => {
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

  it('is sent before the mailer has closed, if the server is well', async () => {
    const well = await openMailServer({ delayMs: 20 })
    const { mailer, ofType } = open(well.url)
    for (let i = 0; i < 20; i++) mailer.send(mail(`user-${i}`))
    await mailer.close()
    expect(well.mails).to.have.length(20)
    expect(ofType('mail_sent')).to.have.length(20)
  })

  it('is refused once the mailer has closed, and an event reports it', async () => {
    const { mailer, events } = open(server.url)
    await mailer.close()
    mailer.send(mail('late'))
    expect(events).to.have.length(1)
    expect(events[0]).to.deep.include({ type: 'mail_lost', userId: 'late', tries: 0 })
  })

  it('keeps its Message-ID in each try, so that a mailbox shows a mail only once if it is delivered twice', async () => {
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

describeMailLogs(['mail_sent', 'mail_lost', 'token_issued'])
