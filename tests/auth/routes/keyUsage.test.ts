// GET /keys/:id/usage: uses of keys in minutes and hours, as users, operators and services meet them.
import { expect } from 'chai'
import { type AuthApi, authApi, expectProblem } from '../../support/authApi.ts'
import { createClock } from '../../support/clock.ts'
import { closeServers, startAuth } from '../../support/servers.ts'
import { askDatabase } from '../../support/sqlStores.ts'
import { freshPlace, type Place, schemesHere } from '../../support/stores.ts'

const minute = 60_000
const hour = 60 * minute

interface Bucket {
  startsAt: number
  count: number
  delegatedCount: number
}

interface Key {
  id: string
  secret: string
}

const sumOf = (buckets: Bucket[], member: 'count' | 'delegatedCount') =>
  buckets.reduce((sum, bucket) => sum + bucket[member], 0)

/** A client for one user of an Auth, with the requests of these tests. */
async function newUserOf(client: AuthApi) {
  const { user, token: session } = await client.newUser()
  return {
    user,
    session,
    async create(): Promise<Key> {
      const { status, body, text } = await client.post('/keys', session, { name: 'deploy' })
      expect(status, text).to.equal(201)
      return body as unknown as Key
    },
    async delegate(secret: string): Promise<{ token: string; tokenId: string }> {
      const { status, body, text } = await client.post('/tokens/delegate', secret, {})
      expect(status, text).to.equal(201)
      return body as { token: string; tokenId: string }
    },
    async usage(id: string, by: 'minute' | 'hour'): Promise<Bucket[]> {
      const { status, body, text } = await client.get<{ by: string; buckets: Bucket[] }>(
        `/keys/${id}/usage?by=${by}`,
        await client.issueTo(user.id), // the clock may have passed the end of the first session
      )
      expect(status, text).to.equal(200)
      expect(body.by).to.equal(by)
      return body.buckets
    },
    async useCount(id: string): Promise<number | undefined> {
      const { body } = await client.get<{ keys: { id: string; useCount: number }[] }>(
        '/keys',
        await client.issueTo(user.id),
      )
      return body.keys.find(key => key.id === id)?.useCount
    },
  }
}

describe('the usage of keys', () => {
  after(closeServers)

  describe('with KEY_USAGE_DAYS', () => {
    const clock = createClock()
    let client: AuthApi
    let me: Awaited<ReturnType<typeof newUserOf>>

    before(async () => {
      client = authApi(await startAuth({ now: clock.now, env: { KEY_USAGE_DAYS: '2' } }))
      clock.advance(hour - (clock.now() % hour)) // each test begins with an hour
    })
    beforeEach(async () => {
      clock.advance(3 * 24 * hour)
      me = await newUserOf(client)
    })

    it('is exact for concurrent batches on both sides of a minute and of an hour', async () => {
      const start = clock.now()
      const [one, other] = [await me.create(), await me.create()]
      const tokens = [one.secret, other.secret, one.secret, me.session, 'junk']
      for (const at of [start, start + minute - 1, start + minute, start + hour - 1, start + hour]) {
        clock.advance(at - clock.now())
        await Promise.all(Array.from({ length: 10 }, () => client.validateMany({ tokens })))
      }
      const minutes = [start, start + minute, start + 59 * minute, start + hour]
      const counts = [40, 20, 20, 20]
      const expected = minutes.map((startsAt, i) => ({ startsAt, count: counts[i], delegatedCount: 0 }))
      expect(await me.usage(one.id, 'minute')).to.deep.equal(expected)
      expect(await me.usage(one.id, 'hour')).to.deep.equal([
        { startsAt: start, count: 80, delegatedCount: 0 },
        { startsAt: start + hour, count: 20, delegatedCount: 0 },
      ])
      expect(sumOf(await me.usage(other.id, 'hour'), 'count')).to.equal(50)
      expect(await me.useCount(one.id)).to.equal(100)
    })

    it('counts every use that useCount counts, and no look', async () => {
      const { id, secret } = await me.create()
      await client.validate({ token: secret })
      await client.validate({ token: secret, touch: false })
      await me.delegate(secret)
      await client.operate('GET', '/forwardAuth', secret)
      expect(sumOf(await me.usage(id, 'minute'), 'count')).to.equal(3)
      expect(await me.useCount(id)).to.equal(3)
    })

    it('counts the uses of delegated tokens for their key, apart from its own', async () => {
      const { id, secret } = await me.create()
      const [agent, ofSession] = [await me.delegate(secret), await me.delegate(me.session)]
      await client.validateMany({ tokens: [agent.token, ofSession.token, agent.token, secret] })
      expect(await me.usage(id, 'hour')).to.deep.equal([{ startsAt: clock.now(), count: 2, delegatedCount: 2 }])
      for (const path of [`/keys/${agent.tokenId}/usage`, `/keys/${ofSession.tokenId}/usage`]) {
        expectProblem(await client.get(path, me.session), 404, 'not_found')
        expectProblem(await client.operate('GET', path), 404, 'not_found')
      }
    })

    it('does not count a request beyond a limit, nor one with a paused key', async () => {
      const { id, secret } = await me.create()
      const patch = (changes: Record<string, unknown>) => client.send('PATCH', `/keys/${id}`, me.session, changes)
      await patch({ rate: { perMinute: 1, burst: 2 } })
      await client.validateMany({ tokens: Array.from({ length: 5 }, () => secret) })
      await patch({ rate: null, paused: true })
      await client.validate({ token: secret })
      expect(sumOf(await me.usage(id, 'hour'), 'count')).to.equal(2)
    })

    it('is by the hour unless the query says otherwise, and empty for a key that was not used', async () => {
      const { id } = await me.create()
      const { body } = await client.get(`/keys/${id}/usage`, me.session)
      expect(body).to.deep.equal({ by: 'hour', buckets: [] })
      for (const query of ['by=day', 'by=hour&by=minute', 'since=1']) {
        expectProblem(await client.get(`/keys/${id}/usage?${query}`, me.session), 400, 'invalid_request')
      }
    })

    it('keeps minutes for a day and hours for these days', async () => {
      const { id, secret } = await me.create()
      await client.validate({ token: secret })
      clock.advance(24 * hour + minute)
      expect(await me.usage(id, 'minute')).to.deep.equal([])
      expect(await me.usage(id, 'hour')).to.have.lengthOf(1)
      clock.advance(25 * hour)
      expect(await me.usage(id, 'hour')).to.deep.equal([])
    })

    it('is shown to the user of the key and to the operator only', async () => {
      const { id, secret } = await me.create()
      await client.validate({ token: secret })
      const other = await newUserOf(client)
      const path = `/keys/${id}/usage?by=minute`
      const { status, body } = await client.operate('GET', path)
      expect(status).to.equal(200)
      expect(body).to.deep.equal({ by: 'minute', buckets: await me.usage(id, 'minute') })
      expectProblem(await client.get(path, other.session), 404, 'not_found')
      expectProblem(await client.get(path, secret), 401, 'invalid_token')
      expectProblem(await client.operate('GET', path, null), 401, 'invalid_token')
      const sessions = (await client.get<{ sessions: { id: string }[] }>('/sessions', me.session)).body.sessions
      for (const which of [sessions[0]?.id, 'junk', '0'.repeat(14)]) {
        expectProblem(await client.get(`/keys/${which}/usage`, me.session), 404, 'not_found')
        expectProblem(await client.operate('GET', `/keys/${which}/usage`), 404, 'not_found')
      }
    })
  })

  it('is 404 with the name of the setting without KEY_USAGE_DAYS', async () => {
    const client = authApi(await startAuth())
    const me = await newUserOf(client)
    const { id } = await me.create()
    for (const answer of [
      await client.get(`/keys/${id}/usage`, me.session),
      await client.operate('GET', `/keys/${id}/usage`),
    ]) {
      expectProblem(answer, 404, 'not_found')
      expect(answer.body['detail']).to.match(/KEY_USAGE_DAYS is not set/)
    }
  })
})

for (const scheme of (await schemesHere(['sqlite', 'postgres', 'redis'])).filter(scheme => scheme !== 'memory')) {
  describe(`the usage of keys of Auths that share ${scheme}:`, () => {
    const clock = createClock()
    let place: Place
    let clients: [AuthApi, AuthApi]

    before(async () => {
      place = await freshPlace(scheme)
      const env = { TOKEN_STORE_URL: place.url, KEY_USAGE_DAYS: '1' }
      const start = async () => authApi(await startAuth({ now: clock.now, env }))
      clients = [await start(), await start()]
    })
    after(async () => {
      await closeServers()
      await place.remove()
    })

    it('is the exact sum of what both have admitted', async () => {
      const me = await newUserOf(clients[0])
      const { id, secret } = await me.create()
      const agent = await me.delegate(secret)
      const calls = Array.from({ length: 40 }, (_, i) =>
        (clients[i % 2] as AuthApi).validateMany({ tokens: [secret, agent.token, secret, me.session] }),
      )
      const admitted = (await Promise.all(calls)).flat().filter(({ authenticated }) => authenticated)
      expect(admitted).to.have.lengthOf(160)
      for (const by of ['minute', 'hour'] as const) {
        const buckets = await me.usage(id, by)
        expect([sumOf(buckets, 'count'), sumOf(buckets, 'delegatedCount')], by).to.deep.equal([81, 40])
      }
      expect(await me.useCount(id)).to.equal(81)
    })

    if (scheme === 'redis') return

    it('makes keys alone unavailable while it cannot be counted', async () => {
      const [client] = clients
      const me = await newUserOf(client)
      const { id, secret } = await me.create()
      const agent = await me.delegate(secret)
      const ofSession = await me.delegate(me.session)
      await askDatabase(place.url, 'alter table latchkey_key_usage rename to elsewhere')
      const tokens = [me.session, secret, 'junk', agent.token, ofSession.token]
      const verdicts = await client.validateMany({ tokens })
      expect(verdicts.map(verdict => ('unavailable' in verdict ? 'unavailable' : verdict.authenticated))).to.deep.equal(
        [true, 'unavailable', false, 'unavailable', true],
      )
      expectProblem(await client.operate('POST', '/validateToken', undefined, { token: secret }), 503, 'unavailable')
      expectProblem(await client.get(`/keys/${id}/usage`, me.session), 503, 'unavailable')
      await askDatabase(place.url, 'alter table elsewhere rename to latchkey_key_usage')
      expect(await client.validate({ token: secret })).to.include({ authenticated: true })
      expect(sumOf(await me.usage(id, 'hour'), 'count'), 'the delegation, and the last one').to.equal(2)
    })
  })
}
