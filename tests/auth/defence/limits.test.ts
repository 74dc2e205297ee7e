// How clients of Auth, of its dialects and of Business see the limits, and that no limit can be turned against the user
// it protects.
import { expect } from 'chai'
import { accountLimits } from '../../../services/auth/defence/throttles.ts'
import { demo } from '../../support/credentials.ts'
import type { LogLine } from '../../support/log.ts'
import { closeServers, openTestAuth, startAuth, startBusiness } from '../../support/servers.ts'
import { until } from '../../support/until.ts'
import { type Answer, address, ask, countBy, hashesIn, limits, times, wrong } from './limitsSetup.ts'

const newPassword = 'a bright new CANARY 77'

describe('the limits', () => {
  let at = 1000
  const monotonicNow = () => at
  const pass = (seconds: number) => {
    at += seconds * 1000
  }

  describe('of Auth', () => {
    let auth: Awaited<ReturnType<typeof startAuth>>
    const logIn = (from: string, body: unknown = demo) => ask('POST', `${auth.url}/login`, { from, body })

    beforeEach(async () => {
      auth = await startAuth({ env: limits, limitsPerAccount: accountLimits, monotonicNow })
    })
    after(closeServers)

    it('stop 200 guesses from 200 addresses after a few hashes; the right password works after the wait', async () => {
      const answers = await times(200, i => logIn(address(i), wrong))
      expect(countBy(answers)[200]).to.equal(undefined)
      expect(hashesIn(auth.lines)).to.be.within(5, 9)
      const before = hashesIn(auth.lines)
      expect(answers.filter(({ status }) => status === 429).length).to.be.at.least(90)
      // While the account is limited, the right password gets the same answer as a wrong one.
      const early = await logIn(address(300))
      expect(early.status).to.equal(429)
      expect(hashesIn(auth.lines)).to.equal(before)
      pass(early.retryAfter)
      expect((await logIn(address(300))).status).to.equal(200)
    })

    it('stop attempts at many users from one address, in each of its forms, and from no other address', async () => {
      for (const form of ['203.0.113.5', '::ffff:203.0.113.5']) {
        for (let i = 0; i < 20; i++) await logIn(form, { username: `${form} ${i}`, password: 'CANARY guess' })
      }
      expect(hashesIn(auth.lines)).to.equal(30)
      const answers = await times(100, i => logIn('203.0.113.5', { username: `u${i}`, password: 'CANARY guess' }))
      expect(countBy(answers)).to.deep.equal({ 429: 100 })
      expect(answers[0]?.retryAfter).to.equal(60)
      expect((await logIn('203.0.113.5')).status).to.equal(429)
      expect((await logIn('203.0.113.6')).status).to.equal(200)
      pass(60)
      expect((await logIn('203.0.113.5')).status).to.equal(200)
    })

    it('stop attempts at 300 users at once from one address, and accept log-ins from others at the same time', async () => {
      const attack = times(300, i => logIn('203.0.113.5', { username: `u${i}`, password: 'CANARY guess' }))
      const others = await times(20, i => logIn(address(i)))
      expect(countBy(others)).to.deep.equal({ 200: 20 })
      const { 401: refused = 0, 429: limited = 0, 503: busy = 0 } = countBy(await attack)
      expect(refused).to.be.within(30, 35) // 30, and the attempts that begin before the thirtieth is counted
      expect(refused + limited + busy).to.equal(300)
      expect(hashesIn(auth.lines)).to.equal(refused + 20)
    })

    it('stop many addresses of one IPv6 /64', async () => {
      const from = (i: number) => `2001:db8:0:1:${((i * 7919) & 65535).toString(16)}::${i.toString(16)}`
      for (let i = 0; i < 60; i++) await logIn(from(i), { username: `u${i}`, password: 'CANARY guess' })
      expect(hashesIn(auth.lines)).to.equal(30)
    })

    it('do not limit right passwords', async () => {
      expect(countBy(await times(100, () => logIn('192.0.2.1')))).to.deep.equal({ 200: 100 })
    })

    /** Sends wrong passwords from other networks until Auth allows no attempt from there for months. */
    async function lock(...bodies: { username: string; password: string }[]): Promise<void> {
      for (let i = 0; i < 100; i++) {
        const answers = []
        for (const body of bodies) answers.push(await logIn(address(i), body))
        const [{ retryAfter }] = answers as [Answer]
        if (retryAfter > 86_400) return
        pass(retryAfter)
      }
      throw new Error('the account is never locked')
    }

    it('cannot lock a user out: known networks and tokens still work, and a mail unlocks other networks', async () => {
      const home = '192.0.2.1'
      const { token } = (await logIn(home)).body
      await lock(wrong)
      // At home neither the account nor the address is locked, even if the attacker uses the same address.
      for (let i = 0; i < 40; i++) await logIn(home, { username: `u${i}`, password: 'CANARY guess' })
      expect((await logIn(home)).status).to.equal(200)
      expect((await ask('GET', `${auth.url}/users/me`, { from: address(1), bearer: token })).status).to.equal(200)
      const abroad = '203.0.113.9'
      // After the log-in at home, one guess from elsewhere is allowed, and the attacker uses it up.
      await lock(wrong)
      expect((await logIn(abroad)).status).to.equal(429)
      await ask('POST', `${auth.url}/password/forgot`, { from: abroad, body: { username: demo.username } })
      const mail = await linkIn(auth.lines)
      const reset = { token: mail, password: newPassword }
      expect((await ask('POST', `${auth.url}/password/reset`, { from: abroad, body: reset })).status).to.equal(204)
      expect((await logIn(abroad, { ...demo, password: newPassword })).status).to.equal(200)
    })

    it('return the same bytes for an account that does not exist', async () => {
      const nobody = { username: 'nobody@example.com', password: 'CANARY guess' }
      for (let i = 0; i < 5; i++) for (const body of [wrong, nobody]) await logIn(address(i), body)
      const [known, unknown] = [await logIn(address(9), wrong), await logIn(address(9), nobody)]
      expect(known).to.deep.equal(unknown)
      expect(known.status).to.equal(429)
      expect(known.headers).to.include({
        'retry-after': '5',
        'cache-control': 'no-store',
        'content-type': 'application/problem+json',
      })
      expect(known.body).to.include({ error: 'too_many_requests', status: 429 })
      const forgot = (username: string, i: number) =>
        ask('POST', `${auth.url}/password/forgot`, { from: address(i), body: { username } })
      for (const i of Array(5).keys()) for (const { username } of [demo, nobody]) await forgot(username, i)
      expect(await forgot(demo.username, 9))
        .to.deep.equal(await forgot(nobody.username, 9))
        .and.to.include({ status: 429, retryAfter: 3600 })
      await lock(wrong, nobody)
      const [locked, madeUp] = [await logIn(address(9)), await logIn(address(9), nobody)]
      expect(locked).to.deep.equal(madeUp)
      expect(locked.status).to.equal(429)
      expect(locked.retryAfter).to.be.within(580 * 86_400, 600 * 86_400)
    })

    it('apply to changing a password and to deleting an account, and the session stays valid', async () => {
      const from = '192.0.2.1'
      const bearer = (await logIn(from)).body['token']
      const me = `${auth.url}/users/me`
      const change = (currentPassword: string) =>
        ask('PATCH', me, { from, bearer, body: { currentPassword, password: newPassword } })
      const remove = (currentPassword: string) => ask('DELETE', me, { from, bearer, body: { currentPassword } })
      const statuses = []
      for (let i = 0; i < 3; i++)
        statuses.push((await change(`guess ${i}`)).status, (await remove(`guess ${i}`)).status)
      expect(statuses).to.deep.equal([401, 401, 401, 401, 401, 429])
      expect((await change(demo.password)).status).to.equal(429)
      expect((await remove(demo.password)).status).to.equal(429)
      expect((await ask('GET', me, { from, bearer })).status).to.equal(200)
      pass(5)
      expect((await change(demo.password)).status).to.equal(200)
    })

    it('allow five mails an hour to one user, and twenty requests from one address', async () => {
      const forgot = (username: string, from: string) =>
        ask('POST', `${auth.url}/password/forgot`, { from, body: { username } })
      expect(countBy(await times(100, i => forgot(demo.username, address(i))))).to.deep.equal({ 202: 5, 429: 95 })
      const resend = { from: address(200), body: { username: demo.username } }
      expect((await ask('POST', `${auth.url}/users/confirm/resend`, resend)).status).to.equal(429)
      await linkIn(auth.lines)
      expect(auth.lines.filter(({ event }) => event === 'mail').length).to.be.within(1, 5)
      const many = await times(40, i => forgot(`u${i}@example.com`, '203.0.113.5'))
      expect(countBy(many)).to.deep.equal({ 202: 20, 429: 20 })
      pass(3600)
      expect((await forgot(demo.username, address(1))).status).to.equal(202)
    })

    it('allow ten registrations an hour from one address, and do not count rejected ones', async () => {
      const register = (username: string, password: string, from = '203.0.113.5') =>
        ask('POST', `${auth.url}/users`, { from, body: { username, password } })
      for (let i = 0; i < 15; i++) expect((await register('short', 'short')).status).to.equal(400)
      const statuses = countBy(await times(12, i => register(`user ${i}`, newPassword)))
      expect(statuses).to.deep.equal({ 201: 10, 429: 2 })
      // The limit also bounds how often a client can ask whether a username is taken.
      expect((await register('user 1', newPassword)).status).to.equal(429)
      expect((await register('user 1', newPassword, address(1))).status).to.equal(409)
    })

    it('answer invalid tokens with 429 beyond eight a minute, and valid ones from the same address with 200', async () => {
      const from = '203.0.113.5'
      const me = (bearer: string | undefined, from: string) => ask('GET', `${auth.url}/users/me`, { from, bearer })
      const token = (await logIn(from)).body['token'] as string
      const dead = `${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`
      const answers = await times(20, i => me(i % 2 ? dead : token, from))
      expect(countBy(answers)).to.deep.equal({ 200: 10, 401: 8, 429: 2 })
      expect((await ask('POST', `${auth.url}/renew`, { from, bearer: dead })).status).to.equal(429)
      const link = { from, body: { token: 'guess' } }
      expect((await ask('POST', `${auth.url}/users/confirm`, link)).status).to.equal(429)
      expect((await me(token, from)).status).to.equal(200)
      expect((await me(dead, address(1))).status).to.equal(401)
      expect((await me(undefined, from)).status).to.equal(401)
    })

    it('are counted and logged', async () => {
      for (let i = 0; i < 7; i++) await logIn(address(1), wrong)
      const metrics = await (await fetch(`${auth.internalUrl}/metrics`)).text()
      expect(metrics).to.include('latchkey_rate_limited_total{limit="account_attempts"} 2')
      const line = auth.lines.find(({ event }) => event === 'rate_limited')
      expect(line).to.include({ what: 'account_attempts', address: address(1), userId: null })
    })

    it('log once that an account is locked, if it exists', async () => {
      const login = (username: string, requestId: string) =>
        ask('POST', `${auth.url}/login`, { from: address(1), requestId, body: { username, password: 'wrong' } })
      for (const username of [demo.username, 'nobody']) {
        for (let i = 1; i <= 7; i++) await login(username, `${i}-${username.slice(0, 4)}`)
      }
      const registered = auth.lines.find(({ event }) => event === 'user_registered')
      const locked = auth.lines.filter(({ event }) => event === 'account_locked')
      expect(locked.map(({ requestId, userId }) => ({ requestId, userId }))).to.deep.equal([
        { requestId: '5-demo', userId: registered?.['userId'] },
        { requestId: '5-nobo', userId: null },
      ])
      expect(locked[0]).to.include({ level: 'warn', channel: 'security', address: address(1) })
    })
  })

  describe('of the dialects', () => {
    let places: Record<string, string>
    before(async () => {
      const dialects = ['token-provider', 'token-manager', 'flask-jwt', 'flask-auth'].map(name => `${name}:0`).join()
      const { service } = await openTestAuth({
        env: { ...limits, DIALECTS: dialects },
        limitsPerAccount: accountLimits,
      })
      places = await service.listen()
    })
    after(closeServers)

    it('apply to tokens without a log-in', async () => {
      for (const [name, path, from] of [
        ['tokenProvider', '/generate_token', '203.0.113.5'],
        ['tokenManager', '/app/token', '203.0.113.6'],
      ] as const) {
        expect(countBy(await times(25, () => ask('POST', places[name] + path, { from })))).to.deep.equal({
          200: 20,
          429: 5,
        })
      }
    })

    it('apply to invalid tokens: 429 beyond eight a minute, while valid ones are accepted', async () => {
      const { token } = (await ask('POST', `${places['tokenProvider']}/generate_token`, { from: address(60) })).body
      const numbered = (await ask('POST', `${places['tokenManager']}/app/token`, { from: address(60) })).body['token']
      const access = async () => {
        const body = { email: demo.username, password: demo.password }
        return (await ask('POST', `${places['flaskAuth']}/login`, { from: address(60), body })).body['access_token']
      }
      const session = async () =>
        (await ask('POST', `${places['flaskJwt']}/authenticate_user`, { from: address(60), body: demo })).body['token']
      const uuid = '6c84fb90-12c4-41e1-840d-725daeb3ddbd'
      const noise = 'CANARY guess of a token'.replaceAll(' ', '-')
      const cases: [string, string, string, number, unknown, (() => unknown)?][] = [
        // dialect, method, path, status for an invalid token, the invalid token (or a body with it), a valid token (or a
        // body with it)
        ['tokenProvider', 'GET', '/verify_token', 200, uuid, () => token],
        ['tokenManager', 'POST', '/app/valid/token', 200, { token: noise }, () => ({ token: numbered })],
        ['tokenManager', 'GET', `/app/valid/${noise}`, 200, undefined],
        ['flaskJwt', 'GET', '/user', 401, noise, session],
        ['flaskJwt', 'PUT', '/user', 401, noise],
        ['flaskJwt', 'DELETE', '/user', 401, noise],
        ['flaskJwt', 'POST', '/validate_token', 401, { token: noise }, async () => ({ token: await session() })],
        ['flaskJwt', 'POST', '/logout', 401, noise, session],
        ['flaskAuth', 'GET', `/confirm/${noise}`, 404, undefined],
        ['flaskAuth', 'GET', '/secret', 422, noise, access],
        ['flaskAuth', 'POST', '/token/refresh', 422, noise],
        ['flaskAuth', 'POST', '/logout/access', 422, noise, access],
      ]
      for (const [i, [name, method, path, status, bad, good]] of cases.entries()) {
        const from = address(30 + i)
        const send = (sent: unknown) =>
          ask(method, places[name] + path, { from, ...(typeof sent === 'string' ? { bearer: sent } : { body: sent }) })
        const answers = countBy(await times(12, () => send(bad)))
        expect(answers, `${method} ${path}`).to.deep.equal({ [status]: 8, 429: 4 })
        if (good) expect((await send(await good())).status, `${method} ${path}`).to.equal(200)
      }
    })

    it('apply to log-ins, together with those of /login', async () => {
      const jwt = (i: number) =>
        ask('POST', `${places['flaskJwt']}/authenticate_user`, { from: address(i), body: wrong })
      const body = { email: wrong.username, password: wrong.password }
      const flask = (i: number) => ask('POST', `${places['flaskAuth']}/login`, { from: address(i), body })
      const statuses = []
      for (let i = 0; i < 3; i++) statuses.push((await jwt(i)).status, (await flask(i)).status)
      expect(statuses).to.deep.equal([401, 401, 401, 401, 401, 429])
    })
  })

  describe('of Business', () => {
    after(closeServers)

    it('answer invalid tokens with 429 beyond eight a minute, and valid ones from the same address with 200', async () => {
      const auth = await startAuth({ env: limits, limitsPerAccount: accountLimits, monotonicNow })
      const business = await startBusiness(auth.internalUrl, limits, monotonicNow)
      const from = '203.0.113.5'
      const { token } = (await ask('POST', `${auth.url}/login`, { from, body: demo })).body
      const data = (bearer: string | undefined, from: string) =>
        ask('GET', `${business.url}/data`, { from, bearer, requestId: 'of-data' })
      const answers = await times(60, i => data(i % 2 ? 'noise' : token, from))
      expect(countBy(answers)).to.deep.equal({ 200: 30, 401: 8, 429: 22 })
      const line = business.lines.find(({ event }) => event === 'rate_limited')
      expect(line).to.include({ channel: 'security', what: 'invalid_tokens', address: from, requestId: 'of-data' })
      expect((await data('noise', address(1))).status).to.equal(401)
      pass(60)
      expect((await data('noise', from)).status).to.equal(401)
    })
  })
})

/** The token of the newest link in the log. Without a mail server, Auth logs its mails. */
async function linkIn(lines: LogLine[]): Promise<string> {
  const mails = () => lines.filter(({ event }) => event === 'mail')
  await until(() => mails().length > 0)
  return /#reset=(\S+)/.exec(String(mails().at(-1)?.['text']))?.[1] as string
}
