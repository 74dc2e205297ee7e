// The mail that users get when an earlier secret of their session was used, and what that use does to the session over HTTP.
import { expect } from 'chai'
import { openUserStore } from '../../../services/auth/stores/memory/userStore.ts'
import type { UserRecord } from '../../../services/auth/stores/userPort.ts'
import type { Mail, MailEvent } from '../../../services/auth/users/mail.ts'
import { createReuseNotices } from '../../../services/auth/users/reuseNotices.ts'
import { memoryCounters } from '../../../shared/counters.ts'
import { createClock } from '../../support/clock.ts'
import { adminKey, serviceKey } from '../../support/credentials.ts'
import type { MailServer } from '../../support/mailServer.ts'
import { newUserAt } from '../../support/storeFixtures.ts'
import { until } from '../../support/until.ts'
import {
  ask,
  describeMailLogs,
  freshAddress,
  freshPassword,
  openMailServer,
  startMailingAuth,
  useMail,
} from './mailSetup.ts'

const reuseGraceMs = 10_000

for (const [setting, action] of [
  ['end', 'ended'],
  ['pause', 'paused'],
] as const) {
  describe(`with RENEWED_SECRET_REUSE=${setting}, the use of an earlier secret`, function () {
    this.slow(500)
    useMail()
    const clock = createClock()
    let server: MailServer
    let auth: Awaited<ReturnType<typeof startMailingAuth>>
    before(async () => {
      server = await openMailServer()
      const env = { SMTP_URL: server.url, RENEWED_SECRET_REUSE: setting, TOKEN_TTL_SECONDS: '3600' }
      auth = await startMailingAuth(env, clock.now)
    })

    async function renewed(of = auth) {
      const username = freshAddress('reuse')
      const password = freshPassword()
      expect(await of.register(username, password)).to.include({ status: 201 })
      const first = await of.session(username, password)
      const { text } = await ask('POST', `${of.url}/renew`, { bearer: first })
      const last: string = JSON.parse(text).token
      clock.advance(reuseGraceMs)
      return { username, password, id: first.slice(3, 17), first, last }
    }

    const validate = (token: string) =>
      ask('POST', `${auth.internalUrl}/validateToken`, { bearer: serviceKey, body: { token } })
    const resume = (id: string) =>
      ask('PATCH', `${auth.internalUrl}/tokens/${id}`, { bearer: adminKey, body: { paused: false } })
    const reusesOf = (id: string) =>
      auth.lines.filter(({ event, tokenId }) => event === 'renewed_secret_reused' && tokenId === id)
    const isRefused = async (token: string, of = auth) => !(await of.isSession(token))
    const mailsTo = (username: string) => server.mails.filter(({ to }) => to.includes(username))

    /** Requests another mail, so that one sent before has arrived too, and returns how many notices there are. */
    async function notices(username: string): Promise<number> {
      await auth.forgot(username)
      await until(() => mailsTo(username).some(({ link }) => link !== ''))
      return mailsTo(username).filter(({ link }) => link === '').length
    }

    it('refuses the session from the next request on, and its user gets one mail that says so', async () => {
      const { username, id, first, last } = await renewed()
      expect(await auth.isSession(last)).to.equal(true)
      const at = new Date(clock.now()).toUTCString()
      expect(await auth.isSession(first)).to.equal(false)
      const { headers, text } = await server.next(username)
      expect(headers.get('subject')).to.equal(`One of your sessions was ${action}`)
      expect(text.replaceAll(/\s+/g, ' ')).to.include(`On ${at}, one of your sessions`)
      expect(await ask('GET', `${auth.url}/users/me`, { bearer: last })).to.include({ status: 401 })
      expect(JSON.parse((await validate(last)).text)).to.deep.equal({ authenticated: false })
      for (let i = 0; i < 3; i++) expect(await auth.isSession(first)).to.equal(false)
      expect(reusesOf(id)).to.have.length(1)
      expect(reusesOf(id)[0]).to.include({ level: 'warn', channel: 'security', action })
      expect(await notices(username)).to.equal(1)
    })

    it('is one event and one mail if many requests bring the secret at the same time', async () => {
      const { username, id, first, last } = await renewed()
      await Promise.all(Array.from({ length: 30 }, (_, i) => (i % 2 ? validate(first) : auth.isSession(first))))
      await until(() => isRefused(last))
      await server.next(username)
      expect(reusesOf(id)).to.have.length(1)
      expect(await notices(username)).to.equal(1)
    })

    if (setting === 'end') return

    it('can be undone by an operator; another use pauses again, but sends no other mail that day', async () => {
      const { username, id, first, last } = await renewed()
      for (let i = 1; i <= 3; i++) {
        await validate(first)
        await until(() => isRefused(last))
        expect(reusesOf(id)).to.have.length(i)
        expect(await resume(id)).to.include({ status: 200 })
        expect(await auth.isSession(last)).to.equal(true)
      }
      expect(await notices(username)).to.equal(1)
    })

    it('leaves the session in the list of its user, who can log in again and end it', async () => {
      const { username, password, id, first, last } = await renewed()
      await validate(first)
      await until(() => isRefused(last))
      const bearer = await auth.session(username, password)
      const listed = async (): Promise<{ id: string; paused: boolean }[]> =>
        JSON.parse((await ask('GET', `${auth.url}/sessions`, { bearer })).text).sessions
      expect((await listed()).map(({ id, paused }) => [id === bearer.slice(3, 17), paused])).to.deep.equal([
        [false, true],
        [true, false],
      ])
      expect(await ask('DELETE', `${auth.url}/sessions/${id}`, { bearer })).to.include({ status: 204 })
      expect(await listed()).to.have.length(1)
      expect(await resume(id)).to.include({ status: 404 })
    })

    it('refuses the session in the same way if the mail is refused, which is logged', async () => {
      const refusing = await openMailServer({ refusal: step => (step === 'mail' ? '550 5.7.1 no' : null) })
      const other = await startMailingAuth({ SMTP_URL: refusing.url, RENEWED_SECRET_REUSE: setting }, clock.now)
      const { first, last } = await renewed(other)
      expect(await isRefused(first, other)).to.equal(true)
      await until(() => isRefused(last, other))
      await until(() => other.lines.some(({ event }) => event === 'mail_lost'))
    })
  })
}

describe('the notice of a reused secret', () => {
  const user = newUserAt(0, { username: 'anna@users.example', confirmedAt: 0 })

  async function open(members: Partial<UserRecord> = {}, isDown = false) {
    const store = await openUserStore()
    await store.insert({ ...user, ...members })
    const findById = isDown ? () => Promise.reject(new Error('the store is away')) : store.findById
    const sent: Mail[] = []
    const events: MailEvent[] = []
    let nowMs = 0
    const notify = createReuseNotices({
      users: { findById },
      mailer: { send: mail => sent.push(mail), close: async () => {} },
      openCounter: memoryCounters(() => nowMs),
      now: () => 0,
      emit: event => events.push(event),
    })
    const reused = (tokenId: string, userId: string | null = user.id) =>
      notify({ type: 'renewed_secret_reused', tokenId, userId, action: 'paused' })
    return { reused, sent, events, advance: (ms: number) => (nowMs += ms) }
  }

  it('goes to the e-mail address of the user, or to the username if that is an address', async () => {
    for (const [email, to] of [
      ['anna@mail.example', 'anna@mail.example'],
      [null, user.username],
    ] as const) {
      const { reused, sent } = await open({ email })
      await reused('one')
      expect(sent.map(({ to, userId }) => [to, userId])).to.deep.equal([[to, user.id]])
    }
  })

  it('is sent once a day for each session', async () => {
    const { reused, sent, advance } = await open()
    for (const id of ['one', 'one', 'two', 'two']) await reused(id)
    expect(sent).to.have.length(2)
    advance(24 * 3_600_000)
    await reused('one')
    expect(sent).to.have.length(3)
  })

  it('is not sent to an address that is unconfirmed, to no address, to a deleted user, or for a guest', async () => {
    for (const members of [{ confirmedAt: null }, { username: 'anna' }, { deletedAt: 1 }, { id: 'another' }]) {
      const { reused, sent, events } = await open(members)
      await reused('one')
      await reused('one', null)
      expect({ sent, events }).to.deep.equal({ sent: [], events: [] })
    }
  })

  it('is lost, which is reported, if the user store does not answer', async () => {
    const { reused, sent, events } = await open({}, true)
    await reused('one')
    expect(sent).to.deep.equal([])
    expect(events.map(({ type, userId }) => [type, userId])).to.deep.equal([['mail_lost', user.id]])
  })
})

describeMailLogs(['renewed_secret_reused', 'mail_sent'])
