// GET /data/live: a stream that ends with its token. Real Auth and Business, and a fake Auth for outages.
import { once } from 'node:events'
import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { type AuthApi, authApi, expectProblem, phrases } from '../support/authApi.ts'
import { ask } from '../support/client.ts'
import { createClock } from '../support/clock.ts'
import { startFakeAuth } from '../support/fakeAuth.ts'
import { closeServers, startAuth, startBusiness } from '../support/servers.ts'
import { slackMs } from '../support/slack.ts'
import { until } from '../support/until.ts'

interface Stream {
  status: number
  type: string | null
  events: { event: string; data: Record<string, unknown> }[]
  /** Resolves to the reason in the event `end` once the stream has ended. */
  ended: Promise<unknown>
  close(): void
}

/** Opens the stream and resolves once its first event is there. */
async function openStream(url: string, token: string): Promise<Stream> {
  const sent = request(`${url}/data/live`, { headers: { token }, agent: false }).end()
  const [answer] = await once(sent, 'response')
  answer.setEncoding('utf8')
  const events: Stream['events'] = []
  let text = ''
  const ended = new Promise<unknown>(resolve => {
    answer.on('data', (chunk: string) => {
      text += chunk
      const frames = text.split('\n\n')
      text = frames.pop() ?? ''
      for (const frame of frames) {
        const [, event = '', data = ''] = /^event: (.*)\ndata: (.*)$/.exec(frame) ?? []
        events.push({ event, data: JSON.parse(data) })
      }
    })
    answer.on('error', () => {})
    answer.on('close', () => resolve(answer.complete ? events.at(-1)?.data['reason'] : 'cut off'))
  })
  await until(() => events.length > 0)
  return {
    status: answer.statusCode,
    type: answer.headers['content-type'],
    events,
    ended,
    close: () => void sent.destroy(),
  }
}

describe('GET /data/live', () => {
  const clock = createClock()
  let auth: Awaited<ReturnType<typeof startAuth>>
  let business: Awaited<ReturnType<typeof startBusiness>>
  let client: AuthApi

  before(async () => {
    auth = await startAuth({ now: clock.now })
    business = await startBusiness(auth.internalUrl)
    client = authApi(auth)
  })
  after(closeServers)

  const metric = async (url: string, name: string) => {
    const { text } = await ask('GET', `${url}/metrics`)
    return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1])
  }

  it('streams the data at once and then every two seconds', async () => {
    const { token } = await client.issue({ kind: 'fixed' })
    const stream = await openStream(business.url, token)
    expect([stream.status, stream.type]).to.deep.equal([200, 'text/event-stream; charset=utf-8'])
    await until(() => stream.events.length > 1)
    stream.close()
    expect(stream.events.slice(0, 2)).to.deep.equal([
      { event: 'data', data: { data: 'Hello, guest!', count: 1 } },
      { event: 'data', data: { data: 'Hello, guest!', count: 2 } },
    ])
  })

  const endings: [what: string, end: (token: string, userId: string) => Promise<unknown>][] = [
    ['logged out', token => client.post('/logout', token)],
    ['expired', async () => clock.advance(60_000)],
    [
      'ended with every session of its user',
      (_token, userId) => client.operate('DELETE', `/admin/users/${userId}/sessions`),
    ],
    [
      'ended because its user was disabled',
      (_token, userId) => client.operate('PATCH', `/admin/users/${userId}`, undefined, { disabled: true }),
    ],
    ['replaced by a new secret', token => client.post('/renew', token)],
  ]
  for (const [what, end] of endings) {
    it(`ends within two seconds when its token is ${what}; other streams do not`, async () => {
      const { user } = await client.newUser({ password: phrases.first })
      const { token } = await client.issue({ kind: 'sliding', ttlSeconds: 60, userId: user.id })
      const { token: other } = await client.issue({ kind: 'fixed', ttlSeconds: 3600 })
      const [stream, bystander] = [await openStream(business.url, token), await openStream(business.url, other)]
      await sleep(300) // into the second between two looks
      await end(token, user.id)
      const endedAt = performance.now()
      expect(await stream.ended).to.equal('ended')
      expect(performance.now() - endedAt).to.be.below(2000 + slackMs)
      expect(stream.events.at(-1)).to.deep.equal({ event: 'end', data: { reason: 'ended' } })
      await sleep(100)
      expect(bystander.events.some(({ event }) => event === 'end')).to.equal(false)
      bystander.close()
    })
  }

  it('does not extend its token, however long it is open', async () => {
    const { token, expiresAt } = await client.issue({ kind: 'sliding', ttlSeconds: 60 })
    const stream = await openStream(business.url, token) // this request itself extends it
    const before = await client.admissionOf(token)
    expect(before).to.include({ refreshCount: 1, expiresAt })
    clock.advance(1000)
    await sleep(2200)
    expect(await client.admissionOf(token)).to.deep.equal(before)
    stream.close()
  })

  it('is counted by Business and by Auth while it is open', async () => {
    await until(async () => (await metric(business.internalUrl, 'latchkey_holds')) === 0)
    const { token } = await client.issue({ kind: 'fixed', ttlSeconds: 3600 })
    const streams = await Promise.all(Array.from({ length: 20 }, () => openStream(business.url, token)))
    expect(await metric(business.internalUrl, 'latchkey_holds')).to.equal(20)
    await until(async () => (await metric(auth.internalUrl, 'latchkey_held_tokens')) >= 1) // 20 holds of one token
    for (const { close } of streams) close()
    await until(async () => (await metric(business.internalUrl, 'latchkey_holds')) === 0)
  })

  it('is 401 without a live token, opens no stream for HEAD, and is 503 with 200 streams open', async () => {
    for (const token of [null, 'unknown']) {
      expectProblem(await ask('GET', `${business.url}/data/live`, token), 401, 'invalid_token')
    }
    const { token } = await client.issue({ kind: 'fixed', ttlSeconds: 3600 })
    const head = await ask('HEAD', `${business.url}/data/live`, token)
    expect([head.status, head.headers.get('content-type')]).to.deep.equal([200, 'text/event-stream; charset=utf-8'])
    const streams = await Promise.all(Array.from({ length: 200 }, () => openStream(business.url, token)))
    expectProblem(await ask('GET', `${business.url}/data/live`, token), 503, 'unavailable')
    streams[0]?.close()
    await until(async () => (await metric(business.internalUrl, 'latchkey_holds')) === 199)
    const next = await openStream(business.url, token)
    for (const { close } of [...streams, next]) close()
  })

  it('ends with "unavailable" ten seconds after Auth stopped giving verdicts', async function () {
    this.timeout(20_000)
    const fake = await startFakeAuth()
    let now = 1000
    const own = await startBusiness(fake.url, {}, () => now)
    const stream = await openStream(own.url, 'good')
    fake.behave(call => call.reply({ status: 503 }))
    now += 9000
    await sleep(200)
    expect(stream.events.at(-1)?.event).to.equal('data')
    now += 2000
    expect(await stream.ended).to.equal('unavailable')
    await own.service.close()
    await fake.stop()
  })

  it('ends with "closed" when Business closes, and does not delay the close', async () => {
    const own = await startBusiness(auth.internalUrl)
    const { token } = await client.issue({ kind: 'fixed', ttlSeconds: 3600 })
    const stream = await openStream(own.url, token)
    const startedAt = performance.now()
    const closed = own.service.close()
    expect(await stream.ended).to.equal('closed')
    await closed
    expect(performance.now() - startedAt).to.be.below(2500 + slackMs)
  })
})
