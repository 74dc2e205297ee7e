import { expect } from 'chai'
import { type AuthApi, authApi, expectProblem, phrases } from '../../support/authApi.ts'
import { type Answer, ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { demo } from '../../support/credentials.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

const schemes = await schemesHere(['memory', 'sqlite', 'postgres'])

describe('accounts in a database', () => {
  const places: Place[] = []
  after(async () => {
    await closeServers()
    for (const place of places) await place.remove()
  })

  async function envAt(scheme: string): Promise<Record<string, string>> {
    const place = await freshPlace(scheme)
    places.push(place)
    return { USER_STORE_URL: place.url, TOKEN_STORE_URL: place.url }
  }

  it('survive a restart with their sessions, and the demo user stays the same single account', async () => {
    const { now } = createClock()
    const env = await envAt('sqlite')
    const first = await startAuth({ env, now })
    const before = authApi(first)
    const { user, credentials, token } = await before.newUser()
    const demoToken = await before.session(demo)
    const demoUser = await before.find(demo.username)
    const all = (await before.operate('GET', '/admin/users')).text
    await first.service.close()

    const after = authApi(await startAuth({ env, now }))
    expect((await after.get('/users/me', token)).body).to.deep.equal(user)
    expect((await after.logIn(credentials)).status).to.equal(200)
    expect((await after.logIn({ ...credentials, password: phrases.wrong })).status).to.equal(401)
    expect(await after.find(demo.username)).to.deep.equal(demoUser)
    expect((await after.operate('GET', '/admin/users')).text).to.equal(all)
    expect(await after.isLive(demoToken)).to.equal(true)
    expect((await after.logIn(demo)).status).to.equal(200)
  })

  it('keep the password that the demo user has chosen, whatever DEMO_PASSWORD is', async () => {
    const env = await envAt('sqlite')
    const first = await startAuth({ env })
    const before = authApi(first)
    expect((await before.change(await before.session(demo), demo.password, phrases.first)).status).to.equal(200)
    await first.service.close()
    const after = authApi(await startAuth({ env }))
    expect((await after.logIn(demo)).status).to.equal(401)
    expect((await after.logIn({ ...demo, password: phrases.first })).status).to.equal(200)
  })

  it('let the demo user log in after a restart, even if the account was changed or deleted', async () => {
    const acts: [what: string, act: (client: AuthApi, token: string) => Promise<Answer<unknown>>][] = [
      ['ended all sessions', (client, token) => ask('DELETE', `${client.url}/sessions`, token)],
      ['changed the password', (client, token) => client.change(token, demo.password, phrases.first)],
      ['deleted the account', (client, token) => client.remove(token, demo.password)],
    ]
    for (const [what, act] of acts) {
      for (const keepsUsers of [false, true]) {
        const clock = createClock()
        const { TOKEN_STORE_URL, USER_STORE_URL } = (await envAt('sqlite')) as Record<string, string>
        const env = { TOKEN_STORE_URL, ...(keepsUsers && { USER_STORE_URL }) }
        const first = await startAuth({ env, now: clock.now })
        const before = authApi(first)
        expect((await act(before, await before.session(demo))).status, what).to.be.oneOf([200, 204])
        await first.service.close()
        clock.advance(1000)
        const after = authApi(await startAuth({ env, now: clock.now }))
        const password = keepsUsers && what === 'changed the password' ? phrases.first : demo.password
        expect(await after.isLive(await after.session({ ...demo, password })), what).to.equal(true)
      }
    }
  })

  it('that were only in memory leave sessions after a restart, which can do nothing but end', async () => {
    const { TOKEN_STORE_URL } = (await envAt('sqlite')) as { TOKEN_STORE_URL: string }
    const first = await startAuth({ env: { TOKEN_STORE_URL } })
    const { user, credentials, token } = await authApi(first).newUser()
    const other = await authApi(first).issueTo(user.id)
    await first.service.close()

    const after = authApi(await startAuth({ env: { TOKEN_STORE_URL } }))
    expect((await after.logIn(credentials)).status).to.equal(401)
    expectProblem(await after.get('/users/me', token), 404, 'not_found')
    expectProblem(await after.change(token, phrases.first, phrases.second), 401, 'invalid_credentials')
    expectProblem(await after.remove(token, phrases.first), 401, 'invalid_credentials')
    expect(await after.live([token, other])).to.have.length(2)
    expect((await ask('DELETE', `${after.url}/sessions`, token)).status).to.equal(204)
    expect(await after.live([token, other])).to.deep.equal([])
  })

  for (const scheme of schemes.slice(1)) {
    it(`are the same in two processes that share it at ${scheme}:`, async () => {
      const env = await envAt(scheme)
      const { now } = createClock()
      const here = authApi(await startAuth({ env, now }))
      const there = authApi(await startAuth({ env, now }))
      expect((await here.operate<{ users: unknown[] }>('GET', '/admin/users')).body.users).to.have.length(1)
      const { user, credentials, token } = await here.newUser()
      const other = await there.session(credentials)
      expect((await there.get('/users/me', token)).body).to.deep.equal(user)
      expect(await there.live([token, other])).to.have.length(2)
      expect(await here.live([token, other])).to.have.length(2)

      expect((await there.change(other, phrases.first, phrases.second)).status).to.equal(200)
      expect(await here.live([token, other])).to.deep.equal([other])
      expectProblem(await here.get('/users/me', token), 401, 'invalid_token')
      expect((await here.logIn(credentials)).status).to.equal(401)

      const current = { ...credentials, password: phrases.second }
      const rivals = Array.from({ length: 8 }, () => here.logIn(current))
      await rivals[0]
      expect((await there.change(other, phrases.second, phrases.third)).status).to.equal(200)
      const late = await Promise.all(rivals)
      const issued = late.map(({ body }) => body['token']).filter(secret => typeof secret === 'string')
      expect(await here.live([...issued, other])).to.deep.equal([other])

      expect((await here.remove(other, phrases.third)).status).to.equal(204)
      expect(await there.isLive(other)).to.equal(false)
      expect((await there.logIn({ ...current, password: phrases.third })).status).to.equal(401)
    })
  }
})
