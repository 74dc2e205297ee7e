// Server-Timing on Business's answers: how long Auth took, and how many requests shared the call.
import { expect } from 'chai'
import { ask } from '../../support/client.ts'
import { logIn } from '../../support/factories.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'

describe('Server-Timing', () => {
  let auth: Awaited<ReturnType<typeof startAuth>>
  let business: Awaited<ReturnType<typeof startBusiness>>
  let token: string

  before(async () => {
    auth = await startAuth()
    business = await startBusiness(auth.internalUrl)
    token = await logIn(auth.url)
  })
  after(closeServers)

  /** https://www.w3.org/TR/server-timing/#the-server-timing-header-field, filled in as docs/http-api.md says. */
  function read(header: string | null) {
    const [, dur, call, shared] = /^auth;dur=(\d+\.\d\d);desc="call (\w+) shared by (\d+)"$/.exec(header ?? '') ?? []
    return { dur: Number(dur), call, shared: Number(shared) }
  }

  it('names the time that Auth took, which is less than that of the request, and one request for a lone call', async () => {
    const startedAt = performance.now()
    const { headers } = await ask('GET', `${business.url}/data`, token)
    const { dur, shared } = read(headers.get('server-timing'))
    expect(dur).to.be.within(0.01, performance.now() - startedAt)
    expect(shared).to.equal(1)
  })

  it('names each call, and counts the requests that shared it', async () => {
    const answers = await Promise.all(
      Array.from({ length: 60 }, () => fetch(`${business.url}/data`, { headers: { token } })),
    )
    const timings = answers.map(({ headers }) => read(headers.get('server-timing')))
    const calls = Map.groupBy(timings, ({ call }) => call)
    expect(calls.size).to.be.within(1, 59)
    for (const [call, members] of calls) {
      for (const { shared, dur } of members)
        expect([shared, dur], call).to.deep.equal([members.length, members[0]?.dur])
    }
  })

  it('is missing without a valid token', async () => {
    const dead = await logIn(auth.url)
    await ask('POST', `${auth.url}/logout`, dead)
    for (const [bearer, status] of [
      [dead, 401],
      ['x', 401],
      [null, 401],
    ] as const) {
      const answer = await ask('GET', `${business.url}/data`, bearer)
      expect([answer.status, answer.headers.get('server-timing')]).to.deep.equal([status, null])
    }
    const lonely = await startBusiness('http://127.0.0.1:1')
    const answer = await ask('GET', `${lonely.url}/data`, token)
    expect([answer.status, answer.headers.get('server-timing')]).to.deep.equal([503, null])
  })

  it('can be read by the pages that are allowed to call', async () => {
    const open = await startBusiness(auth.internalUrl, { CORS_ORIGINS: 'http://localhost:3001' })
    const headers = { token, origin: 'http://localhost:3001', connection: 'close' }
    const answer = await fetch(`${open.url}/data`, { headers })
    expect(answer.headers.get('access-control-expose-headers')).to.include('Server-Timing')
    expect(read(answer.headers.get('server-timing')).shared).to.equal(1)
  })
})
