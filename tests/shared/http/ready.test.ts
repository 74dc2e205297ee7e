// /ready of both services while a store does not answer, and the cost of a call to /ready.
import { expect } from 'chai'
import { ask } from '../../support/client.ts'
import { createClock } from '../../support/clock.ts'
import { logIn } from '../../support/factories.ts'
import { type Line, startLine } from '../../support/line.ts'
import { hasRedis, type RedisServer, reportMissingRedis, startRedis } from '../../support/redis.ts'
import { closeServers, startAuth, startBusiness } from '../../support/servers.ts'
import { freshPlace, type Place, postgresUrl, schemesHere } from '../../support/stores.ts'
import { until } from '../../support/until.ts'

/** Status, and the reason if there is one. */
async function readyOf(url: string): Promise<[number, unknown]> {
  const { status, body } = await ask('GET', `${url}/ready`)
  return [status, body['detail']]
}

type Pair = { auth: Awaited<ReturnType<typeof startAuth>>; business: Awaited<ReturnType<typeof startBusiness>> }

async function startPair(env: Record<string, string>): Promise<Pair> {
  const auth = await startAuth({ env })
  return { auth, business: await startBusiness(auth.internalUrl) }
}

async function expectAllReady({ auth, business }: Pair): Promise<void> {
  for (const url of [auth.url, auth.internalUrl, business.url]) {
    await until(async () => (await readyOf(url))[0] === 200)
  }
}

async function expectAllAlive({ auth, business }: Pair): Promise<void> {
  for (const url of [auth.url, auth.internalUrl, business.url, business.internalUrl]) {
    expect((await ask('GET', `${url}/health`)).status).to.equal(200)
  }
}

describe('/ready, while the token store hangs,', () => {
  let redis: RedisServer
  let pair: Pair
  before(async function () {
    if (!hasRedis) {
      reportMissingRedis('/ready while the token store hangs')
      this.skip()
    }
    redis = await startRedis()
    pair = await startPair({ TOKEN_STORE_URL: redis.url })
  })
  after(async () => {
    await closeServers()
    await redis?.remove()
  })

  it('is 503 on both services with the reason, and 200 once it answers again; /health is 200 throughout', async () => {
    const { auth, business } = pair
    await expectAllReady(pair)
    redis.hang()
    await until(async () => (await readyOf(business.url))[0] === 503)
    expect(await readyOf(business.url)).to.deep.equal([503, 'Auth gives no verdicts: its token store does not answer.'])
    for (const url of [auth.url, auth.internalUrl]) {
      expect(await readyOf(url)).to.deep.equal([503, 'The token store does not answer.'])
    }
    await expectAllAlive(pair)
    redis.resume()
    await expectAllReady(pair)
    await logIn(auth.url)
  })
})

describe('/ready, while the user store hangs,', () => {
  let users: Place
  let line: Line
  let pair: Pair
  before(async function () {
    if ((await schemesHere(['postgres'])).length === 0) this.skip()
    users = await freshPlace('postgres')
    line = await startLine(Number(new URL(postgresUrl).port || 5432))
    const url = new URL(users.url)
    url.host = `127.0.0.1:${line.port}`
    pair = await startPair({ USER_STORE_URL: url.href })
  })
  after(async () => {
    await closeServers()
    await line?.close()
    await users?.remove()
  })

  it('is 503 on Auth with the reason, and 200 on Business, because verdicts need no user', async () => {
    const { auth, business } = pair
    await expectAllReady(pair)
    line.state = 'silent'
    await until(async () => (await readyOf(auth.url))[0] === 503)
    expect(await readyOf(auth.url)).to.deep.equal([503, 'The user store does not answer.'])
    expect(await readyOf(business.url)).to.deep.equal([200, undefined])
    await expectAllAlive(pair)
    line.state = 'open'
    line.cut()
    await expectAllReady(pair)
  })
})

describe('/ready', () => {
  after(closeServers)

  it('calls each store once a second, however many clients ask, and logs no refused token', async () => {
    const { now, advance } = createClock()
    const auth = await startAuth({ monotonicNow: now })
    const business = await startBusiness(auth.internalUrl)
    const calls = async () => {
      const metrics = await (await fetch(`${auth.internalUrl}/metrics`)).text()
      const count = (labels: string) =>
        Number(
          new RegExp(`^latchkey_store_duration_seconds_count\\{${labels},.*\\} (\\d+)$`, 'm').exec(metrics)?.[1] ?? 0,
        )
      return [count('store="tokens",call="look"'), count('store="users",call="findById"')]
    }
    const before = (await calls()) as [number, number]
    for (const seconds of [1, 2]) {
      await Promise.all(
        Array.from({ length: 10 }, async () => {
          for (const url of [auth.url, auth.internalUrl, business.url]) expect(await readyOf(url)).to.include(200)
        }),
      )
      expect(await calls()).to.deep.equal(before.map(count => count + seconds))
      advance(1000)
    }
    const refusals = auth.lines.filter(({ event, reason }) => event === 'token_refused' && reason !== 'malformed')
    expect(refusals).to.deep.equal([])
  })
})
