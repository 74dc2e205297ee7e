// Limits of tokens and users, as the operator sets them and as clients of the services see them.
import { expect } from 'chai'
import { type AuthApi, authApi, expectProblem } from '../../support/authApi.ts'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'

interface Issued {
  token: string
  tokenId: string
  rate: object | null
  usesLeft: number | null
}

describe('limits', () => {
  const clock = createClock()
  let auth: AuthApi
  let business: { url: string; internalUrl: string }
  let lines: { event: string; [member: string]: unknown }[]

  before(async () => {
    const started = await startAuth({ now: clock.now })
    auth = authApi(started)
    lines = started.lines
    business = await startBusiness(started.internalUrl, { RATE_LIMIT_INVALID_TOKENS_PER_MINUTE: '1' })
  })
  after(closeServers)

  async function issue(terms: object) {
    const issued = await auth.operate<Issued>('POST', '/tokens', undefined, {
      kind: 'fixed',
      ttlSeconds: 3600,
      ...terms,
    })
    expect(issued.status, issued.text).to.equal(201)
    return issued.body
  }

  const getData = (token: string) => ask('GET', `${business.url}/data`, token)
  const patchToken = (id: string, change: unknown) => auth.operate('PATCH', `/tokens/${id}`, undefined, change)
  const patchUser = (id: string, change: unknown) => auth.operate('PATCH', `/admin/users/${id}`, undefined, change)

  it('a token beyond its rate is 429 with the time to wait, at every service, and is not taken for an invalid one', async () => {
    const { token, rate } = await issue({ rate: { perMinute: 6, burst: 2 } })
    expect(rate).to.deep.equal({ perMinute: 6, burst: 2 })
    const statuses = []
    for (let i = 0; i < 5; i++) statuses.push((await getData(token)).status)
    expect(statuses).to.deep.equal([200, 200, 429, 429, 429])
    const refused = await getData(token)
    expectProblem(refused, 429, 'too_many_requests')
    expect(refused.headers.get('retry-after')).to.equal('10')
    expect(refused.headers.get('ratelimit')).to.equal('"token";r=0;t=10')
    expect(refused.headers.get('www-authenticate')).to.equal(null)
    expect(refused.body).to.have.property('detail').that.includes('Retry-After')
    clock.advance(9_999)
    expect((await getData(token)).status).to.equal(429)
    clock.advance(1)
    expect((await getData(token)).status).to.equal(200)
  })

  it('the verdict says so, for one token and for many, and a look is not limited', async () => {
    const { token } = await issue({ rate: { perMinute: 60, burst: 1 } })
    expect(await auth.validate({ token })).to.include({ authenticated: true })
    const limited = { authenticated: false, limited: true, retryAfterMs: 1000 }
    expect(await auth.validate({ token })).to.deep.equal(limited)
    expect(await auth.validateMany({ tokens: [token, 'unknown'] })).to.deep.equal([limited, { authenticated: false }])
    expect(await auth.validate({ token, touch: false })).to.include({ authenticated: true, refreshCount: 1 })
    expect(lines.filter(({ event, what }) => event === 'rate_limited' && what === 'token')).to.have.length.above(0)
  })

  it('a proxy gets 429 too, with the headers', async () => {
    const { token } = await issue({ rate: { perMinute: 60, burst: 1 } })
    const forward = () => auth.operate('GET', '/forwardAuth', token)
    expect((await forward()).status).to.equal(204)
    const refused = await forward()
    expectProblem(refused, 429, 'too_many_requests')
    expect(refused.headers.get('ratelimit')).to.equal('"token";r=0;t=1')
  })

  it('without a burst, a minute may come at once', async () => {
    expect((await issue({ rate: { perMinute: 30 } })).rate).to.deep.equal({ perMinute: 30, burst: 30 })
  })

  it('a token with a number of uses ends with the last one', async () => {
    const { token, tokenId, usesLeft } = await issue({ uses: 2 })
    expect(usesLeft).to.equal(2)
    expect((await getData(token)).status).to.equal(200)
    expect((await patchToken(tokenId, { uses: 1 })).body).to.include({ usesLeft: 1 })
    expect((await getData(token)).status).to.equal(200)
    expectProblem(await getData(token), 401, 'invalid_token')
    expectProblem(await patchToken(tokenId, { uses: 5 }), 404, 'not_found')
  })

  it('a change holds from the next request on, and null takes the limit away', async () => {
    const { token, tokenId } = await issue({})
    expect((await patchToken(tokenId, { rate: { perMinute: 1 } })).body).to.deep.include({
      rate: { perMinute: 1, burst: 1 },
      usesLeft: null,
    })
    expect((await getData(token)).status).to.equal(200)
    expect((await getData(token)).status).to.equal(429)
    expect((await patchToken(tokenId, { rate: null })).body).to.deep.include({ rate: null })
    expect((await getData(token)).status).to.equal(200)
  })

  it('the rate of a user counts all their tokens, and hinders nobody from logging out', async () => {
    const { user, token } = await auth.newUser()
    const other = await auth.issueTo(user.id)
    const changed = await patchUser(user.id, { rate: { perMinute: 1, burst: 2 } })
    expect(changed.body).to.deep.include({ rate: { perMinute: 1, burst: 2 }, roles: [] })
    const statuses = []
    for (const one of [token, other, token, other]) statuses.push((await getData(one)).status)
    expect(statuses).to.deep.equal([200, 200, 429, 429])
    expect((await auth.get('/sessions', token)).status).to.equal(200)
    expect((await auth.post('/logout', other)).status).to.equal(204)
    await patchUser(user.id, { roles: ['admin'] })
    expect((await getData(token)).status, 'another change leaves the bucket as it is').to.equal(429)
    await patchUser(user.id, { rate: null })
    expect((await getData(token)).status).to.equal(200)
    expect(lines.filter(({ event }) => event === 'rate_changed')).to.have.lengthOf(2)
  })

  it('a wrong limit is 400 and says what is expected', async () => {
    const { user } = await auth.newUser()
    const { tokenId } = await issue({})
    const perMinute = 'rate.perMinute: expected a whole number, 1 to 100000'
    for (const [rate, expected] of [
      [{ perMinute: 0 }, perMinute],
      [{ perMinute: 100_001 }, perMinute],
      [{ perMinute: 1.5 }, perMinute],
      [{ perMinute: '10' }, perMinute],
      [{ burst: 1 }, perMinute],
      [{ perMinute: 10, burst: 0 }, 'rate.burst: expected a whole number, 1 to 100000'],
      [{ perMinute: 10, burst: 14_401 }, 'at most 1440 times perMinute'],
      [{ perMinute: 10, per: 'hour' }, 'rate'],
      [10, 'rate: expected {perMinute, burst?} or null'],
    ] as const) {
      for (const answer of [
        await patchToken(tokenId, { rate }),
        await patchUser(user.id, { rate }),
        await auth.operate('POST', '/tokens', undefined, { kind: 'fixed', ttlSeconds: 60, rate }),
      ]) {
        expectProblem(answer, 400, 'invalid_request')
        expect(answer.text).to.include(expected)
      }
    }
    for (const uses of [0, -1, 1.5, '1', 1_000_000_001]) {
      const answer = await patchToken(tokenId, { uses })
      expectProblem(answer, 400, 'invalid_request')
      expect(answer.text).to.include('uses: expected a whole number, 1 to 1000000000, or null')
    }
    const once = { kind: 'single-use', ttlSeconds: 60, uses: 2 }
    expect((await auth.operate('POST', '/tokens', undefined, once)).text).to.include('single-use is one use')
  })
})
